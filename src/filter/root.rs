//! The root context: takes the configuration, makes a context per request, and watches over held requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::credential::{RemoteKeys, TokenVerifier};
use crate::decision::{Denial, EARLIEST_NOW, Effect, Engine, Record};
use crate::policy::{Host, Policy, Secrets, SharedMemory, StoreBackend, compile, guarantees, host_of};
use crate::reason::Reason;

use super::crypto;
use super::fleet;
use super::host::HostAdapter;
use super::http::{Http, seconds};
use super::memory::{PendingCallout, Store};
use super::raw::{self, BufferType, Level, MapType};
use super::telemetry::{self, Telemetry};

/// Milliseconds between two looks at the held requests; also how soon a remote store is first asked.
const TICK_MILLISECONDS: u32 = 250;

/// How long a key set may take to come.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// The key sets this VM has fetched: a new policy must not refuse everybody until they have come once more.
    static FETCHED: RefCell<Vec<Rc<RemoteKeys>>> = const { RefCell::new(Vec::new()) };
}

/// What all requests of one configuration share. A new configuration is a new root with a new one; requests under way
/// keep theirs.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) port: HostAdapter,
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    /// Requests held for their body, by context: since when, and what is known of them.
    pub(super) held: RefCell<BTreeMap<u32, Held>>,
    /// Whether this worker has ever been given the body of a held request.
    pub(super) can_hold: Cell<bool>,
}

/// A request that waits for its body.
pub(super) struct Held {
    /// Unix seconds.
    pub(super) since: u64,
    pub(super) record: Record,
}

/// The root context.
pub(super) struct Root {
    id: u32,
    shared: Option<Rc<Shared>>,
    /// Key sets that were asked for: the host's number of the call, and the issuer's place.
    fetches: BTreeMap<u32, usize>,
    /// What was sent to a remote store, and when, in Unix seconds.
    sent: Option<(PendingCallout, u64)>,
    /// When it was asked last, in Unix seconds.
    asked: u64,
}

impl Root {
    pub(super) fn new(id: u32) -> Self {
        Self { id, shared: None, fetches: BTreeMap::new(), sent: None, asked: 0 }
    }

    /// Asks for the key sets that are due.
    fn fetch_key_sets(&mut self, engine: &Engine, port: &HostAdapter, now: u64) {
        for (issuer, remote) in engine.key_sets_to_fetch(now) {
            let headers = vec![
                (":method", "GET"),
                (":scheme", &remote.scheme),
                (":authority", &remote.authority),
                (":path", &remote.path),
                ("accept", "application/json"),
            ];
            let place = port.called(&remote.cluster, &remote.scheme, &remote.authority);
            match self.dispatch_http_call(&place, headers, None, Vec::new(), FETCH_TIMEOUT) {
                Ok(call) => _ = self.fetches.insert(call, issuer),
                Err(_) => raw::log(
                    Level::Warn,
                    &format!(
                        "key set of {}: cannot be asked for; is `{place}` known to the gateway?",
                        issuer_name(engine, issuer),
                    ),
                ),
            }
        }
    }
}

impl Root {
    /// Tells a remote store what changed, and asks what was revoked.
    fn sync(&mut self, shared: &Shared, now: u64) {
        let store = &shared.engine.policy().store;
        let StoreBackend::Redis(remote) = &store.home else { return };
        let waits = |since: u64| now.saturating_sub(since) < remote.timeout / 1_000 + 2;
        match &self.sent {
            Some((sent, since)) if sent.is_open() && waits(*since) => return,
            Some((_, since)) if now.saturating_sub(*since) < store.refresh && !fleet::has_pending(remote) => {
                return;
            }
            _ => {}
        }
        // At most once a second, also while it does not answer.
        if self.asked == now {
            return;
        }
        self.asked = now;
        match PendingCallout::send(self, &shared.port, remote, fleet::news(remote)) {
            Ok(sent) => self.sent = Some((sent, now)),
            Err(unsent) => {
                fleet::requeue(remote, &unsent, true);
                let place = shared.port.called(&remote.cluster, "http", &remote.authority);
                raw::log(Level::Warn, &format!("store: cannot be asked; is `{place}` known to the gateway?"));
            }
        }
    }

