//! The policy document as it is written: plain data, unknown members refused, no logic.
//!
//! The sections are read one by one and the elements of lists one by one, so that one bad element does not hide the
//! next. Meaning and cross-checks are the compiler's.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::credential::{Algorithm, Jwk};
use crate::json::Json;

/// The sections a document may have.
pub const SECTIONS: &[&str] = &[
    "$comment",
    "version",
    "host",
    "allow_inline_secrets",
    "hold_seconds",
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
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Envoy, Istio, Envoy Gateway.
    Envoy,
}

/// `unmatched`: what happens to a request no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnmatchedConfig {
    /// 404.
    Deny,
    /// On to the upstream.
    Pass,
}

/// `platform`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct PlatformConfig {
    #[serde(default)]
    pub features: Switches,
    #[serde(default)]
    pub requires: Members<Vec<String>>,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub implies: Members<Vec<String>>,
    #[serde(default)]
    pub bounds: Members<TextBoundConfig>,
    #[serde(default)]
    pub premium_for_api_keys: PremiumConfig,
}

/// A text that credentials can be bounded in.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct TextBoundConfig {
    #[serde(default)]
    pub form: FormConfig,
    pub values: Option<Vec<String>>,
    #[serde(default)]
    pub aliases: Members<String>,
}

/// What a value of a text bound looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct CredentialsConfig {
    pub api_keys: Vec<KeyShapeConfig>,
    pub from: Vec<CarrierConfig>,
    #[serde(default)]
    pub forward: bool,
}

/// One shape of API key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct KeyShapeConfig {
    pub prefix: String,
    pub alphabet: AlphabetConfig,
    pub length: LengthConfig,
}

/// The characters after a key's prefix.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum AlphabetConfig {
    Hex,
    Alphanumeric,
    Base64url,
}

/// The number of characters after a key's prefix.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LengthConfig {
    pub min: usize,
    pub max: usize,
}

/// A place where a credential may stand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct CarrierConfig {
    pub header: Option<String>,
    pub scheme: Option<String>,
    pub query: Option<String>,
}

/// One key of the keyring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct KeyConfig {
    pub kid: String,
    pub alg: Algorithm,
    pub secret: Option<SecretConfig>,
    pub jwk: Option<Jwk>,
    #[serde(default)]
    pub sign: bool,
    pub families: Option<Vec<String>>,
}

/// Where a secret comes from. Deliberately without `Debug`: one variant is the secret.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretConfig {
    /// The environment variable that holds it, in unpadded base64url.
    Env(String),
    /// Derived from a master by HKDF with family and kid.
    Derive(MasterConfig),
    /// The secret itself, in unpadded base64url; only with `allow_inline_secrets`.
    Inline(String),
}

/// The master of a derived secret.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum MasterConfig {
    /// The environment variable that holds it, in unpadded base64url.
    Env(String),
    /// The master itself; only with `allow_inline_secrets`.
    Inline(String),
}

/// One token family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct FamilyConfig {
    pub prefix: String,
    #[serde(default)]
    pub bare: bool,
    pub typ: Option<String>,
    pub issuer: String,
    pub audience: Option<String>,
    pub ttl: TtlConfig,
    #[serde(default)]
    pub clock: ClockConfig,
    #[serde(default)]
    pub default_scopes: Vec<String>,
    pub mintable_scopes: Option<Vec<String>>,
}

/// Tokens that somebody else mints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct IssuerConfig {
    pub issuer: String,
    pub audience: String,
    pub ttl: MaxTtlConfig,
    #[serde(default)]
    pub clock: ClockConfig,
    #[serde(default)]
    pub default_scopes: Vec<String>,
    pub external: ExternalConfig,
}

/// The longest lifetime that is believed, in seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the name says it")]
pub struct MaxTtlConfig {
    pub max: u64,
}

/// What an issuer's tokens mean here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ExternalConfig {
    pub key: String,
    pub algorithms: Vec<Algorithm>,
    pub typ: Option<Vec<String>>,
    pub jwks: JwksConfig,
    #[serde(default)]
    pub claims: Members<String>,
    pub scopes: Option<Members<Vec<String>>>,
}

/// Where an issuer's keys come from: `keys` or `url`, not both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct JwksConfig {
    pub keys: Option<Vec<Jwk>>,
    pub url: Option<String>,
    pub cluster: Option<String>,
    pub refresh: Option<u64>,
    pub stale: Option<u64>,
    pub cooldown: Option<u64>,
}

/// Lifetimes in seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct TtlConfig {
    pub min: u64,
    pub max: u64,
    pub default: u64,
}

/// Clock difference in seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ClockConfig {
    pub leeway: u64,
    pub ahead: u64,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { leeway: 0, ahead: 30 }
    }
}

/// One team.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct TeamConfig {
    pub id: String,
    pub kind: TeamKind,
    pub parent: Option<String>,
    #[serde(default)]
    pub numbers: Vec<NumberConfig>,
    #[serde(default)]
    pub features: Switches,
    pub scopes: Option<Vec<String>>,
    #[serde(default)]
    pub ceiling: CeilingConfig,
}

/// What a team is in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeamKind {
    /// The top of a tree.
    Organization,
    /// Below another team.
    SubEntity,
}

/// One user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct UserConfig {
    pub id: String,
    #[serde(default)]
    pub member_of: Vec<String>,
    #[serde(default)]
    pub numbers: Vec<NumberConfig>,
    #[serde(default)]
    pub features: Switches,
    pub scopes: Option<Vec<String>>,
}

