//! The policy document as it is written: plain data, unknown members refused, no logic.
//!
//! The sections are read one by one and the elements of lists one by one, so that one bad element does not hide the
//! next. Meaning and cross-checks are the compiler's.

mod memory;
mod routes;

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::credential::{Algorithm, Jwk};
use crate::json::Json;

pub use memory::{
    AuditConfig, CountConfig, DirectoryConfig, FeedConfig, HomeConfig, LimitRuleConfig, LimitsOf,
    ReachConfig, RedisConfig, RevocationConfig, RevokeConfig, RouteUsesConfig, ShownConfig, StaleConfig,
    StoreConfig, StrengthConfig, TotalConfig, UsesConfig,
};
pub use routes::{
    AskedConfig, BodyConfig, DirectionConfig, EmptyConfig, GenerateConfig, IntrospectConfig, LimitConfig,
    ListedConfig, ListingConfig, MintConfig, OneOrMany, PlaceConfig, PresentConfig, ReplyConfig, RouteConfig,
    UpgradeConfig,
};

/// The sections a document may have.
pub const SECTIONS: &[&str] = &[
    "$comment",
    "version",
    "host",
    "held_by",
    "entropy",
    "allow_inline_secrets",
    "hold_seconds",
    "sessions_ended_by",
    "platform",
    "credentials",
    "keyring",
    "tokens",
    "teams",
    "users",
    "endpoints",
    "api_keys",
    "upstream_keys",
    "vocabulary",
    "constants",
    "routes",
    "store",
    "limits",
    "limit_headers",
    "revocations",
    "audit",
    "metrics",
    "unmatched",
    "refusals",
];

/// The members of an object, each name once, in the order of the text.
#[derive(Debug, Clone)]
pub struct Members<T>(pub Vec<(String, T)>);

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
            type Value = Members<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, T)> = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

/// A value that is read once it is known what it is about.
#[derive(Debug, Clone)]
pub struct Raw(pub Json<'static>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Json::deserialize(deserializer)?.into_owned()))
    }
}

/// The gateway that loads the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Envoy, Istio, Envoy Gateway.
    Envoy,
    /// Kong Gateway up to 3.10, and any nginx with its WebAssembly module.
    Kong,
    /// Apache APISIX.
    Apisix,
}

/// `held_by`: who keeps a request's headers back until its body was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// callbound: by `allow_on_headers_stop_iteration` on Envoy; elsewhere the host by itself.
    #[default]
    Callbound,
    /// Envoy's buffer filter, which stands behind callbound: where that flag cannot be set.
    BufferFilter,
}

/// `sessions_ended_by`: who ends an open connection at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SessionsEndedBy {
    /// The gateway.
    #[default]
    Gateway,
    /// The upstream, which is told the limit in seconds in `x-callbound-session-seconds`.
    Upstream,
}

/// `metrics`: whether decisions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MetricsConfig {
    /// One counter for each route and reason.
    #[default]
    On,
    /// None.
    Off,
}

/// `unmatched`: what happens to a request no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UnmatchedConfig {
    /// 404.
    Deny,
    /// On to the upstream.
    Pass,
}

/// `platform`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlatformConfig {
    /// Every feature there is, on or off; off here is off for everybody.
    #[serde(default)]
    pub features: Switches,
    /// Features that count as on only where these others are on as well.
    #[serde(default)]
    pub requires: Members<Vec<String>>,
    /// Every scope there is.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Scopes whose holders hold these others as well.
    #[serde(default)]
    pub implies: Members<Vec<String>>,
    /// The texts credentials can be bounded in, beside callers, destinations and endpoints, by name.
    #[serde(default)]
    pub bounds: Members<TextBoundConfig>,
    /// Whether API keys may reach premium-rate destinations that their ceiling does not name; default `allow`.
    #[serde(default)]
    pub premium_for_api_keys: PremiumConfig,
}

/// A text that credentials can be bounded in.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TextBoundConfig {
    /// What a value looks like; default `text`.
    #[serde(default)]
    pub form: FormConfig,
    /// The only values there are; absent: any of the form.
    pub values: Option<Vec<String>>,
    /// Other names of values; both sides of a comparison are resolved.
    #[serde(default)]
    pub aliases: Members<String>,
}

/// What a value of a text bound looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FormConfig {
    /// Visible ASCII.
    #[default]
    Text,
    /// `scheme://host[:port]` as browsers write it.
    Origin,
}

/// Named features, on or off.
pub type Switches = Members<bool>;

