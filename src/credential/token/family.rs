//! Token families: one prefix, one `typ` and one set of keys; signing and verifying their tokens.
//!
//! The checks run in a fixed order: length, three parts, JOSE header, key by `kid`, algorithm equal to the key's,
//! signature, and only then the claims. Keys of other families are never tried.

use std::borrow::Cow;
use std::rc::Rc;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};

use crate::json::Json;

use super::super::extract::MAX_CREDENTIAL_BYTES;
use super::super::key::{Algorithm, HostVerify, Key};
use super::claims::Claims;
use super::clock::{Clock, Ttl};
use super::compact::{Parts, decode};
use super::error::TokenError;
use super::verified::VerifiedToken;
use super::verifier::{TokenVerifier, VerificationContext};

/// JOSE header of a family's token: exactly these members, so no `crit`, `b64`, `zip`, `jku`, `jwk` or `cty`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    typ: Cow<'a, str>,
}

/// One kind of client token.
pub struct Family {
    /// Name in the policy.
    pub name: String,
    /// Exact bytes at the start of every such token.
    pub prefix: String,
    /// JOSE `typ` (RFC 8725 section 3.11: explicit typing).
    pub typ: String,
    /// Value of the `iss` claim.
    pub issuer: String,
    /// Value of the `aud` claim; `None` = tokens carry none.
    pub audience: Option<String>,
    /// Lifetimes of its tokens.
    pub ttl: Ttl,
    /// Tolerance for other gateways' clocks.
    pub clock: Clock,
    /// True when tokens are also accepted without the prefix, as plain JWTs.
    pub is_bare: bool,
    /// The only scopes a token may have, whatever its claims say; `None`: any.
    pub mintable_scopes: Option<Vec<String>>,
    /// Signing and verifying keys, added with [`Family::add_key`].
    pub keys: FamilyKeys,
}

/// Keys of a family.
#[derive(Default)]
pub struct FamilyKeys {
    all: Vec<Rc<FamilyKey>>,
    signing: Option<Rc<FamilyKey>>,
}

struct FamilyKey {
    kid: String,
    /// Encoded header of every token this gateway signs with the key; a token with equal bytes needs no parsing.
    header: String,
    key: Rc<Key>,
}

impl Family {
    /// Returns whether a text begins like a token of this family.
    ///
    /// A token without the prefix is recognized by its JOSE header, which holds a `kid` and the family's `typ`.
    pub fn matches_prefix(&self, credential: &str) -> bool {
        let begins = |header: &str| credential.strip_prefix(header).is_some_and(|rest| rest.starts_with('.'));
        credential.starts_with(self.prefix.as_str()) || (self.is_bare && self.headers().any(begins))
    }

    /// Returns the encoded JOSE headers of this family's tokens.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.keys.all.iter().map(|key| key.header.as_str())
    }

    /// Returns the public keys as members of a JWK set (RFC 7517 section 5), without secret keys.
    pub fn public_keys(&self) -> impl Iterator<Item = Json<'static>> {
        self.keys.all.iter().filter_map(|key| key.key.public_jwk(&key.kid))
    }

    /// Adds a key under its `kid`; the last one added with `sign` signs.
    pub fn add_key(&mut self, kid: &str, key: Rc<Key>, sign: bool) {
        let header = self.encode_header(key.algorithm().name(), kid);
        let key = Rc::new(FamilyKey { kid: kid.to_owned(), header, key });
        if sign {
            self.keys.signing = Some(Rc::clone(&key));
        }
        self.keys.all.push(key);
    }

    fn encode_header(&self, alg: &str, kid: &str) -> String {
        let header = FamilyHeader { alg: alg.into(), kid: kid.into(), typ: self.typ.as_str().into() };
        let header = serde_json::to_string(&header).unwrap_or_default();
        Base64UrlUnpadded::encode_string(header.as_bytes())
    }

    /// Verifies a token except for its time: to describe a token, never to act on it.
    ///
    /// # Errors
    ///
    /// As [`TokenVerifier::verify`].
    pub fn verify_without_time(
        &self,
        credential: &str,
        host: &HostVerify<'_>,
    ) -> Result<VerifiedToken, TokenError> {
        let compact = match credential.strip_prefix(self.prefix.as_str()) {
            None if self.is_bare => credential,
            compact => compact.ok_or(TokenError::Malformed)?,
        };
        let parts = Parts::split(compact)?;
        let signer = self.find_key(parts.header)?;
        let mut signature = [0; 512];
        let signature =
            Base64UrlUnpadded::decode(parts.signature, &mut signature).map_err(|_| TokenError::Malformed)?;
        if !signer.key.verify(parts.signed.as_bytes(), signature, host) {
            return Err(TokenError::Signature);
        }
        self.read_claims(&signer.kid, &decode(parts.claims)?)
    }

    fn read_claims(&self, kid: &str, claims: &[u8]) -> Result<VerifiedToken, TokenError> {
        let claims = Json::parse(claims).map_err(|_| TokenError::Claims)?;
        let claims: Claims<'_> = claims.read().map_err(|_| TokenError::Claims)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        if claims.aud.as_deref() != self.audience.as_deref() {
            return Err(TokenError::Audience);
        }
        VerifiedToken::from_claims(kid, claims)
    }

    /// Signs a token.
    ///
    /// # Errors
    ///
    /// [`TokenError::NoSigningKey`], or [`TokenError::TooLong`] when no gateway would accept it.
    pub fn sign(&self, claims: &Claims<'_>) -> Result<String, TokenError> {
        let signer = self.keys.signing.as_ref().ok_or(TokenError::NoSigningKey)?;
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Claims)?;
        let message = format!("{}.{}", signer.header, Base64UrlUnpadded::encode_string(&claims));
        let signature = signer.key.sign(message.as_bytes()).ok_or(TokenError::NoSigningKey)?;
        let token = format!("{}{message}.{}", self.prefix, Base64UrlUnpadded::encode_string(&signature));
        if token.len() > MAX_CREDENTIAL_BYTES {
            return Err(TokenError::TooLong);
        }
        Ok(token)
    }

    fn find_key(&self, header: &str) -> Result<&FamilyKey, TokenError> {
        if let Some(key) = self.keys.all.iter().find(|key| key.header == header) {
            return Ok(key);
        }
        let bytes = decode(header)?;
        let header = Json::parse(&bytes).map_err(|_| TokenError::Malformed)?;
        let header: FamilyHeader<'_> = header.read().map_err(|_| TokenError::Malformed)?;
        let key = self.keys.all.iter().find(|key| key.kid == header.kid).ok_or(TokenError::UnknownKid)?;
        if header.alg != key.key.algorithm().name() {
            return Err(TokenError::Algorithm);
        }
        if header.typ != self.typ {
            return Err(TokenError::Type);
        }
        Ok(key)
    }
}

impl TokenVerifier for Family {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_minted_here(&self) -> bool {
        true
    }

    fn id_namespace(&self) -> &str {
        ""
    }

    fn needs_host(&self) -> bool {
        self.keys.all.iter().any(|key| key.key.algorithm() == Algorithm::Rs256)
    }

    fn verify(&self, token: &str, context: &VerificationContext<'_>) -> Result<VerifiedToken, TokenError> {
        let token = self.verify_without_time(token, context.host_verify)?;
        self.check_time(&token, context.now)?;
        Ok(token)
    }

    fn check_time(&self, token: &VerifiedToken, now: u64) -> Result<(), TokenError> {
        self.clock.check(self.ttl.max, token, now)
    }

    fn earliest_issue(&self, token: &VerifiedToken) -> u64 {
        token.iat
    }
}
