//! From the one credential to the principal it speaks for.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::credential::{
    CredentialError, CredentialLocations, Issuer, RemoteJwks, RemoteKeys, TokenError, VerificationCache,
    VerificationContext, VerifiedToken, digest, extract,
};
use crate::policy::{Accept, ApiKey, Policy, Route, TokenSource};
use crate::reason::Reason;
use crate::store::Revocations;
use crate::store::remote::Lookup;
use crate::uri::Query;

use super::context::{DecisionContext, EARLIEST_NOW};
use super::directory::{Known, LookedUp};
use super::request::Head;
use super::verdict::{Denial, Record};

/// Who a verified credential speaks for. Holds what was proved, not what may be done: see [`super::Rights`].
pub enum Principal {
    /// An API key.
    Key {
        /// The key.
        key: Rc<ApiKey>,
    },
    /// A token and the key it was minted from, or stands for.
    Token {
        /// Who made it.
        source: TokenSource,
        /// What its signature proved.
        token: Rc<VerifiedToken>,
        /// The key.
        key: Rc<ApiKey>,
    },
}

impl Principal {
    pub(super) fn is_accepted_by(&self, accept: &Accept) -> bool {
        match (accept, self) {
            (Accept::Public, _) => true,
            (Accept::Credentials { api_key, .. }, Self::Key { .. }) => *api_key,
            (Accept::Credentials { tokens, .. }, Self::Token { source, .. }) => tokens.contains(source),
        }
    }
}

/// What comes of a credential.
pub(super) enum Found {
    /// Who it speaks for.
    Principal(Principal),
    /// Nobody knows before this was looked up.
    Ask(Lookup),
}

/// What was learned under a policy: tokens that were verified, and the fetched keys of issuers.
pub(super) struct EngineState {
    pub(super) cache: VerificationCache,
    /// For every issuer of the policy; `None` when its keys stand there.
    pub(super) remote: Vec<Option<Rc<RemoteKeys>>>,
    /// What the store says is revoked.
    pub(super) revocations: RefCell<Rc<Revocations>>,
    /// The Unix second at which that was right.
    pub(super) confirmed: Cell<Option<u64>>,
    /// Whether what is revoked cannot be known.
    pub(super) is_lost: Cell<bool>,
    /// Keys that stand outside the policy.
    pub(super) directory: LookedUp,
}

impl EngineState {
    /// Begins with nothing but the key sets that were fetched from the same places under an earlier policy.
    pub(super) fn new(policy: &Policy, cache_bytes: usize, fetched: &[Rc<RemoteKeys>]) -> Self {
        let keys_of = |remote: &RemoteJwks| {
            let known = fetched.iter().find(|keys| keys.is_from(remote)).cloned();
            known.unwrap_or_else(|| Rc::new(RemoteKeys::new(remote.clone())))
        };
        let remote = policy.issuers.iter().map(|issuer| issuer.keys.remote().map(keys_of));
        Self {
            cache: VerificationCache::new(cache_bytes),
            remote: remote.collect(),
            revocations: RefCell::default(),
            confirmed: Cell::new(None),
            is_lost: Cell::new(false),
            directory: LookedUp::new(policy.store.directory.map_or(0, |rule| rule.entries)),
        }
    }

    /// Finds a key in the policy, or among those that were looked up.
    fn key(&self, policy: &Policy, known: Option<Rc<ApiKey>>, lookup: Lookup, now: u64) -> Known {
        match (known, policy.store.directory) {
            (Some(key), _) => Known::Key(key),
            (None, None) => Known::Unknown,
            (None, Some(_)) => self.directory.find(lookup, now),
        }
    }

    /// Verifies a token, or finds it in the cache; its time is checked at every use.
    fn verify(
        &self,
        policy: &Policy,
        source: TokenSource,
        credential: &str,
        moment: &DecisionContext<'_>,
    ) -> Result<Rc<VerifiedToken>, TokenError> {
        let verifier = policy.verifier(source).ok_or(TokenError::Type)?;
        // An issuer's keys may have changed since, so its tokens are verified at every use.
        let is_cached = verifier.is_minted_here();
        if is_cached && let Some(token) = self.cache.get(credential) {
            verifier.check_time(&token, moment.now)?;
            return Ok(token);
        }
        let context = VerificationContext {
            now: moment.now,
            host_verify: moment.host_verify,
            fetched_keys: self.fetched_keys(source),
        };
        let token = Rc::new(verifier.verify(credential, &context)?);
        if is_cached {
            self.cache.put(credential, Rc::clone(&token));
        }
        Ok(token)
    }

