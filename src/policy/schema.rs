//! The document's JSON Schema (draft 2020-12), from the types that read it; for editors, never part of the module.
//!
//! Says the shapes: members, types, words. What takes the whole document to know (that a name is defined, what excludes
//! what, limits) is the compiler's. The types here stand in for what [`super::config`] keeps raw until it is known what
//! it is about.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::config::{
    ApiKeyConfig, AskedConfig, AuditConfig, BodyConfig, CredentialsConfig, DirectionConfig, EndpointConfig,
    FamilyConfig, HeldBy, Host, IssuerConfig, KeyConfig, LimitRuleConfig, Members, MetricsConfig,
    NumberConfig, OneOrMany, PlaceConfig, PlatformConfig, Raw, ReasonConfig, RefusalsConfig,
    RevocationConfig, RouteConfig, SecretConfig, SessionsEndedBy, ShownConfig, StoreConfig, TeamConfig,
    UnmatchedConfig, UpstreamKeyConfig, UserConfig, VocabularyConfig,
};
use super::limit::Per;
use super::local::{APP_NAMES, ENDPOINT_NAMES, MINT_NAMES, PAGE_NAMES, STATE_NAMES};
use super::refusal::ENVELOPE_NAMES;
use crate::reason::Reason;

/// The schema of a policy document.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null));
    let settings = settings.with_transform(RecursiveTransform(described));
    settings.into_generator().into_root_schema_for::<Document>().to_value()
}

/// An `Option` is a member that may be absent; one that is there has a value.
fn without_null(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({"type": "null"}));
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let only = std::mem::take(only);
            members.remove("anyOf");
            members.extend(only);
        }
    }
}

/// The one member of a choice means what the choice means.
fn described(schema: &mut Schema) {
    let Some(description) = schema.get("description").cloned() else { return };
    let Some(Value::Object(members)) = schema.get_mut("properties") else { return };
    if let [Value::Object(only)] = members.values_mut().collect::<Vec<_>>().as_mut_slice() {
        only.entry("description").or_insert(description);
    }
}

/// What callbound does at a gateway. Members that are not named here are refused, and so is `null`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "callbound policy", extend("$id" = "urn:callbound:policy:1"))]
#[expect(dead_code, reason = "only its shape is used")]
struct Document {
    /// Any text; not read.
    #[schemars(rename = "$comment")]
    comment: Option<Raw>,
    /// The version of this language: 1.
    #[schemars(extend("const" = 1))]
    version: u64,
    /// The gateway that loads the module.
    host: Host,
    /// Who keeps a request's headers back until its body was judged; only with `host: envoy`; default `callbound`.
    held_by: Option<HeldBy>,
    /// Where the randomness of new tokens begins: a secret of 32 bytes, needed to mint where the host has none of its
    /// own (`host: kong`), refused elsewhere.
    entropy: Option<SecretConfig>,
    /// Whether secrets may stand in the policy itself, where config dumps show them; default false.
    allow_inline_secrets: Option<bool>,
    /// Seconds a request may be held for its body, 1 to 300; default 10.
    hold_seconds: Option<u64>,
    /// Who ends an open connection at its limit: the gateway, where it can (the default), or the upstream, which is told.
    sessions_ended_by: Option<SessionsEndedBy>,
    /// What the whole platform has and allows.
    platform: Option<PlatformConfig>,
    /// How API keys are written and where credentials stand.
    credentials: CredentialsConfig,
    /// The keys that sign and verify the tokens minted here.
    keyring: Option<Vec<KeyConfig>>,
    /// The families of tokens, by name; one with `external` is minted elsewhere.
    tokens: Option<Members<Family>>,
    /// The teams.
    teams: Option<Vec<TeamConfig>>,
    /// The users.
    users: Option<Vec<UserConfig>>,
    /// The directory of endpoints; with it, `endpoint` is a bound.
    endpoints: Option<Vec<EndpointConfig>>,
    /// The API keys.
    api_keys: Option<Vec<ApiKeyConfig>>,
    /// Credentials for the upstream.
    upstream_keys: Option<Vec<UpstreamKeyConfig>>,
    /// Further names this platform has used for callers and destinations; no body or query may hold one unread.
    vocabulary: Option<VocabularyConfig>,
    /// Values that mint replies use as `$constants.NAME`, by name.
    constants: Option<Members<Raw>>,
    /// What may be asked for and what it takes; everything else is `unmatched`.
    #[schemars(length(min = 1))]
    routes: Vec<RouteConfig>,
    /// Where is remembered what must be.
    store: Option<StoreConfig>,
    /// How much is let through.
    limits: Option<Vec<LimitRuleConfig>>,
    /// The platform's own headers that tell of the tightest limit, by name in lower case.
    limit_headers: Option<Members<ShownConfig>>,
    /// What is revoked before its time.
    revocations: Option<Vec<RevocationConfig>>,
    /// Which decisions are logged; default `refusals`, which are refusals and new tokens.
    audit: Option<AuditConfig>,
    /// Whether decisions are counted; default `on`. `off` is for Kong before 3.6, whose requests end with the first count.
    metrics: Option<MetricsConfig>,
    /// What happens to a request no route matches; default `deny`.
    unmatched: Option<UnmatchedConfig>,
    /// How refusals are worded.
    refusals: RefusalsConfig,
}