    /// Takes the store's answer, when it is that.
    fn take_sync(&mut self, call: u32, size: usize) -> bool {
        let (Some((sent, _)), Some(shared)) = (&mut self.sent, &self.shared) else { return false };
        let StoreBackend::Redis(remote) = &shared.engine.policy().store.home else { return false };
        if !sent.is(call) {
            return false;
        }
        sent.close();
        let reply = sent.answer(size);
        let is_taken = match (reply, seconds()) {
            (Ok(reply), Some(now)) => shared.take_feed(remote, reply, now),
            _ => false,
        };
        if !is_taken {
            fleet::requeue(remote, sent.operations(), false);
            raw::log(
                Level::Warn,
                &format!(
                    "store: no usable answer (status {}); are Redis and Webdis up, with `maxmemory-policy noeviction`?",
                    call_status()
                ),
            );
        }
        true
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        if self.take_sync(call, size) {
            return;
        }
        let (Some(issuer), Some(shared)) = (self.fetches.remove(&call), &self.shared) else { return };
        let body = raw::buffer(BufferType::CallResponseBody, size).unwrap_or_default();
        let status = call_status();
        let is_taken = seconds().is_some_and(|now| shared.engine.set_key_set(issuer, status, &body, now));
        let name = issuer_name(&shared.engine, issuer);
        match is_taken {
            true => raw::log(Level::Info, &format!("key set of {name}: fetched")),
            false => raw::log(
                Level::Warn,
                &format!(
                    "key set of {name}: no usable answer (status {status}, {} bytes); what was known stays",
                    body.len()
                ),
            ),
        }
    }
}

fn issuer_name(engine: &Engine, issuer: usize) -> &str {
    engine.policy().issuers.get(issuer).map_or("", |issuer| &issuer.name)
}

