//! One request: held, judged, then released or answered.
//!
//! INVARIANT (held): until `state` is `Released`, every callback returns `Pause`, whatever failed. On a host that
//! holds headers this keeps headers and body back; returning `Continue` from a body callback would let both go.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::decision::{
    Answer, Denial, Due, Effect, Moment, Obligations, Pending, Record, Settled, Step, Verdict, is_reserved,
    no_failures,
};
use crate::policy::{Home, Policy};
use crate::reason::Reason;
use crate::store::remote::Lookup;
use crate::store::{Charge, StoreError};

use super::crypto;
use super::fleet;
use super::memory::{self, Sent};
use super::raw::{self, BufferType, HostResult, Level, MapType, Pairs};
use super::root::{Held, Shared};

/// A request's life here. A fresh context denies: some hosts give a request a blank one in mid-stream.
#[derive(Default)]
enum State {
    /// Nothing was judged.
    #[default]
    Fresh,
    /// The headers were judged; the verdict waits for the body.
    Waiting(Box<Pending>),
    /// Its key is being looked up; then it is judged.
    Looking(Box<Looking>),
    /// It was judged; the verdict waits for a remote store.
    Charging(Box<(Due, Sent)>),
    /// It was answered here.
    Answered,
    /// It went on to the upstream.
    Released,
}

/// A request that waits for its key.
struct Looking {
    headers: Pairs,
    end_of_stream: bool,
    /// Whether the body's end has come since.
    is_complete: bool,
    lookup: Lookup,
    sent: Sent,
}

/// The context of one request.
pub(super) struct Http {
    id: u32,
    shared: Option<Rc<Shared>>,
    state: State,
    /// Bytes of the body that have arrived: the host gives it whole each time.
    received: usize,
    /// Whether trailers have arrived.
    has_trailers: bool,
    /// What the upstream's answer is to say.
    answer: Vec<(Cow<'static, str>, String)>,
}

impl Http {
    pub(super) fn new(id: u32, shared: Option<Rc<Shared>>) -> Self {
        Self { id, shared, state: State::Fresh, received: 0, has_trailers: false, answer: Vec::new() }
    }

    fn judge_headers(&mut self, end_of_stream: bool) -> Option<()> {
        let shared = self.shared.clone()?;
        let pairs = raw::pairs(MapType::RequestHeaders).ok();
        let headers = pairs.as_ref().and_then(|pairs| pairs.list());
        let (Some(headers), Some(now)) = (headers, seconds()) else {
            let verdict = shared.engine.refuse(Denial::from(Reason::HostError), Record::default());
            return self.carry_out(&shared, verdict, 0);
        };
        shared.learn_revocations();
        match judge(&shared, &headers, end_of_stream, now) {
            Step::NeedsDirectory(lookup) => self.look_up(&shared, lookup, pairs?, end_of_stream, now),
            step => self.take_step(&shared, step, now),
        }
    }

    /// Asks the store for a key; the request is judged again when the answer has come.
    fn look_up(
        &mut self,
        shared: &Rc<Shared>,
        lookup: Lookup,
        headers: Pairs,
        end_of_stream: bool,
        now: u64,
    ) -> Option<()> {
        let sent = match &shared.engine.policy().store.home {
            Home::Redis(remote) => Sent::find(self, remote, &lookup),
            Home::Local => Err(StoreError::Unavailable),
        };
        match sent {
            Ok(sent) => {
                let looking = Looking { headers, end_of_stream, is_complete: false, lookup, sent };
                self.state = State::Looking(Box::new(looking));
                Some(())
            }
            Err(error) => self.give_up(shared, error, now),
        }
    }

    /// Refuses because the store did not say what must be known.
    fn give_up(&mut self, shared: &Rc<Shared>, error: StoreError, now: u64) -> Option<()> {
        shared.telemetry.complain(error, now);
        let verdict = shared.engine.refuse(Denial::from(Reason::StoreUnavailable), Record::default());
        self.carry_out(shared, verdict, now)
    }

