//! Exchange with Redis: queued changes, usage counts and the last revocation list.
//!
//! The state belongs to the VM, one per Redis store, and outlives the policy that created it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use crate::store::redis::{Operation, RedisStore};
use crate::store::{Change, Lease, Revocations};

/// Most operations per batch: about 20 KB besides the script, which every bridge accepts.
const MAX_BATCH: usize = 200;

/// Most changes and keys queued while a store does not answer. Later ones are dropped; leases expire by themselves.
const MAX_QUEUED: usize = 100_000;

struct SyncState {
    redis: RedisStore,
    feed: Option<Feed>,
    /// Changes to send, renewals excepted.
    changes: Vec<Change>,
    /// Leases to renew, each once.
    renewals: HashSet<Lease>,
    /// Uses per API key since the last batch, and Unix seconds of the last use.
    usage: BTreeMap<String, (u64, u64)>,
}

/// Last answer about revocations.
#[derive(Clone)]
pub(super) struct Feed {
    pub(super) version: u64,
    pub(super) revocations: Rc<Revocations>,
    pub(super) epoch: u64,
    /// Unix seconds of the answer.
    pub(super) confirmed: u64,
}

impl SyncState {
    fn new(redis: &RedisStore) -> Self {
        let redis = redis.clone();
        Self { redis, feed: None, changes: Vec::new(), renewals: HashSet::new(), usage: BTreeMap::new() }
    }

    fn queue(&mut self, change: Change) {
        match change {
            Change::Renew(lease) => _ = self.renewals.insert(lease),
            Change::End(lease) => {
                self.renewals.remove(&lease);
                self.changes.push(change);
            }
            Change::GiveBack(..) => self.changes.push(change),
        }
    }
}

thread_local! {
    static STATES: RefCell<Vec<SyncState>> = const { RefCell::new(Vec::new()) };
}

fn with_state<T>(redis: &RedisStore, act: impl FnOnce(&mut SyncState) -> T) -> T {
    STATES.with_borrow_mut(|states| {
        if let Some(state) = states.iter_mut().find(|state| state.redis == *redis) {
            return act(state);
        }
        let mut state = SyncState::new(redis);
        let result = act(&mut state);
        states.push(state);
        result
    })
}

pub(super) fn queue(redis: &RedisStore, changes: &[Change]) {
    with_state(redis, |state| {
        let room = MAX_QUEUED.saturating_sub(state.changes.len());
        changes.iter().take(room).for_each(|change| state.queue(*change));
    });
}

/// Counts a use of an API key; `now` in Unix seconds.
pub(super) fn count_use(redis: &RedisStore, key: &str, now: u64) {
    with_state(redis, |state| {
        if let Some((uses, last)) = state.usage.get_mut(key) {
            (*uses, *last) = (*uses + 1, now);
        } else if state.usage.len() < MAX_QUEUED {
            state.usage.insert(key.to_owned(), (1, now));
        }
    });
}

/// Returns true when changes are queued.
pub(super) fn has_pending(redis: &RedisStore) -> bool {
    with_state(redis, |state| !state.changes.is_empty() || !state.renewals.is_empty())
}

/// Takes the next batch off the queue: a request for the feed, then changes, renewals and usage.
pub(super) fn next_batch(redis: &RedisStore) -> Vec<Operation> {
    with_state(redis, |state| {
        let mut operations = vec![Operation::Feed(state.feed.as_ref().map(|feed| feed.version))];
        let count = state.changes.len().min(MAX_BATCH);
        operations.extend(state.changes.drain(..count).map(Operation::Change));
        let room = MAX_BATCH.saturating_sub(operations.len());
        let renewed: Vec<Lease> = state.renewals.iter().take(room).copied().collect();
        for lease in renewed {
            state.renewals.remove(&lease);
            operations.push(Operation::Change(Change::Renew(lease)));
        }
        while operations.len() < MAX_BATCH
            && let Some((key, (uses, last))) = state.usage.pop_first()
        {
            operations.push(Operation::Usage(key, uses, last));
        }
        operations
    })
}

/// Queues a failed batch again. Only when it is known to be unsent may all of it be repeated; otherwise the store may
/// have applied it, and only the end of a session has no further effect when applied twice.
pub(super) fn requeue(redis: &RedisStore, operations: &[Operation], is_unsent: bool) {
    with_state(redis, |state| {
        for operation in operations {
            match operation {
                Operation::Change(change) if is_unsent || matches!(change, Change::End(_)) => {
                    state.queue(*change);
                }
                Operation::Usage(key, uses, last) if is_unsent => {
                    let (queued, latest) = state.usage.entry(key.clone()).or_default();
                    (*queued, *latest) = (*queued + uses, (*latest).max(*last));
                }
                _ => {}
            }
        }
    });
}

pub(super) fn feed(redis: &RedisStore) -> Option<Feed> {
    with_state(redis, |state| state.feed.clone())
}

pub(super) fn set_feed(redis: &RedisStore, feed: Feed) {
    with_state(redis, |state| state.feed = Some(feed));
}
