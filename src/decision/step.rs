//! Steps of a request on its way to a decision.

use std::rc::Rc;

use crate::policy::Route;
use crate::store::redis::Lookup;

use super::answer::Answer;
use super::charges::Charges;
use super::fields::JudgedValue;
use super::outcome::{Decision, Effect, Outcome, Record};
use super::rights::Principal;
use super::settle::PendingCharge;
use super::upstream_headers::Obligations;

/// Next step of a request. In every state but [`Step::Decided`] the adapter must hold the request.
pub enum Step {
    /// The decision is made.
    Decided(Box<Decision>),
    /// The whole body is needed: see [`Engine::finish`](super::Engine::finish).
    NeedsBody(Box<Pending>),
    /// A key must be looked up: see [`Engine::record_lookup`](super::Engine::record_lookup). Then the request starts
    /// again.
    NeedsDirectory(Lookup),
    /// The store must take charges: see [`Engine::settle`](super::Engine::settle).
    NeedsStore(Box<PendingCharge>),
}

impl Step {
    /// Answers a request.
    pub(super) fn answer(answer: Answer, outcome: Outcome, record: &mut Record, charges: Charges) -> Self {
        record.outcome = outcome;
        Self::decide(Effect::Answer(answer), record, charges)
    }

    /// Decides a request that may owe charges. Takes the record, so it must be the last step.
    pub(super) fn decide(effect: Effect, record: &mut Record, charges: Charges) -> Self {
        let decision = Decision { effect, record: std::mem::take(record) };
        match charges.is_empty() {
            true => Self::Decided(Box::new(decision)),
            false => Self::NeedsStore(Box::new(PendingCharge { decision, charges })),
        }
    }
}

/// A request whose head was judged and whose body was not. Dropping it releases nothing.
pub struct Pending {
    /// Route of the request.
    pub(super) route: Rc<Route>,
    pub(super) principal: Principal,
    pub(super) judged: Vec<JudgedValue>,
    pub(super) obligations: Obligations,
    pub(super) record: Record,
}

impl Pending {
    /// Returns the record so far, for a refusal whose cause is outside the engine.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Takes the obligations that concern the head, for hosts that allow no change to it once the body was read. Until
    /// the decision nothing reads the head.
    pub fn take_obligations(&mut self) -> Obligations {
        let answer = std::mem::take(&mut self.obligations.answer);
        let head = std::mem::take(&mut self.obligations);
        self.obligations.answer = answer;
        head
    }
}
