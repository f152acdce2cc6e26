//! Largest call to Redis that a request of a route can need, for hosts that send no larger ones.
//!
//! The charges of a request are taken together, so they cannot be split into several calls.

use super::limits::{Counts, Limit, MAX_SESSIONS, MAX_WINDOW, Measure};
use super::route::{LocalReply, Route};
use crate::store::redis::{Operation, RedisStore};
use crate::store::{Charge, CounterKey, Lease, Revocation, Rule, Subject};

/// Longest id in a request to revoke, and longest id of a team or user in a policy.
const LONGEST_IDS: (usize, usize) = (128, 64);

/// Returns the most bytes of the call to Redis that a request of this route needs, its head included.
pub(super) fn largest_call(route: &Route, redis: &RedisStore) -> usize {
    let limits = route.limits.iter().filter(|limit| limit.counts != Counts::Failures);
    let mut operations: Vec<Operation> = limits.map(|limit| charge(largest_charge(limit))).collect();
    let key = CounterKey::of(&[]);
    let stream = route.uses.reconnect.map(|grace| Lease { key, holder: u64::MAX, grace });
    let uses = Rule::Uses { max: u64::MAX, issued_at: u64::MAX, until: u64::MAX, stream };
    operations.push(charge(uses));
    if route.is_upgrade {
        let (max, ask, issued_at, until) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        operations.push(charge(Rule::Seconds { max, ask, issued_at, until }));
    }
    match &route.local {
        Some(LocalReply::Introspect(_)) => {
            operations.push(Operation::Question(Charge { key, share: 0, rule: uses }));
        }
        Some(LocalReply::Revoke(_)) => operations.push(largest_revocation()),
        _ => {}
    }
    redis.request_bytes(&operations)
}

fn charge(rule: Rule) -> Operation {
    Operation::Charge(Charge { key: CounterKey::of(&[]), share: 0, rule })
}

/// Returns the longest charge of a limit, whatever maximum a team or key has for itself.
fn largest_charge(limit: &Limit) -> Rule {
    match limit.measure {
        Measure::Window { seconds, .. } => Rule::Window { max: MAX_WINDOW, seconds },
        // The lowest maximum has the longest interval.
        Measure::Rate { seconds, burst, .. } => Rule::Rate { max: 1, seconds, burst },
        Measure::Sessions { .. } => Rule::Sessions { max: MAX_SESSIONS, holder: u64::MAX },
    }
}

/// Returns the longest revocation; a character that must be encoded takes three bytes.
fn largest_revocation() -> Operation {
    let (id, author) = LONGEST_IDS;
    let subject = Subject::TokensOfTeam("%".repeat(id));
    Operation::Revoke(Revocation { subject, by: Some("%".repeat(author + 1)), before: u64::MAX })
}
