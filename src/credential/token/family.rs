//! A token family: one prefix, one `typ`, one set of keys; signing and verifying its tokens.
//!
//! The order of the checks is the defence: length, three parts, the JOSE header, key by `kid`, algorithm equal to the
//! key's, signature, and only then a look at the claims. Refuses to know keys of other families and anybody's rights.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};

use crate::json::Json;

use super::claims::{Claims, VerifiedToken};
use super::extract::MAX_CREDENTIAL_BYTES;
use super::keyring::{Algorithm, HostVerify, Key};

/// Lifetimes a family allows, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// The shortest that may be asked for.
    pub min: u64,
    /// The longest that may be asked for; also the longest that is believed at use.
    pub max: u64,
    /// What is given when nothing is asked for.
    pub default: u64,
}

/// How far this gateway's clock may differ from the minting one's, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// How long after `exp` a token still counts; 0 unless configured, 5 at most.
    pub leeway: u64,
    /// How far `iat` and `nbf` may lie ahead; 60 at most.
    pub ahead: u64,
}

impl Clock {
    /// Checks a token's time against a longest lifetime in seconds.
    pub(super) fn check(self, max: u64, token: &VerifiedToken, now: u64) -> Result<(), TokenError> {
        if token.exp.saturating_sub(token.iat) > max {
            return Err(TokenError::Lifetime);
        }
        let latest = now.saturating_add(self.ahead);
        if token.iat > latest || token.nbf.is_some_and(|nbf| nbf > latest) {
            return Err(TokenError::NotYetValid);
        }
        if token.exp.saturating_add(self.leeway) <= now {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

/// Why a token was refused; nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not three parts of canonical base64url, or a header that is not exactly `alg`, `kid` and `typ`.
    Malformed,
    /// No key of this family has that `kid`.
    UnknownKid,
    /// The header's algorithm is not the key's.
    Algorithm,
    /// The `typ` of another family.
    Type,
    /// The signature is not the key's.
    Signature,
    /// The claims are missing, mistyped or cannot be ours.
    Claims,
    /// Another issuer.
    Issuer,
    /// Another audience.
    Audience,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It claims to live longer than the family allows.
    Lifetime,
    /// The issuer's keys are not known at present.
    KeysUnavailable,
    /// No key of this family can sign.
    NoSigningKey,
    /// It would be longer than a credential may be.
    TooLong,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::UnknownKid => "no key of this family has that `kid`",
            Self::Algorithm => "the algorithm is not the key's",
            Self::Type => "the token is of another family",
            Self::Signature => "the signature does not hold",
            Self::Claims => "a claim is missing, mistyped or impossible",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Lifetime => "the token's lifetime is longer than its family allows",
            Self::KeysUnavailable => "the issuer's keys are not known at present",
            Self::NoSigningKey => "no key of this family can sign",
            Self::TooLong => "the token would be longer than a credential may be",
        })
    }
}

impl std::error::Error for TokenError {}

/// The JOSE header of our own families: exactly these members (so no `crit`, `b64`, `zip`, `jku`, `jwk`, `cty`).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    typ: Cow<'a, str>,
}

struct FamilyKey {
    kid: String,
    /// The encoded header of every token this gateway signs with the key: equal bytes need no parsing.
    header: String,
    key: Rc<Key>,
}

/// One kind of client token.
pub struct Family {
    /// The name in the policy.
    pub name: String,
    /// The exact bytes every such token begins with.
    pub prefix: String,
    /// The JOSE `typ` (RFC 8725 section 3.11: explicit typing).
    pub typ: String,
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim; tokens carry one exactly when this is set.
    pub audience: Option<String>,
    /// The lifetimes it allows.
    pub ttl: Ttl,
    /// The clock difference it forgives.
    pub clock: Clock,
    /// Whether a token also counts without its prefix, as a plain JWT.
    pub is_bare: bool,
    keys: Vec<FamilyKey>,
    signing: Option<usize>,
}

impl Family {
    /// Makes a family without keys.
    pub fn new(
        name: &str,
        prefix: &str,
        typ: &str,
        issuer: &str,
        audience: Option<&str>,
        ttl: Ttl,
        clock: Clock,
    ) -> Self {
        Self {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            typ: typ.to_owned(),
            issuer: issuer.to_owned(),
            audience: audience.map(str::to_owned),
            ttl,
            clock,
            is_bare: false,
            keys: Vec::new(),
            signing: None,
        }
    }

    /// Whether a text is written like a token of this family. A bare one is known by its JOSE header, which holds a
    /// `kid` and the family's `typ`.
    pub fn matches_prefix(&self, credential: &str) -> bool {
        let begins = |header: &str| credential.strip_prefix(header).is_some_and(|rest| rest.starts_with('.'));
        credential.starts_with(self.prefix.as_str()) || (self.is_bare && self.headers().any(begins))
    }

