//! `routes` and what stands in one: places, bounds, and the answers the gateway gives itself.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::memory::{RevokeConfig, RouteUsesConfig};
use super::{CarrierConfig, Members, Raw};

/// One route, or several that require the same.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The route's name in logs and counters.
    pub id: String,
    /// `METHOD /path`, or several: `{name}` is one segment, `{*name}` the rest; `ANY`, on public routes, is every method without a route of its own.
    #[serde(rename = "match")]
    pub matches: OneOrMany,
    /// `api_key` and families of tokens, or `public` alone, where nobody is asked.
    pub accept: Vec<String>,
    /// Where a credential stands on this route instead.
    pub credential_from: Option<Vec<CarrierConfig>>,
    /// What the request must upgrade to; absent: every upgrade is refused.
    pub upgrade: Option<UpgradeConfig>,
    /// The feature, or features, that must be on.
    pub feature: Option<OneOrMany>,
    /// The scopes that must be held, all of them.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The place that names a team, which must be within reach.
    pub tenant: Option<PlaceConfig>,
    /// Whether the upstream is told of the team above as well; reads only; default false.
    #[serde(default)]
    pub read_parent: bool,
    /// What is judged in the request.
    #[cfg_attr(feature = "cli", schemars(with = "Option<crate::policy::schema::RouteBounds>"))]
    pub bounds: Option<Members<Raw>>,
    /// The longest an upgraded connection may last, in seconds, at most 604,800.
    pub session_seconds: Option<u64>,
    /// What else the upstream is told: `metadata`, `endpoint` and text bounds.
    #[serde(default)]
    pub identify: Vec<String>,
    /// The credential that replaces the client's before the upstream.
    pub present: Option<PresentConfig>,
    /// The gateway answers with a new token.
    pub mint: Option<MintConfig>,
    /// The gateway answers with the state of a token.
    pub introspect: Option<IntrospectConfig>,
    /// The gateway answers with the endpoints within reach.
    pub directory: Option<ListingConfig>,
    /// The gateway answers with the public keys of these families.
    pub jwks: Option<Vec<String>>,
    /// The gateway revokes what the body names.
    pub revoke: Option<RevokeConfig>,
    /// What using a token here takes.
    pub uses: Option<RouteUsesConfig>,
    /// The group of `refusals` that words this route's.
    pub refusals: Option<String>,
}

/// What a connection may be upgraded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UpgradeConfig {
    /// A WebSocket (RFC 6455).
    Websocket,
}

/// A credential the upstream gets instead of the client's.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PresentConfig {
    /// The entry of `upstream_keys`.
    pub key: String,
    /// Where it goes: `query:name` or `header:name`.
    pub at: String,
    /// The word before it in a header, as in `Bearer`.
    pub scheme: Option<String>,
}

/// A string, or a list of them.
#[derive(Debug)]
pub struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor;
        impl<'de> Visitor<'de> for OneOrManyVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a list of them")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(OneOrMany(list))
            }
        }
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

/// A place in a request: `"path:id"`, or the same as `{"path": "id"}`.
#[derive(Debug)]
pub struct PlaceConfig(pub String);

impl<'de> Deserialize<'de> for PlaceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlaceVisitor;
        impl<'de> Visitor<'de> for PlaceVisitor {
            type Value = PlaceConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a place in the request, as in `path:id`, `query:team` or `/team_id`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(PlaceConfig(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (Some((kind, name)), None) =
                    (map.next_entry::<String, String>()?, map.next_key::<String>()?)
                else {
                    return Err(A::Error::custom("expected one of `path`, `query`, `header` and `body`"));
                };
                Ok(PlaceConfig(if kind == "body" { name } else { format!("{kind}:{name}") }))
            }
        }
        deserializer.deserialize_any(PlaceVisitor)
    }
}