/// `platform.premium_for_api_keys`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PremiumConfig {
    /// Keys may reach premium-rate destinations inside their ceiling.
    #[default]
    Allow,
    /// Only destinations a key's ceiling names.
    Deny,
}

/// `credentials`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// The shapes API keys are written in.
    pub api_keys: Vec<KeyShapeConfig>,
    /// Where a credential may stand; exactly one may stand in exactly one of these.
    pub from: Vec<CarrierConfig>,
    /// Whether the client's credential goes on to the upstream; default false.
    #[serde(default)]
    pub forward: bool,
}

/// One shape of API key.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyShapeConfig {
    /// What a key begins with: 3 to 32 of `A-Z a-z 0-9 - _`, or empty (one shape at most).
    pub prefix: String,
    /// The characters after the prefix.
    pub alphabet: AlphabetConfig,
    /// The number of characters after the prefix.
    pub length: LengthConfig,
}

/// The characters after a key's prefix.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AlphabetConfig {
    /// `0-9 a-f`.
    Hex,
    /// `0-9 A-Z a-z`.
    Alphanumeric,
    /// `0-9 A-Z a-z - _`.
    Base64url,
}

/// The number of characters after a key's prefix.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LengthConfig {
    /// The fewest, at least 16.
    pub min: usize,
    /// The most, at most 512.
    pub max: usize,
}

/// A place where a credential may stand.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CarrierConfig {
    /// The header's name in lower case; this or `query`.
    pub header: Option<String>,
    /// The word before the credential in that header, as in `Bearer`.
    pub scheme: Option<String>,
    /// The query parameter's name; only on single routes. It is removed before the upstream.
    pub query: Option<String>,
}

/// One key of the keyring.
#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The key's id in the tokens' header.
    pub kid: String,
    /// The signature algorithm; `RS256` is verified only.
    pub alg: Algorithm,
    /// Where the secret comes from; this or `jwk`.
    pub secret: Option<SecretConfig>,
    /// The public key of tokens signed elsewhere.
    pub jwk: Option<Jwk>,
    /// Whether this key signs; one per family; default false.
    #[serde(default)]
    pub sign: bool,
    /// The families whose tokens it is for; absent: all.
    pub families: Option<Vec<String>>,
}

// Deliberately without `Debug`: one variant is the secret.
/// Where a secret comes from, in unpadded base64url.
#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretConfig {
    /// The environment variable that holds it.
    Env(String),
    /// Derived from a master by HKDF-SHA256 with family and kid.
    Derive(MasterConfig),
    /// The secret itself; only with `allow_inline_secrets`.
    Inline(String),
}

/// Where a master comes from, in unpadded base64url, or an upstream's credential, as it is.
#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum MasterConfig {
    /// The environment variable that holds it.
    Env(String),
    /// The text itself; only with `allow_inline_secrets`.
    Inline(String),
}

/// One token family.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FamilyConfig {
    /// What a token begins with: 3 to 32 of `A-Z a-z 0-9 - _`.
    pub prefix: String,
    /// Whether a token is also accepted without its prefix, as a plain JWT; default false.
    #[serde(default)]
    pub bare: bool,
    /// The tokens' `typ` header; default the family's name and `+jwt`.
    pub typ: Option<String>,
    /// The tokens' `iss` claim.
    pub issuer: String,
    /// The tokens' `aud` claim; when it is given, required in every token.
    pub audience: Option<String>,
    /// The lifetimes a token may have.
    pub ttl: TtlConfig,
    /// How far clocks may differ.
    #[serde(default)]
    pub clock: ClockConfig,
    /// The scopes of a token that asked for none.
    #[serde(default)]
    pub default_scopes: Vec<String>,
    /// The only scopes a token may carry; absent: any its key holds.
    pub mintable_scopes: Option<Vec<String>>,
    /// How often a token may be used.
    #[serde(default)]
    pub uses: UsesConfig,
    /// How long all sessions of a token may last together.
    #[serde(default)]
    pub total_seconds: TotalConfig,
}

/// Tokens that somebody else mints.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The tokens' `iss` claim.
    pub issuer: String,
    /// What the tokens' `aud` claim must be or hold.
    pub audience: String,
    /// The lifetime that is believed.
    pub ttl: MaxTtlConfig,
    /// How far clocks may differ.
    #[serde(default)]
    pub clock: ClockConfig,
    /// The scopes of a token when `claims` names none for them.
    #[serde(default)]
    pub default_scopes: Vec<String>,
    /// What the tokens mean here.
    pub external: ExternalConfig,
}