/// A family of tokens: minted here, or elsewhere.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum Family {
    /// Minted here.
    Own(FamilyConfig),
    /// Minted elsewhere.
    External(IssuerConfig),
}

/// What a key, or any below a team, may do at most; text bounds by name. Absent is unbounded.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used")]
pub(super) struct Ceiling {
    /// The caller IDs, in E.164.
    from: Option<Allowed>,
    /// The destinations, in E.164.
    to: Option<Allowed>,
    /// The longest a session may last, in seconds.
    session: Option<u64>,
    #[schemars(flatten)]
    texts: Members<Allowed>,
}

/// What is judged in the request; text bounds by name, `"any"` where one is not judged.
#[derive(JsonSchema)]
#[schemars(extend("dependentRequired" = {"from": ["to"], "to": ["from"]}))]
#[expect(dead_code, reason = "only its shape is used")]
pub(super) struct RouteBounds {
    /// Where the caller stands; with `to`.
    from: Option<NumberDirection>,
    /// Where the destination stands; with `from`.
    to: Option<NumberDirection>,
    /// The only further members the body may have; absent: any.
    closed: Option<Vec<String>>,
    /// The only further parameters the query may have; absent: any.
    closed_query: Option<Vec<String>>,
    #[schemars(flatten)]
    texts: Members<TextDirection>,
}

/// Where a text stands, or `"any"`: it is not judged here.
struct TextDirection;

/// What a mint body may ask for; text bounds by name.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used")]
pub(super) struct MintRequest {
    /// Whether a request needs a body; default `required`.
    body: Option<BodyConfig>,
    /// The caller IDs of the token: a list.
    from: Option<AskedList>,
    /// The destinations of the token: a list.
    to: Option<AskedList>,
    /// The scopes of the token: a list.
    scopes: Option<AskedList>,
    /// The lifetime of the token, in seconds.
    ttl: Option<AskedTtl>,
    /// The longest a session may last, in seconds.
    session: Option<AskedRange>,
    /// How often the token may be used.
    uses: Option<AskedRange>,
    /// How many seconds all sessions of the token may last together.
    total: Option<AskedRange>,
    /// An object that goes with the token.
    metadata: Option<AskedMetadata>,
    #[schemars(flatten)]
    texts: Members<AskedText>,
}

/// Where in an issuer's claims things stand; text bounds by name.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used")]
pub(super) struct Claims {
    /// The team, by its id.
    team: Option<String>,
    /// The scopes: a list, or one string with blanks.
    scopes: Option<String>,
    /// The caller IDs.
    from: Option<String>,
    /// The destinations.
    to: Option<String>,
    #[schemars(flatten)]
    texts: Members<String>,
}

/// Describes a type that is written in place, where it is used.
macro_rules! in_place {
    ($($type:ty, $name:literal, $generator:ident => $schema:expr;)+) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )+};
}

/// A list that narrows: empty it would allow nothing, which is never meant.
struct Allowed;

/// What a limit counts apart: one word, or several.
pub(super) struct CountedApart;

/// What is said of single reasons, by reason.
pub(super) struct Reasons;

in_place! {
    Raw, "Raw", _generator => true.into();
    OneOrMany, "OneOrMany", _generator => json_schema!({"type": ["string", "array"], "items": {"type": "string"}});
    Allowed, "Allowed", _generator => json_schema!({"type": "array", "items": {"type": "string"}, "minItems": 1});
    CountedApart, "CountedApart", _generator => {
        let word = json!({"enum": Per::ALL.map(Per::as_str)});
        json_schema!({"anyOf": [word, {"type": "array", "items": word, "minItems": 1}]})
    };
    TextDirection, "TextDirection", generator => json_schema!({
        "anyOf": [{"const": "any"}, generator.subschema_for::<DirectionConfig>()]
    });
    Reasons, "Reasons", generator => json_schema!({
        "type": "object",
        "propertyNames": {"enum": Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>()},
        "additionalProperties": generator.subschema_for::<ReasonConfig>()
    });
    NumberConfig, "Number", _generator => json_schema!({
        "type": ["string", "object"],
        "properties": {
            "e164": {"type": "string", "description": "The number, as in `+15551234567`."},
            "active": {"type": "boolean", "description": "Whether it may be a caller ID; default true."}
        },
        "required": ["e164"],
        "additionalProperties": false
    });
    PlaceConfig, "RequestField", _generator => json_schema!({
        "type": ["string", "object"],
        "properties": {
            "path": {"type": "string", "description": "A parameter of the path."},
            "query": {"type": "string", "description": "A parameter of the query."},
            "header": {"type": "string", "description": "A header, in lower case."},
            "body": {"type": "string", "description": "A JSON pointer into the body."}
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false
    });
}

impl<T: JsonSchema> JsonSchema for Members<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Members_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": generator.subschema_for::<T>()})
    }
}

