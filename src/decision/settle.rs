//! Settles a decision with the store's reply to its charges, and shows the client its limits.

use std::borrow::Cow;

use crate::policy::{Limit, Policy, Shown};
use crate::reason::Reason;
use crate::store::{Charge, ChargeDenied, ChargeResult, Remaining, Revocation, Rule, StoreError};

use super::charges::{Charges, Purpose};
use super::denial::Denial;
use super::outcome::{Decision, Effect, Record};
use super::upstream_headers::OpenSession;

/// A decision that holds once the store has taken its charges. Dropping it releases nothing.
pub struct PendingCharge {
    pub(super) decision: Decision,
    pub(super) charges: Charges,
}

/// Reply of the store to a [`PendingCharge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Result of the charges.
    pub taken: ChargeResult,
    /// True when the counter of the question has nothing left.
    pub is_spent: bool,
}

impl PendingCharge {
    /// Returns the charges the store must take, all or none.
    pub fn charges(&self) -> &[Charge] {
        &self.charges.list
    }

    /// Returns a charge whose counter must be looked at, not charged.
    pub fn question(&self) -> Option<&Charge> {
        self.charges.question.as_ref().map(|(charge, _)| charge)
    }

    /// Returns the revocation the store must record before the answer is true.
    pub fn revocation(&self) -> Option<&Revocation> {
        self.charges.revocation.as_ref()
    }
}

/// A charge that the store denied.
struct DeniedCharge<'a> {
    charge: Option<&'a Charge>,
    purpose: Option<&'a Purpose>,
    cause: ChargeDenied,
}

/// Completes a decision with the store's reply.
pub(super) fn settle(
    policy: &Policy,
    pending: PendingCharge,
    reply: Result<Settled, StoreError>,
    now: u64,
) -> Decision {
    let PendingCharge { mut decision, mut charges } = pending;
    decision.record.strength = Some(policy.store.backend.strength());
    match reply {
        Err(error) => Decision::refusal(policy, error.into(), decision.record),
        Ok(Settled { taken: ChargeResult::Denied { charge, refusal }, .. }) => {
            let purpose = charges.purposes.get(charge);
            let denied = DeniedCharge { charge: charges.list.get(charge), purpose, cause: refusal };
            denied.refuse(policy, decision.record, now)
        }
        Ok(Settled { taken: ChargeResult::All(remaining), is_spent })
            if remaining.len() == charges.list.len() =>
        {
            if let Some((_, answer)) = charges.question.take().filter(|_| is_spent) {
                decision.effect = Effect::Answer(answer);
            }
            complete(policy, &mut decision, &charges, &remaining, now);
            decision
        }
        Ok(_) => Decision::refusal(policy, Reason::StoreUnavailable.into(), decision.record),
    }
}

/// Writes limits, uses and session of a decision whose charges were taken.
fn complete(policy: &Policy, decision: &mut Decision, charges: &Charges, remaining: &[Remaining], now: u64) {
    let mut session = OpenSession::default();
    let mut limits = Vec::new();
    for ((purpose, charge), remaining) in charges.purposes.iter().zip(&charges.list).zip(remaining) {
        session.leases.extend(charge.lease());
        match purpose {
            // A limit that tenants share would show one how busy the others are.
            Purpose::Limit(limit) if limit.is_per_tenant_or_address() => {
                limits.extend(LimitState::new(limit, charge, *remaining));
            }
            Purpose::Limit(_) => {}
            Purpose::Use => decision.record.remaining = Some(remaining.remaining),
            Purpose::Seconds => session.seconds = Some((charge.key, remaining.remaining)),
        }
    }
    let headers = limit_headers(policy, &limits, now);
    match &mut decision.effect {
        Effect::Release(obligations) => {
            obligations.answer.set.extend(headers);
            obligations.open_session(session, policy.ends_sessions);
        }
        Effect::Answer(answer) => answer.headers.extend(headers),
    }
}

impl DeniedCharge<'_> {
    fn reason(&self) -> Reason {
        let is_session = self.charge.is_some_and(|charge| charge.lease().is_some());
        match (self.purpose, self.cause) {
            (_, ChargeDenied::Forgotten) => Reason::TokenForgotten,
            (Some(Purpose::Use), _) => Reason::TokenSpent,
            (Some(Purpose::Seconds), _) => Reason::SecondsSpent,
            (Some(Purpose::Limit(_)), _) if is_session => Reason::SessionsReached,
            (Some(Purpose::Limit(_)), _) => Reason::LimitReached,
            (None, _) => Reason::StoreUnavailable,
        }
    }

    fn refuse(&self, policy: &Policy, mut record: Record, now: u64) -> Decision {
        let denial = Denial::from(self.reason());
        let Some(Purpose::Limit(limit)) = self.purpose else {
            return Decision::refusal(policy, denial, record);
        };
        record.limit = Some(limit.id.clone());
        let ChargeDenied::Spent { retry, reset } = self.cause else {
            return Decision::refusal(policy, denial, record);
        };
        let mut decision = Decision::refusal(policy, Denial { retry: Some(retry), ..denial }, record);
        if let Effect::Answer(answer) = &mut decision.effect {
            let remaining = Remaining { remaining: 0, reset: reset.max(retry) };
            let state = self.charge.and_then(|charge| LimitState::new(limit, charge, remaining));
            answer.headers.extend(limit_headers(policy, state.as_slice(), now));
        }
        decision
    }
}

/// A limit after its charge, as far as a client may see it.
struct LimitState<'a> {
    id: &'a str,
    max: u64,
    seconds: u64,
    remaining: Remaining,
}

impl<'a> LimitState<'a> {
    /// Returns the state of a limit; `None` for a limit of sessions, which has no period.
    fn new(limit: &'a Limit, charge: &Charge, remaining: Remaining) -> Option<Self> {
        let (Rule::Window { max, seconds } | Rule::Rate { max, seconds, .. }) = charge.rule else {
            return None;
        };
        Some(Self { id: &limit.id, max, seconds, remaining })
    }

    /// Seconds until the limit is whole again.
    fn reset(&self) -> u64 {
        self.remaining.reset.div_ceil(1_000)
    }

    fn value(&self, shown: Shown, now: u64) -> u64 {
        match shown {
            Shown::Limit => self.max,
            Shown::Remaining => self.remaining.remaining,
            Shown::ResetSeconds => self.reset(),
            Shown::ResetUnix => now.saturating_add(self.reset()),
            Shown::ResetUnixMilliseconds => now.saturating_add(self.reset()).saturating_mul(1_000),
        }
    }
}

/// Writes `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) for all limits, and the policy's own
/// headers for the tightest.
fn limit_headers(policy: &Policy, limits: &[LimitState<'_>], now: u64) -> Vec<(Cow<'static, str>, String)> {
    let Some(tightest) = limits.iter().min_by_key(|limit| limit.remaining.remaining) else {
        return Vec::new();
    };
    let list =
        |one: &dyn Fn(&LimitState<'_>) -> String| limits.iter().map(one).collect::<Vec<_>>().join(", ");
    let state =
        list(&|limit| format!("\"{}\";r={};t={}", limit.id, limit.remaining.remaining, limit.reset()));
    let quota = list(&|limit| format!("\"{}\";q={};w={}", limit.id, limit.max, limit.seconds));
    let mut headers = vec![("ratelimit".into(), state), ("ratelimit-policy".into(), quota)];
    headers.extend(
        policy
            .limits
            .headers
            .iter()
            .map(|(name, shown)| (Cow::Owned(name.clone()), tightest.value(*shown, now).to_string())),
    );
    headers
}