/// The places that carry one bound's value.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DirectionConfig {
    /// `/member`, `query:name`, `header:name`, `path:name`; a closing `?` when it may be absent. None: unreadable.
    pub members: Vec<String>,
    /// Places that leave the choice to the upstream.
    #[serde(default)]
    pub chosen_by: Vec<String>,
    /// Whether the places are not all there is: bounded credentials are refused; default false.
    #[serde(default)]
    pub screen_only: bool,
    /// Whether, absent, the token's one value counts; default false.
    #[serde(default)]
    pub implied: bool,
    /// The feature an endpoint must be capable of.
    pub capable: Option<String>,
}

/// A route answered by the gateway with a new token.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MintConfig {
    /// The family of the new token.
    pub family: String,
    /// `body`, and what is asked for by name: `from`, `to`, `scopes`, `ttl`, `session`, `total`, `uses`, `metadata` or a text bound.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::MintRequest"))]
    pub request: Members<Raw>,
    /// The answer.
    pub reply: ReplyConfig,
}

/// What a mint body asks for, and with which member.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AskedConfig {
    /// The member's name, or its JSON pointer.
    pub member: Option<String>,
    /// Whether it must be there; default false.
    #[serde(default)]
    pub required: bool,
    /// Whether `null` is the same as absent; default false.
    #[serde(default)]
    pub nullable: bool,
    /// The fewest seconds or uses; default 1.
    pub min: Option<u64>,
    /// The most: entries of a list (1 to 1,000), uses (1 to 1,000), or seconds (at most 604,800). A text without it is one string.
    pub max: Option<u64>,
    /// The largest metadata in bytes of JSON; default and most 1,024.
    pub max_bytes: Option<u64>,
    /// What an empty list asks for; default `refuse`.
    pub empty: Option<EmptyConfig>,
    /// The gateway makes the value itself; this or `member`.
    pub generate: Option<GenerateConfig>,
    /// The feature an endpoint must be capable of.
    pub capable: Option<String>,
}

/// What the gateway makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GenerateConfig {
    /// A random UUID.
    Uuid,
}

/// Whether a mint request needs a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BodyConfig {
    /// It does.
    Required,
    /// It does not: no body, or `null`, asks for nothing.
    Optional,
}

/// What an empty list asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EmptyConfig {
    /// Nothing that can be given: refused.
    #[default]
    Refuse,
    /// The same as leaving the member out.
    Absent,
}

/// The answer to a mint.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplyConfig {
    /// 200 to 299, with a body.
    pub status: u16,
    /// The body; a string `$name` stands for a value.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::MintReply"))]
    pub body: Raw,
}

/// A route that tells the state of a token.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IntrospectConfig {
    /// The families whose tokens are known.
    pub families: Vec<String>,
    /// The member of the body that holds the token, or its JSON pointer.
    pub member: String,
    /// The body of the answer; a string `$name` stands for a value.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::StateReply"))]
    pub reply: Raw,
}

/// A route that lists what the directory holds.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ListingConfig {
    /// What is listed.
    pub of: ListedConfig,
    /// The place of the page's number, counted from 1, as in `query:page`.
    pub page: Option<String>,
    /// The size of a page.
    pub limit: Option<LimitConfig>,
    /// How one endpoint looks; a string `$name` stands for a value.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::ListedEndpoint"))]
    pub endpoint: Raw,
    /// How one application looks, when applications are listed.
    #[cfg_attr(feature = "cli", schemars(with = "Option<crate::policy::schema::ListedApp>"))]
    pub app: Option<Raw>,
    /// The body of the answer; a string `$name` stands for a value.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::PageReply"))]
    pub reply: Raw,
}

/// What a listing lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ListedConfig {
    /// Endpoints, by id.
    Endpoints,
    /// Applications, by name.
    Apps,
}

/// The size of a page.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// The place of the size that is asked for, as in `query:limit`.
    pub at: Option<String>,
    /// The size when none is asked for.
    pub default: u64,
    /// The largest size, at most 1,000.
    pub max: u64,
}
