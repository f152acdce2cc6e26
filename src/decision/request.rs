//! One request under judgement, as the checks see it.

use crate::policy::{Policy, Route};

use super::context::DecisionContext;
use super::denial::Denial;
use super::rights::{Principal, Rights};
use super::state::EngineState;

/// Policy, run-time knowledge and context: everything a check may ask besides the request.
#[derive(Clone, Copy)]
pub(super) struct Evaluator<'a> {
    pub(super) policy: &'a Policy,
    pub(super) state: &'a EngineState,
    pub(super) context: &'a DecisionContext<'a>,
}

/// A request to a guarded route, once its credential was verified.
pub(super) struct GuardedRequest<'a> {
    pub(super) policy: &'a Policy,
    pub(super) state: &'a EngineState,
    pub(super) context: &'a DecisionContext<'a>,
    pub(super) route: &'a Route,
    pub(super) rights: Rights<'a>,
}

impl<'a> Evaluator<'a> {
    /// Computes the present rights of the principal of a request.
    pub(super) fn request(
        self,
        route: &'a Route,
        principal: &'a Principal,
    ) -> Result<GuardedRequest<'a>, Denial> {
        let Self { policy, state, context } = self;
        let rights = Rights::of(policy, principal, context.now)?;
        Ok(GuardedRequest { policy, state, context, route, rights })
    }
}
