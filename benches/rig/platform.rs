//! One platform for all variants: the sample policy with a tenant of its own, the tokens it would mint, and the same
//! rules for Envoy's native filters.

use std::fs;
use std::ops::Range;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use callbound::credential::{Algorithm, Claims, Clock, Family, FamilyKeys, Key, Ttl, derive_secret, digest};
use serde_json::{Value, json};

use super::at;

/// The environment variable the sample policy takes its secret from.
pub const SECRET_NAME: &str = "CALLBOUND_MASTER";
/// Tokens remembered by the native filter: as many as by callbound.
const REMEMBERED: u64 = 2_048;
/// Tokens per set, used in turn: three times what either cache keeps of the least recently used, so that a token is long
/// forgotten when it comes again.
pub const TOKENS: usize = 6_144;

/// Highest number that a window may allow: never reached.
const PLENTY: u64 = 1_000_000_000;
/// Highest rate: never reached.
const PLENTY_AT_ONCE: u64 = 1_000_000;

const API_KEY: &str = "revdesk_5f0c1f7a9d8e4b3c2a1908f7e6d5c4b3";
const KEY_ID: &str = "backend";
const TEAM: &str = "acme";
const FROM: &str = "+15551234567";
const TO: &str = "+15557654321";
const OUTSIDE: &str = "+15557650000";
const SCOPES: [&str; 3] = ["voice:webrtc", "account:read", "calls:write"];
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256];

/// Policy and keys.
pub struct Platform {
    /// Policy without limits: the native filters that it is compared with count nothing either.
    pub policy: Value,
    issuer: String,
    master: [u8; 32],
}

