//! Loading of a policy: from the plugin's configuration to the state that requests share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::credential::{RemoteKeys, TokenVerifier};
use crate::decision::{EARLIEST_NOW, Engine};
use crate::policy::{Host, Policy, Secrets, SharedMemory, compile, guarantees, host_of};

use super::crypto;
use super::held::HeldRequests;
use super::host::HostAdapter;
use super::raw::{self, Level};
use super::shared::Shared;
use super::store::Store;
use super::telemetry::{self, Telemetry};

thread_local! {
    /// Key sets this VM has fetched, so that a new policy does not refuse their tokens until it has fetched them again.
    static KEY_SETS: RefCell<Vec<Rc<RemoteKeys>>> = const { RefCell::new(Vec::new()) };
}

/// Loads the policy in the plugin's configuration, or returns its problems.
pub(super) fn load(text: &[u8]) -> Result<Shared, String> {
    check_host(host_of(text))?;
    let policy = compile_policy(text)?;
    check_crypto(&policy)?;
    log_loaded(&policy);
    share(policy)
}

/// Returns true when the host serves no request under a refused configuration, or keeps serving under the one before.
pub(super) fn keeps_refused(text: &[u8]) -> bool {
    match host_of(text) {
        Some(Host::Envoy) | None => is_envoy() && Host::Envoy.profile().keeps_refused,
        Some(other) => other.profile().keeps_refused,
    }
}

/// Returns true on Envoy, recognised by a property that other hosts lack. Those log an error for the attempt, so this is
/// called only where the policy names Envoy or cannot be read. A policy for another host refuses every request on Envoy,
/// because it finds no path there ([`crate::policy::Profile`], `target`).
fn is_envoy() -> bool {
    raw::property("plugin_vm_id").is_ok()
}

/// Refuses a policy for Envoy on another host, which would enforce only part of it or end the worker.
fn check_host(named: Option<Host>) -> Result<(), String> {
    match named {
        Some(Host::Envoy) if !is_envoy() => {
            Err("host: it is for `envoy`, and this gateway is another".into())
        }
        _ => Ok(()),
    }
}

#[expect(clippy::disallowed_methods, reason = "secrets come from the host's environment")]
fn compile_policy(text: &[u8]) -> Result<Policy, String> {
    if text.is_empty() {
        return Err("it is empty; deliver the JSON document as the plugin's configuration".into());
    }
    let lookup = |name: &str| std::env::var(name).ok();
    compile(text, &Secrets::Lookup(&lookup)).map_err(|error| {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    })
}

/// Refuses RS256 keys that this host cannot verify. Only for Envoy is that unknown until now: it depends on the version.
fn check_crypto(policy: &Policy) -> Result<(), String> {
    let needs_host = policy.families.iter().any(|family| family.needs_host())
        || policy.issuers.iter().any(|issuer| issuer.needs_host());
    if needs_host && !(policy.host.verifies && crypto::is_offered()) {
        return Err("token_keys: this host cannot verify RS256; use EdDSA, ES256 or HS256 keys".into());
    }
    Ok(())
}

fn log_loaded(policy: &Policy) {
    for warning in &policy.warnings {
        raw::log(Level::Warn, &warning.to_string());
    }
    log_guarantees(policy);
    let (routes, keys) = (policy.routes.iter().count(), policy.keys.len());
    telemetry::log(policy, &format!("policy loaded: routes={routes} api_keys={keys}"));
}

/// Logs what the policy guarantees on this host, once for all workers where they share memory.
fn log_guarantees(policy: &Policy) {
    const LOGGED: &str = "callbound/1/guarantees";
    if policy.host.memory == SharedMemory::Kept {
        let revision = policy.revision.as_bytes();
        if raw::shared_data(LOGGED).is_ok_and(|(logged, _)| logged == revision) {
            return;
        }
        let _ = raw::set_shared_data(LOGGED, revision, 0);
    }
    for guarantee in guarantees(policy) {
        telemetry::log(policy, &format!("guarantee: {guarantee}"));
    }
}

/// Opens the store and starts the engine.
fn share(policy: Policy) -> Result<Shared, String> {
    // A store with an epoch from a clock that was never set would take every token for younger than itself.
    let now = raw::now_seconds().filter(|now| *now >= EARLIEST_NOW);
    if now.is_none() && policy.remembers.here {
        return Err("store: the host's clock is not set".into());
    }
    let host = HostAdapter::new(&policy);
    let store =
        Store::open(&policy, now.unwrap_or(EARLIEST_NOW)).map_err(|error| format!("store: {error}"))?;
    let engine = KEY_SETS.with_borrow_mut(|key_sets| {
        let engine = Engine::with_key_sets(policy, key_sets);
        *key_sets = engine.key_sets();
        engine
    });
    let (telemetry, held) = (Telemetry::default(), HeldRequests::default());
    Ok(Shared { engine, host, store, telemetry, held, can_hold: Cell::new(false) })
}