    fn fetched_keys(&self, source: TokenSource) -> Option<&RemoteKeys> {
        match source {
            TokenSource::Family(_) => None,
            TokenSource::Issuer(index) => self.remote.get(index)?.as_deref(),
        }
    }
}

pub(super) fn authenticate(
    policy: &Policy,
    learned: &EngineState,
    route: &Route,
    head: &Head<'_>,
    query: &Query<'_>,
    moment: &DecisionContext<'_>,
    record: &mut Record,
) -> Result<Found, Denial> {
    if moment.now < EARLIEST_NOW {
        return Err(Reason::ClockUnset.into());
    }
    let (accepted, foreign) = match &route.carriers {
        Some(own) => (own.as_slice(), policy.carriers.as_slice()),
        None => (policy.carriers.as_slice(), &[][..]),
    };
    let holds_credential = &|value: &[u8]| policy.holds_credential(value);
    let locations = CredentialLocations { accepted, foreign, holds_credential };
    let credential = extract(head.headers, query, locations).map_err(credential_reason)?;
    if let Some(source) = source_of(policy, &credential) {
        let token = learned.verify(policy, source, &credential, moment).map_err(token_reason)?;
        record.token = Some(token.jti.clone());
        record.key = Some(token.key_id.clone());
        let lookup = Lookup::Id(token.key_id.clone());
        let known = policy.keys.with_id(&token.key_id).cloned();
        return Ok(match learned.key(policy, known, lookup, moment.now) {
            Known::Key(key) => Found::Principal(Principal::Token { source, token, key }),
            Known::Unknown => return Err(Reason::TokenOwner.into()),
            Known::Ask(lookup) => Found::Ask(lookup),
        });
    }
    if !policy.key_shapes.iter().any(|shape| shape.matches(&credential)) {
        return Err(Reason::CredentialMalformed.into());
    }
    // Looked up by the digest of the whole text: what an attacker chooses decides nothing about where the comparison
    // stops.
    let digest = digest(&credential);
    let known = policy.keys.with_digest(&digest).cloned();
    match learned.key(policy, known, Lookup::Digest(digest), moment.now) {
        Known::Key(key) => {
            record.key = Some(key.id.clone());
            Ok(Found::Principal(Principal::Key { key }))
        }
        Known::Unknown => Err(Reason::KeyUnknown.into()),
        Known::Ask(lookup) => Ok(Found::Ask(lookup)),
    }
}

/// Whose token a text is written like, if anybody's. A claimed issuer chooses only whose keys it is tried with.
fn source_of(policy: &Policy, credential: &str) -> Option<TokenSource> {
    if let Some((index, _)) = policy.family_of(credential) {
        return Some(TokenSource::Family(index));
    }
    if policy.issuers.is_empty() {
        return None;
    }
    let issuer = Issuer::claimed_by(credential)?;
    policy.issuers.iter().position(|known| known.issuer == issuer).map(TokenSource::Issuer)
}

fn credential_reason(error: CredentialError) -> Reason {
    match error {
        CredentialError::Missing => Reason::CredentialMissing,
        CredentialError::Multiple => Reason::CredentialMultiple,
        CredentialError::Malformed => Reason::CredentialMalformed,
        CredentialError::Scheme => Reason::CredentialScheme,
        CredentialError::Query => Reason::RequestMalformed,
        CredentialError::TooLong => Reason::CredentialTooLong,
    }
}

pub(super) fn token_reason(error: TokenError) -> Reason {
    match error {
        TokenError::Malformed | TokenError::NoSigningKey | TokenError::TooLong => Reason::TokenMalformed,
        TokenError::UnknownKid => Reason::TokenKid,
        TokenError::Algorithm => Reason::TokenAlgorithm,
        TokenError::Type => Reason::TokenType,
        TokenError::Signature => Reason::TokenSignature,
        TokenError::Claims => Reason::TokenClaims,
        TokenError::Issuer => Reason::TokenIssuer,
        TokenError::Audience => Reason::TokenAudience,
        TokenError::Expired => Reason::TokenExpired,
        TokenError::NotYetValid => Reason::TokenNotYetValid,
        TokenError::Lifetime => Reason::TokenLifetime,
        TokenError::KeysUnavailable => Reason::KeysUnavailable,
    }
}
