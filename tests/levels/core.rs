//! The decision core alone; this level carries out the obligations as an enforcer would.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use callbound::decision::{
    Decision, DecisionContext, Effect, Engine, Obligations, PendingCharge, Record, Settled, Step,
};
use callbound::policy::{Secrets, compile};
use callbound::store::{Charge, ChargeResult, Memory, SharedMemoryStore, StoreError};

use super::Gate;
use crate::support::corpus::{File, Headers, Request};
use crate::support::expect::{Answer, LoggedDecision, Observed, Seen};

/// Age of the gateway at the first request, in seconds.
pub const EARLIER: u64 = 50_000;

/// Unix time of every run at this level.
pub const NOW: u64 = 1_800_000_000;

struct Core {
    engine: Engine,
    store: SharedMemoryStore<Plain>,
    known: Option<u32>,
    now: u64,
    peer: Option<IpAddr>,
}

/// Memory of a single worker.
#[derive(Default)]
struct Plain(RefCell<HashMap<String, (Vec<u8>, u32)>>);

impl Memory for Plain {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        Ok(self.0.borrow().get(name).cloned())
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, StoreError> {
        let mut values = self.0.borrow_mut();
        let present = values.get(name).map(|(_, version)| *version);
        if present == version {
            values.insert(name.to_owned(), (value.to_vec(), present.unwrap_or(0) + 1));
        }
        Ok(present == version)
    }
}

pub fn gate(file: &File) -> Result<Box<dyn Gate>, String> {
    let lookup = |name: &str| file.env.get(name).cloned();
    let policy =
        compile(file.policy.as_bytes(), &Secrets::Lookup(&lookup)).map_err(|error| error.to_string())?;
    // The store is as old as the gateway, so the tokens of the corpus are younger.
    let store =
        SharedMemoryStore::open(Plain::default(), &policy.store.key, policy.store.size, NOW - EARLIER);
    let store = store.map_err(|error| error.to_string())?;
    Ok(Box::new(Core { engine: Engine::new(policy), store, known: None, now: NOW, peer: file.peer }))
}

/// The core next to another level: it only answers whether a request needs its body.
pub struct Shadow(Engine);

impl Shadow {
    pub fn new(file: &File) -> Result<Self, String> {
        let lookup = |name: &str| file.env.get(name).cloned();
        let policy = compile(file.policy.as_bytes(), &Secrets::Lookup(&lookup));
        Ok(Self(Engine::new(policy.map_err(|error| error.to_string())?)))
    }

    /// Returns true if the decision on a request needs its body.
    pub fn awaits_body(&self, request: &Request, now: u64) -> bool {
        let headers = with_pseudo_headers(request);
        let pairs: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        let random = |bytes: &mut [u8]| getrandom::fill(bytes).is_ok();
        let moment = DecisionContext::new(now, &random).with_epoch(Some(NOW - EARLIER));
        matches!(self.0.begin(&pairs, false, &moment), Step::NeedsBody(_))
    }
}

impl Gate for Core {
    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
    }

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let headers = with_pseudo_headers(request);
        let verdict = self.judge(&headers, request)?;
        let decision = Some(self.decision(&verdict.record));
        Ok(match verdict.effect {
            Effect::Release(obligations) => {
                let upstream = Some(released(request, headers, &obligations)?);
                Observed { upstream, answer: None, decision }
            }
            Effect::Answer(answer) => {
                let headers = answer.headers.into_iter();
                let headers = headers.map(|(name, value)| (name.into_owned(), value.into_bytes())).collect();
                let answer = Answer { status: answer.status, headers, body: answer.body };
                Observed { upstream: None, answer: Some(answer), decision }
            }
        })
    }

    fn close(&mut self, good: Option<&Request>) -> Result<(), String> {
        let Some(good) = good else { return Ok(()) };
        if self.exchange(good)?.is_alive() {
            Ok(())
        } else {
            Err("a request that was good before is refused".to_owned())
        }
    }
}

