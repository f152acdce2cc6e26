//! Claims of a token minted here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::json::Json;

use super::error::TokenError;

/// Claims as the token holds them, under the names of RFC 7519 where it has them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub struct Claims<'a> {
    /// Issuer of the family.
    #[serde(borrow)]
    pub iss: Cow<'a, str>,
    /// Audience of the family; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Cow<'a, str>>,
    /// Id of the API key the token was minted from.
    pub sub: Cow<'a, str>,
    /// Team that owns the key; absent for a user's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Cow<'a, str>>,
    /// User who owns the key; absent for a team's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    /// Id of the token.
    pub jti: Cow<'a, str>,
    /// Time of issue, in Unix seconds.
    pub iat: u64,
    /// Start of validity, in Unix seconds; absent = `iat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// End of validity, in Unix seconds.
    pub exp: u64,
    /// Scopes granted at mint.
    pub scopes: Vec<Cow<'a, str>>,
    /// Caller IDs the token may present; absent = those of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<Cow<'a, str>>>,
    /// Destinations the token may reach; absent or empty = those of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Cow<'a, str>>>,
    /// Values of the bound `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<Cow<'a, str>>>,
    /// Values of the bound `origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origins: Option<Vec<Cow<'a, str>>>,
    /// Single value of the bound `endpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Cow<'a, str>>,
    /// Single value of the bound `session_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<Cow<'a, str>>,
    /// Values of all other text bounds, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>>,
    /// Longest session, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Number of uses; absent = unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Seconds all sessions may last together; absent = unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Object attached by the minter; passed on, never judged.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "owned_json")]
    pub metadata: Option<Json<'static>>,
}

fn owned_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json<'static>>, D::Error> {
    Ok(Some(Json::deserialize(deserializer)?.into_owned()))
}

/// Returns whether a text can be a bound's value: 1 to 256 visible ASCII characters without a comma, so that a header can
/// hold a list of them.
pub fn is_bound_text(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// Returns whether a text can be an id: 1 to 128 visible ASCII characters, fit for logs.
pub(super) fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Text bounds by name, each with its allowed values.
pub type TextBounds = Vec<(String, Vec<String>)>;

impl<'a> Claims<'a> {
    /// Sets the claim of one text bound.
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

    /// Takes the text bounds out of their claims, refusing a bound that is repeated or has no valid value.
    pub(super) fn take_bounds(&mut self) -> Result<TextBounds, TokenError> {
        let single = |value: Option<Cow<'a, str>>| value.map(|value| vec![value]);
        let named = [
            ("model", self.models.take()),
            ("origin", self.origins.take()),
            ("endpoint", single(self.endpoint.take())),
            ("session_id", single(self.sid.take())),
        ];
        let named = named.into_iter().filter_map(|(name, values)| Some((Cow::Borrowed(name), values?)));
        let others = self.bounds.take().unwrap_or_default();
        let owned = |values: Vec<Cow<'a, str>>| values.into_iter().map(Cow::into_owned).collect();
        let bounds = named.chain(others).map(|(name, values)| (name.into_owned(), owned(values)));
        let bounds: TextBounds = bounds.collect();
        let is_unique = |name: &str| bounds.iter().filter(|(other, _)| other == name).count() == 1;
        let are_valid =
            |values: &[String]| !values.is_empty() && values.iter().all(|value| is_bound_text(value));
        if bounds.iter().all(|(name, values)| are_valid(values) && is_unique(name)) {
            Ok(bounds)
        } else {
            Err(TokenError::Claims)
        }
    }
}