/// The status of the answer to a call; 0 when there was none.
pub(super) fn call_status() -> u16 {
    let Ok(pairs) = raw::pairs(MapType::CallResponseHeaders) else { return 0 };
    let headers = pairs.list().unwrap_or_default();
    let status = headers.iter().find_map(|(name, value)| (*name == b":status").then_some(*value));
    status.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = raw::buffer(BufferType::PluginConfiguration, size).unwrap_or_default();
        let named = host_of(&text);
        match check_host(named).and_then(|()| configure(&text)) {
            Ok(shared) => {
                shared.inherit();
                if shared.port.profile.has_ticks {
                    let _ = raw::set_tick_period(TICK_MILLISECONDS);
                }
                self.shared = Some(Rc::new(shared));
                true
            }
            Err(message) => {
                raw::log(Level::Error, &message);
                let is_taken = !keeps_refused(named);
                if is_taken {
                    raw::log(Level::Error, "every request is refused until there is a policy that loads");
                }
                is_taken
            }
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(context_id, self.shared.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn on_tick(&mut self) {
        telemetry::flush();
        if let (Some(shared), Some(now)) = (self.shared.clone(), seconds()) {
            if shared.port.profile.ends_streams {
                shared.answer_overdue(now);
                let _ = raw::set_effective_context(self.id);
            }
            fleet::renew_sessions(now);
            self.fetch_key_sets(&shared.engine, &shared.port, now);
            self.sync(&shared, now);
        }
    }
}

/// Whether this is Envoy, as a host can be asked: by a property that others do not have. Those complain of it in their log,
/// so it is asked only where a policy is for Envoy or cannot be read. One for another host finds no path there
/// ([`crate::policy::Profile`], `target`), and refuses every request.
fn is_envoy() -> bool {
    raw::property("plugin_vm_id").is_ok()
}

/// A policy for Envoy would be half enforced elsewhere, or end the worker.
fn check_host(named: Option<Host>) -> Result<(), String> {
    match named {
        Some(Host::Envoy) if !is_envoy() => {
            Err("policy refused: host: it is for `envoy`, and this gateway is another".into())
        }
        _ => Ok(()),
    }
}

/// Whether the host serves nothing under a policy that is refused.
fn keeps_refused(named: Option<Host>) -> bool {
    match named {
        Some(Host::Envoy) | None => is_envoy() && Host::Envoy.profile().keeps_refused,
        Some(other) => other.profile().keeps_refused,
    }
}

#[expect(clippy::disallowed_methods, reason = "the host's environment is where secrets come from")]
fn configure(text: &[u8]) -> Result<Shared, String> {
    if text.is_empty() {
        return Err(
            "policy refused: it is empty; deliver the JSON document as the plugin's configuration".into()
        );
    }
    let lookup = |name: &str| std::env::var(name).ok();
    let policy = compile(text, &Secrets::Lookup(&lookup)).map_err(|error| {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        format!("policy refused: {}", problems.join("; "))
    })?;
    let needs_host = policy.families.iter().any(TokenVerifier::needs_host)
        || policy.issuers.iter().any(TokenVerifier::needs_host);
    // Of an Envoy it depends on its version; for the others the policy was refused already.
    if needs_host && !(policy.host.verifies && crypto::is_offered()) {
        return Err(
            "policy refused: token_keys: this host cannot verify RS256; use EdDSA, ES256 or HS256 keys"
                .into(),
        );
    }
    for warning in &policy.warnings {
        raw::log(Level::Warn, &warning.to_string());
    }
    say_guarantees(&policy);
    raw::log(
        Level::Info,
        &format!("policy loaded: routes={} api_keys={}", policy.routes.iter().count(), policy.keys.len()),
    );
    // A store that began at a clock that was never set would believe every token to be younger than itself.
    let now = seconds().filter(|now| *now >= EARLIEST_NOW);
    if now.is_none() && policy.remembers.here {
        return Err("policy refused: store: the host's clock is not set".into());
    }
    let port = HostAdapter::new(&policy);
    let store = Store::open(&policy, now.unwrap_or(EARLIEST_NOW))
        .map_err(|error| format!("policy refused: store: {error}"))?;
    let engine = FETCHED.with_borrow_mut(|fetched| {
        let engine = Engine::with_key_sets(policy, fetched);
        *fetched = engine.key_sets();
        engine
    });
    Ok(Shared {
        engine,
        port,
        store,
        telemetry: Telemetry::default(),
        held: RefCell::default(),
        can_hold: Cell::new(false),
    })
}

/// Logs what the policy guarantees on this host: once, where workers can tell each other that it was said.
fn say_guarantees(policy: &Policy) {
    const SAID: &str = "callbound/1/guarantees";
    if policy.host.memory == SharedMemory::Kept {
        let revision = policy.revision.as_bytes();
        if raw::shared_data(SAID).is_ok_and(|(said, _)| said == revision) {
            return;
        }
        let _ = raw::set_shared_data(SAID, revision, 0);
    }
    for guarantee in guarantees(policy) {
        raw::log(Level::Info, &format!("guarantee: {guarantee}"));
    }
}

impl Shared {
    /// Answers requests whose body is overdue.
    ///
    /// Without the host's leave to hold headers (Envoy: `allow_on_headers_stop_iteration`) a held request gets no body
    /// callback at all: it would hang until the host's own timeout, with nothing that says why.
    fn answer_overdue(&self, now: u64) {
        let limit = self.engine.policy().hold_seconds;
        let overdue: Vec<(u32, Held)> = {
            let Ok(mut held) = self.held.try_borrow_mut() else { return };
            let is_due = |held: &Held| now.saturating_sub(held.since) >= limit;
            let ids: Vec<u32> = held.iter().filter(|(_, held)| is_due(held)).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| Some((id, held.remove(&id)?))).collect()
        };
        for (context, held) in overdue {
            if raw::set_effective_context(context).is_err() {
                continue;
            }
            let reason = if self.can_hold.get() { Reason::BodyTimeout } else { Reason::HoldUnavailable };
            if reason == Reason::HoldUnavailable {
                raw::log(
                    Level::Error,
                    &format!(
                        "no body arrived within {limit} s of a held request, nor ever before in this worker: \
                     set `allow_on_headers_stop_iteration: true` on this plugin (Envoy 1.35 or later), or look for a \
                     client that never sends its body"
                    ),
                );
            }
            let verdict = self.engine.refuse(Denial::from(reason), held.record);
            self.telemetry.publish(self.engine.policy(), &verdict.record, now);
            if let Effect::Answer(answer) = &verdict.effect {
                let _ = self.port.answer(answer, &verdict.record);
            }
        }
    }
}
