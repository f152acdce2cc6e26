//! Kinds of credentials that a route or a limit is for.

use super::reader::Reader;

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

/// Source of a kind of token, by its place in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// Family of tokens minted here.
    Family(usize),
    /// Issuer whose tokens are accepted.
    Issuer(usize),
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
    pub(super) fn accepts_tokens_of(&self, source: TokenSource) -> bool {
        matches!(self, Self::Credentials { tokens, .. } if tokens.contains(&source))
    }
}
