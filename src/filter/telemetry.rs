//! What the operator sees: one counter per route and reason, one log line per refusal and per mint, and the decision
//! in filter state for the access log.
//!
//! No credential, digest or phone number comes this far: a [`Record`] holds ids. Series are per route and reason only,
//! because a host never forgets one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::decision::{Outcome, Record};
use crate::policy::Policy;
use crate::reason::Reason;

use super::raw::{self, Level};

/// Lines logged per second and worker for refusals of strangers; counters stay exact.
const STRANGER_LINES_PER_SECOND: u32 = 10;

/// What a counter counts.
type Series = (Option<usize>, Outcome, Option<Reason>);

/// Counters already defined, and how many lines this second has had.
#[derive(Default)]
pub(super) struct Telemetry {
    counters: RefCell<HashMap<Series, u32>>,
    second: Cell<u64>,
    lines: Cell<u32>,
    dropped: Cell<u64>,
}

impl Telemetry {
    /// Counts, logs and publishes a decision.
    pub(super) fn publish(&self, policy: &Policy, record: &Record, now: u64) {
        let reason = record.denial.as_ref().map(|denial| denial.reason);
        self.count(policy, record.route, record.outcome, reason);
        let _ = raw::set_property("callbound", summary(policy, record).as_bytes());
        match record.outcome {
            Outcome::Allow => {}
            Outcome::Mint => raw::log(Level::Info, &line(policy, record)),
            Outcome::Deny if is_stranger(record) => self.log_stranger(policy, record, now),
            Outcome::Deny => raw::log(Level::Info, &line(policy, record)),
        }
    }

    /// Anyone can cause these lines, so their number is bounded.
    fn log_stranger(&self, policy: &Policy, record: &Record, now: u64) {
        if self.second.replace(now) != now {
            self.lines.set(0);
            let dropped = self.dropped.replace(0);
            if dropped > 0 {
                raw::log(Level::Info, &format!("{dropped} more refusals without a known key"));
            }
        }
        if self.lines.get() < STRANGER_LINES_PER_SECOND {
            self.lines.set(self.lines.get() + 1);
            raw::log(Level::Info, &line(policy, record));
        } else {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    fn count(&self, policy: &Policy, route: Option<usize>, outcome: Outcome, reason: Option<Reason>) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        let key = (route, outcome, reason);
        let id = match counters.get(&key) {
            Some(id) => *id,
            None => {
                let (route, outcome) = (route_id(policy, route), outcome.as_str());
                let name = match reason {
                    Some(reason) => format!("callbound.route.{route}.{outcome}.{reason}"),
                    None => format!("callbound.route.{route}.{outcome}"),
                };
                let Ok(id) = raw::define_counter(&name) else { return };
                counters.insert(key, id);
                id
            }
        };
        let _ = raw::increment(id);
    }
}

/// Whoever has no credential that is good at present.
fn is_stranger(record: &Record) -> bool {
    record.key.is_none() || record.denial.as_ref().is_some_and(|denial| denial.reason.status() == 401)
}

fn route_id(policy: &Policy, route: Option<usize>) -> &str {
    route.and_then(|index| policy.routes.get(index)).map_or("none", |route| &route.id)
}

/// The fields of a decision in fixed order, absent ones left out.
fn fields<'a>(policy: &'a Policy, record: &'a Record) -> impl Iterator<Item = (&'static str, &'a str)> {
    let denial = record.denial.as_ref();
    [
        ("decision", Some(record.outcome.as_str())),
        ("reason", denial.map(|denial| denial.reason.as_str())),
        ("route", Some(route_id(policy, record.route))),
        ("field", denial.and_then(|denial| denial.field.as_deref())),
        ("key", record.key.as_deref()),
        ("team", record.team.as_deref()),
        ("token", record.token.as_deref()),
        ("minted", record.minted.as_deref()),
        ("request_id", record.request_id.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

fn line(policy: &Policy, record: &Record) -> String {
    let fields: Vec<String> =
        fields(policy, record).map(|(name, value)| format!("{name}={}", plain(value))).collect();
    fields.join(" ")
}

/// One word per field, for an access log.
fn summary(policy: &Policy, record: &Record) -> String {
    let shown = |name: &str| name != "request_id" && name != "field";
    let fields = fields(policy, record).filter(|(name, _)| shown(name));
    fields.map(|(name, value)| format!("{name}={}", plain(value))).collect::<Vec<_>>().join(" ")
}

/// A member's name comes from the client: nothing in it may look like another field or another line.
fn plain(value: &str) -> String {
    value.chars().map(|c| if c.is_ascii_graphic() && c != '=' && c != '"' { c } else { '_' }).collect()
}
