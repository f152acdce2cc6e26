//! `callbound schema` and the compiler say the same: what one takes by its shape the other takes, and no member is
//! without a meaning in the schema and a place in the documentation.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use callbound::policy::{Secrets, compile, merge, schema};
use jsonschema::Validator;
use serde_json::{Value, json};

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON files of a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(path(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    paths.sort();
    paths
}

fn validator() -> Validator {
    let schema = schema();
    jsonschema::meta::validate(&schema).expect("a valid schema");
    jsonschema::draft202012::new(&schema).expect("a schema")
}

/// What the schema has against a policy.
fn objections(validator: &Validator, policy: &Value) -> Vec<String> {
    validator.iter_errors(policy).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// What the compiler has against a policy.
fn problems(policy: &Value) -> Vec<String> {
    match compile(policy.to_string().as_bytes(), &Secrets::Unchecked) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

/// A policy with every member there is.
fn everything() -> Value {
    serde_json::from_str(EVERYTHING).expect("JSON")
}

const EVERYTHING: &str = r##"{
  "$comment": "Every member of the language.",
  "$schema": "./policy.schema.json",
  "version": 1,
  "host": "envoy",
  "allow_inline_secrets": true,
  "hold_headers": "filter",
  "sessions_ended_by": "upstream",
  "metrics": true,
  "hold_seconds": 20,
  "platform": {
    "features": {"webrtc": true, "api": true},
    "requires": {"webrtc": ["api"]},
    "scopes": ["tokens:mint", "calls:write", "calls:read", "admin"],
    "implies": {"admin": ["calls:write", "calls:read"]},
    "bounds": {
      "model": {"form": "text", "values": ["m-1", "m-2"], "aliases": {"m-latest": "m-2"}},
      "origin": {"form": "origin"},
      "session_id": {}
    },
    "premium_for_api_keys": false
  },
  "credentials": {
    "api_key_formats": [{"prefix": "demo_", "alphabet": "hex", "length": {"min": 32, "max": 32}}],
    "locations": [{"header": "authorization", "scheme": "Bearer"}],
    "forward_credential": false
  },
  "token_keys": [
    {"kid": "1", "alg": "HS256", "secret": {"derive": {"env": "MASTER"}}, "sign": true, "families": ["ct"]},
    {"kid": "2", "alg": "HS256", "secret": {"inline": "bWFzdGVyIG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgb3IgbW9yZcO_"}},
    {"kid": "3", "alg": "ES256", "jwk": {
      "kty": "EC", "crv": "P-256", "kid": "3", "alg": "ES256", "use": "sig", "key_ops": ["verify"],
      "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}
  ],
  "tokens": {"ct": {
      "prefix": "ct_", "bare": true, "typ": "ct+jwt", "issuer": "demo", "audience": "gateway",
      "ttl_seconds": {"min": 60, "max": 3600, "default": 900}, "clock": {"leeway_seconds": 1, "ahead_seconds": 10},
      "default_scopes": ["calls:write"], "mintable_scopes": ["calls:write", "calls:read"],
      "uses": {"default": 1, "strength": "fleet"}, "total_seconds": {"default": 600, "strength": "node"}
    }},
    "issuers": {"partner": {"issuer": "https://partner.example", "audience": "calls", "ttl_seconds": {"max": 3600}, "clock": {"leeway_seconds": 1}, "default_scopes": ["calls:read"], "acts_as": "partner-app", "algorithms": ["RS256"], "typ": ["JWT"], "jwks": {"keys": [{"kty": "RSA", "kid": "r", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}, "claims": {"team": "/org?", "scopes": "/scope", "from": "/from?", "to": "/to?", "model": "/models?"}, "scopes": {"call.place": ["calls:write"]}}, "idp": {"issuer": "https://idp.example", "audience": "calls", "ttl_seconds": {"max": 600}, "acts_as": "partner-app", "algorithms": ["ES256", "EdDSA"], "jwks": {"url": "https://idp.example/keys", "cluster": "idp", "refresh_seconds": 300, "stale_seconds": 3600, "cooldown_seconds": 30}}},
  "teams": [
    {"id": "acme", "kind": "organization", "labels": {"region": "west"}, "numbers": ["+15551234567", {"e164": "+15551230000", "active": false}],
     "limits": {"day": 50000}},
    {"id": "west", "kind": "sub_entity", "parent": "acme", "features": {"webrtc": false}, "scopes": ["calls:write"],
     "ceiling": {"to": ["+15557654321"], "model": ["m-1"]}}
  ],
  "users": [{"id": "u1", "member_of": ["west"], "numbers": ["+15559870000"], "features": {"api": true},
             "scopes": ["calls:read"], "limits": {"day": 20}}],
  "endpoints": [{"id": "ep-1", "name": "Support", "app": "line", "team": "acme", "features": {"webrtc": true},
                 "state": "active", "origins": ["https://example.com"], "addresses": ["203.0.113.0/24"]}],
  "api_keys": [
    {"id": "backend", "sha256": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0", "team": "acme",
     "scopes": ["tokens:mint", "calls:write"], "expires_at": 1798761600, "revoked": false,
     "ceiling": {"from": ["+15551234567"], "to": ["+15557654321"], "session_seconds": 600, "endpoint": ["ep-1"]},
     "limits": {"minute": 1200}},
    {"id": "own", "sha256": "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0", "user": "u1", "scopes": ["calls:read"]},
    {"id": "partner-app", "team": "acme", "scopes": ["calls:read"]}
  ],
  "upstream_credentials": [{"id": "vendor", "secret": {"env": "VENDOR_KEY"}}, {"id": "other", "secret": {"inline": "x1"}}],
  "vocabulary": {"from": ["caller_id"], "to": ["destination"]},
  "constants": {"domain": "example.com", "none": null, "list": [1, {"a": 2.5}]},
  "routes": [
    {"id": "mint", "match": "POST /v1/tokens", "accept": ["api_key"], "features": "webrtc", "scopes": ["tokens:mint"],
     "refusals": "sdk",
     "mint": {
       "family": "ct",
       "request": {
         "body_required": false,
         "from": {"field": "from", "required": true, "max": 50},
         "to": {"field": "to", "max": 200, "empty": "absent"},
         "scopes": {"field": "scopes", "max": 5, "nullable": true},
         "ttl_seconds": {"field": "ttl", "nullable": true},
         "session_seconds": {"field": "/limits/session", "min": 10, "max": 86400},
         "uses": {"field": "maxUses", "min": 1, "max": 5},
         "total_seconds": {"field": "/limits/total", "required": true, "nullable": true},
         "metadata": {"field": "metadata", "max_bytes": 512},
         "model": {"field": "models", "max": 20, "empty": "refuse"},
         "endpoint": {"field": "endpoint", "requires_feature": "webrtc"},
         "session_id": {"generate": "uuid"}
       },
       "reply": {"status": 200, "body": {"token": "$token", "jwt": "$jwt", "model": "$model", "at": "$constants.domain",
                                         "uses": "$uses", "total": "$total_seconds",
                                         "fixed": [null, true, 1, 2.5, "$constants.none", "$constants.list"]}}
     }},
    {"id": "introspect", "match": "POST /v1/tokens/state", "accept": ["api_key"],
     "introspect": {"families": ["ct"], "field": "token", "reply": {"active": "$active", "state": "$state", "endpoint": "$endpoint", "uses": "$uses", "total": "$total_seconds"}}},
    {"id": "apps", "match": "GET /v1/apps", "accept": ["api_key"],
     "list": {"of": "apps", "page": "query:page", "limit": {"at": "query:limit", "default": 20, "max": 100},
                   "endpoint": {"id": "$id"}, "app": {"name": "$app", "endpoints": "$endpoints"},
                   "reply": {"apps": "$items", "total": "$total"}}},
    {"id": "jwks", "match": "GET /v1/keys", "accept": ["public"], "jwks": ["ct"]},
    {"id": "dial", "match": ["POST /v1/calls", "POST /v1/{team}/calls"], "accept": ["api_key", "ct"],
     "scopes": ["calls:write"], "tenant": {"body": "/team?"}, "uses": {"counted": true, "max": 3},
     "bounds": {
       "from": {"fields": "/from", "delegated_by": "/set"},
       "to": {"fields": ["/to", "/second?"], "partial": true},
       "model": "query:model?",
       "endpoint": {"fields": "query:endpoint?", "implied": true, "requires_feature": "webrtc"},
       "session_id": "any"
     },
     "body": {"members": ["/team", "/note"]}, "query": {"members": ["trace"]}},
    {"id": "stream", "match": "GET /v1/stream", "accept": ["ct"], "features": ["webrtc"], "upgrade": "websocket",
     "credential_locations": [{"query": "api_key"}], "session_seconds": 3600, "tenant": {"query": "team?"},
     "uses": {"max": 2, "reconnect_seconds": 20},
     "forward_fields": ["endpoint", "session_id", "metadata"],
     "upstream_credential": {"key": "vendor", "at": "header:authorization", "scheme": "Bearer"},
     "bounds": {"model": "query:model", "endpoint": "query:ep?", "session_id": "unreadable"}},
    {"id": "team", "match": "GET /v1/teams/{id}", "accept": ["api_key"], "scopes": ["calls:read"],
     "tenant": {"path": "id"}, "include_parent": true},
    {"id": "me", "match": "GET /v1/me", "accept": ["api_key", "partner", "idp"], "tenant": {"header": "x-team?"},
     "bounds": {"model": "any"}},
    {"id": "revoke", "match": "POST /v1/revocations", "accept": ["api_key"], "scopes": ["admin"], "revoke": {"reach": "own"}}
  ],
  "store": {
    "backend": "redis", "entries": 65536, "secret": {"derive": {"env": "MASTER"}},
    "redis": {"url": "http://127.0.0.1:7379", "cluster": "callbound_store", "timeout_ms": 250, "prefix": "callbound:",
              "durable": false},
    "revocations": {"refresh_seconds": 2, "stale_seconds": 30, "when_stale": "refuse"},
    "directory": {"fresh_seconds": 30, "unknown_seconds": 5, "entries": 10000}
  },
  "limits": [
    {"id": "minute", "per": "key", "window": {"max": 600, "seconds": 60}, "strength": "fleet"},
    {"id": "day", "per": "team", "count": "requests", "window": {"max": 10000, "seconds": 86400}},
    {"id": "burst", "per": ["team", "route"], "rate": {"max": 10, "seconds": 1, "burst": 20}, "routes": ["dial", "me"]},
    {"id": "mints", "per": ["organization", "key"], "count": "mints", "window": {"max": 60, "seconds": 60}},
    {"id": "live", "per": "token", "sessions": {"max": 2}, "credentials": ["ct"]},
    {"id": "guesses", "per": "address", "count": "failures", "window": {"max": 30, "seconds": 60}, "strength": "node"}
  ],
  "limit_headers": {"x-ratelimit-limit": "limit", "x-ratelimit-remaining": "remaining", "x-ratelimit-reset": "reset_unix_ms"},
  "revocations": [
    {"key": "own"}, {"token": "2da26ec0f3b94c41a2d7c1f0e7b6a593"},
    {"tokens_of_key": "partner-app", "before": 1790000000}, {"tokens_of_team": "west", "before": 1790000000}
  ],
  "audit": "refusals",
  "unmatched": "pass",
  "refusals": {
    "realm": "demo",
    "resource_metadata": "https://demo.example/.well-known/oauth-protected-resource",
    "envelope": {"error": {"code": "$code", "where": ["$loc", {"is": "$field"}], "docs": null}},
    "envelopes": {"422": {"detail": [{"loc": "$loc", "msg": "$message"}]}},
    "codes": {"400": "validation_error"},
    "reasons": {"from_not_owned": {"status": 422, "code": "unverified", "message": "verify it first"}},
    "groups": {"sdk": {"envelope": {"error": "$message"}, "envelopes": {"409": {"at": "$field"}},
                       "codes": {"401": "who"}, "reasons": {"to_denied": {"status": 404}}}}
  }
}"##;

#[test]
fn everything_is_a_policy() {
    assert_eq!(problems(&everything()), Vec::<String>::new());
    assert_eq!(objections(&validator(), &everything()), Vec::<String>::new());
    let mut used = BTreeSet::new();
    names_of(&everything(), &mut used);
    // For hosts that could not do all the rest; see tests/host_policies.rs.
    used.insert("entropy".to_owned());
    let all: BTreeSet<String> = members().into_iter().map(|(name, _)| name).collect();
    assert!(all.len() > 100, "the schema has only {} members", all.len());
    assert_eq!(all.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "not in `EVERYTHING`");
}

/// The names of an instance's members.
fn names_of(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| names_of(item, names)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            names.insert(name.clone());
            names_of(value, names);
        }),
        _ => {}
    }
}

/// Every member the schema has anywhere: its name and its schema.
fn members() -> Vec<(String, Value)> {
    fn walk(schema: &Value, found: &mut Vec<(String, Value)>) {
        match schema {
            Value::Array(choices) => choices.iter().for_each(|choice| walk(choice, found)),
            Value::Object(keywords) => keywords.iter().for_each(|(keyword, value)| match keyword.as_str() {
                "properties" => value.as_object().expect("members").iter().for_each(|(name, member)| {
                    found.push((name.clone(), member.clone()));
                    walk(member, found);
                }),
                "$defs" => value.as_object().expect("types").values().for_each(|value| walk(value, found)),
                "default" | "enum" | "const" | "required" | "dependentRequired" | "propertyNames" => {}
                _ => walk(value, found),
            }),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&schema(), &mut found);
    found
}

#[test]
fn every_member_is_described() {
    let nameless = members().into_iter().filter(|(_, member)| {
        member.get("description").and_then(Value::as_str).is_none_or(|text| text.len() < 5)
    });
    assert_eq!(nameless.collect::<Vec<_>>(), Vec::new());
}

/// What the documentation shows as JSON is JSON that the module reads: no member twice, no comment.
#[test]
fn examples_of_the_documentation_are_json() {
    let text = fs::read_to_string(path("docs/policies.md")).expect("the documentation");
    let blocks: Vec<&str> =
        text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 15, "{} examples", blocks.len());
    for block in blocks {
        if let Err(error) = callbound::json::Json::parse(block.as_bytes()) {
            panic!("{error}:\n{block}");
        }
    }
}

#[test]
fn every_member_stands_in_the_documentation() {
    let docs = fs::read_to_string(path("docs/policies.md")).expect("the documentation");
    let names: BTreeSet<String> = members().into_iter().map(|(name, _)| name).collect();
    let is_missing =
        |name: &&String| !docs.contains(&format!("`{name}`")) && !docs.contains(&format!("\"{name}\""));
    assert_eq!(names.iter().filter(is_missing).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn schema_has_a_dialect_and_every_section() {
    let schema = schema();
    let sections: Vec<&String> = schema["properties"].as_object().expect("sections").keys().collect();
    assert!(sections.len() > 25, "{sections:?}");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn what_is_shipped_fits() {
    let validator = validator();
    let examples = files("policies/examples");
    let mut merged = 0;
    for platform in files("policies") {
        let policy = read(&platform);
        assert_eq!(objections(&validator, &policy), Vec::<String>::new(), "{}", platform.display());
        let stem = platform.file_stem().expect("a name").to_string_lossy().into_owned();
        let belongs =
            |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&stem));
        for example in examples.iter().filter(belongs) {
            let mut policy = policy.clone();
            merge(&mut policy, read(example));
            assert_eq!(objections(&validator, &policy), Vec::<String>::new(), "{}", example.display());
            merged += 1;
        }
    }
    assert!(merged >= 3 && merged == examples.len(), "{merged} of {} examples were merged", examples.len());
    let init = read(&path("src/bin/callbound/init.json"));
    assert_eq!(objections(&validator, &init), Vec::<String>::new());
}

/// The policies of the corpus, with what is merged over them.
fn corpus() -> Vec<(String, Value)> {
    let read_case = |file: &PathBuf| {
        let case = read(file);
        let mut policy = match &case["policy"] {
            Value::String(name) => read(&path("tests/cases").join(name)),
            policy => policy.clone(),
        };
        if !case["overlay"].is_null() {
            merge(&mut policy, case["overlay"].clone());
        }
        (file.display().to_string(), policy)
    };
    files("tests/cases").iter().map(read_case).collect()
}

#[test]
fn what_the_compiler_takes_fits() {
    let validator = validator();
    let corpus = corpus();
    let taken: Vec<_> = corpus.iter().filter(|(_, policy)| problems(policy).is_empty()).collect();
    assert!(taken.len() > 30, "only {} of {} policies compile", taken.len(), corpus.len());
    for (name, policy) in taken {
        assert_eq!(objections(&validator, policy), Vec::<String>::new(), "{name}");
    }
}

/// One member set to what the compiler refuses by its shape alone.
const WRONG: &[(&str, &str)] = &[
    ("/$schema", "1"),
    ("/colour", "1"),
    ("/version", "2"),
    ("/version", r#""1""#),
    ("/host", r#""caddy""#),
    ("/hold_seconds", "-1"),
    ("/hold_seconds", "null"),
    ("/allow_inline_secrets", r#""yes""#),
    ("/unmatched", r#""allow""#),
    ("/unmatched", "null"),
    ("/platform/features/webrtc", "null"),
    ("/platform/features/webrtc", r#""on""#),
    ("/platform/premium_for_api_keys", r#""maybe""#),
    ("/platform/bounds/model/form", r#""uri""#),
    ("/platform/bounds/model/pattern", r#"".*""#),
    ("/credentials/api_key_formats/0/alphabet", r#""base64""#),
    ("/credentials/api_key_formats/0/length", "32"),
    ("/credentials/locations/0/cookie", r#""session""#),
    ("/token_keys/0/alg", r#""none""#),
    ("/token_keys/0/alg", r#""hs256""#),
    ("/token_keys/0/secret", r#""MASTER""#),
    ("/token_keys/0/secret", r#"{"file": "/etc/secret"}"#),
    ("/token_keys/0/secret/derive", r#"{"derive": {"env": "MASTER"}}"#),
    ("/token_keys/2/jwk/d", r#""x""#),
    ("/tokens/ct/ttl_seconds", "900"),
    ("/tokens/ct/ttl_seconds/max", r#""1h""#),
    ("/tokens/ct/external", "{}"),
    ("/issuers/partner/prefix", r#""p_""#),
    ("/issuers/partner/algorithms/0", r#""PS256""#),
    ("/issuers/partner/claims/team", r#"["/org"]"#),
    ("/issuers/idp/jwks/url", "null"),
    ("/teams/0/kind", r#""team""#),
    ("/teams/0/numbers/1/active", r#""no""#),
    ("/teams/0/numbers/1/label", r#""desk""#),
    ("/teams/0/parent", "null"),
    ("/teams/1/ceiling/to", "[]"),
    ("/teams/1/ceiling/model", "null"),
    ("/endpoints/0/state", r#""disabled""#),
    ("/api_keys/0/expires_at", r#""2027-01-01""#),
    ("/api_keys/0/ceiling/session_seconds", r#""10m""#),
    ("/api_keys/0/scope", r#"["calls:read"]"#),
    ("/vocabulary/caller", r#"["ani"]"#),
    ("/routes", "[]"),
    ("/routes/0/match", r#"{"POST": "/v1"}"#),
    ("/routes/0/mint/request/body_required", r#""none""#),
    ("/routes/0/mint/request/ttl_seconds", r#""ttl""#),
    ("/routes/0/mint/request/ttl_seconds/max", "900"),
    ("/routes/0/mint/request/from/min", "1"),
    ("/routes/0/mint/request/from/max", "null"),
    ("/routes/0/mint/request/to/empty", r#""ignore""#),
    ("/routes/0/mint/request/metadata/max", "900"),
    ("/routes/0/mint/request/model/kind", r#""list""#),
    ("/routes/0/mint/request/session_id/generate", r#""ulid""#),
    ("/routes/0/mint/reply/status", r#""200""#),
    ("/routes/0/mint/reply/body/x", r#""$no such""#),
    ("/routes/1/introspect/reply/x", r#""$constants.domain""#),
    ("/routes/2/list/of", r#""teams""#),
    ("/routes/2/list/limit/min", "1"),
    ("/routes/2/list/endpoint/x", r#""$token""#),
    ("/routes/4/tenant", r#"{"cookie": "team"}"#),
    ("/routes/4/tenant", r#"{"path": "team", "query": "team"}"#),
    ("/routes/4/tenant", "null"),
    ("/routes/4/bounds/from/requires", r#""webrtc""#),
    ("/routes/4/bounds/to/member", r#"["/to"]"#),
    ("/routes/4/body/members", "true"),
    ("/routes/4/bounds/model", r#""all""#),
    ("/routes/4/bounds/model", "null"),
    ("/routes/5/upgrade", "true"),
    ("/routes/5/upstream_credential/value", r#""x""#),
    ("/refusals/envelope/error/x", r#""$reason""#),
    ("/refusals/envelopes/422/detail/0/x", r#""$token""#),
    ("/refusals/codes/4xx", r#""client""#),
    ("/refusals/codes/200", r#""fine""#),
    ("/refusals/codes/400", "null"),
    ("/refusals/reasons/no_reason", r#"{"code": "x"}"#),
    ("/refusals/reasons/from_not_owned/status", r#""422""#),
    ("/refusals/groups/sdk/realm", r#""sdk""#),
    ("/tokens/ct/uses", "1"),
    ("/tokens/ct/uses/max", "1"),
    ("/tokens/ct/uses/strength", r#""strong""#),
    ("/tokens/ct/uses/strength", "null"),
    ("/tokens/ct/total_seconds/default", r#""10m""#),
    ("/tokens/ct/total_seconds/max", "600"),
    ("/issuers/partner/uses", r#"{"default": 1}"#),
    ("/issuers/partner/total_seconds", r#"{"default": 600}"#),
    ("/teams/0/limits", "500"),
    ("/teams/0/limits", "null"),
    ("/teams/0/limits/day", r#""500""#),
    ("/teams/0/limits/day", "-1"),
    ("/users/0/limits/day", "null"),
    ("/api_keys/0/limits/minute", r#"{"max": 1200}"#),
    ("/endpoints/0/limits", r#"{"day": 1}"#),
    ("/routes/0/mint/request/uses", r#""maxUses""#),
    ("/routes/0/mint/request/uses", "{}"),
    ("/routes/0/mint/request/uses/default", "1"),
    ("/routes/0/mint/request/uses/max_bytes", "5"),
    ("/routes/0/mint/request/total_seconds/generate", r#""uuid""#),
    ("/routes/0/mint/request/total_seconds/empty", r#""absent""#),
    ("/routes/0/mint/request/total_seconds", r#""totalSeconds""#),
    ("/routes/4/uses", "1"),
    ("/routes/4/uses", "null"),
    ("/routes/4/uses/default", "1"),
    ("/routes/4/uses/strength", r#""node""#),
    ("/routes/4/uses/counted", r#""no""#),
    ("/routes/4/uses/max", "null"),
    ("/routes/5/uses/reconnect", "20"),
    ("/routes/5/uses/reconnect_seconds", r#""20s""#),
    ("/routes/8/revoke", "true"),
    ("/routes/8/revoke", "null"),
    ("/routes/8/revoke/reach", r#""all""#),
    ("/routes/8/revoke/scopes", r#"["admin"]"#),
    ("/store", r#""redis""#),
    ("/store", "null"),
    ("/store/backend", r#""fleet""#),
    ("/store/backend", "null"),
    ("/store/entries", r#""many""#),
    ("/store/entries", "-1"),
    ("/store/secret", r#""MASTER""#),
    ("/store/secret", r#"{"file": "/etc/secret"}"#),
    ("/store/redis", r#""http://127.0.0.1:7379""#),
    ("/store/redis/url", "null"),
    ("/store/redis/password", r#""x""#),
    ("/store/redis/timeout", "250"),
    ("/store/redis/timeout_ms", r#""250ms""#),
    ("/store/redis/durable", r#""yes""#),
    ("/store/revocations/refresh_seconds", "0.5"),
    ("/store/revocations/when_stale", r#""ignore""#),
    ("/store/directory", "true"),
    ("/store/directory", "null"),
    ("/store/directory/fresh_seconds", r#""30s""#),
    ("/store/directory/unknown_seconds", "null"),
    ("/store/directory/stale", "30"),
    ("/audit", r#""everything""#),
    ("/audit", "true"),
    ("/audit", "null"),
    ("/limits", r#"{"minute": 600}"#),
    ("/limits/0", r#""minute""#),
    ("/limits/0/id", "null"),
    ("/limits/0/per", r#"{"key": 1}"#),
    ("/limits/0/max", "600"),
    ("/limits/0/window", r#""600/60""#),
    ("/limits/0/window", "null"),
    ("/limits/0/window", r#"{"max": 600}"#),
    ("/limits/0/window/burst", "20"),
    ("/limits/0/window/seconds", r#""minute""#),
    ("/limits/0/strength", r#""cluster""#),
    ("/limits/1/count", r#""errors""#),
    ("/limits/2/rate", r#"{"max": 10, "seconds": 1}"#),
    ("/limits/2/rate/burst", "null"),
    ("/limits/4/sessions", "2"),
    ("/limits/4/sessions/seconds", "60"),
    ("/limit_headers", "[]"),
    ("/limit_headers/x-ratelimit-reset", r#""reset""#),
    ("/limit_headers/x-ratelimit-reset", "null"),
    ("/revocations/0", r#""own""#),
    ("/revocations/0/key", "null"),
    ("/revocations/0/jti", r#""x""#),
    ("/revocations/2/before", r#""2026-09-21""#),
    ("/revocations/2/after", "1790000000"),
];

#[test]
fn one_wrong_member_is_refused_by_both() {
    let validator = validator();
    for (pointer, value) in WRONG {
        let mut policy = everything();
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        let value: Value = serde_json::from_str(value).expect("JSON");
        match policy.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}: no such place")) {
            Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value.clone(),
            parent => parent[name] = value.clone(),
        }
        assert!(!problems(&policy).is_empty(), "the compiler takes {pointer}: {value}");
        assert!(!objections(&validator, &policy).is_empty(), "the schema takes {pointer}: {value}");
    }
}

/// What a limit counts apart is one word of eight or a list of them; an editor can offer no other.
#[test]
fn the_words_of_per_are_the_compilers() {
    let validator = validator();
    let words = ["platform", "organization", "team", "key", "token", "family", "route", "address"];
    let good = words.map(|word| json!(word)).into_iter().chain([json!(["team", "route"])]);
    let wrong = [json!("user"), json!("Key"), json!(""), json!(["key", "user"]), json!([])];
    for (value, is_good) in good.map(|value| (value, true)).chain(wrong.map(|value| (value, false))) {
        let mut policy = everything();
        policy["limits"][0]["per"] = value.clone();
        // What a team or a key has of its own must be counted apart for it; that is another rule.
        for list in ["teams", "users", "api_keys"] {
            policy[list][0].as_object_mut().expect("an entry").remove("limits");
        }
        assert_eq!(problems(&policy).is_empty(), is_good, "the compiler on {value}: {:?}", problems(&policy));
        assert_eq!(objections(&validator, &policy).is_empty(), is_good, "the schema on {value}");
    }
}

/// What no member but a free one can be.
fn misfits() -> [Value; 3] {
    [json!(null), json!(7.5), json!([7.5])]
}

/// Every pointer into an instance, the root left out.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, child) in children {
        let at = format!("{at}/{name}");
        pointers(child, &at, found);
        found.push(at);
    }
}

/// Whatever stands anywhere, put something there that cannot be meant, or something beside it: both refuse it, or both
/// take it (in the bodies of answers, constants and the comment).
#[test]
fn a_misfit_anywhere_is_the_same_to_both() {
    let validator = validator();
    let mut places = Vec::new();
    pointers(&everything(), "", &mut places);
    let (mut refused, mut taken) = (0, 0);
    let mut judge = |policy: &Value, what: &str| {
        let (mut problems, objections) = (problems(policy), objections(&validator, policy));
        // What one place uses of another is beyond a schema.
        problems.retain(|problem| !problem.contains("no mint reply uses it"));
        assert_eq!(problems.is_empty(), objections.is_empty(), "{what}: {problems:?}, {objections:?}");
        if problems.is_empty() { taken += 1 } else { refused += 1 }
    };
    for place in &places {
        for misfit in misfits() {
            let mut policy = everything();
            *policy.pointer_mut(place).expect("a place") = misfit.clone();
            judge(&policy, &format!("{place} = {misfit}"));
        }
        let mut policy = everything();
        if let Value::Object(members) = policy.pointer_mut(place).expect("a place") {
            members.insert("colour".into(), json!(7.5));
            judge(&policy, &format!("{place}/colour"));
        }
    }
    assert!(refused > 1_000 && taken > 50, "{refused} were refused, {taken} taken");
}

/// The values that an answer may use stand in the schema as the compiler lists them when it meets another.
#[test]
fn the_values_of_answers_are_the_compilers() {
    for (pointer, name, bounds) in [
        ("/refusals/envelope", "Envelope", false),
        ("/routes/0/mint/reply/body", "MintTemplate", true),
        ("/routes/1/introspect/reply", "StateTemplate", true),
        ("/routes/2/list/endpoint", "EndpointTemplate", false),
        ("/routes/2/list/app", "AppTemplate", false),
        ("/routes/2/list/reply", "PageTemplate", false),
    ] {
        let mut policy = everything();
        policy.pointer_mut(pointer).expect("an answer")["x"] = json!("$no such");
        let problems = problems(&policy);
        let message = problems.first().unwrap_or_else(|| panic!("{pointer}: taken"));
        let (_, list) = message.split_once("expected one of ").unwrap_or_else(|| panic!("{message}"));
        let mut known: BTreeSet<&str> = list.split(", ").map(|name| name.trim_matches('`')).collect();
        let rule = &schema()["$defs"][name]["then"];
        let names = if bounds { &rule["anyOf"][0]["enum"] } else { &rule["enum"] };
        let names: BTreeSet<&str> = names.as_array().expect(name).iter().filter_map(Value::as_str).collect();
        if bounds {
            ["$model", "$origin", "$session_id", "$endpoint"]
                .iter()
                .for_each(|name| assert!(known.remove(name)));
        }
        assert_eq!(names, known, "{pointer}");
    }
}
