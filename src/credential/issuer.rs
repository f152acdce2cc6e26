//! Tokens minted elsewhere: an issuer's keys, and what its claims mean here.
//!
//! An issuer says who somebody is and how far they are bounded, never more than the API key it stands for may do.
//! Nothing in a token chooses a key set, an algorithm or an address to ask.

use std::borrow::Cow;

use serde::Deserialize;

use crate::hex::hex;
use crate::json::Json;

use super::api_key::digest;
use super::claims::{TextBounds, VerifiedToken, is_bound_text, numbers};
use super::family::{Clock, Parts, TokenError};
use super::keyring::{Algorithm, HostVerify, decode_base64url};
use super::remote::{KeySet, RemoteJwks};

/// Somebody whose tokens are accepted.
pub struct Issuer {
    /// What the policy calls it.
    pub name: String,
    /// The `iss` its tokens carry.
    pub issuer: String,
    /// The audience its tokens must name.
    pub audience: String,
    /// The id of the API key whose rights its tokens cannot exceed.
    pub key_id: String,
    /// The algorithms it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The `typ` its tokens may have, compared without regard to case; `None` = any.
    pub types: Option<Vec<String>>,
    /// The longest lifetime that is believed, in seconds.
    pub max_ttl: u64,
    /// The clock difference that is forgiven.
    pub clock: Clock,
    /// Where its keys come from.
    pub keys: KeySource,
    /// What its claims mean.
    pub claims: ClaimRules,
}

/// Where an issuer's keys come from.
pub enum KeySource {
    /// The policy.
    Inline(KeySet),
    /// A URL, asked through the host.
    Remote(RemoteJwks),
}

impl KeySource {
    /// Where the keys are fetched from, when they are.
    pub fn remote(&self) -> Option<&RemoteJwks> {
        match self {
            Self::Inline(_) => None,
            Self::Remote(remote) => Some(remote),
        }
    }
}

/// A claim, by the names on the way to it.
#[derive(Debug, Clone)]
pub struct ClaimPath {
    /// The names.
    pub names: Vec<String>,
    /// Whether it may be absent.
    pub optional: bool,
}

/// What an issuer's claims mean here.
#[derive(Debug, Default)]
pub struct ClaimRules {
    /// The team somebody acts for; the key's own when not mapped.
    pub team: Option<ClaimPath>,
    /// The scopes; the default ones when not mapped.
    pub scopes: Option<ClaimPath>,
    /// The caller IDs.
    pub from: Option<ClaimPath>,
    /// The destinations.
    pub to: Option<ClaimPath>,
    /// The text bounds, by name.
    pub texts: Vec<(String, ClaimPath)>,
    /// Their scopes and ours; `None` = the names are the same.
    pub renamed: Option<Vec<(String, Vec<String>)>>,
    /// What is given when no scopes are mapped.
    pub default_scopes: Vec<String>,
}

/// The part of a foreign JOSE header that is read; the rest chooses nothing.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
}

/// Extensions that change what a signature covers or what the payload is (RFC 7515 section 4.1.11, RFC 7797, RFC 7519
/// section 5.2), and keys that a token brings itself: none is understood, so none may be there.
const REFUSED_HEADERS: &[&str] = &["crit", "b64", "zip", "cty", "jwk", "jku", "x5u"];

impl Issuer {
    /// Reads the `iss` of a text that may be a token, with nothing verified: it only chooses whose keys to try.
    pub fn claimed_by(credential: &str) -> Option<String> {
        let claims = decode_base64url(Parts::split(credential).ok()?.claims).ok()?;
        Some(Json::parse(&claims).ok()?.get("iss")?.as_str()?.to_owned())
    }

    /// Verifies a token, time included.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for the first check that fails.
    pub fn verify(
        &self,
        credential: &str,
        keys: &KeySet,
        now: u64,
        host: &HostVerify<'_>,
    ) -> Result<VerifiedToken, TokenError> {
        let parts = Parts::split(credential)?;
        let kid = self.verify_signature(&parts, keys, host)?;
        let claims = decode_base64url(parts.claims).map_err(|_| TokenError::Malformed)?;
        let claims = Json::parse(&claims).map_err(|_| TokenError::Claims)?;
        if claims.get("iss").and_then(Json::as_str) != Some(&self.issuer) {
            return Err(TokenError::Issuer);
        }
        if !names_audience(claims.get("aud"), &self.audience) {
            return Err(TokenError::Audience);
        }
        let token = self.translate(&kid, credential, &claims).ok_or(TokenError::Claims)?;
        self.check_time(&token, now)?;
        Ok(token)
    }

    /// Checks a verified token's time; to be repeated at each use.
    ///
    /// # Errors
    ///
    /// [`TokenError::Lifetime`], [`TokenError::NotYetValid`] or [`TokenError::Expired`].
    pub fn check_time(&self, token: &VerifiedToken, now: u64) -> Result<(), TokenError> {
        self.clock.check(self.max_ttl, token, now)
    }

    /// Whether a key of its could only be verified with the host's help.
    pub fn needs_host(&self) -> bool {
        self.algorithms.contains(&Algorithm::Rs256)
    }