    /// The JOSE headers of this family's tokens, encoded.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.header.as_str())
    }

    /// The public keys as a JWK set's members (RFC 7517 section 5); a secret key has none.
    pub fn public_keys(&self) -> impl Iterator<Item = Json<'static>> {
        self.keys.iter().filter_map(|key| key.key.public_jwk(&key.kid))
    }

    /// Whether a key of this family can only be verified with the host's help.
    pub fn needs_host(&self) -> bool {
        self.keys.iter().any(|key| key.key.algorithm() == Algorithm::Rs256)
    }

    /// Adds a key under its `kid`; the last one added with `sign` signs.
    pub fn add_key(&mut self, kid: &str, key: Rc<Key>, sign: bool) {
        if sign {
            self.signing = Some(self.keys.len());
        }
        let header = self.encode_header(key.algorithm().name(), kid);
        self.keys.push(FamilyKey { kid: kid.to_owned(), header, key });
    }

    fn encode_header(&self, alg: &str, kid: &str) -> String {
        let header = Header { alg: alg.into(), kid: kid.into(), typ: self.typ.as_str().into() };
        let header = serde_json::to_string(&header).unwrap_or_default();
        Base64UrlUnpadded::encode_string(header.as_bytes())
    }

    /// Verifies a credential of this family, time included.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for the first check that fails.
    pub fn verify(
        &self,
        credential: &str,
        now: u64,
        host: &HostVerify<'_>,
    ) -> Result<VerifiedToken, TokenError> {
        let token = self.read(credential, host)?;
        self.check_time(&token, now)?;
        Ok(token)
    }

    /// Verifies a credential of this family, but for its time: to tell of a token, never to act for it.
    ///
    /// # Errors
    ///
    /// As [`Family::verify`].
    pub fn read(&self, credential: &str, host: &HostVerify<'_>) -> Result<VerifiedToken, TokenError> {
        let compact = match credential.strip_prefix(self.prefix.as_str()) {
            None if self.is_bare => credential,
            compact => compact.ok_or(TokenError::Malformed)?,
        };
        let parts = Parts::split(compact)?;
        let signer = self.key_for(parts.header)?;
        let mut signature = [0; 512];
        let signature =
            Base64UrlUnpadded::decode(parts.signature, &mut signature).map_err(|_| TokenError::Malformed)?;
        if !signer.key.verify(parts.signed.as_bytes(), signature, host) {
            return Err(TokenError::Signature);
        }
        let claims = Base64UrlUnpadded::decode_vec(parts.claims).map_err(|_| TokenError::Malformed)?;
        let claims = Json::parse(&claims).map_err(|_| TokenError::Claims)?;
        let claims: Claims<'_> = claims.read().map_err(|_| TokenError::Claims)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        if claims.aud.as_deref() != self.audience.as_deref() {
            return Err(TokenError::Audience);
        }
        VerifiedToken::from_claims(&signer.kid, claims).ok_or(TokenError::Claims)
    }

    /// Checks a verified token's time; to be repeated at each use, cached or not.
    ///
    /// # Errors
    ///
    /// [`TokenError::Lifetime`], [`TokenError::NotYetValid`] or [`TokenError::Expired`] (`exp` itself is too late:
    /// RFC 7519 section 4.1.4).
    pub fn check_time(&self, token: &VerifiedToken, now: u64) -> Result<(), TokenError> {
        self.clock.check(self.ttl.max, token, now)
    }

    /// Signs a token.
    ///
    /// # Errors
    ///
    /// [`TokenError::NoSigningKey`], or [`TokenError::TooLong`] when no gateway would read it back.
    pub fn sign(&self, claims: &Claims<'_>) -> Result<String, TokenError> {
        let signer = self.signing.and_then(|index| self.keys.get(index)).ok_or(TokenError::NoSigningKey)?;
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Claims)?;
        let message = format!("{}.{}", signer.header, Base64UrlUnpadded::encode_string(&claims));
        let signature = signer.key.sign(message.as_bytes()).ok_or(TokenError::NoSigningKey)?;
        let token = format!("{}{message}.{}", self.prefix, Base64UrlUnpadded::encode_string(&signature));
        if token.len() > MAX_CREDENTIAL_BYTES {
            return Err(TokenError::TooLong);
        }
        Ok(token)
    }

    fn key_for(&self, header: &str) -> Result<&FamilyKey, TokenError> {
        if let Some(key) = self.keys.iter().find(|key| key.header == header) {
            return Ok(key);
        }
        let bytes = Base64UrlUnpadded::decode_vec(header).map_err(|_| TokenError::Malformed)?;
        let header = Json::parse(&bytes).map_err(|_| TokenError::Malformed)?;
        let header: Header<'_> = header.read().map_err(|_| TokenError::Malformed)?;
        let key = self.keys.iter().find(|key| key.kid == header.kid).ok_or(TokenError::UnknownKid)?;
        if header.alg != key.key.algorithm().name() {
            return Err(TokenError::Algorithm);
        }
        if header.typ != self.typ {
            return Err(TokenError::Type);
        }
        Ok(key)
    }
}

/// The three parts of the compact form (RFC 7515 section 3.1).
pub(super) struct Parts<'a> {
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
    /// Header and claims: what the signature is over.
    pub(super) signed: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn split(compact: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = compact.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let is_part = |part: &str| !part.is_empty() && !part.contains('.');
        if is_part(header) && is_part(claims) && is_part(signature) {
            Ok(Self { header, claims, signature, signed })
        } else {
            Err(TokenError::Malformed)
        }
    }
}

/// A token's content with nothing verified: for `callbound inspect`, never for a decision.
pub struct UnverifiedToken {
    /// The JOSE header as JSON text.
    pub header: String,
    /// The claims as JSON text.
    pub claims: String,
}

/// Decodes a token without verifying anything.
///
/// # Errors
///
/// [`TokenError::Malformed`] when it is not three parts of base64url.
pub fn peek(compact: &str) -> Result<UnverifiedToken, TokenError> {
    let parts = Parts::split(compact)?;
    let text = |part| {
        let bytes = Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::Malformed)?;
        String::from_utf8(bytes).map_err(|_| TokenError::Malformed)
    };
    Ok(UnverifiedToken { header: text(parts.header)?, claims: text(parts.claims)? })
}