impl Platform {
    /// Reads `policies/revdesk.json` and adds a team, its key and signing keys. Two reads accept client tokens as well,
    /// which the sample policy accepts on call routes only: the native filters cannot read a body.
    pub fn new() -> Result<Self, String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/revdesk.json");
        let text = fs::read_to_string(path).map_err(at(path))?;
        let mut policy: Value = serde_json::from_str(&text).map_err(at(path))?;
        let derived = json!({"derive": {"env": SECRET_NAME}});
        let token_keys = ALGORITHMS.map(|alg| {
            json!({"kid": alg.name(), "alg": alg.name(), "secret": derived, "sign": alg == Algorithm::Hs256})
        });
        policy["token_keys"] = Value::from(token_keys.to_vec());
        policy.as_object_mut().into_iter().for_each(|policy| _ = policy.remove("limits"));
        policy["teams"] = json!([{"id": TEAM, "kind": "organization", "numbers": [FROM]}]);
        policy["api_keys"] =
            json!([{"id": KEY_ID, "sha256": hex(&digest(API_KEY)), "team": TEAM, "scopes": SCOPES}]);
        let routes = policy["routes"].as_array_mut().ok_or("the policy has no routes")?;
        let read =
            routes.iter_mut().find(|route| route["id"] == "account-read").ok_or("no `account-read`")?;
        read["accept"] = json!(["api_key", "rdc"]);
        let issuer = policy["tokens"]["rdc"]["issuer"].as_str().ok_or("no issuer")?.to_owned();
        let mut master = [0; 32];
        getrandom::fill(&mut master).map_err(at("random bytes"))?;
        Ok(Self { policy, issuer, master })
    }

    /// Returns the policy with limits and a store. The limits are never reached.
    pub fn remembering(&self, limits: Limits, redis: Option<&Value>) -> Value {
        let key = json!({"id": "minute", "per": "key", "window": {"max": PLENTY, "seconds": 60}});
        let team = json!({"id": "burst", "per": "team",
            "rate": {"max": PLENTY_AT_ONCE, "seconds": 1, "burst": PLENTY_AT_ONCE}});
        let all = json!({"id": "hour", "per": "platform", "window": {"max": PLENTY, "seconds": 3600}});
        let mut policy = self.policy.clone();
        match limits {
            Limits::None => {}
            Limits::One => policy["limits"] = json!([key]),
            Limits::Three => policy["limits"] = json!([key, team, all]),
        }
        if let Some(redis) = redis {
            policy["store"] = json!({"backend": "redis", "redis": redis});
        }
        policy
    }

    /// The value of the variable the policy takes its secret from.
    pub fn secret(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.master)
    }

    fn derived(&self, algorithm: Algorithm) -> Result<[u8; 32], String> {
        derive_secret(&self.master, "rdc", algorithm.name(), algorithm).map_err(at("secret"))
    }

    /// Signs different valid tokens as the gateway's mint would: one for each number, with this number of uses.
    pub fn tokens(
        &self,
        algorithm: Algorithm,
        set: &str,
        numbers: Range<usize>,
        uses: Option<u64>,
    ) -> Result<Vec<String>, String> {
        let mut family = Family {
            name: "rdc".into(),
            prefix: "rdc_".into(),
            typ: "rdc+jwt".into(),
            issuer: self.issuer.clone(),
            audience: None,
            ttl: Ttl { min: 60, max: 3600, default: 900 },
            clock: Clock { leeway: 0, ahead: 30 },
            is_bare: false,
            mintable_scopes: None,
            keys: FamilyKeys::default(),
        };
        let key = Key::from_secret(algorithm, &self.derived(algorithm)?).map_err(at("key"))?;
        family.add_key(algorithm.name(), Rc::new(key), true);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(at("clock"))?.as_secs();
        let token = |number| {
            let claims = Claims {
                iss: self.issuer.as_str().into(),
                sub: KEY_ID.into(),
                team: Some(TEAM.into()),
                jti: format!("set-{set}-{number:016}").into(),
                iat: now,
                exp: now + 3600,
                scopes: SCOPES.map(Into::into).to_vec(),
                from: Some(vec![FROM.into()]),
                to: Some(vec![TO.into()]),
                uses,
                ..Claims::default()
            };
            family.sign(&claims).map_err(at("token"))
        };
        numbers.map(token).collect()
    }

    /// The cached pair and Envoy's own limit behind it.
    pub fn native_limited(&self, bucket: Bucket) -> Result<Vec<Value>, String> {
        let mut filters = self.native_pair(true)?;
        filters.push(local_ratelimit(bucket));
        Ok(filters)
    }

    /// `jwt_authn` and `rbac` for the same tokens and the same two routes.
    pub fn native_pair(&self, is_cached: bool) -> Result<Vec<Value>, String> {
        let keys = ALGORITHMS.map(|alg| Ok::<_, String>(public_jwk(alg, &self.derived(alg)?)));
        let keys: Vec<Value> = keys.into_iter().collect::<Result<_, _>>()?;
        let mut provider = json!({
            "issuer": self.issuer,
            "local_jwks": {"inline_string": json!({"keys": keys}).to_string()},
            "from_headers": [{"name": "authorization", "value_prefix": "Bearer rdc_"}],
            "payload_in_metadata": "claims",
        });
        if is_cached {
            provider["jwt_cache_config"] = json!({"jwt_cache_size": REMEMBERED});
        }
        let jwt = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"rdc": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "rdc"}}],
        });
        let rbac = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {
                "me": rule("GET", "/v1/me", "account:read"),
                "dial": rule("POST", "/v1/calls/dial", "calls:write"),
                "usage": rule("GET", "/v1/usage", "usage:read"),
            }},
        });
        Ok(vec![
            json!({"name": "envoy.filters.http.jwt_authn", "typed_config": jwt}),
            json!({"name": "envoy.filters.http.rbac", "typed_config": rbac}),
        ])
    }
}

/// Limits of a policy.
#[derive(Clone, Copy)]
pub enum Limits {
    None,
    /// A window per key.
    One,
    /// A window per key, a rate per team and a window for the platform.
    Three,
}

/// Subject that Envoy's `local_ratelimit` counts.
#[derive(Clone, Copy)]
pub enum Bucket {
    /// One token bucket for the whole process.
    One,
    /// One for each key: the claim `sub`, out of what `jwt_authn` left in the request's metadata.
    PerKey,
}

