//! Root context: loads the configuration, creates a context per request, and runs the periodic work.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use crate::credential::Issuer;
use crate::policy::StoreBackend;

use super::exchange::Exchange;
use super::http::Http;
use super::load::{keeps_refused, load};
use super::raw::{self, BufferType, Level};
use super::shared::Shared;
use super::{sessions, telemetry};

/// Milliseconds between two ticks, which is also the delay of the first call to Redis.
const TICK_MILLISECONDS: u32 = 250;

const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Root {
    id: u32,
    shared: Option<Rc<Shared>>,
    /// Issuers whose key sets are being fetched, by the host's number of the callout.
    fetches: BTreeMap<u32, Rc<Issuer>>,
    /// Periodic calls to Redis.
    exchange: Exchange,
}

impl Root {
    pub(super) fn new(id: u32) -> Self {
        Self { id, shared: None, fetches: BTreeMap::new(), exchange: Exchange::default() }
    }

    fn fetch_key_sets(&mut self, shared: &Shared, now: u64) {
        for (issuer, remote) in shared.engine.key_sets_to_fetch(now) {
            let headers = vec![
                (":method", "GET"),
                (":scheme", &remote.scheme),
                (":authority", &remote.authority),
                (":path", &remote.path),
                ("accept", "application/json"),
            ];
            let upstream = shared.host.callout_upstream(&remote.cluster, &remote.scheme, &remote.authority);
            match self.dispatch_http_call(&upstream, headers, None, Vec::new(), FETCH_TIMEOUT) {
                Ok(call) => _ = self.fetches.insert(call, Rc::clone(issuer)),
                Err(_) => {
                    let name = &issuer.name;
                    let hint = format!("cannot be requested; is `{upstream}` known to the gateway?");
                    raw::log(Level::Warn, &format!("key set of {name}: {hint}"));
                }
            }
        }
    }

    /// Takes the answer to the request for a key set; false when the callout was another.
    fn take_key_set(&mut self, call: u32, size: usize) -> bool {
        let (Some(issuer), Some(shared)) = (self.fetches.remove(&call), &self.shared) else { return false };
        let body = raw::buffer(BufferType::CallResponseBody, size).unwrap_or_default();
        let (status, length) = (raw::callout_status(), body.len());
        let name = &issuer.name;
        let is_usable =
            raw::now_seconds().is_some_and(|now| shared.engine.set_key_set(&issuer, status, &body, now));
        match is_usable {
            true => telemetry::log(shared.policy(), &format!("key set of {name}: fetched")),
            false => {
                let cause = format!("no usable answer (status {status}, {length} bytes); the last one stays");
                raw::log(Level::Warn, &format!("key set of {name}: {cause}"));
            }
        }
        true
    }

    /// Takes the answer of Redis to a periodic call; false when the call was another.
    fn take_exchange(&mut self, call: u32, size: usize) -> bool {
        let Some(shared) = &self.shared else { return false };
        let StoreBackend::Redis(redis) = &shared.policy().store.backend else { return false };
        self.exchange.take(shared, redis, call, size)
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        let _ = self.take_exchange(call, size) || self.take_key_set(call, size);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = raw::buffer(BufferType::PluginConfiguration, size).unwrap_or_default();
        match load(&text) {
            Ok(shared) => {
                shared.inherit_feed();
                if shared.host.profile.has_ticks {
                    let _ = raw::set_tick_period(TICK_MILLISECONDS);
                }
                self.shared = Some(Rc::new(shared));
                true
            }
            Err(problem) => {
                raw::log(Level::Error, &format!("policy refused: {problem}"));
                let is_accepted = !keeps_refused(&text);
                if is_accepted {
                    raw::log(Level::Error, "every request is refused until a policy loads");
                }
                is_accepted
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
        let (Some(shared), Some(now)) = (self.shared.clone(), raw::now_seconds()) else { return };
        if shared.host.profile.ends_streams {
            shared.answer_overdue(now);
            let _ = raw::set_effective_context(self.id);
        }
        sessions::renew_all(now);
        self.fetch_key_sets(&shared, now);
        if let StoreBackend::Redis(redis) = &shared.policy().store.backend {
            self.exchange.tick(&shared, redis, now);
        }
    }
}
