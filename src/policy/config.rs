//! The policy document as it is written: plain data, unknown members refused, no logic.
//!
//! The sections are read one by one and the elements of lists one by one, so that one bad element does not hide the
//! next. Meaning and cross-checks are the compiler's.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

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
    "api_keys",
    "vocabulary",
    "routes",
    "unmatched",
    "refusals",
];

/// The members of an object, each name once, in the order of the text.
#[derive(Debug)]
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
    pub scopes: Vec<String>,
    #[serde(default)]
    pub premium_for_api_keys: PremiumConfig,
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
    pub header: String,
    pub scheme: Option<String>,
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

/// One API key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ApiKeyConfig {
    pub id: String,
    pub sha256: String,
    pub team: Option<String>,
    pub user: Option<String>,
    pub scopes: Vec<String>,
    #[serde(default)]
    pub ceiling: CeilingConfig,
    pub expires_at: Option<u64>,
    #[serde(default)]
    pub revoked: bool,
}

/// The bounds of a key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CeilingConfig {
    pub from: Option<Vec<String>>,
    pub to: Option<Vec<String>>,
}

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
    pub feature: Option<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    pub tenant: Option<TenantConfig>,
    #[serde(default)]
    pub read_parent: bool,
    pub bounds: Option<BoundsConfig>,
    pub mint: Option<MintConfig>,
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
                f.write_str("`METHOD /path`, or a list of them")
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

/// The part of a request that names a team.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TenantConfig {
    /// The path parameter of this name.
    Path(String),
}

/// What a call-placing route reads to judge caller and destination.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct BoundsConfig {
    pub from: DirectionConfig,
    pub to: DirectionConfig,
    pub closed: Option<Vec<String>>,
}

/// The members that carry one direction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct DirectionConfig {
    pub members: Vec<String>,
    #[serde(default)]
    pub chosen_by: Vec<String>,
    #[serde(default)]
    pub screen_only: bool,
}

/// A route answered by the gateway with a new token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct MintConfig {
    pub family: String,
    pub request: MintRequestConfig,
    pub reply: ReplyConfig,
}

/// Which member of the mint body asks for what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct MintRequestConfig {
    pub from: Option<ListMemberConfig>,
    pub to: Option<ListMemberConfig>,
    pub scopes: Option<ListMemberConfig>,
    pub ttl: Option<ScalarMemberConfig>,
}

/// A member that holds a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ListMemberConfig {
    pub member: String,
    #[serde(default)]
    pub required: bool,
    pub max: usize,
    #[serde(default)]
    pub empty: EmptyConfig,
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

/// A member that holds one value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the name says it")]
pub struct ScalarMemberConfig {
    pub member: String,
}

/// The answer to a mint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct ReplyConfig {
    pub status: u16,
    #[serde(deserialize_with = "owned_json")]
    pub body: Json<'static>,
}

/// `refusals`: how refusals are worded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each member is documented in docs/policies.md")]
pub struct RefusalsConfig {
    #[serde(deserialize_with = "owned_json")]
    pub envelope: Json<'static>,
    #[serde(default)]
    pub codes: Members<String>,
    #[serde(default)]
    pub reasons: Members<ReasonConfig>,
    pub realm: String,
    pub resource_metadata: Option<String>,
}

/// What the policy changes about one reason.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ReasonConfig {
    pub status: Option<u16>,
    pub code: Option<String>,
    pub message: Option<String>,
}

fn owned_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Json<'static>, D::Error> {
    Ok(Json::deserialize(deserializer)?.into_owned())
}
