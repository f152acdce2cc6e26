//! `store`, `limits`, `revocations` and what families and routes say of uses.

use serde::Deserialize;

use super::routes::OneOrMany;
use super::{Members, SecretConfig};

/// `store`: where is remembered what must be.
#[derive(Deserialize, Default)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `local`: this gateway's memory (the default), or `redis`: for all gateways.
    #[serde(default)]
    pub home: HomeConfig,
    /// The most entries in this gateway's memory, 65,536 to 1,048,576; default 262,144.
    pub entries: Option<u64>,
    /// The key that seals what stands in this gateway's memory.
    pub secret: Option<SecretConfig>,
    /// Where Redis is; with `home: redis`.
    pub redis: Option<RedisConfig>,
    /// How fresh what is known of revocations must be; with `home: redis`.
    pub revocations: Option<FeedConfig>,
    /// Whether API keys that are not in the policy are looked up in Redis; with `home: redis`.
    pub directory: Option<DirectoryConfig>,
}

/// Where the store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum HomeConfig {
    /// In this gateway's memory.
    #[default]
    Local,
    /// In Redis.
    Redis,
}

/// How Redis is reached.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Where Webdis is, as in `http://127.0.0.1:7379`.
    pub url: String,
    /// The gateway's cluster that serves the URL; default `callbound_store`.
    pub cluster: Option<String>,
    /// Milliseconds an answer may take, 10 to 5,000; default 250.
    pub timeout_ms: Option<u64>,
    /// What every key begins with; default `callbound:`.
    pub prefix: Option<String>,
    /// Whether Redis loses nothing at a restart; default false: tokens with uses from before one are refused.
    #[serde(default)]
    pub durable: bool,
}

/// How long what was looked up is believed.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// Seconds a key that was found is believed, 1 to 3,600; default 30.
    pub fresh: Option<u64>,
    /// Seconds a key that was not found is not asked after again, 1 to 300; default 5.
    pub unknown: Option<u64>,
    /// The most keys of either sort that a worker keeps, 100 to 1,000,000; default 10,000.
    pub entries: Option<u64>,
}

/// How fresh what is known of revocations must be.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FeedConfig {
    /// Seconds until they are asked for again, 1 to 60; default 2.
    pub refresh: Option<u64>,
    /// Seconds after which what is known is too old; default 30.
    pub stale: Option<u64>,
    /// What happens then: `refuse` with 503 (the default), or `serve` with what is known.
    #[serde(default)]
    pub when_stale: StaleConfig,
}

/// What happens when the revocations known are too old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StaleConfig {
    /// 503.
    #[default]
    Refuse,
    /// What is known counts on.
    Serve,
}

/// One entry of `revocations`: exactly one of `key`, `token`, `tokens_of_key` and `tokens_of_team`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RevocationConfig {
    /// An API key and all its tokens, by the key's id.
    pub key: Option<String>,
    /// One token, by its `jti`.
    pub token: Option<String>,
    /// The tokens of a key, by the key's id.
    pub tokens_of_key: Option<String>,
    /// The tokens of a team's keys, and of all below it.
    pub tokens_of_team: Option<String>,
    /// Those issued then or earlier, in Unix seconds; with `tokens_of_key` and `tokens_of_team`.
    pub before: Option<u64>,
}

/// One limit: exactly one of `window`, `rate` and `sessions`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitRuleConfig {
    /// The limit's name in logs and in `RateLimit`.
    pub id: String,
    /// What is counted apart: `platform`, `organization`, `team`, `key`, `token`, `family`, `route`, `address`, or several.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::CountedApart"))]
    pub per: OneOrMany,
    /// What is counted; default `requests`.
    pub count: Option<CountConfig>,
    /// So many in each fixed window of so many seconds.
    pub window: Option<WindowConfig>,
    /// So many in so many seconds, evenly, and so many at once.
    pub rate: Option<RateConfig>,
    /// So many open sessions, on routes with `upgrade`.
    pub sessions: Option<SessionsConfig>,
    /// The only routes; absent: all that ask for a credential.
    pub routes: Option<Vec<String>>,
    /// The only credentials, `api_key` and families of tokens; absent: all.
    pub credentials: Option<Vec<String>>,
    /// How far the count must reach; default `node`.
    pub strength: Option<StrengthConfig>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CountConfig {
    /// Requests that pass everything else.
    Requests,
    /// New tokens.
    Mints,
    /// Credentials that were no good, per address.
    Failures,
}

/// A fixed window; it begins at a multiple of its length since 1970, so 86,400 is a day in UTC.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// How many, at least 1.
    pub max: u64,
    /// The window's length in seconds, 1 to 2,678,400.
    pub seconds: u64,
}

/// An even rate.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// How many, at least 1.
    pub max: u64,
    /// In how many seconds, 1 to 86,400.
    pub seconds: u64,
    /// How many at once after a pause, at least 1.
    pub burst: u64,
}

/// Open sessions.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SessionsConfig {
    /// How many, 1 to 10,000.
    pub max: u64,
}

/// How far a count must reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StrengthConfig {
    /// All workers of one gateway.
    #[default]
    Node,
    /// All gateways; needs `store.home: redis`.
    Fleet,
}

/// What the platform's own header says of the tightest limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ShownConfig {
    /// The most there can be.
    Limit,
    /// How many are left.
    Remaining,
    /// Seconds until there are as many as there can be.
    ResetSeconds,
    /// The same as Unix seconds.
    ResetUnix,
    /// The same as Unix milliseconds.
    ResetUnixMs,
}

/// How often a family's tokens may be used.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UsesConfig {
    /// What a token gets that asks for none; absent: it is not counted.
    pub default: Option<u64>,
    /// How far the count must reach; default `node`.
    #[serde(default)]
    pub strength: StrengthConfig,
}

/// How long all sessions of a family's token may last together.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TotalConfig {
    /// Seconds a token gets that asks for none; absent: it is not counted.
    pub default: Option<u64>,
    /// How far the count must reach; default `node`.
    #[serde(default)]
    pub strength: StrengthConfig,
}

/// What using a token on a route takes.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteUsesConfig {
    /// Whether a use is taken here; default true.
    pub counted: Option<bool>,
    /// The most uses of a token, whatever it carries, and also when it carries none.
    pub max: Option<u64>,
    /// Seconds after its stream's end in which a token opens the same session again; on routes with `upgrade`.
    pub reconnect_seconds: Option<u64>,
}

/// A route that revokes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RevokeConfig {
    /// What may be revoked here; default `own`: what the key's team reaches.
    #[serde(default)]
    pub reach: ReachConfig,
}

/// What a route may revoke.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReachConfig {
    /// What the key's team reaches.
    #[default]
    Own,
    /// Everything.
    Platform,
}

/// `audit`: which decisions are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AuditConfig {
    /// Refusals and new tokens.
    Refusals,
    /// Every one.
    All,
}

/// The maxima of limits, by the limit's id.
pub type LimitsOf = Members<u64>;