/// Something for each status of a refusal.
pub(super) struct ByStatus<T>(std::marker::PhantomData<T>);

impl<T: JsonSchema> JsonSchema for ByStatus<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ByStatus_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": {"pattern": "^[45][0-9][0-9]$"},
            "additionalProperties": generator.subschema_for::<T>()
        })
    }
}

/// Types that are another one with fewer members: those that would mean nothing are left out.
macro_rules! parts {
    ($($type:ident, $doc:literal, $whole:ty: $members:expr, needs $required:expr;)+) => {$(
        #[doc = $doc]
        struct $type;

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut schema = part(<$whole>::json_schema(generator), &$members, &$required);
                schema.insert("description".into(), $doc.into());
                schema
            }
        }
    )+};
}

parts! {
    NumberDirection, "The places of a phone number.", DirectionConfig:
        ["members", "chosen_by", "screen_only"], needs ["members"];
    AskedList, "A list a mint body asks for.", AskedConfig:
        ["member", "required", "nullable", "max", "empty"], needs ["member", "max"];
    AskedTtl, "The lifetime a mint body asks for.", AskedConfig:
        ["member", "required", "nullable"], needs ["member"];
    AskedRange, "A number a mint body asks for.", AskedConfig:
        ["member", "required", "nullable", "min", "max"], needs ["member"];
    AskedMetadata, "The object a mint body gives along.", AskedConfig:
        ["member", "required", "nullable", "max_bytes"], needs ["member"];
    AskedText, "The text a mint body asks for, a list with `max`; or one that is made here.", AskedConfig:
        ["member", "required", "nullable", "max", "empty", "generate", "capable"], needs [];
}

fn part(mut schema: Schema, members: &[&str], required: &[&str]) -> Schema {
    if let Some(Value::Object(all)) = schema.get_mut("properties") {
        all.retain(|name, _| members.contains(&name.as_str()));
    }
    schema.insert("required".into(), json!(required));
    schema
}

/// Answers as data: a string that begins with `$` is one of these values, anything else stands for itself.
macro_rules! templates {
    ($($type:ident, $doc:literal, $names:expr, $others:expr;)+) => {$(
        #[doc = $doc]
        pub(super) struct $type;

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                template(generator.subschema_for::<Self>(), $doc, $names, $others)
            }
        }
    )+};
}

/// A value that every platform names for itself: of a text bound, or a constant.
const BOUND: &str = "^\\$[A-Za-z0-9_-]+$";
const BOUND_OR_CONSTANT: &str = "^\\$([A-Za-z0-9_-]+|constants\\..+)$";

templates! {
    Envelope, "The body of a refusal.", ENVELOPE_NAMES, None;
    MintReply, "The body of the answer to a mint; `$NAME` of a text bound and `$constants.NAME`, too.",
        MINT_NAMES, Some(BOUND_OR_CONSTANT);
    StateReply, "The body of the answer about a token; `$NAME` of a text bound, too.", STATE_NAMES, Some(BOUND);
    ListedEndpoint, "How one endpoint looks in a listing.", ENDPOINT_NAMES, None;
    ListedApp, "How one application looks in a listing.", APP_NAMES, None;
    PageReply, "The body of the answer to a listing.", PAGE_NAMES, None;
}

fn template(itself: Schema, doc: &str, names: &[&str], others: Option<&str>) -> Schema {
    let names: Vec<String> = names.iter().map(|name| format!("${name}")).collect();
    let value = match others {
        None => json!({"enum": names}),
        Some(pattern) => json!({"anyOf": [{"enum": names}, {"pattern": pattern}]}),
    };
    json_schema!({
        "description": doc,
        "if": {"type": "string", "pattern": "^\\$"},
        "then": value,
        "items": itself,
        "additionalProperties": itself
    })
}
