//! Context of one request: held, judged, then released or answered.
//!
//! INVARIANT (held): until `state` is `Released`, the callbacks of the request return `Pause`, whatever failed: `Continue`
//! from a body callback would release headers and body. The exceptions are the headers on a host that holds them itself,
//! and a reply on a host that resumes by itself.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::decision::ResponseChanges;

use super::raw::{self, HostResult, Level, MapType};
use super::shared::Shared;
use super::transition::{Enforcer, Refusal, State, Transition, refuse_undecided, strip_trailers};
use super::{sessions, telemetry};

/// Context of one request.
pub(super) struct Http {
    id: u32,
    shared: Option<Rc<Shared>>,
    state: State,
    /// Bytes of the body that have come; the host presents all of them in each callback.
    received: usize,
    has_trailers: bool,
}

impl Http {
    pub(super) fn new(id: u32, shared: Option<Rc<Shared>>) -> Self {
        Self { id, shared, state: State::Fresh, received: 0, has_trailers: false }
    }

    /// Moves to the next state. A refusal is answered here.
    fn advance(&mut self, transition: impl FnOnce(&Enforcer) -> Transition) {
        let Some(shared) = self.shared.clone() else {
            self.state = refuse_undecided(true);
            return;
        };
        let now = raw::now_seconds().unwrap_or(0);
        let enforcer = Enforcer { shared, context: self.id, has_trailers: self.has_trailers, now };
        self.state = transition(&enforcer).unwrap_or_else(|refusal| enforcer.refuse(refusal));
    }

    /// Refuses a request that no earlier callback has judged.
    fn refuse_if_fresh(&mut self) {
        if matches!(self.state, State::Fresh) {
            self.advance(|_| Err(Refusal::Undecided));
        }
    }

    /// Judges the body that has come, if the request waits for it.
    fn judge_body(&mut self) {
        match std::mem::take(&mut self.state) {
            State::AwaitingBody(pending) => {
                let size = self.received;
                self.advance(|enforcer| enforcer.judge_body(*pending, size));
            }
            other => self.state = other,
        }
    }

    fn resumes_automatically(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.host.profile.resumes_automatically)
    }

    /// Returns the action for the current state. A host that resumes requests by itself takes `Pause` to mean that a
    /// callout is under way, and sends a reply whatever is returned.
    fn action(&self) -> Action {
        match self.state {
            State::Released(_) => Action::Continue,
            State::Answered if self.resumes_automatically() => Action::Continue,
            State::Fresh
            | State::AwaitingKey(_)
            | State::AwaitingBody(_)
            | State::AwaitingStore(_)
            | State::Answered => Action::Pause,
        }
    }
}

/// Removes the headers of a response that hold the platform's own credential.
fn hide(changes: &ResponseChanges) -> HostResult<()> {
    let pairs = raw::pairs(MapType::ResponseHeaders)?;
    for (name, _) in pairs.list().ok_or(raw::UNUSABLE)?.iter().filter(|(_, value)| changes.is_secret(value)) {
        raw::remove(MapType::ResponseHeaders, &String::from_utf8_lossy(name))?;
    }
    Ok(())
}

impl Context for Http {
    fn on_http_call_response(&mut self, call: u32, _: usize, size: usize, _: usize) {
        match std::mem::take(&mut self.state) {
            State::AwaitingStore(awaiting) if awaiting.callout.is(call) => {
                self.advance(|enforcer| enforcer.take_settled(*awaiting, size));
            }
            State::AwaitingKey(awaiting) if awaiting.callout.is(call) => {
                let received = self.received;
                self.advance(|enforcer| enforcer.take_key(*awaiting, size, received));
            }
            State::AwaitingKey(_) | State::AwaitingStore(_) if self.resumes_automatically() => {
                self.refuse_if_fresh();
            }
            other => {
                self.state = other;
                return;
            }
        }
        match (&self.state, &self.shared) {
            // If this fails, the request stays held until the host's own timeout.
            (State::Released(_), _) => _ = raw::resume_request(),
            (State::AwaitingBody(_), Some(shared)) if shared.host.resumes_before_body() => {
                let _ = raw::resume_request();
            }
            _ => {}
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        if matches!(self.state, State::Fresh) {
            self.advance(|enforcer| enforcer.judge_headers(count, end_of_stream));
        }
        match (&self.state, &self.shared) {
            (State::AwaitingBody(_), Some(shared)) if shared.host.holds_headers() => Action::Continue,
            _ => self.action(),
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match (&mut self.state, &self.shared) {
            (State::AwaitingKey(awaiting), _) => {
                self.received = size;
                awaiting.is_complete |= end_of_stream;
            }
            (State::AwaitingBody(_), Some(shared)) => {
                shared.can_hold.set(true);
                self.received = size;
                if end_of_stream {
                    self.judge_body();
                }
            }
            _ => self.refuse_if_fresh(),
        }
        self.action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.has_trailers = true;
        // A request that is released here loses them with its release.
        let was_released = matches!(self.state, State::Released(_));
        if let State::AwaitingKey(awaiting) = &mut self.state {
            awaiting.is_complete = true;
        }
        // Before trailers, the last body callback does not announce the end.
        self.judge_body();
        self.refuse_if_fresh();
        if let (true, Some(shared)) = (was_released, &self.shared)
            && strip_trailers(shared.policy()).is_err()
        {
            return Action::Pause;
        }
        self.action()
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        match (&mut self.state, &self.shared) {
            (State::Released(changes), _) => {
                let changes = std::mem::take(changes);
                for (name, value) in &changes.set {
                    let _ = raw::replace(MapType::ResponseHeaders, name, value);
                }
                if changes.hides_secret() && hide(&changes).is_err() {
                    self.state = refuse_undecided(self.resumes_automatically());
                }
            }
            // Not held up: the request may have been judged by the instance before this one.
            (State::Fresh, Some(shared)) => {
                let line = "an upstream answered a request that this instance has not judged: does another filter answer or proxy before callbound?";
                telemetry::log_line(shared.policy(), Level::Error, line.to_owned());
            }
            _ => {}
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if let Some(shared) = &self.shared {
            shared.held.remove(self.id);
        }
        sessions::end(self.id, raw::now_seconds());
    }
}
