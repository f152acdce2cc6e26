//! Output for the operator: counters, log lines for refusals and mints, and the decision as an access-log property.
//!
//! A [`Record`] holds ids, never a credential, digest or phone number. Counters are per route and reason only, because a
//! host keeps each series forever.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::decision::{Outcome, Record};
use crate::policy::{Policy, Route};
use crate::reason::Reason;
use crate::store::{StoreError, Strength};

use super::raw::{self, Level};

/// Refusals without a valid credential logged per second and worker; counters stay exact.
const STRANGER_LINES_PER_SECOND: u32 = 10;

/// Labels of a counter: route, outcome and reason.
type Series = (Option<Rc<Route>>, Outcome, Option<Reason>);

/// Counters defined so far, and the state of rate-limited log lines.
#[derive(Default)]
pub(super) struct Telemetry {
    counters: RefCell<HashMap<Series, u32>>,
    /// Unix seconds of the last refusal without a valid credential.
    second: Cell<u64>,
    /// Such refusals logged in that second.
    lines: Cell<u32>,
    /// Such refusals not logged since the last note about them.
    dropped: Cell<u64>,
    /// Unix seconds of the last store error logged.
    store_error: Cell<u64>,
    /// The host has no property for the decision.
    lacks_property: Cell<bool>,
}

impl Telemetry {
    /// Counts, logs and publishes a decision; `now` in Unix seconds.
    pub(super) fn publish(&self, policy: &Policy, record: &Record, now: u64) {
        let reason = record.denial.as_ref().map(|denial| denial.reason);
        if policy.counts {
            self.count((record.route.clone(), record.outcome, reason));
        }
        // A host without the property would log an error for each attempt.
        if !self.lacks_property.get() {
            let set = raw::set_property(policy.host.log, summary(policy, record).as_bytes());
            self.lacks_property.set(set == Err(raw::NOT_FOUND) && policy.host.logs_requests);
        }
        match record.outcome {
            Outcome::Allow | Outcome::Answer if !policy.audits_all && record.revoked.is_none() => {}
            Outcome::Allow | Outcome::Answer => log_line(policy, Level::Info, line(policy, record)),
            Outcome::Mint => log_line(policy, Level::Info, line(policy, record)),
            Outcome::Deny if is_stranger(record) => self.log_stranger(policy, record, now),
            Outcome::Deny => log_line(policy, Level::Info, line(policy, record)),
        }
    }

    /// Logs a refusal that any client can cause, within the limit per second.
    fn log_stranger(&self, policy: &Policy, record: &Record, now: u64) {
        if self.second.replace(now) != now {
            self.lines.set(0);
            let dropped = self.dropped.replace(0);
            if dropped > 0 {
                log_line(policy, Level::Info, format!("{dropped} more refusals without a known key"));
            }
        }
        if self.lines.get() < STRANGER_LINES_PER_SECOND {
            self.lines.set(self.lines.get() + 1);
            log_line(policy, Level::Info, line(policy, record));
        } else {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    /// Logs a store error, at most once per second because it affects all requests alike.
    pub(super) fn log_store_error(&self, policy: &Policy, error: StoreError, now: u64) {
        if self.store_error.replace(now) != now {
            log_line(policy, Level::Warn, format!("store: {error}"));
        }
    }

    fn count(&self, series: Series) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        let id = match counters.get(&series) {
            Some(id) => *id,
            None => {
                let (route, outcome, reason) = &series;
                let (route, outcome) = (route_id(route.as_deref()), outcome.as_str());
                let name = match reason {
                    Some(reason) => format!("callbound.route.{route}.{outcome}.{reason}"),
                    None => format!("callbound.route.{route}.{outcome}"),
                };
                let Ok(id) = raw::define_counter(&name) else { return };
                counters.insert(series, id);
                id
            }
        };
        let _ = raw::increment(id);
    }
}

thread_local! {
    /// Lines to log at the next tick, and the number of lines dropped since the last.
    static QUEUE: RefCell<(Vec<(Level, String)>, u64)> = const { RefCell::new((Vec::new(), 0)) };
}

/// Most lines queued for a tick.
const MAX_QUEUED: usize = 2_000;

/// Logs a line about a request. Some hosts append the request line, which may contain a credential. There the line waits
/// for a tick; without ticks it is dropped when credentials are read from the query.
pub(super) fn log_line(policy: &Policy, level: Level, line: String) {
    let level = shown(policy, level);
    match (policy.host.logs_requests, policy.host.has_ticks) {
        (true, true) => QUEUE.with_borrow_mut(|(lines, dropped)| match lines.len() < MAX_QUEUED {
            true => lines.push((level, line)),
            false => *dropped += 1,
        }),
        (true, false) if policy.reads_credentials_in_query() => {}
        _ => raw::log(level, &line),
    }
}

/// Logs a line for the operator that is about no request.
pub(super) fn log(policy: &Policy, line: &str) {
    raw::log(shown(policy, Level::Info), line);
}

/// Returns the level at which a line appears: never lower than a host's log may be set without showing credentials.
fn shown(policy: &Policy, level: Level) -> Level {
    match level {
        Level::Info if policy.host.logs_requests => Level::Warn,
        level => level,
    }
}

/// Logs the queued lines.
pub(super) fn flush() {
    let (lines, dropped) = QUEUE.with_borrow_mut(std::mem::take);
    lines.iter().for_each(|(level, line)| raw::log(*level, line));
    if dropped > 0 {
        raw::log(Level::Warn, &format!("{dropped} more lines were dropped"));
    }
}

/// Returns true for a request without a currently valid credential.
fn is_stranger(record: &Record) -> bool {
    record.key.is_none() || record.denial.as_ref().is_some_and(|denial| denial.reason.status() == 401)
}

fn route_id(route: Option<&Route>) -> &str {
    route.map_or("none", |route| &route.id)
}

/// Returns the decision as `name=value` fields for an access log.
fn summary(policy: &Policy, record: &Record) -> String {
    let denial = record.denial.as_ref();
    let mut text = String::with_capacity(160);
    field(&mut text, "decision", Some(record.outcome.as_str()));
    field(&mut text, "reason", denial.map(|denial| denial.reason.as_str()));
    field(&mut text, "route", Some(route_id(record.route.as_deref())));
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

/// Returns the fields of [`summary`] and those that an access log has columns for.
fn line(policy: &Policy, record: &Record) -> String {
    let mut text = summary(policy, record);
    field(&mut text, "field", record.denial.as_ref().and_then(|denial| denial.field.as_deref()));
    field(&mut text, "request_id", record.request_id.as_deref());
    text
}

/// Appends a field if it has a value. The client chooses some values, so characters that could imitate another field or
/// line are replaced.
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
