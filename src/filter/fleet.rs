//! What one VM knows beyond one policy: the sessions that are open, and for each store that gateways share what it said
//! last and what it is still to be told. A new policy is a new root; these stay.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use crate::decision::{OpenSession, Outcome, Record};
use crate::policy::{Policy, StoreBackend};
use crate::store::remote::{Operation, RedisStore, Reply};
use crate::store::{Change, Lease, RENEW_SECONDS, Revocations};

use super::raw::{self, Level};
use super::root::Shared;

/// Operations in one batch: about 20 KB beside the script, which every bridge takes.
const MAX_NEWS: usize = 200;

/// Changes and keys that wait while a store does not answer; what is more is not told, and leases end by themselves.
const MAX_WAITING: usize = 100_000;

/// A session that is open.
struct Session {
    shared: Rc<Shared>,
    held: OpenSession,
    /// Unix seconds.
    since: u64,
    renewed: u64,
}

/// One store that gateways share.
struct Fleet {
    remote: RedisStore,
    fetched: Option<Fetched>,
    /// What ended and was not said yet.
    waiting: Vec<Change>,
    /// What goes on and was not said yet.
    renewals: HashSet<Lease>,
    /// How often keys were used since it was told, and when last, in Unix seconds.
    used: BTreeMap<String, (u64, u64)>,
}

/// What a store said last.
#[derive(Clone)]
struct Fetched {
    version: u64,
    revocations: Rc<Revocations>,
    epoch: u64,
    /// Unix seconds.
    confirmed: u64,
}

impl Fleet {
    fn of(remote: &RedisStore) -> Self {
        let remote = remote.clone();
        Self { remote, fetched: None, waiting: Vec::new(), renewals: HashSet::new(), used: BTreeMap::new() }
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Renew(lease) => _ = self.renewals.insert(lease),
            Change::End(lease) => {
                self.renewals.remove(&lease);
                self.waiting.push(change);
            }
            Change::GiveBack(..) => self.waiting.push(change),
        }
    }
}

thread_local! {
    static SESSIONS: RefCell<BTreeMap<u32, Session>> = const { RefCell::new(BTreeMap::new()) };
    static FLEETS: RefCell<Vec<Fleet>> = const { RefCell::new(Vec::new()) };
}

fn with_fleet<T>(remote: &RedisStore, act: impl FnOnce(&mut Fleet) -> T) -> T {
    FLEETS.with_borrow_mut(|fleets| {
        let index = fleets.iter().position(|fleet| fleet.remote == *remote);
        let new = || Fleet::of(remote);
        match index.and_then(|index| fleets.get_mut(index)) {
            Some(fleet) => act(fleet),
            None => {
                let mut fleet = new();
                let result = act(&mut fleet);
                fleets.push(fleet);
                result
            }
        }
    })
}

/// Notes a session that begins.
pub(super) fn begin_session(context: u32, shared: &Rc<Shared>, held: OpenSession, now: u64) {
    let session = Session { shared: Rc::clone(shared), held, since: now, renewed: now };
    SESSIONS.with_borrow_mut(|sessions| sessions.insert(context, session));
}

/// Gives back what a session held. Part of a second counts as one, or short sessions would cost nothing; without a
/// believable time all was used.
pub(super) fn end_session(context: u32, now: Option<u64>) {
    let Some(session) = SESSIONS.with_borrow_mut(|sessions| sessions.remove(&context)) else { return };
    let mut changes: Vec<Change> = session.held.leases.iter().map(|lease| Change::End(*lease)).collect();
    let lasted = now.and_then(|now| now.checked_sub(session.since));
    if let (Some((cell, seconds)), Some(lasted)) = (session.held.seconds, lasted) {
        changes.push(Change::GiveBack(cell, seconds.saturating_sub(lasted.saturating_add(1))));
    }
    session.shared.change(&changes, now.unwrap_or(session.renewed));
}

/// Renews the leases of all sessions that are due, those of one policy together.
pub(super) fn renew_sessions(now: u64) {
    let mut due: Vec<(Rc<Shared>, Vec<Change>)> = Vec::new();
    SESSIONS.with_borrow_mut(|sessions| {
        for session in sessions.values_mut() {
            if now.saturating_sub(session.renewed) < RENEW_SECONDS || session.held.leases.is_empty() {
                continue;
            }
            session.renewed = now;
            let changes = session.held.leases.iter().map(|lease| Change::Renew(*lease));
            match due.iter_mut().find(|(shared, _)| Rc::ptr_eq(shared, &session.shared)) {
                Some((_, list)) => list.extend(changes),
                None => due.push((Rc::clone(&session.shared), changes.collect())),
            }
        }
    });
    due.iter().for_each(|(shared, changes)| shared.change(changes, now));
}

