//! Policies that are wrong: every one is refused with the exact place and words, and never with a secret.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::fs;
use std::path::Path;

use callbound::policy::{Secrets, compile};
use serde_json::{Value, json};

const MASTER: &str = "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_";
const DIGEST: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A small policy with one of everything.
fn good() -> Value {
    json!({
        "version": 1,
        "host": "envoy",
        "platform": {"features": {"webrtc": true}, "scopes": ["tokens:mint", "calls:write", "calls:read"]},
        "credentials": {
            "api_keys": [{"prefix": "demo_", "alphabet": "hex", "length": {"min": 32, "max": 32}}],
            "from": [{"header": "authorization", "scheme": "Bearer"}]
        },
        "keyring": [{"kid": "1", "alg": "HS256", "secret": {"derive": {"env": "MASTER"}}, "sign": true}],
        "tokens": {"ct": {
            "prefix": "ct_", "issuer": "demo", "ttl": {"min": 60, "max": 3600, "default": 900},
            "default_scopes": ["calls:write"]
        }},
        "teams": [
            {"id": "acme", "kind": "organization", "numbers": ["+15551234567"]},
            {"id": "west", "kind": "sub_entity", "parent": "acme"}
        ],
        "users": [{"id": "u1", "member_of": ["west"], "numbers": ["+15551230000"]}],
        "api_keys": [
            {"id": "backend", "sha256": DIGEST, "team": "acme", "scopes": ["tokens:mint", "calls:write"]}
        ],
        "routes": [
            {"id": "mint", "match": "POST /v1/tokens", "accept": ["api_key"], "scopes": ["tokens:mint"], "mint": {
                "family": "ct",
                "request": {"from": {"member": "from_numbers", "max": 50}, "ttl": {"member": "ttl"}},
                "reply": {"status": 200, "body": {"token": "$token"}}
            }},
            {"id": "dial", "match": "POST /v1/calls", "accept": ["api_key", "ct"], "scopes": ["calls:write"],
             "bounds": {"from": {"members": ["/from_number"]}, "to": {"members": ["/to_number"]}}},
            {"id": "team", "match": "GET /v1/teams/{team}", "accept": ["api_key"], "scopes": ["calls:read"],
             "tenant": {"path": "team"}}
        ],
        "refusals": {"realm": "demo", "envelope": {"error": {"code": "$code"}}}
    })
}

/// Everything that is wrong with a text, one `path: message` each.
fn problems_of(text: &str) -> Vec<String> {
    let lookup = |name: &str| match name {
        "MASTER" => Some(MASTER.to_owned()),
        "SHORT" => Some("c2hvcnQ".to_owned()),
        "EMPTY" => Some(String::new()),
        "WORDS" => Some("cGFzc3dvcmQtcGFzc3dvcmQtcGFzc3dvcmQtcGFzc3dvcmQ".to_owned()),
        "PADDED" => Some(format!("{MASTER}=")),
        _ => None,
    };
    match compile(text.as_bytes(), &Secrets::Lookup(&lookup)) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

/// Sets a member, named by its JSON pointer, to something else.
fn set(policy: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = policy.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}: no such place"));
    match parent {
        Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value,
        parent => parent[name] = value,
    }
}

fn without(pointer: &str) -> Vec<String> {
    let mut policy = good();
    let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = policy.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.expect("an object").remove(name).expect("a member");
    problems_of(&policy.to_string())
}

#[test]
fn the_good_policy_is_good() {
    assert_eq!(problems_of(&good().to_string()), Vec::<String>::new());
}

