//! Issuers: tokens minted by others, mapped to an API key of this policy.
//!
//! An issuer's token identifies a client and bounds it; it never grants more than the API key it acts as. Nothing in a
//! token chooses a key set, an algorithm or an address to fetch from.

use std::borrow::Cow;

use serde::Deserialize;

use crate::hex::hex;
use crate::json::Json;

use super::super::api_key::digest;
use super::super::jwks::KeySet;
use super::super::key::{Algorithm, HostVerify};
use super::super::remote_jwks::RemoteJwks;
use super::claim_rules::ClaimRules;
use super::claims::is_id;
use super::clock::Clock;
use super::compact::{Parts, decode};
use super::error::TokenError;
use super::verified::VerifiedToken;
use super::verifier::{TokenVerifier, VerificationContext};

/// An issuer whose tokens are accepted.
pub struct Issuer {
    /// Name in the policy.
    pub name: String,
    /// `iss` of its tokens.
    pub issuer: String,
    /// Audience its tokens must name.
    pub audience: String,
    /// Id of the API key whose rights its tokens cannot exceed.
    pub key_id: String,
    /// Algorithms it signs with.
    pub algorithms: Vec<Algorithm>,
    /// Accepted `typ` values, compared without regard to case; `None` = any.
    pub types: Option<Vec<String>>,
    /// Longest accepted lifetime, in seconds.
    pub max_ttl: u64,
    /// Tolerance for its clock.
    pub clock: Clock,
    /// Source of its keys.
    pub keys: KeySource,
    /// Meaning of its claims.
    pub claims: ClaimRules,
}

/// Source of an issuer's keys.
pub enum KeySource {
    /// Keys in the policy.
    Inline(KeySet),
    /// Keys fetched from a URL through the host.
    Remote(RemoteJwks),
}

impl KeySource {
    /// Returns the source to fetch from; `None` for keys in the policy.
    pub fn remote(&self) -> Option<&RemoteJwks> {
        match self {
            Self::Inline(_) => None,
            Self::Remote(remote) => Some(remote),
        }
    }
}

/// Members of an issuer's JOSE header that are read; the others choose nothing.
#[derive(Deserialize)]
struct IssuerHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
}

/// Header members that are refused: extensions that change what a signature covers or how the payload is encoded (RFC
/// 7515 section 4.1.11, RFC 7797, RFC 7519 section 5.2), and keys that a token brings itself.
const REFUSED_HEADERS: &[&str] = &["crit", "b64", "zip", "cty", "jwk", "jku", "x5u"];

impl Issuer {
    /// Reads the `iss` of a text that may be a token, with nothing verified: it chooses only whose keys to try.
    pub fn claimed_by(credential: &str) -> Option<String> {
        let claims = decode(Parts::split(credential).ok()?.claims).ok()?;
        Some(Json::parse(&claims).ok()?.get("iss")?.as_str()?.to_owned())
    }

    /// Verifies the signature and returns the `kid` of the key.
    fn verify_signature(
        &self,
        parts: &Parts<'_>,
        keys: &KeySet,
        host: &HostVerify<'_>,
    ) -> Result<String, TokenError> {
        let header = decode(parts.header)?;
        let header = Json::parse(&header).map_err(|_| TokenError::Malformed)?;
        let header = self.read_header(&header)?;
        let key = keys.get(&header.kid).ok_or(TokenError::UnknownKid)?;
        if header.alg != key.algorithm().name() || !self.algorithms.contains(&key.algorithm()) {
            return Err(TokenError::Algorithm);
        }
        match key.verify(parts.signed.as_bytes(), &decode(parts.signature)?, host) {
            true => Ok(header.kid.into_owned()),
            false => Err(TokenError::Signature),
        }
    }

    fn read_header<'j>(&self, header: &'j Json<'_>) -> Result<IssuerHeader<'j>, TokenError> {
        if REFUSED_HEADERS.iter().any(|name| header.get(name).is_some()) {
            return Err(TokenError::Malformed);
        }
        let header: IssuerHeader<'_> = header.read().map_err(|_| TokenError::Malformed)?;
        let typ = header.typ.as_deref().unwrap_or_default();
        let is_accepted = |types: &Vec<String>| types.iter().any(|known| known.eq_ignore_ascii_case(typ));
        if self.types.as_ref().is_none_or(is_accepted) { Ok(header) } else { Err(TokenError::Type) }
    }