/// An owned number: `"+15551234567"`, or an object that can say it is inactive.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct NumberConfig {
    pub e164: String,
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
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct EndpointConfig {
    pub id: String,
    pub name: Option<String>,
    pub app: Option<String>,
    pub team: String,
    #[serde(default)]
    pub features: Switches,
    #[serde(default)]
    pub state: StateConfig,
    pub origins: Option<Vec<String>>,
    pub addresses: Option<Vec<String>>,
}

/// Whether an endpoint takes new sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum StateConfig {
    #[default]
    Active,
    Archived,
}

/// A credential for the upstream. Deliberately without `Debug`: it may hold the secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct UpstreamKeyConfig {
    pub id: String,
    pub secret: MasterConfig,
}

/// One API key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ApiKeyConfig {
    pub id: String,
    pub sha256: Option<String>,
    pub team: Option<String>,
    pub user: Option<String>,
    pub scopes: Vec<String>,
    #[serde(default)]
    pub ceiling: CeilingConfig,
    pub expires_at: Option<u64>,
    #[serde(default)]
    pub revoked: bool,
}

/// The bounds of a key or a team: `from`, `to`, `session`, and text bounds by name.
pub type CeilingConfig = Members<Raw>;

/// `vocabulary`: further names this platform has used for callers and destinations.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct VocabularyConfig {
    #[serde(default)]
    pub from: Vec<String>,
    #[serde(default)]
    pub to: Vec<String>,
}

/// One route, or several that require the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct RouteConfig {
    pub id: String,
    #[serde(rename = "match")]
    pub matches: OneOrMany,
    pub accept: Vec<String>,
    pub credential_from: Option<Vec<CarrierConfig>>,
    pub upgrade: Option<UpgradeConfig>,
    pub feature: Option<OneOrMany>,
    #[serde(default)]
    pub scopes: Vec<String>,
    pub tenant: Option<PlaceConfig>,
    #[serde(default)]
    pub read_parent: bool,
    pub bounds: Option<Members<Raw>>,
    pub session_seconds: Option<u64>,
    #[serde(default)]
    pub identify: Vec<String>,
    pub present: Option<PresentConfig>,
    pub mint: Option<MintConfig>,
    pub introspect: Option<IntrospectConfig>,
    pub directory: Option<ListingConfig>,
    pub jwks: Option<Vec<String>>,
    pub refusals: Option<String>,
}

/// What a connection may be upgraded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the name says it")]
pub enum UpgradeConfig {
    Websocket,
}

/// A credential the upstream gets instead of the client's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct PresentConfig {
    pub key: String,
    pub at: String,
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
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct DirectionConfig {
    pub members: Vec<String>,
    #[serde(default)]
    pub chosen_by: Vec<String>,
    #[serde(default)]
    pub screen_only: bool,
    #[serde(default)]
    pub implied: bool,
    pub capable: Option<String>,
}

/// A route answered by the gateway with a new token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct MintConfig {
    pub family: String,
    /// `body`, and what is asked for by name: `from`, `to`, `scopes`, `ttl`, `session`, `metadata` or a text bound.
    pub request: Members<Raw>,
    pub reply: ReplyConfig,
}

/// What a mint body asks for, and with which member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct AskedConfig {
    pub member: Option<String>,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub nullable: bool,
    pub min: Option<u64>,
    pub max: Option<u64>,
    pub max_bytes: Option<u64>,
    pub empty: Option<EmptyConfig>,
    pub generate: Option<GenerateConfig>,
    pub capable: Option<String>,
}

/// What the gateway makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the name says it")]
pub enum GenerateConfig {
    Uuid,
}

/// Whether a mint request needs a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum BodyConfig {
    Required,
    Optional,
}

/// What an empty list asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ReplyConfig {
    pub status: u16,
    pub body: Raw,
}

/// A route that tells the state of a token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct IntrospectConfig {
    pub families: Vec<String>,
    pub member: String,
    pub reply: Raw,
}

/// A route that lists what the directory holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ListingConfig {
    pub of: ListedConfig,
    pub page: Option<String>,
    pub limit: Option<LimitConfig>,
    pub endpoint: Raw,
    pub app: Option<Raw>,
    pub reply: Raw,
}

/// What a listing lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ListedConfig {
    Endpoints,
    Apps,
}

/// The size of a page.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct LimitConfig {
    pub at: Option<String>,
    pub default: u64,
    pub max: u64,
}

/// `refusals`: how refusals are worded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct RefusalsConfig {
    pub envelope: Raw,
    #[serde(default)]
    pub envelopes: Members<Raw>,
    #[serde(default)]
    pub codes: Members<String>,
    #[serde(default)]
    pub reasons: Members<ReasonConfig>,
    #[serde(default)]
    pub groups: Members<GroupConfig>,
    pub realm: String,
    pub resource_metadata: Option<String>,
}

/// How one group of routes words its refusals; what it leaves out is the default's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct GroupConfig {
    pub envelope: Option<Raw>,
    #[serde(default)]
    pub envelopes: Members<Raw>,
    #[serde(default)]
    pub codes: Members<String>,
    #[serde(default)]
    pub reasons: Members<ReasonConfig>,
}

/// What the policy changes about one reason.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ReasonConfig {
    pub status: Option<u16>,
    pub code: Option<String>,
    pub message: Option<String>,
}
