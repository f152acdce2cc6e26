//! One request: held, judged, then released or answered.
//!
//! INVARIANT (held): until `state` is `Released`, every callback returns `Pause`, whatever failed. On a host that
//! holds headers this keeps headers and body back; returning `Continue` from a body callback would let both go.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::decision::is_reserved;
use crate::decision::{Answer, Denial, Effect, Moment, Obligations, Pending, Record, Step, Verdict};
use crate::policy::Policy;
use crate::reason::Reason;

use super::crypto;
use super::raw::{self, BufferType, HostResult, MapType};
use super::root::{Held, Shared};

/// A request's life here. A fresh context denies: some hosts give a request a blank one in mid-stream.
#[derive(Default)]
enum State {
    /// Nothing was judged.
    #[default]
    Fresh,
    /// The headers were judged; the verdict waits for the body.
    Waiting(Box<Pending>),
    /// It was answered here.
    Answered,
    /// It went on to the upstream.
    Released,
}

/// The context of one request.
pub(super) struct Http {
    id: u32,
    shared: Option<Rc<Shared>>,
    state: State,
    /// Bytes of the body that have arrived: the host gives it whole each time.
    received: usize,
}

impl Http {
    pub(super) fn new(id: u32, shared: Option<Rc<Shared>>) -> Self {
        Self { id, shared, state: State::Fresh, received: 0 }
    }

    fn judge_headers(&mut self, end_of_stream: bool) -> Option<()> {
        let shared = self.shared.clone()?;
        let pairs = raw::pairs(MapType::RequestHeaders).ok();
        let headers = pairs.as_ref().and_then(|pairs| pairs.list());
        let (Some(headers), Some(now)) = (headers, seconds()) else {
            let verdict = shared.engine.refuse(Denial::from(Reason::HostError), Record::default());
            return self.carry_out(&shared, verdict, 0);
        };
        match shared.engine.begin(&headers, end_of_stream, &moment(now)) {
            Step::Decided(verdict) => self.carry_out(&shared, *verdict, now),
            Step::NeedsBody(pending) => {
                let held = Held { since: now, record: pending.record().clone() };
                shared.held.try_borrow_mut().ok()?.insert(self.id, held);
                self.state = State::Waiting(pending);
                Some(())
            }
        }
    }

    fn judge_body(&mut self) -> Option<()> {
        let size = self.received;
        let shared = self.shared.clone()?;
        let State::Waiting(pending) = std::mem::replace(&mut self.state, State::Answered) else {
            return None;
        };
        if !shared.forget(self.id) {
            // The watchdog has answered: what comes now is too late.
            return None;
        }
        // One byte more than is said to be there: what is released must be what was judged. An empty body has no buffer
        // on some hosts.
        let body = match raw::buffer(BufferType::RequestBody, size.saturating_add(1)) {
            Err(_) if size == 0 => Ok(Vec::new()),
            body => body,
        };
        let (verdict, now) = match (body, seconds()) {
            (Ok(body), Some(now)) if body.len() == size => {
                (shared.engine.finish(*pending, &body, &moment(now)), now)
            }
            _ => (shared.engine.refuse(Denial::from(Reason::HostError), pending.record().clone()), 0),
        };
        self.carry_out(&shared, verdict, now)
    }

    /// Carries a verdict out; an allow whose obligations cannot be met is a refusal.
    fn carry_out(&mut self, shared: &Shared, verdict: Verdict, now: u64) -> Option<()> {
        let Verdict { effect, record } = verdict;
        let verdict = match effect {
            Effect::Release(obligations) => {
                if enforce(&obligations).is_ok() {
                    self.state = State::Released;
                    shared.telemetry.publish(shared.engine.policy(), &record, now);
                    return Some(());
                }
                shared.engine.refuse(Denial::from(Reason::HostError), record)
            }
            Effect::Answer(_) => Verdict { effect, record },
        };
        self.state = State::Answered;
        shared.telemetry.publish(shared.engine.policy(), &verdict.record, now);
        match &verdict.effect {
            Effect::Answer(answer) => enforce_answer(answer, &verdict.record).ok(),
            Effect::Release(_) => None,
        }
    }

