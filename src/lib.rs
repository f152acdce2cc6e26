//! Keeps every call request inside its bounds: policy at the gateway for voice and realtime APIs.
//!
//! # Words
//!
//! | word | type | meaning |
//! |---|---|---|
//! | credential | [`CredentialLocation`](credential::CredentialLocation) | text that the client presents, unverified |
//! | API key | [`ApiKey`](policy::ApiKey) | long-lived credential, stored only as the SHA-256 of its whole text |
//! | client token | [`VerifiedToken`](credential::VerifiedToken) | short-lived, signed, minted from an API key |
//! | family | [`Family`](credential::Family) | one kind of client token: prefix, `typ` and keys |
//! | issuer | [`Issuer`](credential::Issuer) | third party whose tokens are accepted, mapped to an API key |
//! | principal | [`Principal`](decision::Principal) | team or user that a verified credential speaks for, with key and token |
//! | rights | [`Rights`](decision::Rights) | platform ∩ team ∩ key ∩ token, computed at every use |
//! | route | [`Route`](policy::Route) | method and path template with its requirements |
//! | bound | [`Bounds`](policy::Bounds) | limit on a value of a request: caller ID, destination, model, endpoint and others |
//! | ceiling | [`Ceiling`](policy::Ceiling) | the bounds of a key or team |
//! | policy | [`Policy`](policy::Policy) | compiled configuration |
//! | decision | [`Decision`](decision::Decision) | allow, or deny with one [`Reason`](reason::Reason) |
//! | obligations | [`Obligations`](decision::Obligations) | changes to the request without which an allow does not count |
//! | charge | [`Charge`](store::Charge) | cost of a decision, recorded on a [`CounterKey`](store::CounterKey); all or none are taken |
//! | lease | [`Lease`](store::Lease) | share of a counter that an open session holds and renews |
//!
//! # Example
//!
//! The key of this policy may call one number.
//!
//! ```
//! use callbound::credential::digest;
//! use callbound::decision::{DecisionContext, Effect, Engine, Step};
//! use callbound::hex::hex;
//! use callbound::policy::{Secrets, compile};
//! use callbound::reason::Reason;
//!
//! let key = "acme_0123456789abcdef0123456789abcdef";
//! let document = r#"{
//!   "version": 1,
//!   "host": "envoy",
//!   "platform": {"scopes": ["calls:write"]},
//!   "credentials": {
//!     "api_key_formats": [{"prefix": "acme_", "alphabet": "hex", "length": {"min": 32, "max": 32}}],
//!     "locations": [{"header": "authorization", "scheme": "Bearer"}]
//!   },
//!   "teams": [{"id": "acme", "kind": "organization", "numbers": ["+15551234567"]}],
//!   "api_keys": [
//!     {"id": "backend", "sha256": "DIGEST", "team": "acme", "scopes": ["calls:write"],
//!      "ceiling": {"to": ["+15557654321"]}}
//!   ],
//!   "routes": [
//!     {"id": "dial", "match": "POST /v1/calls", "accept": ["api_key"], "scopes": ["calls:write"],
//!      "bounds": {"from": "/from_number", "to": "/to_number"}}
//!   ],
//!   "refusals": {"realm": "acme", "envelope": {"error": {"code": "$code"}}}
//! }"#;
//! let document = document.replace("DIGEST", &hex(&digest(key)));
//! let engine = Engine::new(compile(document.as_bytes(), &Secrets::Lookup(&|_| None))?);
//!
//! let random = |bytes: &mut [u8]| {
//!     bytes.fill(7); // a gateway fills in random bytes
//!     true
//! };
//! let context = DecisionContext::new(1_800_000_000, &random);
//! let authorization = format!("Bearer {key}");
//! let headers: [(&[u8], &[u8]); 5] = [
//!     (b":method", b"POST"),
//!     (b":path", b"/v1/calls"),
//!     (b":authority", b"api.acme.test"),
//!     (b"content-type", b"application/json"),
//!     (b"authorization", authorization.as_bytes()),
//! ];
//! let decide = |to: &str| {
//!     let body = format!(r#"{{"from_number": "+15551234567", "to_number": "{to}"}}"#);
//!     let Step::NeedsBody(pending) = engine.begin(&headers, false, &context) else { panic!("no body is read") };
//!     let Step::Decided(decision) = engine.finish(*pending, body.as_bytes(), &context) else {
//!         panic!("nothing is counted here")
//!     };
//!     decision
//! };
//!
//! let allowed = decide("+15557654321");
//! assert!(matches!(allowed.effect, Effect::Release(_)));
//!
//! let refused = decide("+15550000000");
//! assert!(matches!(&refused.effect, Effect::Answer(answer) if answer.status == 403));
//! assert_eq!(refused.record.denial.map(|denial| denial.reason), Some(Reason::ToCeiling));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rules
//!
//! 1. Nothing reaches the upstream before the decision.
//! 2. Deny is the zero value.
//! 3. No panic from anything a client, an upstream, a config author or a host can send.
//! 4. Ambiguity is refusal.
//! 5. Narrowing takes effect at once.
//! 6. A configuration error is fatal and precise.
//! 7. The client learns little, the operator everything; neither sees a credential or a full phone number.
//! 8. The decision core is pure: no host call, no clock, no environment, no log.
//! 9. Platforms are configuration: no platform is named here.
//!
//! # Map
//!
//! A room uses only the rooms below it; `tests/layering.rs` checks that.
//!
//! ```text
//! filter      the proxy-wasm adapter: the only room that knows a host      (wasm32 only)
//!   └ decision    one request in, one decision out; minting; replies
//!       └ policy      what may be done: the document, its compiler, teams, routes
//!           └ credential  who is asking: extraction, API keys, tokens and their keys
//!             └ store       what is remembered: uses, limits, sessions, revocations, in memory or Redis
//!               └ header, hex, json, number, reason, uri, version   header names, strict JSON, phone numbers, reasons, queries
//! ```

pub mod credential;
pub mod decision;
pub mod header;
pub mod hex;
pub mod json;
pub mod number;
pub mod policy;
pub mod reason;
pub mod store;
pub mod uri;
pub mod version;

#[cfg(target_arch = "wasm32")]
mod filter;
