//! The claims of a client token: what is written when it is minted and what is believed once its signature holds.
//!
//! Refuses to know signatures and time. A [`VerifiedToken`] is built only by [`super::Family::verify`].

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::number::Number;

/// The claims as they stand in the token (RFC 7519 names where it has them).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[expect(missing_docs, reason = "the claims are RFC 7519's, and DESIGN's words for the rest")]
pub struct Claims<'a> {
    #[serde(borrow)]
    pub iss: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Cow<'a, str>>,
    /// The id of the API key the token was minted from.
    pub sub: Cow<'a, str>,
    /// The team the key belongs to; absent for a user's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Cow<'a, str>>,
    /// The user the key belongs to; absent for a team's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    pub jti: Cow<'a, str>,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Unix seconds.
    pub exp: u64,
    pub scopes: Vec<Cow<'a, str>>,
    /// The caller IDs the token may present; absent = whatever the key may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<Cow<'a, str>>>,
    /// The destinations the token may reach; absent or empty = whatever the key may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Cow<'a, str>>>,
}

/// A token whose signature, family and claims were verified. Its time is checked at each use.
#[derive(Debug, Clone, Default)]
pub struct VerifiedToken {
    /// The key that signed it; with `jti` the token's identity, since one token may have several spellings.
    pub kid: String,
    /// The token's id.
    pub jti: String,
    /// The id of the API key it was minted from.
    pub key_id: String,
    /// The team the key belonged to.
    pub team: Option<String>,
    /// The user the key belonged to.
    pub user: Option<String>,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds.
    pub nbf: Option<u64>,
    /// Unix seconds.
    pub exp: u64,
    /// What it asks for; what it gets is this ∩ its key's present scopes.
    pub scopes: Vec<String>,
    /// The caller IDs it is bound to, sorted.
    pub from: Option<Vec<Number>>,
    /// The destinations it is bound to, sorted.
    pub to: Option<Vec<Number>>,
}

impl VerifiedToken {
    /// Checks the claims' content; `None` when a value cannot be what we minted.
    pub(super) fn from_claims(kid: &str, claims: Claims<'_>) -> Option<Self> {
        let is_id =
            |text: &str| (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let ids = [Some(&claims.sub), Some(&claims.jti), claims.team.as_ref(), claims.user.as_ref()];
        let has_ids = ids.into_iter().flatten().all(|id| is_id(id));
        if !has_ids || claims.team.is_some() == claims.user.is_some() || claims.exp <= claims.iat {
            return None;
        }
        Some(Self {
            kid: kid.to_owned(),
            jti: claims.jti.into_owned(),
            key_id: claims.sub.into_owned(),
            team: claims.team.map(Cow::into_owned),
            user: claims.user.map(Cow::into_owned),
            iat: claims.iat,
            nbf: claims.nbf,
            exp: claims.exp,
            scopes: claims.scopes.into_iter().map(Cow::into_owned).collect(),
            from: match claims.from {
                Some(list) if list.is_empty() => return None,
                list => numbers(list)?,
            },
            to: numbers(claims.to.filter(|list| !list.is_empty()))?,
        })
    }
}

/// The outer `None` says that an entry is no number.
#[expect(clippy::option_option, reason = "an absent bound and a bad bound are two things")]
fn numbers(list: Option<Vec<Cow<'_, str>>>) -> Option<Option<Vec<Number>>> {
    let Some(list) = list else { return Some(None) };
    let mut numbers: Vec<Number> = list.iter().map(|text| Number::parse(text)).collect::<Option<_>>()?;
    numbers.sort_unstable();
    Some(Some(numbers))
}