/// Notes that a key was used, for a store that is told so.
pub(super) fn note_use(policy: &Policy, record: &Record, now: u64) {
    let (StoreBackend::Redis(remote), Some(key)) = (&policy.store.home, &record.key) else { return };
    if record.outcome == Outcome::Deny {
        return;
    }
    with_fleet(remote, |fleet| {
        if let Some((uses, last)) = fleet.used.get_mut(key) {
            (*uses, *last) = (*uses + 1, now);
        } else if fleet.used.len() < MAX_WAITING {
            fleet.used.insert(key.clone(), (1, now));
        }
    });
}

/// Whether there is something to tell a store before it is asked again.
pub(super) fn has_pending(remote: &RedisStore) -> bool {
    with_fleet(remote, |fleet| !fleet.waiting.is_empty() || !fleet.renewals.is_empty())
}

/// What a store is told and asked at a tick.
pub(super) fn news(remote: &RedisStore) -> Vec<Operation> {
    with_fleet(remote, |fleet| {
        let known = fleet.fetched.as_ref().map(|fetched| fetched.version);
        let mut operations = vec![Operation::Feed(known)];
        let count = fleet.waiting.len().min(MAX_NEWS);
        operations.extend(fleet.waiting.drain(..count).map(Operation::Change));
        let room = MAX_NEWS.saturating_sub(operations.len());
        let renewed: Vec<Lease> = fleet.renewals.iter().take(room).copied().collect();
        for lease in renewed {
            fleet.renewals.remove(&lease);
            operations.push(Operation::Change(Change::Renew(lease)));
        }
        while operations.len() < MAX_NEWS
            && let Some((key, (uses, last))) = fleet.used.pop_first()
        {
            operations.push(Operation::Usage(key, uses, last));
        }
        operations
    })
}

/// Notes again what a store was not told, `is_unsent`, or may not have heard: then only that sessions ended, for what is
/// given back or counted twice would be wrong.
pub(super) fn requeue(remote: &RedisStore, operations: &[Operation], is_unsent: bool) {
    with_fleet(remote, |fleet| {
        for operation in operations {
            match operation {
                Operation::Change(change) if is_unsent || matches!(change, Change::End(_)) => {
                    fleet.note(*change);
                }
                Operation::Usage(key, uses, last) if is_unsent => {
                    let (known, latest) = fleet.used.entry(key.clone()).or_default();
                    (*known, *latest) = (*known + uses, (*latest).max(*last));
                }
                _ => {}
            }
        }
    });
}

impl Shared {
    fn change(&self, changes: &[Change], now: u64) {
        match (&self.engine.policy().store.home, self.store.local()) {
            (StoreBackend::Memory, Ok(local)) => local.change(changes, now),
            (StoreBackend::Memory, Err(_)) => {}
            (StoreBackend::Redis(remote), _) => with_fleet(remote, |fleet| {
                let room = MAX_WAITING.saturating_sub(fleet.waiting.len());
                changes.iter().take(room).for_each(|change| fleet.note(*change));
            }),
        }
    }

    /// Takes over what was fetched from the same store under an earlier policy.
    pub(super) fn inherit(&self) {
        let StoreBackend::Redis(remote) = &self.engine.policy().store.home else { return };
        if let Some(fetched) = with_fleet(remote, |fleet| fleet.fetched.clone()) {
            self.engine.set_revocations(fetched.revocations);
            self.engine.confirm_revocations(fetched.confirmed);
            self.store.begin(Some(fetched.epoch));
        }
    }

    /// Takes what a store says is revoked; false when it says nothing that can be trusted.
    pub(super) fn take_feed(&self, remote: &RedisStore, reply: Reply, now: u64) -> bool {
        if reply.may_evict {
            raw::log(
                Level::Error,
                "store: Redis may forget what it was told: set `maxmemory-policy noeviction`",
            );
            self.store.begin(None);
            return false;
        }
        let Some((version, news)) = reply.feed else { return false };
        let known = with_fleet(remote, |fleet| fleet.fetched.clone());
        let revocations = match (news, known) {
            (Some(news), None) => Rc::new(news),
            // A store that began anew has forgotten what was revoked; whoever heard of it has not.
            (Some(mut news), Some(known)) => {
                news.merge(&known.revocations);
                news.clean(now);
                Rc::new(news)
            }
            (None, Some(known)) if known.version == version => known.revocations,
            (None, _) => return false,
        };
        self.engine.set_revocations(Rc::clone(&revocations));
        self.engine.confirm_revocations(now);
        self.store.begin(Some(reply.epoch));
        let fetched = Fetched { version, revocations, epoch: reply.epoch, confirmed: now };
        with_fleet(remote, |fleet| fleet.fetched = Some(fetched));
        true
    }
}
