//! States of a request and the transitions between them.
//!
//! A transition returns the next state, or the refusal that ends the request. The state is taken out before a callback
//! and put back after it, so a callback that aborts leaves the request `Fresh`, and a fresh request is denied.

use std::rc::Rc;

use crate::decision::{
    Decision, DecisionContext, Denial, Effect, Engine, Obligations, Pending, PendingCharge, Record,
    ResponseChanges, Settled, Step,
};
use crate::header::is_reserved;
use crate::policy::{Policy, StoreBackend};
use crate::reason::Reason;
use crate::store::redis::{Lookup, Operation};
use crate::store::{Charge, StoreError};

use super::callout::{PendingCallout, operations_of};
use super::held::HeldRequest;
use super::host::{BodyAhead, RawHead};
use super::raw::{self, HostResult, Level, MapType};
use super::shared::Shared;
use super::{crypto, sessions, telemetry};

/// Name and value of each header, as the engine reads them.
type Headers<'a> = [(&'a [u8], &'a [u8])];

#[derive(Default)]
pub(super) enum State {
    /// Not judged. Some hosts also give a request such a blank context in mid-stream, so this state denies.
    #[default]
    Fresh,
    /// The headers are judged; the decision needs the body.
    AwaitingBody(Box<Pending>),
    /// The decision needs an API key that is being looked up.
    AwaitingKey(Box<AwaitingKey>),
    /// The decision needs the answer of Redis to its charges.
    AwaitingStore(Box<AwaitingStore>),
    /// A reply was sent from here.
    Answered,
    /// Released to the upstream, with changes to the response.
    Released(ResponseChanges),
}

/// Request that waits for its API key; it is judged from the beginning once the key is known.
pub(super) struct AwaitingKey {
    head: RawHead,
    end_of_stream: bool,
    /// The whole body has come meanwhile.
    pub(super) is_complete: bool,
    lookup: Lookup,
    pub(super) callout: PendingCallout,
}

pub(super) struct AwaitingStore {
    charge: PendingCharge,
    pub(super) callout: PendingCallout,
}

/// Refusal that did not come from the engine.
pub(super) enum Refusal {
    /// There is no policy, or the host's data is not readable: answered without the engine.
    Undecided,
    /// Denied for this reason; the record holds all facts known so far.
    Denied(Reason, Box<Record>),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Denied(reason, Box::default())
    }
}

impl Refusal {
    fn of(reason: Reason, pending: &Pending) -> Self {
        Self::Denied(reason, Box::new(pending.record().clone()))
    }
}

pub(super) type Transition = Result<State, Refusal>;

/// Judges one request during one callback and enforces the decision.
pub(super) struct Enforcer {
    pub(super) shared: Rc<Shared>,
    pub(super) context: u32,
    /// Trailers came while the request was held.
    pub(super) has_trailers: bool,
    /// Unix seconds; 0 when the host's clock fails, which denies.
    pub(super) now: u64,
}

impl Enforcer {
    pub(super) fn judge_headers(&self, count: usize, end_of_stream: bool) -> Transition {
        let head = self.shared.host.head(count)?;
        if !self.has_clock() {
            return Err(Reason::HostError.into());
        }
        self.shared.refresh_revocations();
        let headers = head.list().ok_or(Refusal::Undecided)?;
        let end_of_stream = self.shared.host.ends_request(end_of_stream);
        match self.decide(|engine, context| engine.begin(&headers, end_of_stream, context)) {
            Step::NeedsDirectory(lookup) => self.look_up(lookup, head, end_of_stream),
            step => self.take_step(step, &headers),
        }
    }

    fn has_clock(&self) -> bool {
        self.now > 0
    }