/// The longest lifetime that is believed, in seconds.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MaxTtlConfig {
    /// The longest lifetime in seconds, at most 86,400.
    pub max: u64,
}

/// What an issuer's tokens mean here.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ExternalConfig {
    /// The entry of `api_keys` whose team, scopes and ceiling are the most a token gets.
    pub key: String,
    /// The signature algorithms accepted: some of `EdDSA`, `ES256`, `RS256`.
    pub algorithms: Vec<Algorithm>,
    /// The `typ` headers accepted; absent: any.
    pub typ: Option<Vec<String>>,
    /// The keys that verify the tokens.
    pub jwks: JwksConfig,
    /// Where in the claims things stand: JSON pointers, a closing `?` when they may be absent.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::Claims"))]
    pub claims: Members<String>,
    /// For each of their scopes, ours; absent: the same names.
    pub scopes: Option<Members<Vec<String>>>,
}

/// Where an issuer's keys come from: `keys` or `url`, not both.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JwksConfig {
    /// The public keys themselves, each with a `kid`; this or `url`.
    pub keys: Option<Vec<Jwk>>,
    /// Where the JWKS is fetched, as in `https://idp.example/keys`.
    pub url: Option<String>,
    /// The gateway's cluster that serves the URL.
    pub cluster: Option<String>,
    /// Seconds until the keys are fetched again; default 300.
    pub refresh: Option<u64>,
    /// Seconds the old keys count after the last good fetch; default 3600.
    pub stale: Option<u64>,
    /// Seconds between fetches that unknown keys ask for; default 30.
    pub cooldown: Option<u64>,
}

/// Lifetimes in seconds.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TtlConfig {
    /// The shortest that may be asked for, at least 1.
    pub min: u64,
    /// The longest that may be asked for and is believed, at most 86,400.
    pub max: u64,
    /// What a token gets that asks for none.
    pub default: u64,
}

/// Clock difference in seconds.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClockConfig {
    /// Seconds a token counts after `exp`, 0 to 5; default 0.
    pub leeway: u64,
    /// Seconds `iat` may lie ahead, 0 to 60; default 30.
    pub ahead: u64,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { leeway: 0, ahead: 30 }
    }
}

/// One team.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TeamConfig {
    /// The team's name here and for the upstream: 1 to 64 of `A-Z a-z 0-9 - _ . : @`.
    pub id: String,
    /// What the team is in its tree.
    pub kind: TeamKind,
    /// The team above; a sub-entity has one.
    pub parent: Option<String>,
    /// The numbers it owns: its caller IDs.
    #[serde(default)]
    pub numbers: Vec<NumberConfig>,
    /// `false` switches a feature off for the team and all below; absent inherits.
    #[serde(default)]
    pub features: Switches,
    /// The scopes available to its keys; absent: all.
    pub scopes: Option<Vec<String>>,
    /// The most any key or token below it may do.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::Ceiling"))]
    pub ceiling: CeilingConfig,
    /// The maxima of limits for the team and for all below it, by the limit's id.
    #[serde(default)]
    pub limits: LimitsOf,
}

/// What a team is in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TeamKind {
    /// The top of a tree.
    Organization,
    /// Below another team.
    SubEntity,
}

/// One user.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// The user's name: 1 to 64 of `A-Z a-z 0-9 - _ . : @`.
    pub id: String,
    /// The teams within reach beside the user's own things.
    #[serde(default)]
    pub member_of: Vec<String>,
    /// The numbers the user owns.
    #[serde(default)]
    pub numbers: Vec<NumberConfig>,
    /// `false` switches a feature off for the user; absent inherits.
    #[serde(default)]
    pub features: Switches,
    /// The scopes available to the user's keys; absent: all.
    pub scopes: Option<Vec<String>>,
    /// The maxima of limits for the user, by the limit's id.
    #[serde(default)]
    pub limits: LimitsOf,
}

/// An owned number: `"+15551234567"`, or an object that can say it is inactive.
#[derive(Debug)]
pub struct NumberConfig {
    /// The number, as in `+15551234567`.
    pub e164: String,
    /// Whether it may be a caller ID; default true.
    pub active: bool,
}