    /// What every request callback returns.
    fn action(&self) -> Action {
        match self.state {
            State::Released => Action::Continue,
            State::Fresh | State::Waiting(_) | State::Answered => Action::Pause,
        }
    }

    /// Answers when judging itself failed: without a policy, or with a host that gives nothing.
    fn refuse_if_undecided(&mut self) {
        if matches!(self.state, State::Fresh) {
            self.state = State::Answered;
            let body = br#"{"error":{"code":"unavailable","message":"temporarily unavailable"}}"#;
            let _ = raw::send_local_response(
                503,
                "callbound_undecided",
                &[("content-type", "application/json")],
                body,
            );
        }
    }
}

impl Context for Http {}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if !matches!(self.state, State::Fresh) {
            return self.action();
        }
        let _ = self.judge_headers(end_of_stream);
        self.refuse_if_undecided();
        self.action()
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let (State::Waiting(_), Some(shared)) = (&self.state, &self.shared) {
            shared.can_hold.set(true);
            self.received = size;
            if end_of_stream {
                let _ = self.judge_body();
                self.refuse_if_undecided();
            }
        }
        self.action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        // With trailers the last body callback does not say that it was the last.
        if matches!(self.state, State::Waiting(_)) {
            let _ = self.judge_body();
            self.refuse_if_undecided();
        }
        if let (State::Released, Some(shared)) = (&self.state, &self.shared)
            && strip_trailers(shared.engine.policy()).is_none()
        {
            return Action::Pause;
        }
        self.action()
    }

    fn on_log(&mut self) {
        if let Some(shared) = &self.shared {
            shared.forget(self.id);
        }
    }
}

impl Shared {
    /// Takes a request off the watchdog's list; false when it was not on it.
    fn forget(&self, context: u32) -> bool {
        self.held.try_borrow_mut().is_ok_and(|mut held| held.remove(&context).is_some())
    }
}

/// Unix seconds.
pub(super) fn seconds() -> Option<u64> {
    raw::now_nanoseconds().ok().map(|nanoseconds| nanoseconds / 1_000_000_000)
}

fn moment(now: u64) -> Moment<'static> {
    Moment { now, random: &|bytes| getrandom::fill(bytes).is_ok(), host_verify: &crypto::verify, peer: &peer }
}

/// The client's address as the host knows it: `address:port` (on Envoy behind `use_remote_address` and what it trusts
/// of `x-forwarded-for`).
fn peer() -> Option<IpAddr> {
    let text = raw::property("source\0address").ok()?;
    let address: SocketAddr = std::str::from_utf8(&text).ok()?.parse().ok()?;
    Some(address.ip())
}

/// Meets the obligations of an allow.
fn enforce(obligations: &Obligations) -> HostResult<()> {
    for name in &obligations.remove {
        raw::remove(MapType::RequestHeaders, name)?;
    }
    for (name, value) in &obligations.set {
        raw::replace(MapType::RequestHeaders, name, value)?;
    }
    Ok(())
}

/// Sends an answer.
pub(super) fn enforce_answer(answer: &Answer, record: &Record) -> HostResult<()> {
    let cause = record.denial.as_ref().map_or(record.outcome.as_str(), |denial| denial.reason.as_str());
    let headers: Vec<(&str, &str)> =
        answer.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    raw::send_local_response(answer.status, &format!("callbound_{cause}"), &headers, &answer.body)
}

/// Removes from the trailers what only we may say, what would be a credential, and what is judged as a header: some
/// upstreams read trailers as headers.
fn strip_trailers(policy: &Policy) -> Option<()> {
    let pairs = raw::pairs(MapType::RequestTrailers).ok()?;
    for (name, value) in pairs.list()? {
        if is_reserved(name) || policy.reads_header(name) || policy.holds_credential(value) {
            raw::remove(MapType::RequestTrailers, &String::from_utf8_lossy(name)).ok()?;
        }
    }
    Some(())
}