/// A member, what it is set to, and one of the problems that must be named.
const WRONG: &[(&str, &str, &str)] = &[
    ("/version", "2", "version: expected 1"),
    ("/version", r#""1""#, "version: expected u64, found a string"),
    ("/version", "null", "version: expected u64, found null"),
    ("/host", r#""nginx""#, "host: expected one of `envoy`, `kong`, `apisix`"),
    ("/host", "null", "host: expected one of `envoy`, `kong`, `apisix`"),
    ("/held_by", r#""nobody""#, "held_by: expected one of `callbound`, `buffer_filter`"),
    ("/held_by", "null", "held_by: expected one of `callbound`, `buffer_filter`"),
    ("/sessions_ended_by", r#""client""#, "sessions_ended_by: expected one of `gateway`, `upstream`"),
    ("/colour", r#""red""#, "colour: no such section"),
    ("/hold_seconds", "0", "hold_seconds: expected 1 to 300 seconds"),
    ("/hold_seconds", "-1", "hold_seconds: expected u64, found a number"),
    ("/hold_seconds", "301", "hold_seconds: expected 1 to 300 seconds"),
    ("/unmatched", r#""allow""#, "unmatched: expected one of `deny`, `pass`"),
    ("/unmatched", "null", "unmatched: expected one of `deny`, `pass`"),
    (
        "/platform/colour",
        "1",
        "platform: unknown field `colour`, expected one of `features`, `requires`, `scopes`, `implies`, `bounds`, `premium_for_api_keys`",
    ),
    (
        "/platform/features",
        r#"{"web rtc": true}"#,
        "platform.features.web rtc: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`",
    ),
    ("/platform/features/webrtc", r#""yes""#, "platform.features.webrtc: expected a boolean, found a string"),
    ("/platform/features/webrtc", "null", "platform.features.webrtc: expected a boolean, found null"),
    (
        "/platform/scopes/0",
        r#""calls write""#,
        r#"platform.scopes[0]: a scope is 1 to 64 visible characters without `" \ , *`"#,
    ),
    ("/platform/scopes/0", "7", "platform.scopes[0]: expected a string, found a number"),
    (
        "/platform/premium_for_api_keys",
        r#""maybe""#,
        "platform.premium_for_api_keys: expected one of `allow`, `deny`",
    ),
    (
        "/credentials/api_keys/0/prefix",
        r#""d""#,
        "credentials.api_keys[0].prefix: a prefix is 3 to 32 of `A-Z a-z 0-9 - _`",
    ),
    ("/credentials/api_keys/0/prefix", r#""ct_x""#, "credentials: the prefixes `ct_x` and `ct_` begin alike"),
    (
        "/credentials/api_keys/0/prefix",
        r#""ct""#,
        "credentials.api_keys[0].prefix: a prefix is 3 to 32 of `A-Z a-z 0-9 - _`",
    ),
    (
        "/credentials/api_keys/0/length",
        r#"{"min": 8, "max": 32}"#,
        "credentials.api_keys[0].length: expected 16 <= min <= max <= 512 characters",
    ),
    (
        "/credentials/api_keys/0/alphabet",
        r#""any""#,
        "credentials.api_keys[0].alphabet: expected one of `hex`, `alphanumeric`, `base64url`",
    ),
    ("/credentials/from", "[]", "credentials.from: name at least one header"),
    (
        "/credentials/from/0/header",
        r#""Authorization""#,
        "credentials.from[0].header: expected a header name in lower case",
    ),
    (
        "/credentials/from/0/header",
        r#""x-callbound-key""#,
        "credentials.from[0].header: this header cannot carry a credential",
    ),
    (
        "/credentials/from/0/header",
        r#""cookie""#,
        "credentials.from[0].header: this header cannot carry a credential",
    ),
    (
        "/credentials/from/0/scheme",
        r#""Bear er""#,
        "credentials.from[0].scheme: expected one word, as in `Bearer`",
    ),
    ("/credentials/from/0/scheme", "null", "credentials.from[0].scheme: expected a string, found null"),
    ("/credentials/forward", r#""no""#, "credentials.forward: expected a boolean, found a string"),
    ("/keyring", r#""hunter2-the-secret""#, "keyring: expected an array"),
    (
        "/keyring/0/secret",
        r#""hunter2-the-secret""#,
        "keyring[0].secret: expected one of `env`, `derive`, `inline`",
    ),
    (
        "/keyring/0/secret",
        r#"{"hunter2-the-secret": 1}"#,
        "keyring[0].secret: expected one of `env`, `derive`, `inline`",
    ),
    (
        "/keyring/0/secret",
        r#"{"inline": "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_"}"#,
        r#"keyring[0].secret: a secret in the policy needs `allow_inline_secrets: true`; better `{"env": NAME}`"#,
    ),
    (
        "/keyring/0/secret",
        r#"{"derive": {"inline": "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_"}}"#,
        r#"keyring[0].secret: a secret in the policy needs `allow_inline_secrets: true`; better `{"env": NAME}`"#,
    ),
    (
        "/keyring/0/secret",
        r#"{"derive": "hunter2-the-secret"}"#,
        "keyring[0].secret.derive: expected one of `env`, `inline`",
    ),
    (
        "/keyring/0/secret",
        r#"{"env": ["hunter2-the-secret"]}"#,
        "keyring[0].secret.env: expected a string, found an array",
    ),
    (
        "/keyring/0/secret",
        r#"{"env": "SHORT"}"#,
        "keyring[0]: the secret is shorter than 32 bytes; make one with `callbound gen-secret`",
    ),
    (
        "/keyring/0/secret",
        r#"{"env": "WORDS"}"#,
        "keyring[0]: the secret is guessable; make one with `callbound gen-secret`",
    ),
    (
        "/keyring/0/secret",
        r#"{"env": "PADDED"}"#,
        "keyring[0]: `PADDED`: the key is not unpadded base64url; make one with `callbound gen-secret`",
    ),
    (
        "/keyring/0/secret",
        r#"{"env": "NOT_SET"}"#,
        "keyring[0]: the environment variable `NOT_SET` is not set; make a secret with `callbound gen-secret`",
    ),
    ("/keyring/0/secret", "null", "keyring[0].secret: expected one of `env`, `derive`, `inline`"),
    ("/keyring/0/alg", r#""HS512""#, "keyring[0].alg: expected one of `HS256`, `EdDSA`, `ES256`, `RS256`"),
    ("/keyring/0/alg", r#""none""#, "keyring[0].alg: expected one of `HS256`, `EdDSA`, `ES256`, `RS256`"),
    ("/keyring/0/alg", r#""RS256""#, "keyring[0]: RS256 is verified only; give a public `jwk` and no secret"),
    ("/keyring/0/families", r#"["nope"]"#, "keyring[0].families[0]: `nope` is not one of tokens"),
    ("/keyring/0/jwk", r#"{"kty": "OKP"}"#, "keyring[0]: expected one of `secret` and `jwk`"),
    ("/keyring/0/kid", r#""a b""#, "keyring[0].kid: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    ("/keyring/0/kid", r#""""#, "keyring[0].kid: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    (
        "/tokens/api_key",
        r#"{"prefix": "x_y_", "issuer": "demo", "ttl": {"min": 60, "max": 3600, "default": 900}}"#,
        "tokens.api_key: this name has a meaning of its own in `accept`",
    ),
    ("/tokens/ct", r#""hunter2-the-secret""#, "tokens.ct: expected an object, found a string"),
    ("/tokens", r#""hunter2-the-secret""#, "tokens: expected an object of families"),
    ("/tokens/ct/prefix", r#""demo_""#, "credentials: the prefixes `demo_` and `demo_` begin alike"),
    ("/tokens/ct/prefix", r#""de mo""#, "tokens.ct.prefix: a prefix is 3 to 32 of `A-Z a-z 0-9 - _`"),
    ("/tokens/ct/issuer", r#""""#, "tokens.ct: `issuer` and `audience` cannot be empty"),
    (
        "/tokens/ct/ttl",
        r#"{"min": 0, "max": 3600, "default": 900}"#,
        "tokens.ct.ttl: expected 1 <= min <= default <= max <= 86400 seconds",
    ),
    (
        "/tokens/ct/ttl",
        r#"{"min": 60, "max": 3600, "default": 30}"#,
        "tokens.ct.ttl: expected 1 <= min <= default <= max <= 86400 seconds",
    ),
    (
        "/tokens/ct/ttl",
        r#"{"min": 60, "max": 90000, "default": 900}"#,
        "tokens.ct.ttl: expected 1 <= min <= default <= max <= 86400 seconds",
    ),
    (
        "/tokens/ct/ttl",
        r#"{"min": 60, "max": 3600.5, "default": 900}"#,
        "tokens.ct.ttl.max: expected u64, found a number",
    ),
    ("/tokens/ct/clock", r#"{"leeway": 6}"#, "tokens.ct.clock.leeway: expected at most 5 seconds"),
    ("/tokens/ct/clock", r#"{"ahead": 61}"#, "tokens.ct.clock.ahead: expected at most 60 seconds"),
    (
        "/tokens/ct/mintable_scopes",
        "[]",
        "tokens.ct.mintable_scopes: an empty list allows no token; leave it out to allow any held",
    ),
    (
        "/tokens/ct/default_scopes",
        r#"["nope"]"#,
        "tokens.ct.default_scopes[0]: `nope` is not one of platform.scopes",
    ),
    ("/teams/0/kind", r#""company""#, "teams[0].kind: expected one of `organization`, `sub_entity`"),
    (
        "/teams/0/numbers",
        r#"["5551234567"]"#,
        "teams[0].numbers[0]: not a number in E.164, as in `+15551234567`",
    ),
    (
        "/teams/0/numbers",
        r#"["+15551234567", "+15551234567"]"#,
        "teams[0].numbers[1]: this number is owned already",
    ),
    (
        "/teams/0/numbers",
        r#"[{"e164": "+15551234567", "activ": false}]"#,
        "teams[0].numbers[0]: unknown field `activ`, expected `e164` or `active`",
    ),
    ("/teams/0/numbers", r#"["911"]"#, "teams[0].numbers[0]: not a number in E.164, as in `+15551234567`"),
    ("/teams/0/features", r#"{"sms": true}"#, "teams[0].features.sms: not one of platform.features"),
    ("/teams/0/scopes", r#"["nope"]"#, "teams[0].scopes[0]: `nope` is not one of platform.scopes"),
    ("/teams/0/parent", r#""west""#, "teams[0].parent: a team cannot stand below itself"),
    ("/teams/0/parent", r#""acme""#, "teams[0].parent: a team cannot stand below itself"),
    ("/teams/1/parent", r#""nope""#, "teams[1].parent: `nope` is not one of teams"),
    ("/teams/1/parent", "null", "teams[1].parent: expected a string, found null"),
    ("/teams/1/id", r#""acme""#, "teams[1].id: `acme` stands among the teams already"),
    ("/users/0/member_of", r#"["nope"]"#, "users[0].member_of[0]: `nope` is not one of teams"),
    ("/users/0/numbers", r#"["+15551234567"]"#, "users[0].numbers[0]: this number is owned already"),
    (
        "/api_keys/0/sha256",
        r#""hunter2""#,
        "api_keys[0].sha256: expected the 64 lower-case hex digits of `callbound hash-key`, never the key itself",
    ),
    ("/api_keys/0/scopes", r#"["nope"]"#, "api_keys[0].scopes[0]: `nope` is not one of platform.scopes"),
    ("/api_keys/0/team", r#""nope""#, "api_keys[0].team: `nope` is not one of teams"),
    ("/api_keys/0/user", r#""u1""#, "api_keys[0]: a key belongs to exactly one `team` or `user`"),
    (
        "/api_keys/0/ceiling",
        r#"{"to": []}"#,
        "api_keys[0].ceiling.to: an empty list allows nothing; leave it out to allow whatever the next wider level does",
    ),
    (
        "/api_keys/0/ceiling",
        r#"{"from": []}"#,
        "api_keys[0].ceiling.from: an empty list allows nothing; leave it out to allow whatever the next wider level does",
    ),
    ("/api_keys/0/ceiling", r#"{"to": null}"#, "api_keys[0].ceiling.to: expected a sequence, found null"),
    (
        "/api_keys/0/ceiling",
        r#"{"to": ["+1911"]}"#,
        "api_keys[0].ceiling.to[0]: an emergency number can never be allowed",
    ),
    (
        "/api_keys/0/ceiling",
        r#"{"to": ["+1555 123"]}"#,
        "api_keys[0].ceiling.to[0]: not a number in E.164, as in `+15551234567`",
    ),
    (
        "/api_keys/0/ceiling",
        r#"{"too": ["+15551234567"]}"#,
        "api_keys[0].ceiling.too: neither `from`, `to` nor `session`, and not one of platform.bounds",
    ),
    ("/api_keys/0/expires_at", r#""tomorrow""#, "api_keys[0].expires_at: expected u64, found a string"),
    ("/api_keys/0/revoked", "null", "api_keys[0].revoked: expected a boolean, found null"),
    ("/routes", "[]", "routes: there are none, so nothing would be let through"),
    ("/routes/1/id", r#""mint""#, "routes[1].id: `mint` stands among the routes already"),
    (
        "/routes/1/accept",
        "[]",
        r#"routes[1].accept: an empty list lets nobody in; for everybody say `["public"]`"#,
    ),
    (
        "/routes/1/accept",
        r#"["token"]"#,
        "routes[1].accept[0]: `token` is neither `api_key`, nor one of tokens, nor `public` alone",
    ),
    (
        "/routes/1/accept",
        r#"["public"]"#,
        "routes[1].accept: a public route verifies nobody, so it can require nothing",
    ),
    (
        "/routes/1/accept",
        r#"["public", "api_key"]"#,
        "routes[1].accept[0]: `public` is neither `api_key`, nor one of tokens, nor `public` alone",
    ),
    (
        "/routes/1/match",
        r#""POST /v1/tokens""#,
        "routes[1].match: `POST /v1/tokens` stands under a route already",
    ),
    (
        "/routes/1/match",
        r#""POST v1""#,
        "routes[1].match[0]: expected `METHOD /path`, as in `GET /v1/calls/{id}`",
    ),
    (
        "/routes/1/match",
        r#""post /v1/calls""#,
        "routes[1].match[0]: expected `METHOD /path`, as in `GET /v1/calls/{id}`",
    ),
    ("/routes/1/match", "[]", "routes[1].match: expected at least one `METHOD /path`"),
    (
        "/routes/1/match",
        r#""POST /v1//calls""#,
        "routes[1].match[0]: expected `METHOD /path`, as in `GET /v1/calls/{id}`",
    ),
    (
        "/routes/1/match",
        r#""POST /v1/{*rest}/x""#,
        "routes[1].match: `/v1/{*rest}/x`: Catch-all parameters are only allowed at the end of a route",
    ),
    (
        "/routes/1/match",
        r#""POST /v1/{open""#,
        "routes[1].match: `/v1/{open`: Parameters must be registered with a valid name",
    ),
    (
        "/routes/1/match",
        r#"["POST /v1/{*rest}", "POST /v1/{*other}"]"#,
        "routes[1].match: `/v1/{*rest}`: Insertion failed due to conflict with previously registered route: /v1/{*other}",
    ),
    ("/routes/1/scopes", r#"["nope"]"#, "routes[1].scopes[0]: `nope` is not one of platform.scopes"),
    ("/routes/1/feature", "null", "routes[1].feature: expected a string, or a list of them, found null"),
    (
        "/routes/1/read_parent",
        "true",
        "routes[1].read_parent: only reads may see what belongs to the team above",
    ),
    ("/routes/1/bounds/from", "null", "routes[1].bounds.from: expected an object, found null"),
    (
        "/routes/1/bounds/to/members",
        r#"["to_number"]"#,
        "routes[1].bounds.to.members[0]: `to_number` is not a JSON pointer, as in `/from_number`",
    ),
    (
        "/routes/1/bounds/from/chosen_by",
        r#"["number_set_id"]"#,
        "routes[1].bounds.from.chosen_by[0]: `number_set_id` is not a JSON pointer, as in `/from_number`",
    ),
    (
        "/routes/2/tenant",
        r#"{"path": "other"}"#,
        "routes[2].tenant: every `match` needs the parameter `{other}`",
    ),
    (
        "/routes/2/tenant",
        r#"{"body": "x"}"#,
        "routes[2].tenant: `x` is not a JSON pointer, as in `/from_number`",
    ),
    (
        "/routes/0/accept",
        r#"["api_key", "ct"]"#,
        r#"routes[0].mint: only API keys may mint: `accept` must be `["api_key"]`"#,
    ),
    (
        "/routes/0/mint/family",
        r#""nope""#,
        "routes[0].mint.family: `nope` is not one of the families of tokens minted here",
    ),
    (
        "/routes/0/mint/reply/status",
        "302",
        "routes[0].mint.reply.status: expected a status from 200 to 299 that has a body",
    ),
    (
        "/routes/0/mint/reply/body",
        r#"{"token": "$tokn"}"#,
        "routes[0].mint.reply.body: `$tokn` is no value of this answer; there are `$token`, `$jwt`, `$ttl`, `$expires_at`, `$expires_at_iso`, `$issued_at`, `$issued_at_iso`, `$from`, `$to`, `$scopes`, `$session`, `$total`, `$uses`, `$metadata`, `$token_id`, `$key_id`",
    ),
    ("/routes/0/mint/request/from/max", "0", "routes[0].mint.request.from.max: expected 1 to 1000 entries"),
    (
        "/routes/0/bounds",
        r#"{"from": {"members": []}, "to": {"members": []}}"#,
        "routes[0]: a route either mints or places a call",
    ),
    ("/refusals/realm", r#""a\"b""#, "refusals.realm: expected visible ASCII without quotes"),
    (
        "/refusals/envelope",
        r#""$nope""#,
        "refusals.envelope: `$nope` is no value of this answer; there are `$code`, `$message`, `$fields`, `$field`, `$loc`, `$request_id`",
    ),
    ("/refusals/codes", r#"{"200": "x"}"#, "refusals.codes.200: expected a status from 400 to 599"),
    (
        "/refusals/reasons",
        r#"{"nope": {}}"#,
        "refusals.reasons.nope: no such reason; `callbound reasons` lists them",
    ),
    (
        "/refusals/reasons",
        r#"{"to_denied": {"status": 200}}"#,
        "refusals.reasons.to_denied.status: expected a status from 400 to 599",
    ),
    ("/refusals/resource_metadata", r#""a b""#, "refusals.resource_metadata: expected a URL"),
];

#[test]
fn one_wrong_member_is_named_with_its_path() {
    assert_named(good, WRONG);
}

/// Sets one member of a policy after the other; each must be named as the table says.
fn assert_named(policy: fn() -> Value, table: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (pointer, value, expected) in table {
        let mut policy = policy();
        set(&mut policy, pointer, serde_json::from_str(value).expect("JSON"));
        let problems = problems_of(&policy.to_string());
        if !problems.iter().any(|problem| problem == expected) {
            wrong.push(format!("{pointer} = {value}\n  expected {expected}\n  got      {problems:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn a_feature_the_platform_does_not_have_is_off_with_a_warning() {
    let mut policy = good();
    set(&mut policy, "/routes/1/feature", json!("nope"));
    let compiled = compile(policy.to_string().as_bytes(), &Secrets::Unchecked).expect("it compiles");
    assert!(!compiled.platform.has_feature("nope"));
    assert!(compiled.warnings.iter().any(|warning| warning.contains("`nope`")), "{:?}", compiled.warnings);
}

#[test]
fn a_missing_member_is_named() {
    let table = [
        ("/version", "version: expected 1"),
        ("/host", "host: missing; name the gateway: `envoy`, `kong` or `apisix`"),
        ("/credentials", "credentials: missing; say how API keys are written and where credentials stand"),
        ("/refusals", "refusals: missing; say at least `realm` and `envelope`"),
        ("/routes", "routes: there are none, so nothing would be let through"),
        ("/routes/1/accept", "routes[1]: missing field `accept`"),
        ("/routes/1/match", "routes[1]: missing field `match`"),
        ("/routes/1/id", "routes[1]: missing field `id`"),
        (
            "/routes/1/bounds/to",
            "routes[1].bounds: missing `to`: a call has a caller and a destination (`\"members\": []` where it cannot be read)",
        ),
        ("/api_keys/0/team", "api_keys[0]: a key belongs to exactly one `team` or `user`"),
        ("/api_keys/0/scopes", "api_keys[0]: missing field `scopes`"),
        ("/keyring/0/secret", "keyring[0]: expected one of `secret` and `jwk`"),
        (
            "/keyring/0/sign",
            "routes[0].mint.family: no key of the keyring with `sign: true` is for this family",
        ),
        ("/teams/1/parent", "teams[1].parent: missing; a sub-entity stands below a team"),
        ("/tokens/ct/issuer", "tokens.ct: missing field `issuer`"),
        ("/tokens/ct/ttl/max", "tokens.ct.ttl: missing field `max`"),
    ];
    for (pointer, expected) in table {
        let problems = without(pointer);
        assert!(problems.iter().any(|problem| problem == expected), "{pointer}: {problems:#?}");
    }
}

/// What only text can say: a `Value` has already dropped the duplicate.
#[test]
fn a_member_that_stands_twice_is_refused() {
    let table = [
        (r#""version":1"#, r#""version":1,"version":1"#),
        (r#""host":"envoy""#, r#""host":"envoy","host":"envoy""#),
        (r#""id":"dial""#, r#""id":"dial","id":"dial""#),
        (r#""id":"dial""#, r#""id":"dial","\u0069d":"dial""#),
        (r#""kid":"1""#, r#""kid":"1","kid":"2""#),
        (r#""webrtc":true"#, r#""webrtc":true,"webrtc":false"#),
        (r#""tokens":{"#, r#""tokens":{"ct":{},"#),
        (r#""code":"$code""#, r#""code":"$code","code":"x""#),
    ];
    for (once, twice) in table {
        let text = good().to_string();
        assert!(text.contains(once), "{once} is not in {text}");
        let problems = problems_of(&text.replacen(once, twice, 1));
        assert!(problems.concat().contains("stands twice"), "{twice}: {problems:#?}");
    }
}

#[test]
fn a_second_thing_of_the_same_name_is_refused() {
    let table = [
        ("routes", 1, "/id", "dial2", "routes[3].match: `POST /v1/calls` stands under a route already"),
        ("routes", 1, "/match", "POST /v1/other", "routes[3].id: `dial` stands among the routes already"),
        ("teams", 0, "/parent", "acme", "teams[2].id: `acme` stands among the teams already"),
        ("users", 0, "/id", "u1", "users[1].id: `u1` stands among the users already"),
        ("api_keys", 0, "/id", "backend", "api_keys[1].id: `backend` stands among the keys already"),
        ("api_keys", 0, "/id", "other", "api_keys[1].sha256: this key stands among the keys already"),
        ("keyring", 0, "/kid", "1", "keyring[1].kid: `1` stands in the keyring already"),
        ("keyring", 0, "/kid", "2", "tokens.ct: more than one key of the keyring has `sign: true`"),
    ];
    for (list, index, pointer, value, expected) in table {
        let mut policy = good();
        let mut copy = policy[list][index].clone();
        set(&mut copy, pointer, json!(value));
        policy[list].as_array_mut().expect("a list").push(copy);
        let problems = problems_of(&policy.to_string());
        assert!(problems.iter().any(|problem| problem == expected), "{list} {value}: {problems:#?}");
    }
}

#[test]
fn a_longer_cycle_of_teams_is_found() {
    let mut policy = good();
    policy["teams"] = json!([
        {"id": "a", "kind": "sub_entity", "parent": "b"},
        {"id": "b", "kind": "sub_entity", "parent": "c"},
        {"id": "c", "kind": "sub_entity", "parent": "a"},
        {"id": "below", "kind": "sub_entity", "parent": "a"}
    ]);
    let problems = problems_of(&policy.to_string());
    for index in 0..3 {
        let expected = format!("teams[{index}].parent: a team cannot stand below itself");
        assert!(problems.contains(&expected), "{problems:#?}");
    }
}

#[test]
fn all_errors_are_named_at_once() {
    let mut policy = good();
    set(&mut policy, "/hold_seconds", json!(0));
    set(&mut policy, "/tokens/ct/clock", json!({"leeway": 9}));
    set(&mut policy, "/teams/1/parent", json!("nope"));
    set(&mut policy, "/api_keys/0/sha256", json!("nope"));
    set(&mut policy, "/routes/0/mint/reply/status", json!(500));
    set(&mut policy, "/routes/1/accept", json!([]));
    set(&mut policy, "/refusals/realm", json!(""));
    let problems = problems_of(&policy.to_string());
    let places = [
        "hold_seconds",
        "tokens.ct.clock.leeway",
        "teams[1].parent",
        "api_keys[0].sha256",
        "routes[0].mint.reply.status",
        "routes[1].accept",
        "refusals.realm",
    ];
    for place in places {
        let count = problems.iter().filter(|problem| problem.starts_with(&format!("{place}: "))).count();
        assert_eq!(count, 1, "{place}: {problems:#?}");
    }
    assert_eq!(problems.len(), places.len(), "{problems:#?}");
}

#[test]
fn what_is_no_json_is_placed_and_not_quoted() {
    for text in [
        "",
        "hunter2",
        "{",
        "[]",
        "null",
        "\"hunter2\"",
        "{\"version\": hunter2}",
        "{} hunter2",
        "\u{feff}{}",
    ] {
        let problems = problems_of(text);
        assert!(!problems.is_empty(), "{text:?} is taken");
        assert!(!problems.concat().contains("hunter2"), "{text:?}: {problems:?}");
    }
}

/// Wherever somebody puts a secret by mistake, no error repeats it.
#[test]
fn a_secret_is_never_echoed() {
    const SECRET: &str = "aHVudGVyMi1odW50ZXIyLWh1bnRlcjItaHVudGVyMg";
    let values = [
        json!(SECRET),
        json!([SECRET]),
        json!({"env": SECRET}),
        json!({"inline": SECRET}),
        json!({"derive": SECRET}),
        json!({"derive": {"inline": SECRET}}),
        json!({"secret": SECRET}),
    ];
    let places = [
        "/keyring",
        "/keyring/0",
        "/keyring/0/secret",
        "/keyring/0/jwk",
        "/keyring/0/alg",
        "/keyring/0/sign",
        "/keyring/0/kid",
        "/keyring/0/families",
        "/tokens",
        "/tokens/ct",
        "/tokens/ct/ttl",
        "/allow_inline_secrets",
        "/version",
        "/host",
        "/platform",
        "/credentials",
        "/credentials/api_keys/0/length",
        "/teams",
        "/users",
        "/api_keys",
        "/api_keys/0",
        "/api_keys/0/sha256",
        "/api_keys/0/ceiling",
        "/routes",
        "/routes/1/bounds",
        "/unmatched",
        "/refusals",
        "/hold_seconds",
    ];
    let remembered = [
        "/store",
        "/store/home",
        "/store/secret",
        "/store/redis",
        "/store/redis/url",
        "/store/redis/cluster",
        "/store/redis/prefix",
        "/store/directory",
        "/audit",
        "/limits",
        "/limits/0/id",
        "/limits/0/per",
        "/limits/2/routes",
        "/limits/4/credentials",
        "/limit_headers",
        "/limit_headers/x-ratelimit-limit",
        "/revocations",
        "/revocations/0/key",
        "/revocations/1",
        "/revocations/1/token",
        "/revocations/3/tokens_of_team",
        "/tokens/ct/uses",
        "/routes/6/uses",
        "/routes/5/revoke",
        "/teams/0/limits",
        "/api_keys/0/limits",
    ];
    let all = places.map(|place| (good as fn() -> Value, place)).into_iter();
    let all = all.chain(remembered.map(|place| (remembering as fn() -> Value, place)));
    let mut echoed = Vec::new();
    for (policy, place) in all {
        for value in &values {
            // The names of things and of variables are meant to be repeated.
            let is_name = ["/keyring/0/kid", "/keyring/0/families"].contains(&place)
                || (place == "/keyring/0/secret" && value["env"] == SECRET);
            let mut policy = policy();
            set(&mut policy, place, value.clone());
            let problems = problems_of(&policy.to_string());
            if !is_name && problems.concat().contains(SECRET) {
                echoed.push(format!("{place} = {value}: {problems:?}"));
            }
        }
    }
    assert!(echoed.is_empty(), "{}", echoed.join("\n"));
}

#[test]
fn a_secret_in_the_policy_needs_leave_and_warns() {
    let mut policy = good();
    policy["allow_inline_secrets"] = json!(true);
    policy["keyring"][0]["secret"] = json!({"inline": MASTER});
    let compiled = compile(policy.to_string().as_bytes(), &Secrets::Unchecked);
    let warnings = compiled.map(|policy| policy.warnings).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.iter().any(|warning| warning.starts_with("keyring: a secret stands in the policy")));
    assert!(!warnings.concat().contains(MASTER));
}

#[test]
fn secrets_are_only_needed_when_they_are_asked_for() {
    let mut policy = good();
    policy["keyring"][0]["secret"] = json!({"env": "NOT_SET"});
    assert!(compile(policy.to_string().as_bytes(), &Secrets::Unchecked).is_ok());
    assert!(!problems_of(&policy.to_string()).is_empty());
}

#[test]
fn every_shipped_policy_compiles_and_holds_no_credential() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shipped = 0;
    for entry in fs::read_dir(root.join("policies")).expect("policies") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a readable policy");
        if let Err(error) = compile(text.as_bytes(), &Secrets::Unchecked) {
            panic!("{}:\n  {}", path.display(), error.to_string().replace("; ", "\n  "));
        }
        assert!(!text.contains("\"inline\""), "{}: a secret", path.display());
        shipped += 1;
    }
    assert!(shipped > 0, "there are none");
}

/// A policy with what only some platforms have: text bounds, endpoints, sockets, issuers, answers of the gateway's own.
fn rich() -> Value {
    let mut policy = good();
    let more = json!({
        "platform": {
            "features": {"webrtc": true, "api": true}, "requires": {"webrtc": ["api"]},
            "scopes": ["tokens:mint", "calls:write", "calls:read", "admin"], "implies": {"admin": ["calls:read"]},
            "bounds": {
                "model": {"values": ["m-1", "m-2"], "aliases": {"latest": "m-2"}},
                "origin": {"form": "origin"}, "session_id": {}
            }
        },
        "keyring": [{"kid": "1", "alg": "EdDSA", "secret": {"derive": {"env": "MASTER"}}, "sign": true}],
        "tokens": {"partner": {
            "issuer": "https://idp.example", "audience": "calls", "ttl": {"max": 3600},
            "external": {
                "key": "partner", "algorithms": ["ES256"], "jwks": {"url": "https://idp.example/keys", "cluster": "idp"},
                "claims": {"scopes": "/scope", "model": "/models?"}, "scopes": {"call": ["calls:write"]}
            }
        }},
        "endpoints": [{"id": "ep-1", "team": "acme", "features": {"webrtc": true}}],
        "upstream_keys": [{"id": "vendor", "secret": {"env": "MASTER"}}],
        "constants": {"domain": "example.com"},
        "api_keys": [
            {"id": "backend", "sha256": DIGEST, "team": "acme", "scopes": ["tokens:mint"], "ceiling": {"model": ["latest"], "session": 60}},
            {"id": "partner", "team": "acme", "scopes": ["calls:write"]}
        ],
        "routes": [
            {"id": "mint", "match": "POST /tokens", "accept": ["api_key"], "mint": {
                "family": "ct",
                "request": {
                    "model": {"member": "models", "max": 2}, "endpoint": {"member": "/call/endpoint", "capable": "webrtc"},
                    "session_id": {"generate": "uuid"}, "session": {"member": "seconds", "min": 10, "max": 60},
                    "metadata": {"member": "metadata"}
                },
                "reply": {"status": 200, "body": {"token": "$token", "model": "$model", "domain": "$constants.domain"}}
            }},
            {"id": "socket", "match": "GET /socket", "accept": ["api_key", "ct", "partner"], "upgrade": "websocket",
             "credential_from": [{"query": "key"}], "session_seconds": 600, "identify": ["endpoint"], "refusals": "socket",
             "present": {"key": "vendor", "at": "query:api_key"},
             "bounds": {
                "model": {"members": ["query:model"]}, "session_id": "any",
                "endpoint": {"members": ["query:ep?"], "implied": true, "capable": "webrtc"}
             }},
            {"id": "keys", "match": "GET /keys", "accept": ["public"], "jwks": ["ct"]},
            {"id": "state", "match": "POST /state", "accept": ["api_key"],
             "introspect": {"families": ["ct"], "member": "token", "reply": {"active": "$active"}}},
            {"id": "list", "match": "GET /endpoints", "accept": ["api_key"], "directory": {
                "of": "endpoints", "page": "query:page", "limit": {"at": "query:limit", "default": 20, "max": 100},
                "endpoint": {"id": "$id"}, "reply": {"endpoints": "$items"}
            }}
        ],
        "refusals": {"envelopes": {"422": {"detail": "$loc"}}, "groups": {"socket": {"envelope": {"error": "$message"}}}}
    });
    callbound::policy::merge(&mut policy, more);
    policy
}

#[test]
fn the_rich_policy_is_good() {
    assert_eq!(problems_of(&rich().to_string()), Vec::<String>::new());
}

/// As [`WRONG`], for the rich policy.
const WRONG_OF_THE_RICH: &[(&str, &str, &str)] = &[
    (
        "/platform/requires",
        r#"{"webrtc": ["nope"]}"#,
        "platform.requires.webrtc: `nope` is not one of platform.features",
    ),
    (
        "/platform/implies",
        r#"{"nope": ["admin"]}"#,
        "platform.implies.nope: `nope` is not one of platform.scopes",
    ),
    (
        "/platform/bounds/from",
        "{}",
        "platform.bounds.from: this name cannot be a bound's: lower-case letters, digits, `-` and `_`, none of the language's own, and no two alike",
    ),
    (
        "/platform/bounds/model/values",
        "[]",
        "platform.bounds.model.values: an empty list allows nothing; leave it out to allow any",
    ),
    (
        "/platform/bounds/model/values",
        r#"["m 1"]"#,
        "platform.bounds.model.values[0]: this cannot be a value of the bound",
    ),
    (
        "/platform/bounds/model/aliases",
        r#"{"latest": "m-3"}"#,
        "platform.bounds.model.aliases.latest: an alias stands for one of the bound's values, and not for another alias",
    ),
    (
        "/platform/bounds/origin/form",
        r#""url""#,
        "platform.bounds.origin.form: expected one of `text`, `origin`",
    ),
    ("/api_keys/0/ceiling/model", r#"["m-9"]"#, "api_keys[0].ceiling.model[0]: `m-9` is not one of `model`"),
    (
        "/api_keys/0/ceiling/endpoint",
        r#"["ep-9"]"#,
        "api_keys[0].ceiling.endpoint[0]: `ep-9` is not one of `endpoint`",
    ),
    ("/api_keys/0/ceiling/session", "0", "api_keys[0].ceiling.session: expected 1 to 604800 seconds"),
    (
        "/teams/0/ceiling",
        r#"{"colour": ["red"]}"#,
        "teams[0].ceiling.colour: neither `from`, `to` nor `session`, and not one of platform.bounds",
    ),
    ("/endpoints/0/team", r#""nope""#, "endpoints[0].team: `nope` is not one of teams"),
    (
        "/endpoints/0/origins",
        r#"["https://example.com/"]"#,
        "endpoints[0].origins[0]: expected an origin as browsers write it: `https://example.com`",
    ),
    (
        "/endpoints/0/addresses",
        r#"["203.0.113.1/24"]"#,
        "endpoints[0].addresses[0]: expected `203.0.113.7` or `203.0.113.0/24`",
    ),
    (
        "/endpoints/0/addresses",
        "[]",
        "endpoints[0]: an empty list of `origins` or `addresses` lets nobody in; leave it out to allow any",
    ),
    ("/endpoints/0/state", r#""closed""#, "endpoints[0].state: expected one of `active`, `archived`"),
    (
        "/tokens/partner/external/key",
        r#""nope""#,
        "tokens.partner.external.key: `nope` is not one of api_keys",
    ),
    (
        "/tokens/partner/external/algorithms",
        r#"["HS256"]"#,
        "tokens.partner.external.algorithms: expected some of `EdDSA`, `ES256` and `RS256`",
    ),
    (
        "/tokens/partner/external/jwks",
        r#"{"url": "https://idp.example/keys"}"#,
        "tokens.partner.external.jwks.cluster: missing; name the gateway's cluster that serves the URL",
    ),
    ("/tokens/partner/external/jwks", "{}", "tokens.partner.external.jwks: expected one of `keys` and `url`"),
    (
        "/tokens/partner/external/jwks/url",
        r#""ftp://idp.example/keys""#,
        "tokens.partner.external.jwks.url: expected a URL with a path, as in `https://idp.example/keys`",
    ),
    (
        "/tokens/partner/external/jwks/stale",
        "10",
        "tokens.partner.external.jwks: expected 1 <= cooldown <= refresh <= stale <= 604800 seconds",
    ),
    (
        "/tokens/partner/external/claims",
        r#"{"scopes": "/scope", "colour": "/c"}"#,
        "tokens.partner.external.claims.colour: neither `team`, `scopes`, `from` nor `to`, and not one of platform.bounds",
    ),
    (
        "/tokens/partner/prefix",
        r#""p_x""#,
        "tokens.partner: unknown field `prefix`, expected one of `issuer`, `audience`, `ttl`, `clock`, `default_scopes`, `external`",
    ),
    (
        "/upstream_keys/0/secret",
        r#"{"inline": "abc"}"#,
        "upstream_keys[0].secret: a secret in the policy needs `allow_inline_secrets: true`; better `{\"env\": NAME}`",
    ),
    (
        "/upstream_keys/0/secret",
        r#"{"env": "UNSET"}"#,
        "upstream_keys[0].secret: the environment variable `UNSET` is not set",
    ),
    (
        "/credentials/from",
        r#"[{"query": "key"}]"#,
        "credentials.from: a credential in the query is for single routes: name it in `routes[].credential_from`",
    ),
    ("/routes/0/mint/request/model/min", "1", "routes[0].mint.request.model.min: this means nothing here"),
    ("/routes/0/mint/request/model/max", "0", "routes[0].mint.request.model.max: expected 1 to 1000 entries"),
    (
        "/routes/0/mint/request/model/capable",
        r#""webrtc""#,
        "routes[0].mint.request.model.capable: only endpoints are capable of something",
    ),
    (
        "/routes/0/mint/request/colour",
        r#"{"member": "colour"}"#,
        "routes[0].mint.request.colour: not one of platform.bounds",
    ),
    (
        "/routes/0/mint/request/ttl",
        r#"{"member": "call"}"#,
        "routes[0].mint.request: one member cannot ask for two things",
    ),
    (
        "/routes/0/mint/request/session/max",
        "5",
        "routes[0].mint.request.session: expected 1 <= min <= max <= 604800 seconds",
    ),
    (
        "/routes/0/mint/request/metadata/max_bytes",
        "4096",
        "routes[0].mint.request.metadata.max_bytes: expected 1 to 1024 bytes",
    ),
    ("/routes/1/match", r#""ANY /socket""#, "routes[1].match: `ANY` is for public routes; name the methods"),
    (
        "/routes/1/match",
        r#""POST /socket""#,
        "routes[1].upgrade: a WebSocket handshake is a GET (RFC 6455 section 4.1)",
    ),
    ("/routes/1/credential_from", "[]", "routes[1].credential_from: name at least one place"),
    (
        "/routes/1/credential_from",
        r#"[{"query": "key", "scheme": "Bearer"}]"#,
        "routes[1].credential_from[0]: expected `header`, perhaps with `scheme`, or `query`",
    ),
    (
        "/routes/1/bounds/model/members",
        r#"["query:Key"]"#,
        "routes[1].bounds: `query:Key` is where the credential stands",
    ),
    (
        "/routes/1/bounds/model/members",
        r#"["path:model"]"#,
        "routes[1].bounds: every `match` needs the parameter `{model}`",
    ),
    (
        "/routes/1/bounds/model/members",
        r#"["header:x-callbound-key"]"#,
        "routes[1].bounds: `header:x-callbound-key` means something else already",
    ),
    (
        "/routes/1/bounds/model/members",
        r#"["query:model", "/model"]"#,
        "routes[1].bounds.model: the members of one bound stand all in the body or all outside it",
    ),
    (
        "/routes/1/bounds/model/members",
        r#"["cookie:model"]"#,
        "routes[1].bounds.model.members[0]: `cookie:model` is no place, as in `/member`, `query:name`, `header:name` or `path:name`",
    ),
    (
        "/routes/1/bounds/model/members",
        r#"["query:ep"]"#,
        "routes[1].bounds: one place of the request cannot say two things, or one thing twice",
    ),
    (
        "/routes/1/bounds/endpoint/members",
        r#"["query:ep"]"#,
        "routes[1].bounds.endpoint.implied: what must be said is not implied: close each member with `?`",
    ),
    (
        "/routes/1/bounds",
        r#"{"session_id": "any", "endpoint": "any"}"#,
        "routes[1].bounds: missing `model`: tokens accepted here can be bound in it; say where it stands, or `\"model\": \"any\"`",
    ),
    (
        "/routes/1/bounds/from",
        r#"{"members": ["query:from"]}"#,
        "routes[1].bounds: missing `to`: a call has a caller and a destination (`\"members\": []` where it cannot be read)",
    ),
    (
        "/routes/1/session_seconds",
        "0",
        "routes[1].session_seconds: expected 1 to 604800 seconds, on a route with `upgrade`",
    ),
    (
        "/routes/1/identify",
        r#"["nope"]"#,
        "routes[1].identify[0]: neither `metadata` nor one of platform.bounds",
    ),
    ("/routes/1/refusals", r#""nope""#, "routes[1].refusals: `nope` is not one of refusals.groups"),
    ("/routes/1/present/key", r#""nope""#, "routes[1].present.key: `nope` is not one of upstream_keys"),
    ("/routes/1/present/at", r#""path:key""#, "routes[1].present.at: expected `query:name` or `header:name`"),
    ("/routes/1/present/scheme", r#""Bearer""#, "routes[1].present.scheme: a scheme stands in a header"),
    (
        "/credentials/forward",
        "true",
        "routes[1].present: with `credentials.forward` the upstream would get two credentials",
    ),
    (
        "/routes/2/accept",
        r#"["api_key"]"#,
        r#"routes[2].jwks: public keys are for everybody: `accept` must be `["public"]`"#,
    ),
    (
        "/keyring/0/alg",
        r#""HS256""#,
        "routes[2].jwks: `ct` has only secret keys: nobody else can verify its tokens",
    ),
    (
        "/routes/3/introspect/families",
        r#"["partner"]"#,
        "routes[3].introspect.families[0]: `partner` is not one of the families of tokens minted here",
    ),
    (
        "/routes/4/directory/page",
        r#""/page""#,
        "routes[4].directory: `page` and `limit.at` are query parameters, as in `query:page`",
    ),
    (
        "/routes/4/directory/limit/default",
        "200",
        "routes[4].directory.limit: expected 1 <= default <= max <= 1000",
    ),
    (
        "/routes/4/directory/of",
        r#""apps""#,
        "routes[4].directory.app: `app` says how an application looks, when `of` is `apps`",
    ),
    (
        "/routes/4/mint",
        r#"{"family": "ct", "request": {}, "reply": {"status": 200, "body": {}}}"#,
        "routes[4]: expected at most one of `mint`, `introspect`, `directory`, `revoke` and `jwks`",
    ),
    ("/refusals/envelopes", r#"{"200": {}}"#, "refusals.envelopes.200: expected a status from 400 to 599"),
    (
        "/refusals/groups/socket/envelope",
        r#""$nope""#,
        "refusals.groups.socket.envelope: `$nope` is no value of this answer; there are `$code`, `$message`, `$fields`, `$field`, `$loc`, `$request_id`",
    ),
    (
        "/platform/bounds/team",
        "{}",
        "platform.bounds.team: this name cannot be a bound's: lower-case letters, digits, `-` and `_`, none of the language's own, and no two alike",
    ),
    (
        "/platform/bounds/session-id",
        "{}",
        "platform.bounds.session-id: this name cannot be a bound's: lower-case letters, digits, `-` and `_`, none of the language's own, and no two alike",
    ),
    ("/constants/domian", r#""x""#, "constants.domian: no answer uses it, as in `\"$constants.domian\"`"),
    (
        "/tokens/public",
        r#"{"external": {}}"#,
        "tokens.public: this name has a meaning of its own in `accept`",
    ),
    ("/routes/0/match", r#""PUT /tokens""#, "routes[0].match: `mint` is answered to POST only"),
    ("/routes/2/match", r#""POST /keys""#, "routes[2].match: `jwks` is answered to GET only"),
    ("/routes/3/match", r#""GET /state""#, "routes[3].match: `introspect` is answered to POST only"),
    (
        "/routes/0/mint/request/session_id/required",
        "true",
        "routes[0].mint.request.session_id: expected one of `member` and `generate`, and nothing beside `generate`",
    ),
    (
        "/routes/0/mint/request/model",
        r#"{"generate": "uuid"}"#,
        "routes[0].mint.request.model: a generated value is none of this bound's",
    ),
    (
        "/routes/0/mint/request/endpoint/capable",
        r#""webrct""#,
        "routes[0].mint.request.endpoint.capable: `webrct` is not one of platform.features",
    ),
    (
        "/routes/1/bounds/endpoint/capable",
        r#""webrct""#,
        "routes[1].bounds.endpoint.capable: `webrct` is not one of platform.features",
    ),
    (
        "/routes/1/bounds/endpoint",
        r#""any""#,
        "routes[1].identify: an endpoint that is told must be judged: say in `bounds` where it stands",
    ),
    (
        "/routes/1/present/at",
        r#""query:Model""#,
        "routes[1].present.at: this place says something else, which was judged",
    ),
    (
        "/routes/1/present/at",
        r#""header:transfer-encoding""#,
        "routes[1].present.at: this header cannot carry a credential",
    ),
    (
        "/routes/1/present/at",
        r#""header::path""#,
        "routes[1].present.at: expected `query:name` or `header:name`",
    ),
];

#[test]
fn one_wrong_member_of_the_rich_policy_is_named_with_its_path() {
    assert_named(rich, WRONG_OF_THE_RICH);
}

/// A policy that remembers whatever can be remembered, in a store that all gateways share.
fn remembering() -> Value {
    let mut policy = rich();
    let more = json!({
        "platform": {"scopes": ["tokens:mint", "calls:write", "calls:read", "admin", "keys:revoke"]},
        "tokens": {"ct": {
            "uses": {"default": 1, "strength": "fleet"}, "total_seconds": {"default": 60, "strength": "fleet"}
        }},
        "teams": [
            {"id": "acme", "kind": "organization", "numbers": ["+15551234567"],
             "limits": {"day": 500, "all": 9000, "burst": 20, "live": 3}},
            {"id": "west", "kind": "sub_entity", "parent": "acme", "limits": {"day": 50}}
        ],
        "users": [{"id": "u1", "member_of": ["west"], "limits": {"day": 5}}],
        "api_keys": [
            {"id": "backend", "sha256": DIGEST, "team": "acme", "scopes": ["tokens:mint"], "limits": {"minute": 1200}},
            {"id": "partner", "team": "acme", "scopes": ["calls:write"]}
        ],
        "store": {
            "home": "redis", "entries": 65536, "secret": {"derive": {"env": "MASTER"}},
            "redis": {
                "url": "http://127.0.0.1:7379", "cluster": "callbound_store", "timeout_ms": 250, "prefix": "callbound:",
                "durable": false
            },
            "revocations": {"refresh": 2, "stale": 30, "when_stale": "refuse"},
            "directory": {"fresh": 30, "unknown": 5, "entries": 10000}
        },
        "audit": "refusals",
        "limits": [
            {"id": "minute", "per": "key", "window": {"max": 600, "seconds": 60}, "strength": "fleet"},
            {"id": "day", "per": "team", "window": {"max": 10000, "seconds": 86400}, "strength": "fleet"},
            {"id": "burst", "per": ["team", "route"], "rate": {"max": 10, "seconds": 1, "burst": 20}, "routes": ["charge"]},
            {"id": "mints", "per": "key", "count": "mints", "window": {"max": 60, "seconds": 60}},
            {"id": "live", "per": "token", "sessions": {"max": 2}, "credentials": ["ct"]},
            {"id": "guesses", "per": "address", "count": "failures", "window": {"max": 30, "seconds": 60}},
            {"id": "all", "per": "organization", "window": {"max": 100000, "seconds": 86400}}
        ],
        "limit_headers": {
            "x-ratelimit-limit": "limit", "x-ratelimit-remaining": "remaining", "x-ratelimit-reset": "reset_unix_ms"
        },
        "revocations": [
            {"key": "partner"}, {"token": "2da26ec0f3b94c41a2d7c1f0e7b6a593"},
            {"tokens_of_key": "backend", "before": 1790000000}, {"tokens_of_team": "west", "before": 1790000000}
        ]
    });
    callbound::policy::merge(&mut policy, more);
    set(&mut policy, "/routes/0/mint/request/uses", json!({"member": "maxUses", "min": 1, "max": 5}));
    set(
        &mut policy,
        "/routes/0/mint/request/total",
        json!({"member": "/limits/total", "min": 10, "max": 3600}),
    );
    set(&mut policy, "/routes/0/mint/reply/body/granted", json!(["$uses", "$total"]));
    set(&mut policy, "/routes/1/uses", json!({"max": 1, "reconnect_seconds": 20}));
    set(
        &mut policy,
        "/routes/3/introspect/reply",
        json!({"active": "$active", "state": "$state", "uses": "$uses", "total": "$total"}),
    );
    let any = json!({"model": "any", "endpoint": "any", "session_id": "any"});
    let routes = policy["routes"].as_array_mut().expect("a list");
    routes.extend([
        json!({"id": "revoke", "match": "POST /revocations", "accept": ["api_key"], "scopes": ["keys:revoke"],
               "revoke": {"reach": "platform"}}),
        json!({"id": "charge", "match": "POST /charge", "accept": ["api_key", "ct"], "uses": {"max": 1}, "bounds": any}),
        json!({"id": "browse", "match": "GET /items", "accept": ["ct"], "uses": {"counted": false}, "bounds": any}),
        json!({"id": "status", "match": "GET /status", "accept": ["api_key"]}),
    ]);
    policy
}

/// The same in the gateway's own memory, which reaches less far.
fn at_home() -> Value {
    let mut policy = remembering();
    policy["store"] = json!({"entries": 65536, "secret": {"derive": {"env": "MASTER"}}});
    for limit in policy["limits"].as_array_mut().expect("a list") {
        limit.as_object_mut().expect("an object").remove("strength");
    }
    for member in ["uses", "total_seconds"] {
        policy["tokens"]["ct"][member].as_object_mut().expect("an object").remove("strength");
    }
    policy
}

#[test]
fn the_remembering_policies_are_good() {
    assert_eq!(problems_of(&remembering().to_string()), Vec::<String>::new());
    assert_eq!(problems_of(&at_home().to_string()), Vec::<String>::new());
}

/// As [`WRONG`], for the policy with a store that all gateways share.
const WRONG_OF_THE_REMEMBERING: &[(&str, &str, &str)] = &[
    ("/limit", "[]", "limit: no such section"),
    ("/revocation", "[]", "revocation: no such section"),
    // store
    ("/store", "null", "store: expected an object, found null"),
    ("/store", r#""redis""#, "store: expected an object, found a string"),
    (
        "/store/size",
        "65536",
        "store: unknown field `size`, expected one of `home`, `entries`, `secret`, `redis`, `revocations`, `directory`",
    ),
    ("/store/home", r#""fleet""#, "store.home: expected one of `local`, `redis`"),
    ("/store/home", r#""Redis""#, "store.home: expected one of `local`, `redis`"),
    ("/store/home", "null", "store.home: expected one of `local`, `redis`"),
    ("/store/home", r#""local""#, "store.redis: this is for `home: redis`"),
    (
        "/store/home",
        r#""local""#,
        "store.revocations: in the gateway's own memory they are never stale; this is for `home: redis`",
    ),
    ("/store/entries", "65535", "store.entries: expected 65536 to 1048576"),
    ("/store/entries", "1048577", "store.entries: expected 65536 to 1048576"),
    ("/store/entries", "0", "store.entries: expected 65536 to 1048576"),
    ("/store/entries", r#""1M""#, "store.entries: expected u64, found a string"),
    ("/store/secret", r#""hunter2-the-secret""#, "store.secret: expected one of `env`, `derive`, `inline`"),
    ("/store/secret", "null", "store.secret: expected one of `env`, `derive`, `inline`"),
    (
        "/store/secret",
        r#"{"env": "NOT_SET"}"#,
        "store.secret: the environment variable `NOT_SET` is not set; make a secret with `callbound gen-secret`",
    ),
    (
        "/store/secret",
        r#"{"env": "PADDED"}"#,
        "store.secret: `PADDED`: the key is not unpadded base64url; make one with `callbound gen-secret`",
    ),
    (
        "/store/secret",
        r#"{"env": "SHORT"}"#,
        "store.secret: the secret is shorter than 32 bytes; make one with `callbound gen-secret`",
    ),
    (
        "/store/secret",
        r#"{"env": "EMPTY"}"#,
        "store.secret: the secret is shorter than 32 bytes; make one with `callbound gen-secret`",
    ),
    (
        "/store/secret",
        r#"{"env": "WORDS"}"#,
        "store.secret: the secret is guessable; make one with `callbound gen-secret`",
    ),
    (
        "/store/secret",
        r#"{"derive": {"env": "SHORT"}}"#,
        "store.secret: the secret is shorter than 32 bytes; make one with `callbound gen-secret`",
    ),
    (
        "/store/secret",
        r#"{"derive": "hunter2-the-secret"}"#,
        "store.secret.derive: expected one of `env`, `inline`",
    ),
    (
        "/store/secret",
        r#"{"env": "hunter2-the-secret"}"#,
        "store.secret: expected the name of an environment variable, as in `CALLBOUND_MASTER`",
    ),
    (
        "/store/secret",
        r#"{"inline": "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_"}"#,
        r#"store.secret: a secret in the policy needs `allow_inline_secrets: true`; better `{"env": NAME}`"#,
    ),
    (
        "/store/secret",
        r#"{"derive": {"inline": "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_"}}"#,
        r#"store.secret: a secret in the policy needs `allow_inline_secrets: true`; better `{"env": NAME}`"#,
    ),
    // store.redis
    ("/store/redis", r#""127.0.0.1""#, "store.redis: expected an object, found a string"),
    ("/store/redis", "null", "store.redis: expected an object, found null"),
    (
        "/store/redis/password",
        r#""hunter2-the-secret""#,
        "store.redis: unknown field `password`, expected one of `url`, `cluster`, `timeout_ms`, `prefix`, `durable`",
    ),
    (
        "/store/redis/timeout",
        "250",
        "store.redis: unknown field `timeout`, expected one of `url`, `cluster`, `timeout_ms`, `prefix`, `durable`",
    ),
    (
        "/store/redis/url",
        r#""127.0.0.1:7379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""redis://127.0.0.1:6379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""https://127.0.0.1:7379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://127.0.0.1:7379/0""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://user:hunter2@127.0.0.1:7379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://:7379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://127.0.0.1:""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://127.0.0.1:0""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://127.0.0.1:73790""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://webdis:http""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://::1:7379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    (
        "/store/redis/url",
        r#""http://[::1:7379""#,
        "store.redis.url: expected where Webdis is, as in `http://127.0.0.1:7379`",
    ),
    ("/store/redis/url", "null", "store.redis.url: expected a string, found null"),
    ("/store/redis/cluster", r#""""#, "store.redis.cluster: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    ("/store/redis/cluster", r#""a b""#, "store.redis.cluster: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    (
        "/store/redis/cluster",
        r#""idp""#,
        "store.redis.cluster: this cluster serves the keys of tokens.partner",
    ),
    ("/store/redis/timeout_ms", "0", "store.redis.timeout_ms: expected 10 to 5000 milliseconds"),
    ("/store/redis/timeout_ms", "2", "store.redis.timeout_ms: expected 10 to 5000 milliseconds"),
    ("/store/redis/timeout_ms", "9", "store.redis.timeout_ms: expected 10 to 5000 milliseconds"),
    ("/store/redis/timeout_ms", "5001", "store.redis.timeout_ms: expected 10 to 5000 milliseconds"),
    ("/store/redis/timeout_ms", "0.25", "store.redis.timeout_ms: expected u64, found a number"),
    ("/store/redis/prefix", r#""""#, "store.redis.prefix: expected 1 to 64 of `A-Z a-z 0-9 - _ . :`"),
    (
        "/store/redis/prefix",
        r#""call bound:""#,
        "store.redis.prefix: expected 1 to 64 of `A-Z a-z 0-9 - _ . :`",
    ),
    (
        "/store/redis/prefix",
        r#""callbound/""#,
        "store.redis.prefix: expected 1 to 64 of `A-Z a-z 0-9 - _ . :`",
    ),
    ("/store/redis/prefix", r#""{tag}:""#, "store.redis.prefix: expected 1 to 64 of `A-Z a-z 0-9 - _ . :`"),
    (
        "/store/redis/prefix",
        r#""aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""#,
        "store.redis.prefix: expected 1 to 64 of `A-Z a-z 0-9 - _ . :`",
    ),
    ("/store/redis/durable", r#""always""#, "store.redis.durable: expected a boolean, found a string"),
    ("/store/redis/durable", "null", "store.redis.durable: expected a boolean, found null"),
    // store.revocations
    ("/store/revocations", "[]", "store.revocations: expected an object, found an array"),
    (
        "/store/revocations/stale_after",
        "30",
        "store.revocations: unknown field `stale_after`, expected one of `refresh`, `stale`, `when_stale`",
    ),
    (
        "/store/revocations/refresh",
        "0",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    (
        "/store/revocations/refresh",
        "61",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    (
        "/store/revocations/refresh",
        "2000",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    (
        "/store/revocations/refresh",
        "16",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    (
        "/store/revocations/refresh",
        "18446744073709551615",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    (
        "/store/revocations/stale",
        "3",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    (
        "/store/revocations/stale",
        "86401",
        "store.revocations: expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
    ),
    ("/store/revocations/refresh", "0.5", "store.revocations.refresh: expected u64, found a number"),
    (
        "/store/revocations/when_stale",
        r#""open""#,
        "store.revocations.when_stale: expected one of `refuse`, `serve`",
    ),
    (
        "/store/revocations/when_stale",
        "null",
        "store.revocations.when_stale: expected one of `refuse`, `serve`",
    ),
    // store.directory
    ("/store/directory", "true", "store.directory: expected an object, found a boolean"),
    ("/store/directory", "null", "store.directory: expected an object, found null"),
    (
        "/store/directory/stale",
        "30",
        "store.directory: unknown field `stale`, expected one of `fresh`, `unknown`, `entries`",
    ),
    (
        "/store/directory/fresh",
        "0",
        "store.directory: expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
    ),
    (
        "/store/directory/fresh",
        "3601",
        "store.directory: expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
    ),
    (
        "/store/directory/unknown",
        "0",
        "store.directory: expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
    ),
    (
        "/store/directory/unknown",
        "301",
        "store.directory: expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
    ),
    (
        "/store/directory/entries",
        "99",
        "store.directory: expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
    ),
    (
        "/store/directory/entries",
        "1000001",
        "store.directory: expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
    ),
    ("/store/directory/fresh", r#""30s""#, "store.directory.fresh: expected u64, found a string"),
    ("/store/home", r#""local""#, "store.directory: keys are looked up in Redis: this is for `home: redis`"),
    // audit
    ("/audit", r#""everything""#, "audit: expected one of `refusals`, `all`"),
    ("/audit", "true", "audit: expected one of `refusals`, `all`"),
    ("/audit", "null", "audit: expected one of `refusals`, `all`"),
    // limits
    ("/limits", r#"{"minute": 600}"#, "limits: expected an array"),
    ("/limits", "null", "limits: expected an array"),
    ("/limits/0", r#""minute""#, "limits[0]: expected an object, found a string"),
    (
        "/limits/0/max",
        "600",
        "limits[0]: unknown field `max`, expected one of `id`, `per`, `count`, `window`, `rate`, `sessions`, `routes`, `credentials`, `strength`",
    ),
    ("/limits/0/id", r#""a minute""#, "limits[0].id: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    ("/limits/0/id", r#""""#, "limits[0].id: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    ("/limits/0/id", r#""a\"b""#, "limits[0].id: an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`"),
    ("/limits/1/id", r#""minute""#, "limits[1].id: `minute` stands among the limits already"),
    (
        "/limits/0/per",
        r#""user""#,
        "limits[0].per: expected some of `platform`, `organization`, `team`, `key`, `token`, `family`, `route` and `address`",
    ),
    (
        "/limits/0/per",
        r#"["key", "Route"]"#,
        "limits[0].per: expected some of `platform`, `organization`, `team`, `key`, `token`, `family`, `route` and `address`",
    ),
    (
        "/limits/0/per",
        "[]",
        "limits[0].per: an empty list counts nothing apart; for everything together say `platform`",
    ),
    ("/limits/0/per", r#"["key", "key"]"#, "limits[0].per: `key` stands twice"),
    ("/limits/0/per", "null", "limits[0].per: expected a string, or a list of them, found null"),
    (
        "/limits/0/per",
        r#"["key", "platform"]"#,
        "limits[0].per: `platform` is everything together: beside it nothing is counted apart",
    ),
    ("/limits/0/count", r#""errors""#, "limits[0].count: expected one of `requests`, `mints`, `failures`"),
    ("/limits/0/count", "null", "limits[0].count: expected one of `requests`, `mints`, `failures`"),
    (
        "/limits/0/rate",
        r#"{"max": 1, "seconds": 1, "burst": 1}"#,
        "limits[0]: expected one of `window`, `rate` and `sessions`",
    ),
    ("/limits/1/sessions", r#"{"max": 1}"#, "limits[1]: expected one of `window`, `rate` and `sessions`"),
    ("/limits/0/window", "null", "limits[0].window: expected an object, found null"),
    ("/limits/0/window/burst", "20", "limits[0].window: unknown field `burst`, expected `max` or `seconds`"),
    (
        "/limits/0/window/per",
        r#""minute""#,
        "limits[0].window: unknown field `per`, expected `max` or `seconds`",
    ),
    ("/limits/0/window/seconds", r#""minute""#, "limits[0].window.seconds: expected u64, found a string"),
    ("/limits/0/window/max", "0.5", "limits[0].window.max: expected u64, found a number"),
    ("/limits/0/window/max", "-1", "limits[0].window.max: expected u64, found a number"),
    (
        "/limits/0/window/max",
        "0",
        "limits[0].window: expected max from 1 to 1000000000 and seconds from 1 to 2678400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/0/window/max",
        "1000000001",
        "limits[0].window: expected max from 1 to 1000000000 and seconds from 1 to 2678400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/0/window/seconds",
        "0",
        "limits[0].window: expected max from 1 to 1000000000 and seconds from 1 to 2678400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/1/window/seconds",
        "86400000",
        "limits[1].window: expected max from 1 to 1000000000 and seconds from 1 to 2678400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/2/rate/max",
        "0",
        "limits[2].rate: expected max and burst from 1 to 1000000 and seconds from 1 to 86400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/2/rate/max",
        "1000001",
        "limits[2].rate: expected max and burst from 1 to 1000000 and seconds from 1 to 86400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/2/rate/burst",
        "0",
        "limits[2].rate: expected max and burst from 1 to 1000000 and seconds from 1 to 86400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/2/rate/burst",
        "1000001",
        "limits[2].rate: expected max and burst from 1 to 1000000 and seconds from 1 to 86400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/2/rate/seconds",
        "86401",
        "limits[2].rate: expected max and burst from 1 to 1000000 and seconds from 1 to 86400; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/4/sessions/max",
        "0",
        "limits[4].sessions: expected max from 1 to 10000; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    (
        "/limits/4/sessions/max",
        "10001",
        "limits[4].sessions: expected max from 1 to 10000; 0 is no limit: to let nothing through, take the scope or the route away",
    ),
    ("/limits/4/sessions", "2", "limits[4].sessions: expected an object, found a number"),
    ("/limits/4/sessions/seconds", "60", "limits[4].sessions: unknown field `seconds`, expected `max`"),
    (
        "/limits/4/count",
        r#""mints""#,
        "limits[4].count: sessions are counted while they are open; this means nothing here",
    ),
    ("/limits/2/routes", r#"["dail"]"#, "limits[2].routes[0]: `dail` is not one of routes"),
    ("/limits/2/routes", r#"["charge", "dail"]"#, "limits[2].routes[1]: `dail` is not one of routes"),
    ("/limits/2/routes", r#""charge""#, "limits[2].routes: expected a sequence, found a string"),
    ("/limits/2/routes", "[]", "limits[2].routes: an empty list is for no route; leave it out for all"),
    ("/limits/2/routes", r#"["keys"]"#, "limits[2].routes: `keys` has nothing this limit counts"),
    ("/limits/3/routes", r#"["mint", "charge"]"#, "limits[3].routes: `charge` has nothing this limit counts"),
    ("/limits/4/routes", r#"["charge"]"#, "limits[4].routes: `charge` has nothing this limit counts"),
    ("/limits/5/routes", r#"["keys"]"#, "limits[5].routes: `keys` has nothing this limit counts"),
    (
        "/limits/0/credentials",
        "[]",
        "limits[0].credentials: an empty list is for nobody; leave it out for all",
    ),
    (
        "/limits/0/credentials",
        r#"["api_key", "rdc"]"#,
        "limits[0].credentials[1]: `rdc` is neither `api_key` nor one of tokens",
    ),
    (
        "/limits/0/credentials",
        r#"["public"]"#,
        "limits[0].credentials[0]: `public` is neither `api_key` nor one of tokens",
    ),
    // Only API keys mint, so of these credentials there are no mints.
    ("/limits/3/credentials", r#"["ct"]"#, "limits[3]: there is no route with anything this limit counts"),
    // No route accepts both.
    (
        "/limits/2",
        r#"{"id": "burst", "per": "token", "window": {"max": 1, "seconds": 1}, "routes": ["status"], "credentials": ["ct"]}"#,
        "limits[2].routes: `status` has nothing this limit counts",
    ),
    (
        "/limits/4",
        r#"{"id": "live", "per": "key", "sessions": {"max": 1}, "routes": ["socket", "browse"]}"#,
        "limits[4].routes: `browse` has nothing this limit counts",
    ),
    (
        "/limits/5/per",
        r#""key""#,
        "limits[5]: whoever fails is nobody yet: failures are counted `per: \"address\"` alone",
    ),
    (
        "/limits/5/per",
        r#"["address", "route"]"#,
        "limits[5]: whoever fails is nobody yet: failures are counted `per: \"address\"` alone",
    ),
    (
        "/limits/5/credentials",
        r#"["api_key"]"#,
        "limits[5]: whoever fails is nobody yet: failures are counted `per: \"address\"` alone",
    ),
    ("/limits/5/strength", r#""fleet""#, "limits[5].strength: failures are counted by each gateway: `node`"),
    (
        "/limits/5",
        r#"{"id": "guesses", "per": "address", "count": "failures", "sessions": {"max": 3}}"#,
        "limits[5].count: sessions are counted while they are open; this means nothing here",
    ),
    ("/limits/0/strength", r#""cluster""#, "limits[0].strength: expected one of `node`, `fleet`"),
    ("/limits/0/strength", "null", "limits[0].strength: expected one of `node`, `fleet`"),
    // Maxima of one's own.
    ("/teams/0/limits", "500", "teams[0].limits: expected an object, found a number"),
    ("/teams/0/limits/day", r#""500""#, "teams[0].limits.day: expected u64, found a string"),
    ("/teams/0/limits/day", "null", "teams[0].limits.day: expected u64, found null"),
    ("/teams/0/limits/days", "500", "teams.acme.limits.days: not one of limits"),
    ("/teams/0/limits/day", "0", "teams.acme.limits.day: expected 1 to 1000000000; 0 is no limit"),
    ("/teams/0/limits/day", "1000000001", "teams.acme.limits.day: expected 1 to 1000000000; 0 is no limit"),
    ("/teams/0/limits/burst", "1000001", "teams.acme.limits.burst: expected 1 to 1000000; 0 is no limit"),
    ("/teams/0/limits/live", "10001", "teams.acme.limits.live: expected 1 to 10000; 0 is no limit"),
    ("/teams/0/limits/guesses", "5", "teams.acme.limits.guesses: this limit is not counted apart for it"),
    ("/limits/1/per", r#""family""#, "teams.acme.limits.day: this limit is not counted apart for it"),
    // Everything below an organization is one count; another's number there would be nobody's.
    (
        "/teams/1/limits/all",
        "5",
        "teams.west.limits.all: per `organization` only the number of the team at the top counts",
    ),
    ("/users/0/limits/days", "5", "users.u1.limits.days: not one of limits"),
    ("/users/0/limits/day", "0", "users.u1.limits.day: expected 1 to 1000000000; 0 is no limit"),
    ("/users/0/limits/guesses", "5", "users.u1.limits.guesses: this limit is not counted apart for it"),
    ("/api_keys/0/limits/minutes", "5", "api_keys.backend.limits.minutes: not one of limits"),
    (
        "/api_keys/0/limits/minute",
        "0",
        "api_keys.backend.limits.minute: expected 1 to 1000000000; 0 is no limit",
    ),
    ("/api_keys/0/limits/live", "10001", "api_keys.backend.limits.live: expected 1 to 10000; 0 is no limit"),
    ("/api_keys/0/limits/day", "5", "api_keys.backend.limits.day: this limit is not counted apart for it"),
    ("/api_keys/0/limits", "null", "api_keys[0].limits: expected an object, found null"),
    // limit_headers
    ("/limit_headers", r#"["x-ratelimit-limit"]"#, "limit_headers: expected an object, found an array"),
    (
        "/limit_headers/x-ratelimit-reset",
        r#""reset""#,
        "limit_headers.x-ratelimit-reset: expected one of `limit`, `remaining`, `reset_seconds`, `reset_unix`, `reset_unix_ms`",
    ),
    (
        "/limit_headers/X-RateLimit-Limit",
        r#""limit""#,
        "limit_headers.X-RateLimit-Limit: expected a header name in lower case",
    ),
    ("/limit_headers/:status", r#""limit""#, "limit_headers.:status: expected a header name in lower case"),
    ("/limit_headers/x limit", r#""limit""#, "limit_headers.x limit: expected a header name in lower case"),
    ("/limit_headers/", r#""limit""#, "limit_headers.: expected a header name in lower case"),
    (
        "/limit_headers/ratelimit",
        r#""remaining""#,
        "limit_headers.ratelimit: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/ratelimit-policy",
        r#""limit""#,
        "limit_headers.ratelimit-policy: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/retry-after",
        r#""reset_unix""#,
        "limit_headers.retry-after: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/www-authenticate",
        r#""limit""#,
        "limit_headers.www-authenticate: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/set-cookie",
        r#""limit""#,
        "limit_headers.set-cookie: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/location",
        r#""limit""#,
        "limit_headers.location: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/cache-control",
        r#""limit""#,
        "limit_headers.cache-control: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/access-control-allow-origin",
        r#""limit""#,
        "limit_headers.access-control-allow-origin: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/sec-websocket-accept",
        r#""limit""#,
        "limit_headers.sec-websocket-accept: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/content-length",
        r#""remaining""#,
        "limit_headers.content-length: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/transfer-encoding",
        r#""limit""#,
        "limit_headers.transfer-encoding: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/connection",
        r#""limit""#,
        "limit_headers.connection: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/x-request-id",
        r#""limit""#,
        "limit_headers.x-request-id: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/x-callbound-limit",
        r#""limit""#,
        "limit_headers.x-callbound-limit: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    (
        "/limit_headers/x-envoy-ratelimited",
        r#""limit""#,
        "limit_headers.x-envoy-ratelimited: expected a header of its own, as in `x-ratelimit-limit`",
    ),
    // revocations
    ("/revocations", r#"{"key": "partner"}"#, "revocations: expected an array"),
    ("/revocations/0", r#""partner""#, "revocations[0]: expected an object, found a string"),
    (
        "/revocations/0",
        "{}",
        "revocations[0]: expected one of `key`, `token`, `tokens_of_key` and `tokens_of_team`",
    ),
    (
        "/revocations/0/token",
        r#""2da26ec0f3b94c41a2d7c1f0e7b6a593""#,
        "revocations[0]: expected one of `key`, `token`, `tokens_of_key` and `tokens_of_team`",
    ),
    (
        "/revocations/0/jti",
        r#""x""#,
        "revocations[0]: unknown field `jti`, expected one of `key`, `token`, `tokens_of_key`, `tokens_of_team`, `before`",
    ),
    ("/revocations/0/key", "null", "revocations[0].key: expected a string, found null"),
    ("/revocations/3/tokens_of_team", r#""nope""#, "revocations[3].tokens_of_team: not one of teams"),
    ("/revocations/3/tokens_of_team", r#""u1""#, "revocations[3].tokens_of_team: not one of teams"),
    (
        "/revocations/0/before",
        "1790000000",
        "revocations[0].before: `tokens_of_key` and `tokens_of_team` say the Unix second before which they were issued; nothing else does",
    ),
    (
        "/revocations/1/before",
        "1790000000",
        "revocations[1].before: `tokens_of_key` and `tokens_of_team` say the Unix second before which they were issued; nothing else does",
    ),
    // Milliseconds would revoke what is minted in the next centuries.
    (
        "/revocations/2/before",
        "1790000000000",
        "revocations[2].before: expected Unix seconds before the year 2100",
    ),
    (
        "/revocations/3/before",
        "4102444801",
        "revocations[3].before: expected Unix seconds before the year 2100",
    ),
    ("/revocations/2/before", r#""2026-09-21""#, "revocations[2].before: expected u64, found a string"),
    (
        "/revocations/1/token",
        r#""""#,
        "revocations[1]: an id is 1 to 128 visible characters; a token is named by its `jti`, never by its text",
    ),
    (
        "/revocations/1/token",
        r#""a b""#,
        "revocations[1]: an id is 1 to 128 visible characters; a token is named by its `jti`, never by its text",
    ),
    (
        "/revocations/1/token",
        r#""ct_eyJhbGciOiJFZERTQSIsImtpZCI6IjEiLCJ0eXAiOiJjdCtqd3QifQ.eyJpc3MiOiJkZW1vIiwic3ViIjoiYmFja2VuZCIsImp0aSI6IjJkYTI2ZWMwZjNiOTRjNDFhMmQ3YzFmMGU3YjZhNTkzIn0.hunter2""#,
        "revocations[1]: an id is 1 to 128 visible characters; a token is named by its `jti`, never by its text",
    ),
    // tokens
    ("/tokens/ct/uses", "1", "tokens.ct.uses: expected an object, found a number"),
    ("/tokens/ct/uses/max", "1", "tokens.ct.uses: unknown field `max`, expected `default` or `strength`"),
    ("/tokens/ct/uses/default", "0", "tokens.ct.uses.default: expected 1 to 1000"),
    ("/tokens/ct/uses/default", "1001", "tokens.ct.uses.default: expected 1 to 1000"),
    ("/tokens/ct/uses/default", "null", "tokens.ct.uses.default: expected u64, found null"),
    ("/tokens/ct/uses/strength", r#""strict""#, "tokens.ct.uses.strength: expected one of `node`, `fleet`"),
    ("/tokens/ct/total_seconds", "60", "tokens.ct.total_seconds: expected an object, found a number"),
    (
        "/tokens/ct/total_seconds/default",
        "0",
        "tokens.ct.total_seconds.default: expected 1 to 604800 seconds",
    ),
    (
        "/tokens/ct/total_seconds/default",
        "604801",
        "tokens.ct.total_seconds.default: expected 1 to 604800 seconds",
    ),
    (
        "/tokens/ct/total_seconds/default",
        r#""10m""#,
        "tokens.ct.total_seconds.default: expected u64, found a string",
    ),
    (
        "/tokens/ct/total_seconds/strength",
        "null",
        "tokens.ct.total_seconds.strength: expected one of `node`, `fleet`",
    ),
    (
        "/tokens/partner/uses",
        r#"{"default": 1}"#,
        "tokens.partner: unknown field `uses`, expected one of `issuer`, `audience`, `ttl`, `clock`, `default_scopes`, `external`",
    ),
    (
        "/tokens/partner/external/claims/uses",
        r#""/uses""#,
        "tokens.partner.external.claims.uses: neither `team`, `scopes`, `from` nor `to`, and not one of platform.bounds",
    ),
    (
        "/platform/bounds/uses",
        "{}",
        "platform.bounds.uses: this name cannot be a bound's: lower-case letters, digits, `-` and `_`, none of the language's own, and no two alike",
    ),
    (
        "/platform/bounds/total",
        "{}",
        "platform.bounds.total: this name cannot be a bound's: lower-case letters, digits, `-` and `_`, none of the language's own, and no two alike",
    ),
    // Whoever asks for nothing must not get more than whoever asks.
    (
        "/tokens/ct/uses/default",
        "6",
        "routes[0].mint.request.uses.max: less than what a token gets that asks for none: 6",
    ),
    (
        "/tokens/ct/total_seconds/default",
        "3601",
        "routes[0].mint.request.total.max: less than what a token gets that asks for none: 3601",
    ),
    // mint.request
    (
        "/routes/0/mint/request/uses",
        r#""maxUses""#,
        "routes[0].mint.request.uses: expected an object, found a string",
    ),
    (
        "/routes/0/mint/request/uses",
        "{}",
        "routes[0].mint.request.uses.member: missing; name the member of the body, or its JSON pointer",
    ),
    (
        "/routes/0/mint/request/uses/member",
        r#""""#,
        "routes[0].mint.request.uses.member: missing; name the member of the body, or its JSON pointer",
    ),
    ("/routes/0/mint/request/uses/min", "0", "routes[0].mint.request.uses: expected 1 <= min <= max <= 1000"),
    ("/routes/0/mint/request/uses/min", "6", "routes[0].mint.request.uses: expected 1 <= min <= max <= 1000"),
    ("/routes/0/mint/request/uses/max", "0", "routes[0].mint.request.uses: expected 1 <= min <= max <= 1000"),
    (
        "/routes/0/mint/request/uses/max",
        "1001",
        "routes[0].mint.request.uses: expected 1 <= min <= max <= 1000",
    ),
    ("/routes/0/mint/request/uses/max", "null", "routes[0].mint.request.uses.max: expected u64, found null"),
    (
        "/routes/0/mint/request/uses/max_bytes",
        "5",
        "routes[0].mint.request.uses.max_bytes: this means nothing here",
    ),
    (
        "/routes/0/mint/request/uses/empty",
        r#""absent""#,
        "routes[0].mint.request.uses.empty: this means nothing here",
    ),
    (
        "/routes/0/mint/request/uses/generate",
        r#""uuid""#,
        "routes[0].mint.request.uses.generate: this means nothing here",
    ),
    (
        "/routes/0/mint/request/uses/capable",
        r#""webrtc""#,
        "routes[0].mint.request.uses.capable: this means nothing here",
    ),
    (
        "/routes/0/mint/request/total/min",
        "0",
        "routes[0].mint.request.total: expected 1 <= min <= max <= 604800 seconds",
    ),
    (
        "/routes/0/mint/request/total/max",
        "9",
        "routes[0].mint.request.total: expected 1 <= min <= max <= 604800 seconds",
    ),
    (
        "/routes/0/mint/request/total/max",
        "604801",
        "routes[0].mint.request.total: expected 1 <= min <= max <= 604800 seconds",
    ),
    (
        "/routes/0/mint/request/total/member",
        r#""maxUses""#,
        "routes[0].mint.request: one member cannot ask for two things",
    ),
    (
        "/routes/0/mint/request/total/member",
        r#""seconds""#,
        "routes[0].mint.request: one member cannot ask for two things",
    ),
    (
        "/routes/0/mint/request/uses/member",
        r#""/call""#,
        "routes[0].mint.request: one member cannot ask for two things",
    ),
    (
        "/routes/0/mint/request/uses/member",
        r#""/limits/total/uses""#,
        "routes[0].mint.request: one member cannot ask for two things",
    ),
    (
        "/routes/0/mint/request/total_seconds",
        r#"{"member": "total"}"#,
        "routes[0].mint.request.total_seconds: not one of platform.bounds",
    ),
    (
        "/routes/3/introspect/reply/left",
        r#""$remaining""#,
        "routes[3].introspect.reply: `$remaining` is no value of this answer; there are `$active`, `$state`, `$expires_at`, `$expires_at_iso`, `$issued_at`, `$issued_at_iso`, `$scopes`, `$from`, `$to`, `$session`, `$total`, `$uses`, `$token_id`, `$key_id`, `$model`, `$origin`, `$session_id`, `$endpoint`",
    ),
    // routes[].uses
    ("/routes/6/uses", "1", "routes[6].uses: expected an object, found a number"),
    ("/routes/6/uses", "null", "routes[6].uses: expected an object, found null"),
    (
        "/routes/6/uses/default",
        "1",
        "routes[6].uses: unknown field `default`, expected one of `counted`, `max`, `reconnect_seconds`",
    ),
    ("/routes/6/uses/max", "0", "routes[6].uses.max: expected 1 to 1000"),
    ("/routes/6/uses/max", "1001", "routes[6].uses.max: expected 1 to 1000"),
    ("/routes/6/uses/max", "null", "routes[6].uses.max: expected u64, found null"),
    ("/routes/6/uses/counted", r#""no""#, "routes[6].uses.counted: expected a boolean, found a string"),
    (
        "/routes/6/uses/counted",
        "false",
        "routes[6].uses: what is not counted has neither `max` nor `reconnect_seconds`",
    ),
    (
        "/routes/1/uses",
        r#"{"counted": false, "reconnect_seconds": 20}"#,
        "routes[1].uses: what is not counted has neither `max` nor `reconnect_seconds`",
    ),
    (
        "/routes/1/uses/reconnect_seconds",
        "0",
        "routes[1].uses.reconnect_seconds: expected 1 to 300 seconds, on a route with `upgrade`",
    ),
    (
        "/routes/1/uses/reconnect_seconds",
        "301",
        "routes[1].uses.reconnect_seconds: expected 1 to 300 seconds, on a route with `upgrade`",
    ),
    (
        "/routes/1/uses/reconnect_seconds",
        "20000",
        "routes[1].uses.reconnect_seconds: expected 1 to 300 seconds, on a route with `upgrade`",
    ),
    (
        "/routes/6/uses/reconnect_seconds",
        "20",
        "routes[6].uses.reconnect_seconds: expected 1 to 300 seconds, on a route with `upgrade`",
    ),
    (
        "/routes/2/uses",
        r#"{"max": 1}"#,
        "routes[2].accept: a public route verifies nobody, so it can require nothing",
    ),
    (
        "/routes/2/uses",
        r#"{"counted": false}"#,
        "routes[2].accept: a public route verifies nobody, so it can require nothing",
    ),
    // API keys are never counted.
    (
        "/routes/8/uses",
        r#"{"max": 1}"#,
        "routes[8].uses: no tokens are accepted here, and API keys are never counted",
    ),
    (
        "/routes/8/uses",
        r#"{"counted": false}"#,
        "routes[8].uses: no tokens are accepted here, and API keys are never counted",
    ),
    (
        "/routes/0/uses",
        r#"{"max": 1}"#,
        "routes[0].uses: no tokens are accepted here, and API keys are never counted",
    ),
    // routes[].revoke
    ("/routes/5/revoke", "true", "routes[5].revoke: expected an object, found a boolean"),
    ("/routes/5/revoke", r#""own""#, "routes[5].revoke: expected an object, found a string"),
    ("/routes/5/revoke", "null", "routes[5].revoke: expected an object, found null"),
    ("/routes/5/revoke/reach", r#""all""#, "routes[5].revoke.reach: expected one of `own`, `platform`"),
    ("/routes/5/revoke/reach", "null", "routes[5].revoke.reach: expected one of `own`, `platform`"),
    ("/routes/5/revoke/member", r#""token""#, "routes[5].revoke: unknown field `member`, expected `reach`"),
    (
        "/routes/5/accept",
        r#"["api_key", "ct"]"#,
        r#"routes[5].revoke: only API keys may revoke: `accept` must be `["api_key"]`"#,
    ),
    (
        "/routes/5/accept",
        r#"["partner"]"#,
        r#"routes[5].revoke: only API keys may revoke: `accept` must be `["api_key"]`"#,
    ),
    (
        "/routes/5/accept",
        r#"["public"]"#,
        "routes[5].accept: a public route verifies nobody, so it can require nothing",
    ),
    ("/routes/5/match", r#""DELETE /revocations""#, "routes[5].match: `revoke` is answered to POST only"),
    (
        "/routes/5/match",
        r#"["POST /revocations", "GET /revocations"]"#,
        "routes[5].match: `revoke` is answered to POST only",
    ),
    (
        "/routes/5/scopes",
        "[]",
        "routes[5].revoke: whoever may revoke holds a scope for it: name it in `scopes`",
    ),
    (
        "/routes/5/introspect",
        r#"{"families": ["ct"], "member": "token", "reply": {}}"#,
        "routes[5]: expected at most one of `mint`, `introspect`, `directory`, `revoke` and `jwks`",
    ),
    (
        "/routes/5/upgrade",
        r#""websocket""#,
        "routes[5]: a WebSocket handshake has no body, and the gateway cannot answer it itself",
    ),
    (
        "/routes/5/bounds",
        r#"{"model": {"members": ["/model"]}}"#,
        "routes[5]: a route either mints or places a call",
    ),
];

#[test]
fn one_wrong_member_of_the_remembering_policy_is_named_with_its_path() {
    assert_named(remembering, WRONG_OF_THE_REMEMBERING);
}

/// As [`WRONG`], for the policy whose store is the gateway's own memory.
const WRONG_AT_HOME: &[(&str, &str, &str)] = &[
    (
        "/revocations/0/key",
        r#""nope""#,
        "revocations[0].key: not one of api_keys; a key that is gone needs no revocation",
    ),
    (
        "/revocations/2/tokens_of_key",
        r#""nope""#,
        "revocations[2].tokens_of_key: not one of api_keys; a key that is gone needs no revocation",
    ),
    (
        "/store/home",
        r#""redis""#,
        "store.redis: missing; say where Redis is, as in `{\"url\": \"http://127.0.0.1:7379\"}`",
    ),
    ("/store/redis", r#"{"url": "http://127.0.0.1:7379"}"#, "store.redis: this is for `home: redis`"),
    (
        "/store/revocations",
        "{}",
        "store.revocations: in the gateway's own memory they are never stale; this is for `home: redis`",
    ),
    ("/store/directory", "{}", "store.directory: keys are looked up in Redis: this is for `home: redis`"),
    (
        "/limits/0/strength",
        r#""fleet""#,
        "limits.minute.strength: `fleet` needs a store that all gateways share: `store.home: redis`",
    ),
    (
        "/limits/4/strength",
        r#""fleet""#,
        "limits.live.strength: `fleet` needs a store that all gateways share: `store.home: redis`",
    ),
    ("/limits/5/strength", r#""fleet""#, "limits[5].strength: failures are counted by each gateway: `node`"),
    (
        "/tokens/ct/uses/strength",
        r#""fleet""#,
        "tokens.ct.uses.strength: `fleet` needs a store that all gateways share: `store.home: redis`",
    ),
    (
        "/tokens/ct/uses",
        r#"{"strength": "fleet"}"#,
        "tokens.ct.uses.strength: `fleet` needs a store that all gateways share: `store.home: redis`",
    ),
    (
        "/tokens/ct/total_seconds/strength",
        r#""fleet""#,
        "tokens.ct.total_seconds.strength: `fleet` needs a store that all gateways share: `store.home: redis`",
    ),
    (
        "/store/secret",
        r#"{"env": "EMPTY"}"#,
        "store.secret: the secret is shorter than 32 bytes; make one with `callbound gen-secret`",
    ),
    ("/routes/1/upgrade", "null", "routes[1].upgrade: expected one of `websocket`"),
    // Without a socket there are no sessions to be counted.
    (
        "/routes/1",
        r#"{"id": "socket", "match": "GET /socket", "accept": ["api_key"]}"#,
        "limits[4]: there is no route with anything this limit counts",
    ),
    (
        "/routes/1",
        r#"{"id": "socket", "match": "GET /socket", "accept": ["api_key"]}"#,
        "tokens.ct.total_seconds.default: no route with `upgrade` accepts these tokens, so there are no sessions to be counted",
    ),
    (
        "/routes/1",
        r#"{"id": "socket", "match": "GET /socket", "accept": ["api_key"]}"#,
        "routes[0].mint.request.total: no route with `upgrade` accepts these tokens, so there are no sessions to be counted",
    ),
];

#[test]
fn one_wrong_member_of_the_policy_at_home_is_named_with_its_path() {
    assert_named(at_home, WRONG_AT_HOME);
}

/// One mistake is one problem: what follows from it would send its author elsewhere.
#[test]
fn one_mistake_about_the_store_is_one_problem() {
    let mut elsewhere = Vec::new();
    for (pointer, value) in [
        ("/store/redis/url", r#""127.0.0.1:7379""#),
        ("/store/redis", r#"{"cluster": "callbound_store"}"#),
        ("/store/redis/timeout_ms", "2"),
        ("/store/directory/fresh", "0"),
        ("/store/home", r#""fleet""#),
        ("/limits/1/rate", r#"{"max": 1, "seconds": 1, "burst": 1}"#),
        ("/limits/1/window/seconds", r#""day""#),
    ] {
        let mut policy = remembering();
        set(&mut policy, pointer, serde_json::from_str(value).expect("JSON"));
        let problems = problems_of(&policy.to_string());
        if problems.len() != 1 {
            elsewhere.push(format!("{pointer} = {value}: {problems:#?}"));
        }
    }
    let mut policy = remembering();
    policy["store"].as_object_mut().expect("an object").remove("redis");
    let problems = problems_of(&policy.to_string());
    if problems != ["store.redis: missing; say where Redis is, as in `{\"url\": \"http://127.0.0.1:7379\"}`"]
    {
        elsewhere.push(format!("without store.redis: {problems:#?}"));
    }
    assert!(elsewhere.is_empty(), "{}", elsewhere.join("\n"));
}

#[test]
fn all_errors_of_the_store_are_named_at_once() {
    let mut policy = remembering();
    policy["store"] = json!({
        "home": "redis", "entries": 1, "secret": {"env": "NOT_SET"},
        "redis": {"url": "127.0.0.1", "cluster": "a b", "timeout_ms": 1, "prefix": "a b"},
        "revocations": {"refresh": 0}, "directory": {"fresh": 0}
    });
    let problems = problems_of(&policy.to_string());
    for place in [
        "store.entries",
        "store.secret",
        "store.redis.url",
        "store.redis.cluster",
        "store.redis.timeout_ms",
        "store.redis.prefix",
        "store.revocations",
        "store.directory",
    ] {
        let count = problems.iter().filter(|problem| problem.starts_with(&format!("{place}: "))).count();
        assert_eq!(count, 1, "{place}: {problems:#?}");
    }
    assert_eq!(problems.len(), 8, "{problems:#?}");
}

#[test]
fn a_missing_member_of_what_is_remembered_is_named() {
    let table = [
        ("/store/redis/url", "store.redis: missing field `url`"),
        ("/limits/0/id", "limits[0]: missing field `id`"),
        ("/limits/0/per", "limits[0]: missing field `per`"),
        ("/limits/0/window", "limits[0]: expected one of `window`, `rate` and `sessions`"),
        ("/limits/0/window/max", "limits[0].window: missing field `max`"),
        ("/limits/0/window/seconds", "limits[0].window: missing field `seconds`"),
        ("/limits/2/rate/burst", "limits[2].rate: missing field `burst`"),
        ("/limits/4/sessions/max", "limits[4].sessions: missing field `max`"),
        (
            "/revocations/2/before",
            "revocations[2].before: `tokens_of_key` and `tokens_of_team` say the Unix second before which they were issued; nothing else does",
        ),
        (
            "/revocations/0/key",
            "revocations[0]: expected one of `key`, `token`, `tokens_of_key` and `tokens_of_team`",
        ),
        (
            "/routes/0/mint/request/uses/member",
            "routes[0].mint.request.uses.member: missing; name the member of the body, or its JSON pointer",
        ),
        (
            "/routes/5/scopes",
            "routes[5].revoke: whoever may revoke holds a scope for it: name it in `scopes`",
        ),
    ];
    let mut wrong = Vec::new();
    for (pointer, expected) in table {
        let mut policy = remembering();
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = policy.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.expect("an object").remove(name).expect("a member");
        let problems = problems_of(&policy.to_string());
        if !problems.iter().any(|problem| problem == expected) {
            wrong.push(format!("{pointer}\n  expected {expected}\n  got      {problems:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The ends of every range, and what may be left out.
#[test]
fn what_is_just_good_enough_is_good() {
    let longest = format!("\"{}\"", "a".repeat(64));
    let table = [
        ("/store/entries", "1048576"),
        ("/store/redis", r#"{"url": "http://127.0.0.1:7379"}"#),
        ("/store/redis/url", r#""http://127.0.0.1:7379/""#),
        ("/store/redis/url", r#""http://webdis.internal""#),
        ("/store/redis/url", r#""http://[::1]:7379""#),
        ("/store/redis/url", r#""http://127.0.0.1:65535""#),
        ("/store/redis/cluster", longest.as_str()),
        ("/store/redis/timeout_ms", "10"),
        ("/store/redis/timeout_ms", "5000"),
        ("/store/redis/prefix", r#"":""#),
        ("/store/redis/prefix", longest.as_str()),
        ("/store/redis/durable", "true"),
        ("/store/revocations", "{}"),
        ("/store/revocations", r#"{"refresh": 15}"#),
        ("/store/revocations", r#"{"refresh": 1, "stale": 2, "when_stale": "serve"}"#),
        ("/store/revocations", r#"{"refresh": 60, "stale": 120}"#),
        ("/store/revocations/stale", "86400"),
        ("/store/directory", "{}"),
        ("/store/directory", r#"{"fresh": 1, "unknown": 1, "entries": 100}"#),
        ("/store/directory", r#"{"fresh": 3600, "unknown": 300, "entries": 1000000}"#),
        ("/audit", r#""all""#),
        ("/limit_headers", "{}"),
        ("/limit_headers/x-ratelimit-reset", r#""reset_seconds""#),
        ("/limit_headers/x-ratelimit-reset", r#""reset_unix""#),
        ("/limit_headers/ratelimit-remaining", r#""remaining""#),
        ("/limits/0/id", longest.as_str()),
        ("/limits/0/per", r#"["key", "token", "team", "organization", "family", "route", "address"]"#),
        ("/limits/0/count", r#""requests""#),
        ("/limits/0/window", r#"{"max": 1, "seconds": 1}"#),
        ("/limits/0/window", r#"{"max": 1000000000, "seconds": 2678400}"#),
        ("/limits/0/credentials", r#"["api_key", "ct", "partner"]"#),
        ("/limits/0/strength", r#""node""#),
        ("/limits/2/rate", r#"{"max": 1, "seconds": 86400, "burst": 1}"#),
        ("/limits/2/rate", r#"{"max": 1000000, "seconds": 1, "burst": 1000000}"#),
        ("/limits/2/rate", r#"{"max": 10, "seconds": 1, "burst": 1}"#),
        (
            "/limits/2/routes",
            r#"["charge", "browse", "status", "mint", "revoke", "state", "list", "socket"]"#,
        ),
        ("/limits/3/credentials", r#"["api_key"]"#),
        ("/limits/3/routes", r#"["mint"]"#),
        ("/limits/4/count", r#""requests""#),
        ("/limits/4/routes", r#"["socket"]"#),
        ("/limits/4/sessions/max", "1"),
        ("/limits/4/sessions/max", "10000"),
        ("/limits/5/strength", r#""node""#),
        ("/limits/5/routes", r#"["mint", "charge"]"#),
        (
            "/limits/5",
            r#"{"id": "g", "per": "address", "count": "failures", "rate": {"max": 1, "seconds": 60, "burst": 5}}"#,
        ),
        ("/teams/0/limits", "{}"),
        ("/teams/0/limits/day", "1"),
        ("/teams/0/limits/day", "1000000000"),
        ("/teams/0/limits/burst", "1000000"),
        ("/teams/0/limits/live", "10000"),
        ("/teams/1/limits/minute", "5"),
        ("/users/0/limits/all", "5"),
        ("/api_keys/0/limits/live", "5"),
        ("/api_keys/1/limits", r#"{"minute": 5}"#),
        ("/revocations", "[]"),
        ("/revocations/0/key", r#""backend""#),
        ("/revocations/1/token", r#""01J9ZK7Q:urn/x=~""#),
        ("/revocations/2/tokens_of_key", r#""partner""#),
        ("/revocations/3/before", "4102444800"),
        ("/tokens/ct/uses", "{}"),
        ("/tokens/ct/uses/default", "5"),
        ("/tokens/ct/total_seconds", "{}"),
        ("/tokens/ct/total_seconds/default", "3600"),
        ("/routes/0/mint/request/uses", r#"{"member": "maxUses"}"#),
        (
            "/routes/0/mint/request/uses",
            r#"{"member": "/call/uses", "min": 1000, "max": 1000, "required": true, "nullable": true}"#,
        ),
        ("/routes/0/mint/request/total", r#"{"member": "total"}"#),
        ("/routes/0/mint/request/total", r#"{"member": "total", "min": 604800, "max": 604800}"#),
        ("/routes/1/uses", "{}"),
        ("/routes/1/uses", r#"{"counted": true}"#),
        ("/routes/1/uses", r#"{"counted": false}"#),
        ("/routes/1/uses", r#"{"max": 1000, "reconnect_seconds": 1}"#),
        ("/routes/1/uses", r#"{"reconnect_seconds": 300}"#),
        ("/routes/5/revoke", "{}"),
        ("/routes/5/revoke", r#"{"reach": "own"}"#),
    ];
    let mut refused = Vec::new();
    for (pointer, value) in table {
        let mut policy = remembering();
        // What has a maximum of its own for the limit would need the limit to stay as it is.
        if pointer == "/limits/0/id" {
            policy["api_keys"][0]["limits"] = json!({});
        }
        set(&mut policy, pointer, serde_json::from_str(value).expect("JSON"));
        let problems = problems_of(&policy.to_string());
        if !problems.is_empty() {
            refused.push(format!("{pointer} = {value}: {problems:#?}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Nothing that may be left out need be there: the store is then the gateway's own memory.
#[test]
fn an_empty_store_and_no_store_are_good() {
    for store in [None, Some(json!({})), Some(json!({"home": "local"}))] {
        let mut policy = at_home();
        match &store {
            None => _ = policy.as_object_mut().expect("an object").remove("store"),
            Some(store) => policy["store"] = store.clone(),
        }
        assert_eq!(problems_of(&policy.to_string()), Vec::<String>::new(), "{store:?}");
    }
}

const UNSEALED: &str =
    "store.secret: not set, so another plugin in the same VM could change what is remembered unseen";

fn warnings_of(policy: &Value) -> Vec<String> {
    let lookup = |name: &str| (name == "MASTER").then(|| MASTER.to_owned());
    let compiled = compile(policy.to_string().as_bytes(), &Secrets::Lookup(&lookup));
    compiled.map(|policy| policy.warnings).unwrap_or_else(|error| panic!("{error}"))
}

/// Whatever stands in the gateway's own memory needs a secret; a policy that keeps nothing there needs none.
#[test]
fn a_store_without_a_secret_warns() {
    let no_limits = json!({"limits": [], "limit_headers": {}});
    let bare = |more: &Value| {
        let mut policy = rich();
        callbound::policy::merge(&mut policy, no_limits.clone());
        callbound::policy::merge(&mut policy, more.clone());
        policy
    };
    let mut asked = bare(&json!({}));
    set(&mut asked, "/routes/0/mint/request/uses", json!({"member": "uses"}));
    let mut asked_total = bare(&json!({}));
    set(&mut asked_total, "/routes/0/mint/request/total", json!({"member": "total"}));
    let mut demanded = bare(&json!({}));
    set(&mut demanded, "/routes/1/uses", json!({"max": 1}));
    let mut revoking = bare(&json!({}));
    let revoke = json!({"id": "revoke", "match": "POST /revocations", "accept": ["api_key"], "scopes": ["admin"], "revoke": {}});
    revoking["routes"].as_array_mut().expect("a list").push(revoke);
    let limit = json!([{"id": "minute", "per": "key", "window": {"max": 1, "seconds": 60}}]);
    let table = [
        ("a limit", bare(&json!({"limits": limit.clone()}))),
        ("uses", bare(&json!({"tokens": {"ct": {"uses": {"default": 1}}}}))),
        ("seconds", bare(&json!({"tokens": {"ct": {"total_seconds": {"default": 60}}}}))),
        ("uses that are asked for", asked),
        ("seconds that are asked for", asked_total),
        ("uses that a route demands", demanded),
        ("revocations", revoking),
    ];
    let mut silent = Vec::new();
    for (what, policy) in table {
        if !warnings_of(&policy).iter().any(|warning| warning == UNSEALED) {
            silent.push(what);
        }
    }
    assert!(silent.is_empty(), "no warning: {silent:?}");
    assert!(!warnings_of(&bare(&json!({}))).iter().any(|warning| warning == UNSEALED), "nothing is kept");
    let sealed = bare(&json!({"limits": limit, "store": {"secret": {"derive": {"env": "MASTER"}}}}));
    assert!(!warnings_of(&sealed).iter().any(|warning| warning == UNSEALED), "it is sealed");
}

/// `callbound check` without `--secrets` does not look at secrets; that there is one it sees.
#[test]
fn a_secret_that_was_not_looked_at_is_not_missing() {
    let compiled = compile(at_home().to_string().as_bytes(), &Secrets::Unchecked).expect("it compiles");
    assert!(!compiled.warnings.iter().any(|warning| warning == UNSEALED), "{:?}", compiled.warnings);
}

/// Keys that are looked up do not stand in the policy: it may have none, and revoke those it does not know.
#[test]
fn a_policy_with_a_directory_needs_no_keys_of_its_own() {
    let mut policy = good();
    policy["store"] = json!({"home": "redis", "redis": {"url": "http://127.0.0.1:7379"}, "directory": {}});
    policy["api_keys"] = json!([]);
    let warnings = warnings_of(&policy);
    assert!(!warnings.iter().any(|warning| warning.starts_with("api_keys: there are none")), "{warnings:?}");
    policy["revocations"] =
        json!([{"key": "elsewhere"}, {"tokens_of_key": "elsewhere", "before": 1_790_000_000}]);
    assert_eq!(problems_of(&policy.to_string()), Vec::<String>::new());
}

#[test]
fn a_secret_of_the_store_in_the_policy_needs_leave_and_warns() {
    for secret in [json!({"inline": MASTER}), json!({"derive": {"inline": MASTER}})] {
        let mut policy = at_home();
        policy["allow_inline_secrets"] = json!(true);
        policy["store"]["secret"] = secret;
        let warnings = warnings_of(&policy);
        assert!(
            warnings.iter().any(|warning| warning.starts_with("store: a secret stands in the policy")),
            "{warnings:?}"
        );
        assert!(!warnings.concat().contains(MASTER));
    }
}

#[test]
fn a_member_of_what_is_remembered_that_stands_twice_is_refused() {
    let table = [
        (r#""day":500"#, r#""day":500,"day":50000"#),
        (r#""x-ratelimit-limit":"limit""#, r#""x-ratelimit-limit":"limit","x-ratelimit-limit":"remaining""#),
        (r#""home":"redis""#, r#""home":"redis","home":"local""#),
        (r#""reach":"platform""#, r#""reach":"platform","reach":"own""#),
    ];
    for (once, twice) in table {
        let text = remembering().to_string();
        assert!(text.contains(once), "{once} is not in {text}");
        let problems = problems_of(&text.replacen(once, twice, 1));
        assert!(problems.concat().contains("stands twice"), "{twice}: {problems:#?}");
    }
}
