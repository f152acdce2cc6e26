//! From the one credential to the principal it speaks for.

use std::rc::Rc;

use crate::credential::{
    CredentialError, Digest, Family, TokenError, VerificationCache, VerifiedToken, digest, extract,
};
use crate::policy::{Accept, Policy};
use crate::reason::Reason;

use super::Moment;
use super::request::Head;
use super::verdict::{Denial, Record};

/// Who a verified credential speaks for. Holds what was proved, not what may be done: see [`super::Rights`].
pub enum Principal {
    /// An API key.
    Key {
        /// Its digest, under which the policy knows it.
        digest: Digest,
    },
    /// A client token and the key it was minted from.
    Token {
        /// Its family's place in the policy.
        family: usize,
        /// What its signature proved.
        token: Rc<VerifiedToken>,
    },
}

impl Principal {
    pub(super) fn is_accepted_by(&self, accept: &Accept) -> bool {
        match (accept, self) {
            (Accept::Public, _) => true,
            (Accept::Credentials { api_key, .. }, Self::Key { .. }) => *api_key,
            (Accept::Credentials { families, .. }, Self::Token { family, .. }) => families.contains(family),
        }
    }
}

/// A clock before 2020 is a clock that was never set: every expiry would lie ahead of it.
const EARLIEST_NOW: u64 = 1_577_836_800;

pub(super) fn authenticate(
    policy: &Policy,
    cache: &VerificationCache,
    head: &Head<'_>,
    moment: &Moment<'_>,
    record: &mut Record,
) -> Result<Principal, Denial> {
    if moment.now < EARLIEST_NOW {
        return Err(Reason::ClockUnset.into());
    }
    let headers = head.headers.iter().copied();
    let credential = extract(headers, &policy.carriers, &policy.prefixes).map_err(credential_reason)?;
    if let Some((index, family)) = policy.family_of(credential) {
        let token = verify(cache, family, credential, moment).map_err(token_reason)?;
        record.token = Some(token.jti.clone());
        record.key = Some(token.key_id.clone());
        record.team = token.team.clone().or_else(|| token.user.clone());
        return Ok(Principal::Token { family: index, token });
    }
    if !policy.key_shapes.iter().any(|shape| shape.matches(credential)) {
        return Err(Reason::CredentialMalformed.into());
    }
    // Looked up by the digest of the whole text: what an attacker chooses decides nothing about where the comparison
    // stops.
    let digest = digest(credential);
    let key = policy.key_by_digest(&digest).ok_or(Reason::KeyUnknown)?;
    record.key = Some(key.id.clone());
    record.team = policy.tree.party(key.owner).map(|party| party.id.clone());
    Ok(Principal::Key { digest })
}

fn verify(
    cache: &VerificationCache,
    family: &Family,
    credential: &str,
    moment: &Moment<'_>,
) -> Result<Rc<VerifiedToken>, TokenError> {
    if let Some(token) = cache.get(credential) {
        family.check_time(&token, moment.now)?;
        return Ok(token);
    }
    let token = Rc::new(family.verify(credential, moment.now, moment.host_verify)?);
    cache.put(credential, Rc::clone(&token));
    Ok(token)
}

fn credential_reason(error: CredentialError) -> Reason {
    match error {
        CredentialError::Missing => Reason::CredentialMissing,
        CredentialError::Multiple => Reason::CredentialMultiple,
        CredentialError::Malformed => Reason::CredentialMalformed,
        CredentialError::Scheme => Reason::CredentialScheme,
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
    }
}
