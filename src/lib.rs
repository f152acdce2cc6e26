//! Keeps every call request inside its bounds: policy at the gateway for voice and realtime APIs.
//!
//! # The words
//!
//! A *credential* is what the client presented, unverified. An *API key* is long-lived and stored only as the
//! SHA-256 of its whole text; a *client token* is short-lived, signed and minted from a key. The verified credential
//! speaks for a *principal*: a team or user, a key and perhaps a token. *Rights* are platform ∩ team ∩ key ∩ token,
//! computed at every use. A *route* is a method and a path template with what it requires. A *bound* narrows, a
//! *ceiling* is the bounds of a key. The *policy* is the compiled configuration. A *decision* is allow or deny with one
//! *reason*, and its *obligations* are what the enforcer must do for an allow to count. What must be
//! remembered first is a list of *charges*, each on a *counter* of the *store*, taken all or none; a *lease* is an open
//! session's place there, renewed while it lasts.
//!
//! # The laws
//!
//! 1. Nothing reaches the upstream before the verdict.
//! 2. Deny is the zero value.
//! 3. No panic from anything a client, an upstream, a config author or a host can send.
//! 4. Ambiguity is refusal.
//! 5. Narrowing takes effect at once.
//! 6. A configuration error is fatal and precise.
//! 7. Say little to the client, everything to the operator; no credential or full phone number in either.
//! 8. The decision core is pure: no host call, no clock, no environment, no log.
//! 9. Platforms are configuration: no platform is named here.
//!
//! # The map
//!
//! A room knows only what stands below it; `tests/layering.rs` holds it to that.
//!
//! ```text
//! filter      the proxy-wasm adapter: the only room that knows a host      (wasm32 only)
//!   └ decision    one request in, one decision out; minting; the answers
//!       └ policy      what may be done: the document, its compiler, teams, routes
//!           └ credential  who is asking: extraction, API keys, tokens, the keyring
//!             └ store       what is remembered: uses, limits, sessions, revocations, in two homes
//!               └ hex, json, number, reason, uri, version   strict JSON, phone numbers, why a request is refused, queries
//! ```

pub mod credential;
pub mod decision;
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
