//! Exchange with Redis: queued changes, usage counts and the last revocation list.
//!
//! The state belongs to the VM, one per Redis store, and outlives the policy that created it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;

use crate::store::redis::{MAX_REQUEST_BYTES, Operation, RedisStore};
use crate::store::{Change, Lease, Revocations};

/// Most changes and keys queued while a store does not answer. Later ones are dropped; leases expire by themselves.
const MAX_QUEUED: usize = 100_000;

struct SyncState {
    redis: RedisStore,
    feed: Option<Feed>,
    /// Changes to send, renewals excepted.
    changes: VecDeque<Change>,
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
        Self { redis, feed: None, changes: VecDeque::new(), renewals: HashSet::new(), usage: BTreeMap::new() }
    }

    fn queue(&mut self, change: Change) {
        match change {
            Change::Renew(lease) => _ = self.renewals.insert(lease),
            Change::End(lease) => {
                self.renewals.remove(&lease);
                self.changes.push_back(change);
            }
            Change::GiveBack(..) => self.changes.push_back(change),
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

/// Returns whether changes are queued, and whether uses are.
pub(super) fn pending(redis: &RedisStore) -> (bool, bool) {
    with_state(redis, |state| {
        (!state.changes.is_empty() || !state.renewals.is_empty(), !state.usage.is_empty())
    })
}

/// Takes the next batch off the queue: changes, then renewals, then uses, as many as a request holds. Each operation is
/// valid alone, so what does not fit waits for the next batch.
pub(super) fn next_batch(redis: &RedisStore) -> Vec<Operation> {
    with_state(redis, |state| {
        let mut room = Room::new(redis);
        let mut operations = Vec::new();
        while let Some(change) = state.changes.front()
            && room.take(&Operation::Change(*change))
        {
            operations.extend(state.changes.pop_front().map(Operation::Change));
        }
        let renewals = state.renewals.iter().map(|lease| Operation::Change(Change::Renew(*lease)));
        let renewals: Vec<Operation> = renewals.take_while(|renewal| room.take(renewal)).collect();
        for renewal in renewals {
            if let Operation::Change(Change::Renew(lease)) = renewal {
                state.renewals.remove(&lease);
            }
            operations.push(renewal);
        }
        while let Some((key, (uses, last))) = state.usage.pop_first() {
            let usage = Operation::Usage(key, uses, last);
            if !room.take(&usage) {
                restore_usage(&mut state.usage, &usage);
                break;
            }
            operations.push(usage);
        }
        operations
    })
}

/// Bytes that a request has left.
struct Room(usize);

impl Room {
    fn new(redis: &RedisStore) -> Self {
        Self(MAX_REQUEST_BYTES.saturating_sub(redis.request_bytes(&[])))
    }

    /// Takes the bytes of an operation; false when there are fewer.
    fn take(&mut self, operation: &Operation) -> bool {
        let left = self.0.checked_sub(operation.bytes());
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// Adds uses to those that are queued.
fn restore_usage(queued: &mut BTreeMap<String, (u64, u64)>, operation: &Operation) {
    let Operation::Usage(key, uses, last) = operation else { return };
    let (sum, latest) = queued.entry(key.clone()).or_default();
    (*sum, *latest) = (*sum + uses, (*latest).max(*last));
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
                Operation::Usage(..) if is_unsent => restore_usage(&mut state.usage, operation),
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