fn local_ratelimit(bucket: Bucket) -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let tokens = json!({"max_tokens": PLENTY, "tokens_per_fill": PLENTY, "fill_interval": "60s"});
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "bench",
        "token_bucket": tokens,
        "filter_enabled": always,
        "filter_enforced": always,
        // callbound sends the remaining count as well.
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
    });
    if matches!(bucket, Bucket::PerKey) {
        // An entry without a value matches every value; the bucket of the whole process is then unused.
        config["always_consume_default_token_bucket"] = json!(false);
        config["descriptors"] = json!([{"entries": [{"key": "key"}], "token_bucket": tokens}]);
        config["rate_limits"] = json!([{"actions": [{"metadata": {
            "descriptor_key": "key",
            "metadata_key": {"key": "envoy.filters.http.jwt_authn", "path": [{"key": "claims"}, {"key": "sub"}]},
        }}]}]);
    }
    json!({"name": "envoy.filters.http.local_ratelimit", "typed_config": config})
}

/// Operation of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `GET /v1/me`: headers only.
    Read,
    /// `POST /v1/calls/dial` with 300 bytes of JSON, inside every bound.
    Dial,
    /// A call as in `Dial`, with a destination outside the token.
    DialOutside,
    /// `GET /v1/usage`, whose scope the token does not have.
    NoScope,
}

impl Ask {
    /// Returns true if it has a body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::Dial | Self::DialOutside)
    }
}

/// A request as it goes over the wire.
pub fn request(ask: Ask, token: Option<&str>) -> Vec<u8> {
    let (line, to) = match ask {
        Ask::Read => ("GET /v1/me", None),
        Ask::Dial => ("POST /v1/calls/dial", Some(TO)),
        Ask::DialOutside => ("POST /v1/calls/dial", Some(OUTSIDE)),
        Ask::NoScope => ("GET /v1/usage", None),
    };
    let credential = token.unwrap_or(API_KEY);
    let head = format!(
        "{line} HTTP/1.1\r\nhost: api.example.com\r\nuser-agent: bench/1\r\naccept: application/json\r\n\
         authorization: Bearer {credential}\r\n"
    );
    match to {
        None => format!("{head}\r\n"),
        Some(to) => {
            let body = body(to);
            let size = body.len();
            format!("{head}content-type: application/json\r\ncontent-length: {size}\r\n\r\n{body}")
        }
    }
    .into_bytes()
}

/// 300 bytes, as an application would send them.
pub fn body(to: &str) -> String {
    let start = format!(
        r#"{{"from_number":"{FROM}","to_number":"{to}","record":true,"timeout_seconds":30,"metadata":{{"order":"A-1009","agent":"sam"}},"note":""#
    );
    format!("{start}{}\"}}", "x".repeat(298 - start.len()))
}

fn rule(method: &str, path: &str, scope: &str) -> Value {
    json!({
        "permissions": [{"and_rules": {"rules": [
            {"header": {"name": ":method", "string_match": {"exact": method}}},
            {"url_path": {"path": {"exact": path}}},
        ]}}],
        "principals": [{"sourced_metadata": {"metadata_matcher": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "claims"}, {"key": "scopes"}],
            "value": {"list_match": {"one_of": {"string_match": {"exact": scope}}}},
        }}}],
    })
}

fn public_jwk(algorithm: Algorithm, secret: &[u8; 32]) -> Value {
    let text = Base64UrlUnpadded::encode_string;
    let (kid, alg) = (algorithm.name(), algorithm.name());
    match algorithm {
        Algorithm::EdDsa => {
            let key = ed25519_dalek::SigningKey::from_bytes(secret).verifying_key();
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": alg, "x": text(key.as_bytes())})
        }
        Algorithm::Es256 => {
            let point = p256::ecdsa::SigningKey::from_slice(secret)
                .map(|key| key.verifying_key().to_encoded_point(false))
                .unwrap_or_default();
            let coordinate = |bytes: Option<&p256::FieldBytes>| bytes.map(|bytes| text(bytes));
            let (x, y) = (coordinate(point.x()), coordinate(point.y()));
            json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": alg, "x": x, "y": y})
        }
        _ => json!({"kty": "oct", "kid": kid, "alg": alg, "k": text(secret)}),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