    /// Runs one step of the engine in its context: clock, randomness, client address, store.
    fn decide<T>(&self, step: impl FnOnce(&Engine, &DecisionContext<'_>) -> T) -> T {
        let Shared { engine, host, store, .. } = &*self.shared;
        let microseconds = self.now.saturating_mul(1_000_000);
        let random = |bytes: &mut [u8]| host.random(bytes);
        let peer = || host.peer();
        let failure_limit = |charge: &Charge| store.local()?.failure_retry(charge, microseconds);
        let context = DecisionContext::new(self.now, &random)
            .with_peer(&peer)
            .with_epoch(store.epoch())
            .with_store_failure(store.redis_failure.get())
            .with_failure_limit(&failure_limit);
        let context = if host.profile.verifies { context.with_host_verify(&crypto::verify) } else { context };
        step(engine, &context)
    }

    fn take_step(&self, step: Step, headers: &Headers<'_>) -> Transition {
        match step {
            Step::Decided(decision) => self.enforce(*decision),
            Step::NeedsBody(pending) => self.await_body(pending, headers),
            Step::NeedsStore(charge) => self.charge(*charge),
            // The key was looked up just now and is missing again: no second attempt.
            Step::NeedsDirectory(_) => Err(self.store_failure(StoreError::Unavailable)),
        }
    }

    fn look_up(&self, lookup: Lookup, head: RawHead, end_of_stream: bool) -> Transition {
        let callout = self.send(vec![Operation::Find(lookup.clone())]);
        let callout = callout.map_err(|error| self.store_failure(error))?;
        let awaiting = AwaitingKey { head, end_of_stream, is_complete: false, lookup, callout };
        Ok(State::AwaitingKey(Box::new(awaiting)))
    }

    fn send(&self, operations: Vec<Operation>) -> Result<PendingCallout, StoreError> {
        let StoreBackend::Redis(redis) = &self.shared.policy().store.backend else {
            return Err(StoreError::Unavailable);
        };
        if !self.shared.host.holds_during_callouts() {
            return Err(StoreError::NotHeld);
        }
        PendingCallout::send(&self.shared.host, redis, operations).map_err(|(error, _)| error)
    }

    /// Logs why the store failed and returns the refusal for it.
    fn store_failure(&self, error: StoreError) -> Refusal {
        self.shared.telemetry.log_store_error(self.shared.policy(), error, self.now);
        Denial::from(error).reason.into()
    }

    /// Waits for the body, or continues without one when none will come.
    fn await_body(&self, mut pending: Box<Pending>, headers: &Headers<'_>) -> Transition {
        let host = &self.shared.host;
        match host.body_ahead(headers) {
            BodyAhead::Expected => {}
            BodyAhead::None => return self.finish(*pending, b""),
            BodyAhead::Unknown => return Err(Refusal::of(Reason::LengthRequired, &pending)),
        }
        if host.apply(&pending.take_obligations()).is_err() || host.request_body().is_err() {
            return Err(Refusal::of(Reason::HostError, &pending));
        }
        if host.profile.ends_streams {
            let held = HeldRequest { since: self.now, record: pending.record().clone() };
            self.shared.held.insert(self.context, held).map_err(|_| Refusal::Undecided)?;
        }
        Ok(State::AwaitingBody(pending))
    }

    /// Judges the body of a request whose headers are judged; `size` is the length the host reports.
    pub(super) fn judge_body(&self, pending: Pending, size: usize) -> Transition {
        let host = &self.shared.host;
        if host.profile.ends_streams && !self.shared.held.remove(self.context) {
            // Already answered as overdue.
            return Ok(State::Answered);
        }
        let body = host.body(size);
        self.shared.refresh_revocations();
        match body {
            Ok(body) if self.has_clock() => self.finish(pending, &body),
            body => Err(Refusal::of(body.err().unwrap_or(Reason::HostError), &pending)),
        }
    }

    fn finish(&self, pending: Pending, body: &[u8]) -> Transition {
        let step = self.decide(|engine, context| engine.finish(pending, body, context));
        self.take_step(step, &[])
    }

    /// Takes the API key that was looked up, and judges the request; `received` bytes of its body have come.
    pub(super) fn take_key(&self, awaiting: AwaitingKey, size: usize, received: usize) -> Transition {
        if !self.has_clock() {
            return Err(Refusal::Undecided);
        }
        let AwaitingKey { head, end_of_stream, is_complete, lookup, callout } = awaiting;
        let reply = callout.answer(size).map_err(|error| self.store_failure(error))?;
        if !self.shared.engine.record_lookup(lookup, reply.found.as_deref().map(str::as_bytes), self.now) {
            let line = "store: an API key that was looked up does not fit this policy";
            telemetry::log_line(self.shared.policy(), Level::Warn, line.to_owned());
        }
        let headers = head.list().ok_or(Refusal::Undecided)?;
        let step = self.decide(|engine, context| engine.begin(&headers, end_of_stream, context));
        match self.take_step(step, &headers)? {
            // The body came while the key was looked up.
            State::AwaitingBody(pending) if is_complete => self.judge_body(*pending, received),
            state => Ok(state),
        }
    }

    /// Settles the charges of a decision: at once in this gateway's memory, or by a callout to Redis.
    fn charge(&self, charge: PendingCharge) -> Transition {
        let store = &self.shared.store;
        let settled = match &self.shared.policy().store.backend {
            StoreBackend::Memory => match raw::now_nanoseconds() {
                Ok(nanoseconds) => store.take(&charge, nanoseconds / 1_000),
                Err(_) => Err(StoreError::Unavailable),
            },
            // Redis has not answered since the start, or may evict data.
            StoreBackend::Redis(_) if store.epoch().is_none() => {
                Err(store.redis_failure.get().unwrap_or(StoreError::Unavailable))
            }
            StoreBackend::Redis(_) => match self.send(operations_of(&charge)) {
                Ok(callout) => return Ok(State::AwaitingStore(Box::new(AwaitingStore { charge, callout }))),
                Err(error) => Err(error),
            },
        };
        self.settle(charge, settled)
    }

    /// Takes the answer of Redis to the charges of a decision.
    pub(super) fn take_settled(&self, awaiting: AwaitingStore, size: usize) -> Transition {
        if !self.has_clock() {
            return Err(Refusal::Undecided);
        }
        self.settle(awaiting.charge, awaiting.callout.settled(size))
    }

    fn settle(&self, charge: PendingCharge, settled: Result<Settled, StoreError>) -> Transition {
        if let Err(error) = settled {
            self.shared.telemetry.log_store_error(self.shared.policy(), error, self.now);
        }
        self.enforce(self.decide(|engine, context| engine.settle(charge, settled, context)))
    }

    fn enforce(&self, decision: Decision) -> Transition {
        self.shared.count_failure(&decision);
        match decision.effect {
            Effect::Release(obligations) => self.release(obligations, decision.record),
            Effect::Answer(_) => Ok(self.reply(&decision)),
        }
    }

    /// Releases a request, or refuses it when an obligation cannot be met.
    fn release(&self, obligations: Obligations, record: Record) -> Transition {
        let policy = self.shared.policy();
        let is_met = self.shared.host.apply(&obligations).is_ok()
            && (!self.has_trailers || strip_trailers(policy).is_ok());
        if !is_met {
            return Err(Refusal::Denied(Reason::HostError, Box::new(record)));
        }
        if let Some(session) = obligations.session {
            sessions::begin(self.context, &self.shared, session, self.now);
        }
        self.shared.publish(&record, self.now);
        Ok(State::Released(obligations.answer))
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> State {
        match refusal {
            Refusal::Undecided => refuse_undecided(self.shared.host.profile.resumes_automatically),
            Refusal::Denied(reason, record) => {
                self.reply(&self.shared.engine.refuse(Denial::from(reason), *record))
            }
        }
    }

    fn reply(&self, decision: &Decision) -> State {
        if self.shared.reply(decision, self.now).is_err() {
            self.shared.host.abort();
        }
        State::Answered
    }
}

/// Refuses a request that could not be judged: without a policy, or with unreadable data of the host.
pub(super) fn refuse_undecided(resumes_automatically: bool) -> State {
    let body = br#"{"error":{"code":"unavailable","message":"temporarily unavailable"}}"#;
    let headers = [("content-type", "application/json")];
    let details = if resumes_automatically { "" } else { "callbound_undecided" };
    if raw::send_local_response(503, details, &headers, body).is_err() && resumes_automatically {
        raw::trap();
    }
    State::Answered
}

/// Removes from the trailers reserved names, credentials, and headers the policy reads: some upstreams treat trailers as
/// headers.
pub(super) fn strip_trailers(policy: &Policy) -> HostResult<()> {
    let pairs = raw::pairs(MapType::RequestTrailers)?;
    for (name, value) in pairs.list().ok_or(raw::UNUSABLE)? {
        let read = &policy.read_headers;
        let is_read = read.contains(name) || read.is_like_any(name);
        if is_reserved(name) || is_read || policy.holds_credential(value) {
            raw::remove(MapType::RequestTrailers, &String::from_utf8_lossy(name))?;
        }
    }
    Ok(())
}
