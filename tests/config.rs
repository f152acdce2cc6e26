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
        "WORDS" => Some("cGFzc3dvcmQtcGFzc3dvcmQtcGFzc3dvcmQtcGFzc3dvcmQ".to_owned()),
        "PADDED" => Some(format!("{MASTER}=")),
        _ => None,
    };
    match compile(text.as_bytes(), &Secrets::Lookup(&lookup)) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

/// The problems of the good policy with one member, named by its JSON pointer, set to something else.
fn problems_with(pointer: &str, value: Value) -> Vec<String> {
    let mut policy = good();
    set(&mut policy, pointer, value);
    problems_of(&policy.to_string())
}

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
    ("/host", r#""nginx""#, "host: expected one of `envoy`"),
    ("/host", "null", "host: expected one of `envoy`"),
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
        "routes[0].mint.reply.body: `$tokn` is no value of this answer; there are `$token`, `$jwt`, `$ttl`, `$expires_at`, `$expires_at_iso`, `$issued_at`, `$issued_at_iso`, `$from`, `$to`, `$scopes`, `$session`, `$metadata`, `$token_id`, `$key_id`",
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
    let mut wrong = Vec::new();
    for (pointer, value, expected) in WRONG {
        let problems = problems_with(pointer, serde_json::from_str(value).expect("JSON"));
        if !problems.iter().any(|problem| problem == expected) {
            wrong.push(format!("{pointer} = {value}\n  expected {expected}\n  got      {problems:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
        ("/host", "host: missing; name the gateway: `envoy`"),
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
    let mut echoed = Vec::new();
    for place in places {
        for value in &values {
            // The names of things and of variables are meant to be repeated.
            let is_name = ["/keyring/0/kid", "/keyring/0/families"].contains(&place)
                || (place == "/keyring/0/secret" && value["env"] == SECRET);
            let problems = problems_with(place, value.clone());
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
        "routes[4]: expected at most one of `mint`, `introspect`, `directory` and `jwks`",
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
    let mut wrong = Vec::new();
    for (pointer, value, expected) in WRONG_OF_THE_RICH {
        let mut policy = rich();
        set(&mut policy, pointer, serde_json::from_str(value).expect("JSON"));
        let problems = problems_of(&policy.to_string());
        if !problems.iter().any(|problem| problem == expected) {
            wrong.push(format!("{pointer} = {value}\n  expected {expected}\n  got      {problems:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