    /// Goes where a judgement leads.
    fn take_step(&mut self, shared: &Rc<Shared>, step: Step, now: u64) -> Option<()> {
        match step {
            Step::Decided(verdict) => self.carry_out(shared, *verdict, now),
            Step::NeedsBody(mut pending) => {
                if enforce(&pending.take_obligations()).is_err() {
                    let verdict = shared.engine.refuse(Denial::from(Reason::HostError), pending.record().clone());
                    return self.carry_out(shared, verdict, now);
                }
                let held = Held { since: now, record: pending.record().clone() };
                shared.held.try_borrow_mut().ok()?.insert(self.id, held);
                self.state = State::Waiting(pending);
                Some(())
            }
            Step::NeedsStore(due) => self.charge(shared, *due, now),
            // What was looked up a moment ago is not known: it is not asked after for ever.
            Step::NeedsDirectory(_) => self.give_up(shared, StoreError::Unavailable, now),
        }
    }

    /// Has the store take what a verdict costs: at once, or by a call whose answer decides.
    fn charge(&mut self, shared: &Rc<Shared>, due: Due, now: u64) -> Option<()> {
        let settled = match &shared.engine.policy().store.home {
            Home::Local => match raw::now_nanoseconds() {
                Ok(nanoseconds) => shared.store.settle(&due, nanoseconds / 1_000),
                Err(_) => Err(StoreError::Unavailable),
            },
            // Nobody has looked yet whether it is fit to be trusted.
            Home::Redis(_) if shared.store.epoch().is_none() => Err(StoreError::Unavailable),
            Home::Redis(remote) => match Sent::send_due(self, remote, &due) {
                Ok(sent) => {
                    self.state = State::Charging(Box::new((due, sent)));
                    return Some(());
                }
                Err(error) => Err(error),
            },
        };
        self.settle(shared, due, settled, now)
    }

    fn settle(
        &mut self,
        shared: &Rc<Shared>,
        due: Due,
        settled: Result<Settled, StoreError>,
        now: u64,
    ) -> Option<()> {
        if let Err(error) = settled {
            shared.telemetry.complain(error, now);
        }
        let verdict = shared.engine.settle(due, settled, &moment(shared, now, &no_failures));
        self.carry_out(shared, verdict, now)
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
        shared.learn_revocations();
        match (body, seconds()) {
            (Ok(body), Some(now)) if body.len() == size => {
                let step = shared.engine.finish(*pending, &body, &moment(&shared, now, &no_failures));
                self.take_step(&shared, step, now)
            }
            _ => {
                let verdict = shared.engine.refuse(Denial::from(Reason::HostError), pending.record().clone());
                self.carry_out(&shared, verdict, 0)
            }
        }
    }

