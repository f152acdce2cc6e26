//! One request: held, judged, then released or answered.
//!
//! INVARIANT (held): until `state` is `Released`, every callback returns `Pause`, whatever failed. On a host that
//! holds headers this keeps headers and body back; returning `Continue` from a body callback would let both go.

use std::borrow::Cow;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::decision::{
    Decision, DecisionContext, Denial, Effect, Pending, PendingCharge, Record, Settled, Step, is_reserved,
};
use crate::policy::{Policy, StoreBackend};
use crate::reason::Reason;
use crate::store::remote::Lookup;
use crate::store::{Charge, StoreError};

use super::crypto;
use super::fleet;
use super::host::{Ahead, Head};
use super::memory::{self, PendingCallout};
use super::raw::{self, Level, MapType};
use super::root::{Held, Shared};
use super::telemetry;

/// A request's life here. A fresh context denies: some hosts give a request a blank one in mid-stream.
#[derive(Default)]
enum State {
    /// Nothing was judged.
    #[default]
    Fresh,
    /// The headers were judged; the verdict waits for the body.
    AwaitingBody(Box<Pending>),
    /// Its key is being looked up; then it is judged.
    AwaitingKey(Box<AwaitingKey>),
    /// It was judged; the verdict waits for a remote store.
    AwaitingStore(Box<(PendingCharge, PendingCallout)>),
    /// It was answered here.
    Answered,
    /// It went on to the upstream.
    Released,
}

/// A request that waits for its key.
struct AwaitingKey {
    head: Head,
    end_of_stream: bool,
    /// Whether the body's end has come since.
    is_complete: bool,
    lookup: Lookup,
    sent: PendingCallout,
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

    fn judge_headers(&mut self, count: usize, end_of_stream: bool) -> Option<()> {
        let shared = self.shared.clone()?;
        let (head, now) = match (shared.port.head(count), seconds()) {
            (Ok(head), Some(now)) => (head, now),
            (head, _) => {
                let reason = head.err().unwrap_or(Reason::HostError);
                return self.refuse(&shared, reason, Record::default(), 0);
            }
        };
        shared.learn_revocations();
        let headers = head.list()?;
        let end_of_stream = shared.port.ends(end_of_stream);
        let step = judge(&shared, &headers, end_of_stream, now);
        match step {
            Step::NeedsDirectory(lookup) => self.look_up(&shared, lookup, head, end_of_stream, now),
            step => self.take_step(&shared, step, &headers, now),
        }
    }

    fn refuse(&mut self, shared: &Rc<Shared>, reason: Reason, record: Record, now: u64) -> Option<()> {
        let verdict = shared.engine.refuse(Denial::from(reason), record);
        self.carry_out(shared, verdict, now)
    }

    /// Asks the store for a key; the request is judged again when the answer has come.
    fn look_up(
        &mut self,
        shared: &Rc<Shared>,
        lookup: Lookup,
        head: Head,
        end_of_stream: bool,
        now: u64,
    ) -> Option<()> {
        let sent = match &shared.engine.policy().store.home {
            StoreBackend::Redis(remote) => PendingCallout::find(self, &shared.port, remote, &lookup),
            StoreBackend::Memory => Err(StoreError::Unavailable),
        };
        match sent {
            Ok(sent) => {
                let looking = AwaitingKey { head, end_of_stream, is_complete: false, lookup, sent };
                self.state = State::AwaitingKey(Box::new(looking));
                Some(())
            }
            Err(error) => self.give_up(shared, error, now),
        }
    }

    /// Refuses because the store did not say what must be known.
    fn give_up(&mut self, shared: &Rc<Shared>, error: StoreError, now: u64) -> Option<()> {
        shared.telemetry.complain(shared.engine.policy(), error, now);
        self.refuse(shared, Reason::StoreUnavailable, Record::default(), now)
    }

    /// Goes where a judgement leads.
    fn take_step(
        &mut self,
        shared: &Rc<Shared>,
        step: Step,
        headers: &[(&[u8], &[u8])],
        now: u64,
    ) -> Option<()> {
        match step {
            Step::Decided(verdict) => self.carry_out(shared, *verdict, now),
            Step::NeedsBody(pending) => self.await_body(shared, pending, headers, now),
            Step::NeedsStore(due) => self.charge(shared, *due, now),
            // What was looked up a moment ago is not known: it is not asked after for ever.
            Step::NeedsDirectory(_) => self.give_up(shared, StoreError::Unavailable, now),
        }
    }

