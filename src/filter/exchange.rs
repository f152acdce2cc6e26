//! Periodic calls of a worker to Redis: queued changes, and the request for the revocations.

use crate::store::StoreError;
use crate::store::redis::{Operation, RedisStore};

use super::callout::PendingCallout;
use super::raw::{self, Level};
use super::shared::Shared;
use super::sync;

/// Seconds between two requests for the revocations while none was answered.
const RETRY_SECONDS: u64 = 1;

/// Calls under way, and the times of the last ones.
#[derive(Default)]
pub(super) struct Exchange {
    /// Batch of changes. The next one waits for its answer, because the order of changes counts.
    changes: Option<Sent>,
    /// Requests for the revocations, oldest first. None waits for another, so a lost one delays nothing but itself.
    feeds: Vec<Sent>,
    /// Unix seconds of the last batch of changes.
    changes_sent: Option<u64>,
    /// Unix seconds of the last request for the revocations.
    feed_sent: Option<u64>,
    /// The last batch of changes did not hold all that were queued.
    has_rest: bool,
    /// The last request for the revocations was answered.
    is_answered: bool,
}

struct Sent {
    callout: PendingCallout,
    /// Unix seconds at which it was sent.
    at: u64,
}

impl Exchange {
    /// Makes the calls that are due; `now` in Unix seconds.
    pub(super) fn tick(&mut self, shared: &Shared, redis: &RedisStore, now: u64) {
        // The host's timeout answers before; a host that loses a call does not.
        let limit = redis.timeout / 1_000 + 2;
        self.feeds.retain(|sent| !has_elapsed(Some(sent.at), limit, now));
        if let Some(lost) = self.changes.take_if(|sent| has_elapsed(Some(sent.at), limit, now)) {
            sync::requeue(redis, &lost.callout.operations, false);
        }
        self.send_changes(shared, redis, now);
        self.request_feed(shared, redis, now);
    }

    fn send_changes(&mut self, shared: &Shared, redis: &RedisStore, now: u64) {
        let (changes, usage) = sync::pending(redis);
        let is_due = self.has_rest
            || changes && has_elapsed(self.changes_sent, 1, now)
            || usage && has_elapsed(self.changes_sent, shared.policy().store.refresh, now);
        if self.changes.is_some() || !is_due {
            return;
        }
        self.changes_sent = Some(now);
        let batch = sync::next_batch(redis);
        let sent = send(shared, redis, batch, now);
        self.has_rest = sent.is_ok() && sync::pending(redis) != (false, false);
        self.changes = sent.map_err(|unsent| sync::requeue(redis, &unsent, true)).ok();
    }

    fn request_feed(&mut self, shared: &Shared, redis: &RedisStore, now: u64) {
        let period = if self.is_answered { shared.policy().store.refresh } else { RETRY_SECONDS };
        if !has_elapsed(self.feed_sent, period, now) {
            return;
        }
        (self.feed_sent, self.is_answered) = (Some(now), false);
        let known = sync::feed(redis).map(|feed| feed.version);
        self.feeds.extend(send(shared, redis, vec![Operation::Feed(known)], now));
    }

    /// Takes the answer to a call; false when the call was another.
    pub(super) fn take(&mut self, shared: &Shared, redis: &RedisStore, call: u32, size: usize) -> bool {
        let taken = if let Some(index) = self.feeds.iter().position(|sent| sent.callout.is(call)) {
            // Answers to earlier requests would be older.
            let Some(sent) = self.feeds.drain(..=index).next_back() else { return false };
            // What was true when it was asked may have changed before the answer came.
            let taken = sent.callout.answer(size).and_then(|reply| shared.take_feed(redis, reply, sent.at));
            self.is_answered = taken.is_ok();
            taken
        } else if let Some(sent) = self.changes.take_if(|sent| sent.callout.is(call)) {
            let taken = sent.callout.answer(size).map(drop);
            if taken.is_err() {
                self.has_rest = false;
                sync::requeue(redis, &sent.callout.operations, false);
            }
            taken
        } else {
            return false;
        };
        shared.store.redis_failure.set(taken.err());
        taken.unwrap_or_else(log_failure);
        true
    }
}

/// Returns whether so many seconds have passed; also when the clock was set back, so that no call waits for it.
fn has_elapsed(since: Option<u64>, seconds: u64, now: u64) -> bool {
    since.and_then(|since| now.checked_sub(since)).is_none_or(|elapsed| elapsed >= seconds)
}

/// Sends a batch, or logs why the host does not send it and returns its operations.
fn send(
    shared: &Shared,
    redis: &RedisStore,
    operations: Vec<Operation>,
    now: u64,
) -> Result<Sent, Vec<Operation>> {
    let sent = PendingCallout::send(&shared.host, redis, operations);
    sent.map(|callout| Sent { callout, at: now }).map_err(|(_, unsent)| {
        let upstream = shared.host.callout_upstream(&redis.cluster, "http", &redis.authority);
        let hint = format!("cannot be reached; is `{upstream}` known to the gateway?");
        raw::log(Level::Warn, &format!("store: {hint}"));
        unsent
    })
}

fn log_failure(error: StoreError) {
    let line = match error {
        StoreError::Unavailable => {
            let status = raw::callout_status();
            let hint = "are Redis and Webdis up, with `maxmemory-policy noeviction`?";
            format!("store: no usable answer (status {status}); {hint}")
        }
        error => format!("store: {error}"),
    };
    raw::log(Level::Warn, &line);
}