impl Core {
    fn judge(&mut self, headers: &Headers, request: &Request) -> Result<Decision, String> {
        if let Some((revocations, version)) =
            self.store.revocations(self.known).map_err(|error| error.to_string())?
        {
            self.known = Some(version);
            self.engine.set_revocations(Rc::new(revocations));
        }
        let random = |bytes: &mut [u8]| getrandom::fill(bytes).is_ok();
        let now = self.now * 1_000_000;
        let has_failed = |charge: &Charge| self.store.failure_retry(charge, now);
        let peer = || self.peer;
        let moment = DecisionContext::new(self.now, &random)
            .with_peer(&peer)
            .with_epoch(Some(self.store.epoch()))
            .with_failure_limit(&has_failed);
        let pairs: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        let step = match self.engine.begin(&pairs, request.ends_with_headers(), &moment) {
            Step::NeedsBody(pending) => {
                let body = request.body.as_deref().ok_or("the request is still held: it has no end")?;
                self.engine.finish(*pending, body, &moment)
            }
            step => step,
        };
        let verdict = match step {
            Step::Decided(verdict) => *verdict,
            Step::NeedsBody(_) | Step::NeedsDirectory(_) => {
                return Err("the request is held though nothing is missing".to_owned());
            }
            Step::NeedsStore(due) => {
                let settled = self.settle(&due);
                self.engine.settle(*due, settled, &moment)
            }
        };
        let failures = self.engine.failure_charges(&verdict, &|| self.peer);
        failures.iter().for_each(|charge| self.store.record_failure(charge, now));
        Ok(verdict)
    }

    fn settle(&self, due: &PendingCharge) -> Result<Settled, StoreError> {
        let now = self.now * 1_000_000;
        let taken = self.store.take(due.charges(), now)?;
        let question = due.question().map(|charge| self.store.check(charge, now)).transpose()?;
        if let (Some(revocation), ChargeResult::All(_)) = (due.revocation(), &taken) {
            self.store.revoke(revocation, self.now)?;
        }
        Ok(Settled { taken, is_spent: question.is_some_and(|looked| looked.is_err()) })
    }

    fn decision(&self, record: &Record) -> LoggedDecision {
        let mut decision = LoggedDecision::default();
        let mut set = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                decision.0.insert(name.to_owned(), value.to_owned());
            }
        };
        set("decision", Some(record.outcome.as_str()));
        set("reason", record.denial.as_ref().map(|denial| denial.reason.as_str()));
        set("route", Some(record.route.as_ref().map_or("none", |route| &route.id)));
        set("key", record.key.as_deref());
        decision
    }
}

/// Returns the headers as a gateway shows them: pseudo-headers first, names in lower case.
pub fn with_pseudo_headers(request: &Request) -> Headers {
    let has = |name: &str| request.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let mut headers: Headers = Vec::new();
    let mut add = |name: &str, value: &[u8]| headers.push((name.to_owned(), value.to_vec()));
    add(":method", request.method.as_bytes());
    add(":path", request.path.as_bytes());
    add(":authority", b"api.example.com");
    add(":scheme", b"http");
    for (name, value) in &request.headers {
        add(&name.to_ascii_lowercase(), value);
    }
    if let Some(body) = &request.body {
        if request.framing.has_length() && !has("content-length") {
            add("content-length", body.len().to_string().as_bytes());
        } else if !request.framing.has_length() && !request.framing.is_h2() {
            add("transfer-encoding", b"chunked");
        }
    }
    headers
}

fn released(request: &Request, mut headers: Headers, obligations: &Obligations) -> Result<Seen, String> {
    headers.retain(|(name, _)| !obligations.remove.contains(name));
    for (name, value) in &obligations.set {
        let name: &str = name;
        headers.retain(|(other, _)| other != name);
        headers.push((name.to_owned(), value.clone().into_bytes()));
    }
    let path = headers.iter().find(|(name, _)| name == ":path");
    let path = path.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
    Ok(Seen {
        method: request.method.clone(),
        path: path.ok_or("the path is gone")?,
        headers,
        body: request.body.clone().unwrap_or_default(),
        complete: true,
        ..Seen::default()
    })
}