    fn verify_with(
        &self,
        credential: &str,
        keys: &KeySet,
        context: &VerificationContext<'_>,
    ) -> Result<VerifiedToken, TokenError> {
        let parts = Parts::split(credential)?;
        let kid = self.verify_signature(&parts, keys, context.host_verify)?;
        let claims = decode(parts.claims)?;
        let claims = Json::parse(&claims).map_err(|_| TokenError::Claims)?;
        if claims.get("iss").and_then(Json::as_str) != Some(&self.issuer) {
            return Err(TokenError::Issuer);
        }
        if !names_audience(claims.get("aud"), &self.audience) {
            return Err(TokenError::Audience);
        }
        let id = token_id(&claims, parts.signed)?;
        let token = self.translate(&claims, format!("{}/{kid}", self.name), id)?;
        self.check_time(&token, context.now)?;
        Ok(token)
    }

    /// Converts the issuer's claims, refusing a mapped claim that is missing or of another type.
    fn translate(&self, claims: &Json<'_>, kid: String, jti: String) -> Result<VerifiedToken, TokenError> {
        let exp = seconds(claims, "exp")?.ok_or(TokenError::Claims)?;
        Ok(VerifiedToken {
            kid,
            jti,
            key_id: self.key_id.clone(),
            team: self.claims.team(claims)?,
            // Without `iat` the earliest possible time, so that no revocation since then misses the token.
            iat: seconds(claims, "iat")?.unwrap_or(exp.saturating_sub(self.max_ttl)),
            nbf: seconds(claims, "nbf")?,
            exp,
            scopes: self.claims.scopes(claims)?,
            from: self.claims.from(claims)?,
            to: self.claims.to(claims)?,
            bounds: self.claims.text_bounds(claims)?,
            ..VerifiedToken::default()
        })
    }
}

impl TokenVerifier for Issuer {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_minted_here(&self) -> bool {
        false
    }

    fn id_namespace(&self) -> &str {
        &self.name
    }

    fn needs_host(&self) -> bool {
        self.algorithms.contains(&Algorithm::Rs256)
    }

    fn verify(&self, token: &str, context: &VerificationContext<'_>) -> Result<VerifiedToken, TokenError> {
        if let KeySource::Inline(keys) = &self.keys {
            return self.verify_with(token, keys, context);
        }
        let remote = context.fetched_keys.ok_or(TokenError::KeysUnavailable)?;
        let keys = remote.current(context.now).ok_or(TokenError::KeysUnavailable)?;
        let verified = self.verify_with(token, &keys, context);
        if matches!(verified, Err(TokenError::UnknownKid)) {
            remote.request();
        }
        verified
    }

    fn check_time(&self, token: &VerifiedToken, now: u64) -> Result<(), TokenError> {
        self.clock.check(self.max_ttl, token, now)
    }

    fn earliest_issue(&self, token: &VerifiedToken) -> u64 {
        token.iat.saturating_sub(self.clock.ahead)
    }
}

fn seconds(claims: &Json<'_>, name: &str) -> Result<Option<u64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Unsigned(value)) => Ok(Some(*value)),
        Some(_) => Err(TokenError::Claims),
    }
}

fn names_audience(claim: Option<&Json<'_>>, audience: &str) -> bool {
    match claim {
        Some(Json::String(text)) => text == audience,
        Some(Json::Array(items)) => items.iter().any(|item| item.as_str() == Some(audience)),
        _ => false,
    }
}

/// Returns the `jti`, or without one the first half of the digest of the signed text: a signature may have two spellings.
fn token_id(claims: &Json<'_>, signed: &str) -> Result<String, TokenError> {
    match claims.get("jti") {
        None => Ok(hex(digest(signed).get(..16).unwrap_or_default())),
        Some(Json::String(id)) if is_id(id) => Ok(id.clone().into_owned()),
        Some(_) => Err(TokenError::Claims),
    }
}