    /// Waits for the body, or finds that none will come.
    fn await_body(
        &mut self,
        shared: &Rc<Shared>,
        mut pending: Box<Pending>,
        headers: &[(&[u8], &[u8])],
        now: u64,
    ) -> Option<()> {
        let port = &shared.port;
        match port.ahead(headers) {
            Ahead::Body => {}
            Ahead::Nothing => {
                let step = at_moment(shared, now, |moment| shared.engine.finish(*pending, b"", moment));
                return self.take_step(shared, step, &[], now);
            }
            Ahead::Unknown => {
                return self.refuse(shared, Reason::LengthRequired, pending.record().clone(), now);
            }
        }
        if port.oblige(&pending.take_obligations()).is_err() || port.ask_for_body().is_err() {
            return self.refuse(shared, Reason::HostError, pending.record().clone(), now);
        }
        if port.profile.ends_streams {
            let held = Held { since: now, record: pending.record().clone() };
            shared.held.try_borrow_mut().ok()?.insert(self.id, held);
        }
        self.state = State::AwaitingBody(pending);
        Some(())
    }

    /// Has the store take what a verdict costs: at once, or by a call whose answer decides.
    fn charge(&mut self, shared: &Rc<Shared>, due: PendingCharge, now: u64) -> Option<()> {
        let settled = match &shared.engine.policy().store.home {
            StoreBackend::Memory => match raw::now_nanoseconds() {
                Ok(nanoseconds) => shared.store.settle(&due, nanoseconds / 1_000),
                Err(_) => Err(StoreError::Unavailable),
            },
            // Nobody has looked yet whether it is fit to be trusted.
            StoreBackend::Redis(_) if shared.store.epoch().is_none() => Err(StoreError::Unavailable),
            StoreBackend::Redis(remote) => match PendingCallout::send_due(self, &shared.port, remote, &due) {
                Ok(sent) => {
                    self.state = State::AwaitingStore(Box::new((due, sent)));
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
        due: PendingCharge,
        settled: Result<Settled, StoreError>,
        now: u64,
    ) -> Option<()> {
        if let Err(error) = settled {
            shared.telemetry.complain(shared.engine.policy(), error, now);
        }
        let verdict = at_moment(shared, now, |moment| shared.engine.settle(due, settled, moment));
        self.carry_out(shared, verdict, now)
    }

    fn judge_body(&mut self) -> Option<()> {
        let size = self.received;
        let shared = self.shared.clone()?;
        // Whatever fails from here on leaves a request that nobody judged.
        let State::AwaitingBody(pending) = std::mem::take(&mut self.state) else { return None };
        if shared.port.profile.ends_streams && !shared.forget(self.id) {
            // The watchdog has answered: what comes now is too late.
            self.state = State::Answered;
            return None;
        }
        let body = shared.port.body(size);
        shared.learn_revocations();
        match (body, seconds()) {
            (Ok(body), Some(now)) => {
                let step = at_moment(&shared, now, |moment| shared.engine.finish(*pending, &body, moment));
                self.take_step(&shared, step, &[], now)
            }
            (body, _) => {
                let reason = body.err().unwrap_or(Reason::HostError);
                self.refuse(&shared, reason, pending.record().clone(), 0)
            }
        }
    }

    /// Carries a verdict out; an allow whose obligations cannot be met is a refusal.
    fn carry_out(&mut self, shared: &Rc<Shared>, verdict: Decision, now: u64) -> Option<()> {
        shared.count_failure(&verdict);
        let Decision { effect, record } = verdict;
        let verdict = match effect {
            Effect::Release(obligations) => {
                if shared.port.oblige(&obligations).is_ok() && self.strip_held_trailers(shared).is_some() {
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
            Effect::Answer(_) => Decision { effect, record },
        };
        self.state = State::Answered;
        shared.telemetry.publish(shared.engine.policy(), &verdict.record, now);
        let is_answered = match &verdict.effect {
            Effect::Answer(answer) => shared.port.answer(answer, &verdict.record).ok(),
            Effect::Release(_) => None,
        };
        if is_answered.is_none() {
            shared.port.stop();
        }
        is_answered
    }

    fn resumes_automatically(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.port.profile.resumes_automatically)
    }

    /// What every request callback returns. A host that goes on by itself takes a pause for "a call is under way", and
    /// sends an answer whatever is returned.
    fn action(&self, part: Part) -> Action {
        let leaves_headers = || self.shared.as_ref().is_some_and(|shared| shared.port.leaves_headers());
        match self.state {
            State::Released => Action::Continue,
            State::AwaitingBody(_) if part == Part::Headers && leaves_headers() => Action::Continue,
            State::Answered if self.resumes_automatically() => Action::Continue,
            State::Fresh
            | State::AwaitingKey(_)
            | State::AwaitingBody(_)
            | State::AwaitingStore(_)
            | State::Answered => Action::Pause,
        }
    }

    /// Answers when judging itself failed: without a policy, or with a host that gives nothing.
    fn refuse_if_undecided(&mut self) {
        if !matches!(self.state, State::Fresh) {
            return;
        }
        self.state = State::Answered;
        let body = br#"{"error":{"code":"unavailable","message":"temporarily unavailable"}}"#;
        let headers = [("content-type", "application/json")];
        let details = if self.resumes_automatically() { "" } else { "callbound_undecided" };
        if raw::send_local_response(503, details, &headers, body).is_err() && self.resumes_automatically() {
            raw::trap();
        }
    }
}

/// The part of a request a callback is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Headers,
    Rest,
}

impl Context for Http {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        match std::mem::take(&mut self.state) {
            State::AwaitingStore(charging) if charging.1.is(call) => {
                let (due, sent) = *charging;
                let _ = self.take_answer(due, &sent, size);
            }
            State::AwaitingKey(looking) if looking.sent.is(call) => _ = self.take_key(*looking, size),
            State::AwaitingKey(_) | State::AwaitingStore(_) if self.resumes_automatically() => {}
            other => {
                self.state = other;
                return;
            }
        }
        let passes_on = || self.shared.as_ref().is_some_and(|shared| shared.port.passes_on());
        match self.state {
            // What the host does not let go on is held until its own timeout ends it: nothing leaks.
            State::Released => _ = raw::resume_request(),
            State::AwaitingBody(_) if passes_on() => _ = raw::resume_request(),
            _ => self.refuse_if_undecided(),
        }
    }
}

impl Http {
    /// Takes a key that was looked up, and judges the request by it.
    fn take_key(&mut self, looking: AwaitingKey, size: usize) -> Option<()> {
        let shared = self.shared.clone()?;
        let now = seconds()?;
        let AwaitingKey { head, end_of_stream, is_complete, lookup, sent } = looking;
        match sent.answer(size) {
            Ok(reply) => {
                if !shared.engine.record_lookup(lookup, reply.found.as_deref().map(str::as_bytes), now) {
                    let line = "store: an API key that was looked up does not fit this policy";
                    telemetry::say(shared.engine.policy(), Level::Warn, line.to_owned());
                }
            }
            Err(error) => return self.give_up(&shared, error, now),
        }
        let headers = head.list()?;
        let step = judge(&shared, &headers, end_of_stream, now);
        self.take_step(&shared, step, &headers, now)?;
        // The body may have come while the key was looked up.
        if is_complete && matches!(self.state, State::AwaitingBody(_)) { self.judge_body() } else { Some(()) }
    }

    /// Takes a remote store's answer to what a verdict costs.
    fn take_answer(&mut self, due: PendingCharge, sent: &PendingCallout, size: usize) -> Option<()> {
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
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        if matches!(self.state, State::Fresh) {
            let _ = self.judge_headers(count, end_of_stream);
            self.refuse_if_undecided();
        }
        self.action(Part::Headers)
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let State::AwaitingKey(looking) = &mut self.state {
            self.received = size;
            looking.is_complete |= end_of_stream;
        }
        if let (State::AwaitingBody(_), Some(shared)) = (&self.state, &self.shared) {
            shared.can_hold.set(true);
            self.received = size;
            if end_of_stream {
                let _ = self.judge_body();
            }
        }
        // Nobody judged it: some hosts give a request a new context in mid-stream.
        self.refuse_if_undecided();
        self.action(Part::Rest)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.has_trailers = true;
        if let State::AwaitingKey(looking) = &mut self.state {
            looking.is_complete = true;
        }
        // With trailers the last body callback does not say that it was the last.
        if matches!(self.state, State::AwaitingBody(_)) {
            let _ = self.judge_body();
        }
        self.refuse_if_undecided();
        if let (State::Released, Some(shared)) = (&self.state, &self.shared)
            && strip_trailers(shared.engine.policy()).is_none()
        {
            return Action::Pause;
        }
        self.action(Part::Rest)
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        // Not held up: a new instance knows nothing of the requests of the one before it, which it judged.
        if let (State::Fresh, Some(shared)) = (&self.state, &self.shared) {
            let line = "an upstream answered a request that this instance has not judged: does something answer or proxy before callbound?";
            telemetry::say(shared.engine.policy(), Level::Error, line.to_owned());
        }
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
    at_moment(shared, now, |moment| shared.engine.begin(headers, end_of_stream, moment))
}

impl Shared {
    /// Learns what was revoked at this gateway since the last request; whenever one is judged, because it counts at once.
    fn learn_revocations(&self) {
        match self.store.new_revocations() {
            Ok(None) => {}
            Ok(Some(revocations)) => self.engine.set_revocations(Rc::new(revocations)),
            Err(_) => self.engine.set_revocations_unreadable(),
        }
    }

    /// Counts a bad credential with the address it came from.
    fn count_failure(&self, verdict: &Decision) {
        let charges = self.engine.failure_charges(verdict, &|| self.port.peer());
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

/// What a decision may depend on at this moment on this host.
fn at_moment<T>(shared: &Shared, now: u64, decide: impl FnOnce(&DecisionContext<'_>) -> T) -> T {
    let random = |bytes: &mut [u8]| shared.port.random(bytes);
    let peer = || shared.port.peer();
    let failure_limit = |charge: &Charge| shared.store.has_failed(charge, now.saturating_mul(1_000_000));
    let context = DecisionContext::new(now, &random)
        .with_peer(&peer)
        .with_epoch(shared.store.epoch())
        .with_failure_limit(&failure_limit);
    decide(&match shared.port.profile.verifies {
        true => context.with_host_verify(&crypto::verify),
        false => context,
    })
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
