//! Failure limits: an address that sent too many bad credentials is refused before its next one is looked at.

use core::net::IpAddr;
use std::rc::Rc;

use crate::policy::{Counts, Limit, Route};
use crate::reason::Reason;
use crate::store::{Charge, CounterKey};

use super::charges::{NO_TENANT, network, request_rule};
use super::context::DecisionContext;
use super::denial::Denial;
use super::outcome::Decision;

/// Refuses a client whose address has reached a failure limit, whatever its credential now.
pub(super) fn check(route: &Route, context: &DecisionContext<'_>) -> Result<(), Denial> {
    for limit in failure_limits(route) {
        let charge = failure_charge(limit, context.peer()?).ok_or(Reason::HostError)?;
        if let Some(retry) = context.failure_retry(&charge)? {
            return Err(Denial { retry: Some(retry), ..Reason::FailuresReached.into() });
        }
    }
    Ok(())
}

/// Returns the charges for a decision that refused a bad credential; none for every other decision.
pub(super) fn charges(decision: &Decision, peer: &dyn Fn() -> Option<IpAddr>) -> Vec<Charge> {
    let record = &decision.record;
    let is_failure = record.denial.as_ref().is_some_and(|denial| denial.reason.status() == 401);
    let route = record.route.as_ref().filter(|_| is_failure);
    let limits = route.into_iter().flat_map(|route| failure_limits(route));
    limits.filter_map(|limit| failure_charge(limit, peer()?)).collect()
}

fn failure_limits(route: &Route) -> impl Iterator<Item = &Limit> {
    route.limits.iter().map(Rc::as_ref).filter(|limit| limit.counts == Counts::Failures)
}

/// Returns the charge for one bad credential from an address.
fn failure_charge(limit: &Limit, address: IpAddr) -> Option<Charge> {
    let rule = request_rule(limit.measure)?;
    let key = CounterKey::of(&[b"failures", limit.id.as_bytes(), &network(address)]);
    Some(Charge { key, share: NO_TENANT, rule })
}
