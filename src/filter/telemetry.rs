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
use crate::store::{StoreError, Strength};

use super::fleet;
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
    complained: Cell<u64>,
    /// Whether the host has no place for the decision in its access log.
    is_unlogged: Cell<bool>,
}

impl Telemetry {
    /// Counts, logs and publishes a decision.
    pub(super) fn publish(&self, policy: &Policy, record: &Record, now: u64) {
        let reason = record.denial.as_ref().map(|denial| denial.reason);
        if policy.counts {
            self.count(policy, record.route, record.outcome, reason);
        }
        // A host that has no place for it would complain each time.
        if !self.is_unlogged.get() {
            let set = raw::set_property(policy.host.log, summary(policy, record).as_bytes());
            self.is_unlogged.set(set == Err(raw::NOT_FOUND) && policy.host.logs_requests);
        }
        fleet::note_use(policy, record, now);
        match record.outcome {
            Outcome::Allow | Outcome::Answer if !policy.audits_all && record.revoked.is_none() => {}
            Outcome::Allow | Outcome::Answer => say(policy, Level::Info, line(policy, record)),
            Outcome::Mint => say(policy, Level::Info, line(policy, record)),
            Outcome::Deny if is_stranger(record) => self.log_stranger(policy, record, now),
            Outcome::Deny => say(policy, Level::Info, line(policy, record)),
        }
    }

    /// Anyone can cause these lines, so their number is bounded.
    fn log_stranger(&self, policy: &Policy, record: &Record, now: u64) {
        if self.second.replace(now) != now {
            self.lines.set(0);
            let dropped = self.dropped.replace(0);
            if dropped > 0 {
                say(policy, Level::Info, format!("{dropped} more refusals without a known key"));
            }
        }
        if self.lines.get() < STRANGER_LINES_PER_SECOND {
            self.lines.set(self.lines.get() + 1);
            say(policy, Level::Info, line(policy, record));
        } else {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    /// Says why the store could not be used, once a second: what it does to one request it does to all.
    pub(super) fn complain(&self, policy: &Policy, error: StoreError, now: u64) {
        if self.complained.replace(now) != now {
            say(policy, Level::Warn, format!("store: {error}"));
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

thread_local! {
    /// Lines that wait until no request is being served, and how many there was no room for.
    static WAITING: RefCell<(Vec<(Level, String)>, u64)> = const { RefCell::new((Vec::new(), 0)) };
}

/// The most lines that wait for a tick.
const MAX_WAITING: usize = 2_000;

/// Logs a line about a request. Where the host adds the request's own first line, in which a credential may stand, it
/// waits for a tick; where there are none, it is not written if a credential may stand there.
pub(super) fn say(policy: &Policy, level: Level, line: String) {
    match (policy.host.logs_requests, policy.host.has_ticks) {
        (true, true) => WAITING.with_borrow_mut(|(lines, lost)| match lines.len() < MAX_WAITING {
            true => lines.push((level, line)),
            false => *lost += 1,
        }),
        (true, false) if policy.reads_credentials_in_query() => {}
        _ => raw::log(level, &line),
    }
}

/// Writes what waited.
pub(super) fn flush() {
    let (lines, lost) = WAITING.with_borrow_mut(std::mem::take);
    lines.iter().for_each(|(level, line)| raw::log(*level, line));
    if lost > 0 {
        raw::log(Level::Warn, &format!("{lost} more lines for which there was no room"));
    }
}

/// Whoever has no credential that is good at present.
fn is_stranger(record: &Record) -> bool {
    record.key.is_none() || record.denial.as_ref().is_some_and(|denial| denial.reason.status() == 401)
}

fn route_id(policy: &Policy, route: Option<usize>) -> &str {
    route.and_then(|index| policy.routes.get(index)).map_or("none", |route| &route.id)
}

/// One word per field, for an access log.
fn summary(policy: &Policy, record: &Record) -> String {
    let denial = record.denial.as_ref();
    let mut text = String::with_capacity(160);
    field(&mut text, "decision", Some(record.outcome.as_str()));
    field(&mut text, "reason", denial.map(|denial| denial.reason.as_str()));
    field(&mut text, "route", Some(route_id(policy, record.route)));
    field(&mut text, "key", record.key.as_deref());
    field(&mut text, "team", record.team.as_deref());
    field(&mut text, "token", record.token.as_deref());
    field(&mut text, "minted", record.minted.as_deref());
    field(&mut text, "revoked", record.revoked.as_deref());
    field(&mut text, "limit", record.limit.as_deref());
    field(&mut text, "strength", record.strength.map(Strength::as_str));
    field(&mut text, "remaining", record.remaining.map(|left| left.to_string()).as_deref());
    field(&mut text, "revision", Some(&policy.revision));
    text
}

/// The same for the log, which has no columns of its own for the rest.
fn line(policy: &Policy, record: &Record) -> String {
    let mut text = summary(policy, record);
    field(&mut text, "field", record.denial.as_ref().and_then(|denial| denial.field.as_deref()));
    field(&mut text, "request_id", record.request_id.as_deref());
    text
}

/// Adds a field that has a value. A member's name comes from the client: nothing in a value may look like another
/// field or another line.
fn field(text: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(name);
    text.push('=');
    let is_plain = |c: char| c.is_ascii_graphic() && c != '=' && c != '"';
    if value.chars().all(is_plain) {
        text.push_str(value);
    } else {
        text.extend(value.chars().map(|c| if is_plain(c) { c } else { '_' }));
    }
}
