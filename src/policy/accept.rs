//! Kinds of credentials that a route or a limit is for.

use std::fmt;
use std::rc::Rc;

use super::reader::Reader;
use crate::credential::{Family, Issuer, TokenVerifier};

/// The credentials a route accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Every request, with or without a credential; nothing is verified.
    Public,
    /// The kinds listed.
    Credentials {
        /// True when API keys are accepted.
        api_key: bool,
        /// Tokens of these sources.
        tokens: Vec<TokenSource>,
    },
}

/// Source of a kind of token.
#[derive(Clone)]
pub enum TokenSource {
    /// Family of tokens minted here.
    Family(Rc<Family>),
    /// Issuer whose tokens are accepted.
    Issuer(Rc<Issuer>),
}

impl TokenSource {
    /// Returns the verifier of its tokens.
    pub fn verifier(&self) -> &dyn TokenVerifier {
        match self {
            Self::Family(family) => family.as_ref(),
            Self::Issuer(issuer) => issuer.as_ref(),
        }
    }
}

impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Family(one), Self::Family(other)) => Rc::ptr_eq(one, other),
            (Self::Issuer(one), Self::Issuer(other)) => Rc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for TokenSource {}

/// A family has secret keys, so only its name is shown.
impl fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.verifier().name())
    }
}

impl Accept {
    /// Checks that a route the gateway answers accepts API keys and nothing else.
    pub(super) fn check_only_api_keys(&self, kind: &str, at: &Reader<'_>) {
        if !matches!(self, Self::Credentials { api_key: true, tokens } if tokens.is_empty()) {
            at.refuse(format!("`{kind}` is for API keys only: `accept` must be `\"api_key\"`"));
        }
    }

    /// Returns whether some credential is accepted by both.
    pub(super) fn shares(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Credentials { api_key, tokens },
                Self::Credentials { api_key: other_key, tokens: others },
            ) => (*api_key && *other_key) || tokens.iter().any(|source| others.contains(source)),
            _ => false,
        }
    }

    /// Returns whether tokens of a source are accepted.
    pub(super) fn accepts_tokens_of(&self, source: &TokenSource) -> bool {
        matches!(self, Self::Credentials { tokens, .. } if tokens.contains(source))
    }
}
