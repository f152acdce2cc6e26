//! Authentication: from the one credential of a request to the principal it speaks for.

use std::borrow::Cow;
use std::rc::Rc;

use crate::credential::{
    CredentialError, CredentialLocations, Issuer, TokenError, VerificationContext, VerifiedToken, digest,
    extract,
};
use crate::policy::{ApiKey, Policy, TokenSource};
use crate::reason::Reason;
use crate::store::redis::Lookup;

use super::context::EARLIEST_NOW;
use super::denial::Denial;
use super::directory::DirectoryEntry;
use super::head::MatchedHead;
use super::outcome::Record;
use super::request::Evaluator;
use super::rights::Principal;

/// Result of authenticating a request.
pub(super) enum Authenticated {
    Principal(Principal),
    NeedsDirectory(Lookup),
}

impl Evaluator<'_> {
    /// Authenticates a request and records the ids of its token and key.
    pub(super) fn authenticate(
        &self,
        matched: &MatchedHead<'_>,
        record: &mut Record,
    ) -> Result<Authenticated, Denial> {
        if self.context.now < EARLIEST_NOW {
            return Err(Reason::ClockUnset.into());
        }
        let credential = self.extract(matched).map_err(credential_reason)?;
        match token_source(self.policy, &credential) {
            Some(source) => self.authenticate_token(source, &credential, record),
            None => self.authenticate_key(&credential, record),
        }
    }

    fn extract<'r>(&self, matched: &MatchedHead<'r>) -> Result<Cow<'r, str>, CredentialError> {
        let policy = self.policy;
        let (accepted, foreign) = match &matched.route().locations {
            Some(own) => (own.as_slice(), policy.locations.as_slice()),
            None => (policy.locations.as_slice(), &[][..]),
        };
        let holds_credential = &|value: &[u8]| policy.holds_credential(value);
        let locations = CredentialLocations { accepted, foreign, holds_credential };
        extract(matched.head.headers, &matched.query, locations)
    }

    fn authenticate_token(
        &self,
        source: TokenSource,
        credential: &str,
        record: &mut Record,
    ) -> Result<Authenticated, Denial> {
        let token = self.verify(&source, credential).map_err(token_reason)?;
        record.token = Some(token.jti.clone());
        record.key = Some(token.key_id.clone());
        let listed = self.policy.keys.with_id(&token.key_id);
        match self.find_key(listed, || Lookup::Id(token.key_id.clone())) {
            DirectoryEntry::Key(key) => Ok(Authenticated::Principal(Principal::Token { source, token, key })),
            DirectoryEntry::Unknown => Err(Reason::TokenOwner.into()),
            DirectoryEntry::NotCached(lookup) => Ok(Authenticated::NeedsDirectory(lookup)),
        }
    }

    fn authenticate_key(&self, credential: &str, record: &mut Record) -> Result<Authenticated, Denial> {
        if !self.policy.key_formats.iter().any(|format| format.matches(credential)) {
            return Err(Reason::CredentialMalformed.into());
        }
        // Found by the digest of its whole text, so the time of the comparison reveals nothing of a key.
        let digest = digest(credential);
        match self.find_key(self.policy.keys.with_digest(&digest), || Lookup::Digest(digest)) {
            DirectoryEntry::Key(key) => {
                record.key = Some(key.id.clone());
                Ok(Authenticated::Principal(Principal::Key { key }))
            }
            DirectoryEntry::Unknown => Err(Reason::KeyUnknown.into()),
            DirectoryEntry::NotCached(lookup) => Ok(Authenticated::NeedsDirectory(lookup)),
        }
    }

    fn find_key(&self, listed: Option<&Rc<ApiKey>>, lookup: impl FnOnce() -> Lookup) -> DirectoryEntry {
        match (listed, self.policy.store.directory) {
            (Some(key), _) => DirectoryEntry::Key(Rc::clone(key)),
            (None, None) => DirectoryEntry::Unknown,
            (None, Some(_)) => self.state.directory.get(lookup(), self.context.now),
        }
    }

    /// Verifies a token, or finds it in the cache; its time is checked at every use.
    fn verify(&self, source: &TokenSource, credential: &str) -> Result<Rc<VerifiedToken>, TokenError> {
        let verifier = source.verifier();
        let (cache, now) = (&self.state.verified_tokens, self.context.now);
        // An issuer's keys may have changed since, so its tokens are verified at every use.
        let is_cached = verifier.is_minted_here();
        if is_cached && let Some(token) = cache.get(credential) {
            verifier.check_time(&token, now)?;
            return Ok(token);
        }
        let fetched_keys = self.state.fetched_keys(source);
        let context = VerificationContext { now, host_verify: self.context.host_verify, fetched_keys };
        let token = Rc::new(verifier.verify(credential, &context)?);
        if is_cached {
            cache.put(credential, Rc::clone(&token));
        }
        Ok(token)
    }
}

/// Returns the family or issuer whose token a credential seems to be; `None` for an API key. An issuer that is only
/// claimed decides nothing but the keys it is verified with.
fn token_source(policy: &Policy, credential: &str) -> Option<TokenSource> {
    if let Some(family) = policy.family_of(credential) {
        return Some(TokenSource::Family(Rc::clone(family)));
    }
    if policy.issuers.is_empty() {
        return None;
    }
    let issuer = Issuer::claimed_by(credential)?;
    policy.issuers.iter().find(|known| known.issuer == issuer).cloned().map(TokenSource::Issuer)
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

fn token_reason(error: TokenError) -> Reason {
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
