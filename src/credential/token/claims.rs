//! The claims of a client token: what is written when it is minted and what is believed once its signature holds.
//!
//! Refuses to know signatures and time. A [`VerifiedToken`] is built only by [`super::Family::verify`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::json::Json;
use crate::number::Number;

/// The claims as they stand in the token (RFC 7519 names where it has them).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// The values of the bound `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<Cow<'a, str>>>,
    /// The values of the bound `origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origins: Option<Vec<Cow<'a, str>>>,
    /// The one value of the bound `endpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Cow<'a, str>>,
    /// The one value of the bound `session_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<Cow<'a, str>>,
    /// The values of every other text bound, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>>,
    /// The longest session, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// How often it may be used; absent = without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// How many seconds all its sessions may last together; absent = without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What the minter attached; carried along, never read.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "owned_json")]
    pub metadata: Option<Json<'static>>,
}

fn owned_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json<'static>>, D::Error> {
    Ok(Some(Json::deserialize(deserializer)?.into_owned()))
}

/// Whether a text can be a bound's value: 1 to 256 visible ASCII characters without a comma, so that lists of them can
/// stand in a header.
pub fn is_bound_text(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// Text bounds by name, each with the values it allows.
pub type TextBounds = Vec<(String, Vec<String>)>;

impl<'a> Claims<'a> {
    /// Writes one text bound into its claim.
    pub fn bind(&mut self, name: &'a str, values: &'a [String]) {
        let list = || values.iter().map(|value| Cow::Borrowed(value.as_str())).collect();
        match (name, values) {
            ("model", _) => self.models = Some(list()),
            ("origin", _) => self.origins = Some(list()),
            ("endpoint", [one]) => self.endpoint = Some(one.as_str().into()),
            ("session_id", [one]) => self.sid = Some(one.as_str().into()),
            _ => _ = self.bounds.get_or_insert_default().insert(name.into(), list()),
        }
    }

    /// Takes the text bounds out of their claims; `None` when one allows nothing.
    fn take_bounds(&mut self) -> Option<TextBounds> {
        let one = |value: Option<Cow<'a, str>>| value.map(|value| vec![value]);
        let own = [
            ("model", self.models.take()),
            ("origin", self.origins.take()),
            ("endpoint", one(self.endpoint.take())),
            ("session_id", one(self.sid.take())),
        ];
        let own = own.into_iter().filter_map(|(name, values)| Some((Cow::Borrowed(name), values?)));
        let others = self.bounds.take().unwrap_or_default();
        let bounds = own.chain(others).map(|(name, values)| {
            (name.into_owned(), values.into_iter().map(Cow::into_owned).collect::<Vec<String>>())
        });
        let bounds: TextBounds = bounds.collect();
        let is_stated = |name: &str| bounds.iter().filter(|(other, _)| other == name).count() == 1;
        let is_said =
            |values: &[String]| !values.is_empty() && values.iter().all(|value| is_bound_text(value));
        bounds.iter().all(|(name, values)| is_said(values) && is_stated(name)).then_some(bounds)
    }
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
    /// The text bounds it is bound in.
    pub bounds: TextBounds,
    /// The longest session it may open, in seconds.
    pub session: Option<u64>,
    /// How often it may be used.
    pub uses: Option<u64>,
    /// How many seconds all its sessions may last together.
    pub total: Option<u64>,
    /// What the minter attached.
    pub metadata: Option<Json<'static>>,
}

impl VerifiedToken {
    /// The values of a text bound it is bound in.
    pub fn bound(&self, name: &str) -> Option<&[String]> {
        self.bounds.iter().find_map(|(known, values)| (known == name).then_some(values.as_slice()))
    }

    /// Checks the claims' content; `None` when a value cannot be what we minted.
    pub(super) fn from_claims(kid: &str, mut claims: Claims<'_>) -> Option<Self> {
        let is_id =
            |text: &str| (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        let ids = [Some(&claims.sub), Some(&claims.jti), claims.team.as_ref(), claims.user.as_ref()];
        // "No uses" would be written by nobody; that it might be read as "any number" is reason enough.
        if claims.uses == Some(0) || claims.total == Some(0) {
            return None;
        }
        let has_ids = ids.into_iter().flatten().all(|id| is_id(id));
        if !has_ids || claims.team.is_some() == claims.user.is_some() || claims.exp <= claims.iat {
            return None;
        }
        let bounds = claims.take_bounds()?;
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
            bounds,
            session: claims.session,
            uses: claims.uses,
            total: claims.total,
            metadata: claims.metadata,
        })
    }
}

/// The outer `None` says that an entry is no number.
#[expect(clippy::option_option, reason = "an absent bound and a bad bound are two things")]
pub(super) fn numbers(list: Option<Vec<Cow<'_, str>>>) -> Option<Option<Vec<Number>>> {
    let Some(list) = list else { return Some(None) };
    let mut numbers: Vec<Number> = list.iter().map(|text| Number::parse(text)).collect::<Option<_>>()?;
    numbers.sort_unstable();
    Some(Some(numbers))
}