impl<'de> Deserialize<'de> for NumberConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            e164: String,
            #[serde(default = "active_unless_said")]
            active: bool,
        }
        struct NumberVisitor;
        impl<'de> Visitor<'de> for NumberVisitor {
            type Value = NumberConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in E.164 or an object with `e164` and `active`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(NumberConfig { e164: text.to_owned(), active: true })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Object { e164, active } =
                    Object::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(NumberConfig { e164, active })
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

fn active_unless_said() -> bool {
    true
}

/// One endpoint.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// The endpoint's id: 1 to 128 visible characters without a comma.
    pub id: String,
    /// What listings call it.
    pub name: Option<String>,
    /// The application it belongs to in listings.
    pub app: Option<String>,
    /// The team that owns it.
    pub team: String,
    /// The features it is capable of.
    #[serde(default)]
    pub features: Switches,
    /// Whether it takes new sessions; default `active`.
    #[serde(default)]
    pub state: StateConfig,
    /// The only origins a session may come from; absent: any.
    pub origins: Option<Vec<String>>,
    /// The only client addresses, as in `203.0.113.0/24`; absent: any.
    pub addresses: Option<Vec<String>>,
}

/// Whether an endpoint takes new sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StateConfig {
    /// It does.
    #[default]
    Active,
    /// It does not: 409.
    Archived,
}

// Deliberately without `Debug`: it may hold the secret.
/// A credential for the upstream.
#[derive(Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamKeyConfig {
    /// The name routes call it by.
    pub id: String,
    /// Where its text comes from, sent as it is.
    pub secret: MasterConfig,
}

/// One API key.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The key's name in logs, tokens and for the upstream.
    pub id: String,
    /// 64 hex digits: the SHA-256 of the key's whole text, never the key. An issuer's entry needs none.
    pub sha256: Option<String>,
    /// The team it belongs to; this or `user`.
    pub team: Option<String>,
    /// The user it belongs to.
    pub user: Option<String>,
    /// The scopes it holds.
    pub scopes: Vec<String>,
    /// What it may do itself, and the most any token minted from it may.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::Ceiling"))]
    pub ceiling: CeilingConfig,
    /// When it ends, in Unix seconds.
    pub expires_at: Option<u64>,
    /// Whether it has ended, and its tokens with it; default false.
    #[serde(default)]
    pub revoked: bool,
    /// The maxima of limits for the key, by the limit's id.
    #[serde(default)]
    pub limits: LimitsOf,
}

/// The bounds of a key or a team: `from`, `to`, `session`, and text bounds by name.
pub type CeilingConfig = Members<Raw>;

/// `vocabulary`: further names this platform has used for callers and destinations.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VocabularyConfig {
    /// Names of callers.
    #[serde(default)]
    pub from: Vec<String>,
    /// Names of destinations.
    #[serde(default)]
    pub to: Vec<String>,
}

/// `refusals`: how refusals are worded.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RefusalsConfig {
    /// The body of every refusal; a string `$name` stands for a value.
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::Envelope"))]
    pub envelope: Raw,
    /// Other bodies, by status.
    #[serde(default)]
    #[cfg_attr(
        feature = "cli",
        schemars(with = "crate::policy::schema::ByStatus<crate::policy::schema::Envelope>")
    )]
    pub envelopes: Members<Raw>,
    /// Public codes, by status.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::ByStatus<String>"))]
    pub codes: Members<String>,
    /// What changes about single reasons; `callbound reasons` lists them.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::Reasons"))]
    pub reasons: Members<ReasonConfig>,
    /// Other wordings, for the routes that name them.
    #[serde(default)]
    pub groups: Members<GroupConfig>,
    /// The protection space in `www-authenticate`.
    pub realm: String,
    /// The URL of the protected-resource metadata (RFC 9728).
    pub resource_metadata: Option<String>,
}

/// How one group of routes words its refusals; what it leaves out is the default's.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// The body of the group's refusals.
    #[cfg_attr(feature = "cli", schemars(with = "Option<crate::policy::schema::Envelope>"))]
    pub envelope: Option<Raw>,
    /// Other bodies, by status.
    #[serde(default)]
    #[cfg_attr(
        feature = "cli",
        schemars(with = "crate::policy::schema::ByStatus<crate::policy::schema::Envelope>")
    )]
    pub envelopes: Members<Raw>,
    /// Public codes, by status.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::ByStatus<String>"))]
    pub codes: Members<String>,
    /// What changes about single reasons.
    #[serde(default)]
    #[cfg_attr(feature = "cli", schemars(with = "crate::policy::schema::Reasons"))]
    pub reasons: Members<ReasonConfig>,
}

/// What the policy changes about one reason.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReasonConfig {
    /// 400 to 599.
    pub status: Option<u16>,
    /// The public code.
    pub code: Option<String>,
    /// The text for people.
    pub message: Option<String>,
}