    fn verify_signature(
        &self,
        parts: &Parts<'_>,
        keys: &KeySet,
        host: &HostVerify<'_>,
    ) -> Result<String, TokenError> {
        let header = decode_base64url(parts.header).map_err(|_| TokenError::Malformed)?;
        let header = Json::parse(&header).map_err(|_| TokenError::Malformed)?;
        if REFUSED_HEADERS.iter().any(|name| header.get(name).is_some()) {
            return Err(TokenError::Malformed);
        }
        let header: Header<'_> = header.read().map_err(|_| TokenError::Malformed)?;
        if let Some(types) = &self.types {
            let typ = header.typ.as_deref().unwrap_or_default();
            if !types.iter().any(|known| known.eq_ignore_ascii_case(typ)) {
                return Err(TokenError::Type);
            }
        }
        let key = keys.get(&header.kid).ok_or(TokenError::UnknownKid)?;
        if header.alg != key.algorithm().name() || !self.algorithms.contains(&key.algorithm()) {
            return Err(TokenError::Algorithm);
        }
        let signature = decode_base64url(parts.signature).map_err(|_| TokenError::Malformed)?;
        match key.verify(parts.signed.as_bytes(), &signature, host) {
            true => Ok(header.kid.into_owned()),
            false => Err(TokenError::Signature),
        }
    }

    /// Says a foreign token's claims in our words; `None` when one that is needed is missing or of another type.
    fn translate(&self, kid: &str, credential: &str, claims: &Json<'_>) -> Option<VerifiedToken> {
        let seconds = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(Json::Unsigned(value)) => Some(Some(*value)),
            Some(_) => None,
        };
        let exp = seconds("exp")??;
        let rules = &self.claims;
        let bounds = rules.texts.iter().filter_map(|(name, path)| match texts(path, claims) {
            Some(None) => None,
            Some(Some(values)) => {
                Some(values.iter().all(|value| is_bound_text(value)).then(|| (name.clone(), values)))
            }
            None => Some(None),
        });
        let bounds: TextBounds = bounds.collect::<Option<_>>()?;
        let numbers = |path: &Option<ClaimPath>| match path {
            None => Some(None),
            Some(path) => {
                numbers(texts(path, claims)?.map(|list| list.into_iter().map(Cow::Owned).collect()))
            }
        };
        Some(VerifiedToken {
            kid: format!("{}/{kid}", self.name),
            jti: token_id(claims, credential)?,
            key_id: self.key_id.clone(),
            team: match &rules.team {
                None => None,
                Some(path) => match texts(path, claims)?.as_deref() {
                    None => None,
                    Some([one]) => Some(one.clone()),
                    Some(_) => return None,
                },
            },
            user: None,
            // Without it, the earliest it can be: what was revoked or forgotten until then is not believed to be younger.
            iat: seconds("iat")?.unwrap_or(exp.saturating_sub(self.max_ttl)),
            nbf: seconds("nbf")?,
            exp,
            scopes: rules.scopes_of(claims)?,
            from: numbers(&rules.from)?,
            to: numbers(&rules.to)?,
            bounds,
            session: None,
            uses: None,
            total: None,
            metadata: None,
        })
    }
}

impl ClaimRules {
    fn scopes_of(&self, claims: &Json<'_>) -> Option<Vec<String>> {
        let Some(path) = &self.scopes else { return Some(self.default_scopes.clone()) };
        let theirs = match find(path, claims) {
            None if path.optional => return Some(Vec::new()),
            None => return None,
            // RFC 8693 section 4.2: one string with blanks.
            Some(Json::String(text)) => {
                text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
            }
            Some(Json::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?
            }
            Some(_) => return None,
        };
        let Some(renamed) = &self.renamed else { return Some(theirs) };
        let ours = renamed
            .iter()
            .filter(|(name, _)| theirs.contains(name))
            .flat_map(|(_, ours)| ours.iter().cloned());
        Some(ours.collect())
    }
}

fn find<'j, 'a>(path: &ClaimPath, claims: &'j Json<'a>) -> Option<&'j Json<'a>> {
    path.names.iter().try_fold(claims, |at, name| at.get(name))
}

/// Reads a string or a list of strings that is not empty; the outer `None` says that it is something else, or missing.
#[expect(clippy::option_option, reason = "an absent bound and a bad bound are two things")]
fn texts(path: &ClaimPath, claims: &Json<'_>) -> Option<Option<Vec<String>>> {
    match find(path, claims) {
        None if path.optional => Some(None),
        Some(Json::String(text)) if !text.is_empty() => Some(Some(vec![text.clone().into_owned()])),
        Some(Json::Array(items)) if !items.is_empty() => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>().map(Some)
        }
        _ => None,
    }
}

fn names_audience(claim: Option<&Json<'_>>, audience: &str) -> bool {
    match claim {
        Some(Json::String(text)) => text == audience,
        Some(Json::Array(items)) => items.iter().any(|item| item.as_str() == Some(audience)),
        _ => false,
    }
}

/// The token's id: its `jti` when that is fit for logs, else the beginning of the digest of what was signed; a signature
/// may have two spellings.
fn token_id(claims: &Json<'_>, credential: &str) -> Option<String> {
    match claims.get("jti") {
        None => Some(hex(digest(credential.rsplit_once('.')?.0).get(..16)?)),
        Some(Json::String(id))
            if (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Some(id.clone().into_owned())
        }
        Some(_) => None,
    }
}