    /// Carries a verdict out; an allow whose obligations cannot be met is a refusal.
    fn carry_out(&mut self, shared: &Rc<Shared>, verdict: Verdict, now: u64) -> Option<()> {
        shared.count_failure(&verdict);
        let Verdict { effect, record } = verdict;
        let verdict = match effect {
            Effect::Release(obligations) => {
                if enforce(&obligations).is_ok() && self.strip_held_trailers(shared).is_some() {
                    self.state = State::Released;
                    self.answer = obligations.answer;
                    if let Some(session) = obligations.session {
                        fleet::begin_session(self.id, shared, session, now);
                    }
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
            State::Fresh | State::Looking(_) | State::Waiting(_) | State::Charging(_) | State::Answered => {
                Action::Pause
            }
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

impl Context for Http {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        match std::mem::take(&mut self.state) {
            State::Charging(charging) if charging.1.is(call) => {
                let (due, sent) = *charging;
                let _ = self.take_answer(due, &sent, size);
            }
            State::Looking(looking) if looking.sent.is(call) => _ = self.take_key(*looking, size),
            other => {
                self.state = other;
                return;
            }
        }
        match self.state {
            // What the host does not let go on is held until its own timeout ends it: nothing leaks.
            State::Released => _ = raw::resume_request(),
            _ => self.refuse_if_undecided(),
        }
    }
}

impl Http {
    /// Takes a key that was looked up, and judges the request by it.
    fn take_key(&mut self, looking: Looking, size: usize) -> Option<()> {
        let shared = self.shared.clone()?;
        let now = seconds()?;
        let Looking { headers, end_of_stream, is_complete, lookup, sent } = looking;
        match sent.answer(size) {
            Ok(reply) => {
                if !shared.engine.learn(lookup, reply.found.as_deref().map(str::as_bytes), now) {
                    raw::log(Level::Warn, "store: an API key that was looked up does not fit this policy");
                }
            }
            Err(error) => return self.give_up(&shared, error, now),
        }
        let step = judge(&shared, &headers.list()?, end_of_stream, now);
        self.take_step(&shared, step, now)?;
        // The body may have come while the key was looked up.
        if is_complete && matches!(self.state, State::Waiting(_)) { self.judge_body() } else { Some(()) }
    }

    /// Takes a remote store's answer to what a verdict costs.
    fn take_answer(&mut self, due: Due, sent: &Sent, size: usize) -> Option<()> {
        let shared = self.shared.clone()?;
        let reply = sent.answer(size);
        self.settle(&shared, due, memory::settled(reply), seconds()?)
    }

    /// Trailers that came while the request was held go on with it.
    fn strip_held_trailers(&self, shared: &Shared) -> Option<()> {
        if self.has_trailers { strip_trailers(shared.engine.policy()) } else { Some(()) }
    }
}

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
        if let State::Looking(looking) = &mut self.state {
            self.received = size;
            looking.is_complete |= end_of_stream;
        }
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
        self.has_trailers = true;
        if let State::Looking(looking) = &mut self.state {
            looking.is_complete = true;
        }
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

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        for (name, value) in std::mem::take(&mut self.answer) {
            let _ = raw::replace(MapType::ResponseHeaders, &name, &value);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if let Some(shared) = &self.shared {
            shared.forget(self.id);
        }
        fleet::end_session(self.id, seconds());
    }
}

/// Judges headers.
fn judge(shared: &Shared, headers: &[(&[u8], &[u8])], end_of_stream: bool, now: u64) -> Step {
    let has_failed = |charge: &Charge| shared.store.has_failed(charge, now.saturating_mul(1_000_000));
    shared.engine.begin(headers, end_of_stream, &moment(shared, now, &has_failed))
}

impl Shared {
    /// Learns what was revoked at this gateway since the last request; whenever one is judged, because it counts at once.
    fn learn_revocations(&self) {
        match self.store.new_revocations() {
            Ok(None) => {}
            Ok(Some(revocations)) => self.engine.take_revocations(Rc::new(revocations)),
            Err(_) => self.engine.lose_revocations(),
        }
    }

    /// Counts a bad credential with the address it came from.
    fn count_failure(&self, verdict: &Verdict) {
        let charges = self.engine.failures(verdict, &peer);
        if let (false, Ok(nanoseconds)) = (charges.is_empty(), raw::now_nanoseconds()) {
            self.store.fail(&charges, nanoseconds / 1_000);
        }
    }

    /// Takes a request off the watchdog's list; false when it was not on it.
    fn forget(&self, context: u32) -> bool {
        self.held.try_borrow_mut().is_ok_and(|mut held| held.remove(&context).is_some())
    }
}

/// Unix seconds.
pub(super) fn seconds() -> Option<u64> {
    raw::now_nanoseconds().ok().map(|nanoseconds| nanoseconds / 1_000_000_000)
}

fn moment<'a>(
    shared: &Shared,
    now: u64,
    has_failed: &'a dyn Fn(&Charge) -> Result<Option<u64>, StoreError>,
) -> Moment<'a> {
    Moment {
        now,
        random: &|bytes| getrandom::fill(bytes).is_ok(),
        host_verify: &crypto::verify,
        peer: &peer,
        epoch: shared.store.epoch(),
        has_failed,
    }
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
        answer.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
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
