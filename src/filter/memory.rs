//! The store as this host gives it: shared memory at once, Redis by a call whose answer comes later.
//!
//! What one VM knows beyond one policy stands here too: open sessions and what was fetched last outlive the root that
//! began them, because a new policy is a new root.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::Context;

use crate::decision::{Due, OpenSession, Outcome, Record, Settled};
use crate::policy::{Home, Policy};
use crate::store::remote::{self, Lookup, Operation, Remote, Reply};
use crate::store::{
    Change, Charge, Local, Memory, MemoryError, RENEW_SECONDS, Revocations, StoreError, Taken,
};

use super::raw::{self, HostError};
use super::root::{Shared, call_status};

/// Memory that all workers of this host share.
pub(super) struct SharedMemory;

impl Memory for SharedMemory {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, MemoryError> {
        match raw::shared_data(name) {
            Ok(found) => Ok(Some(found)),
            Err(raw::NOT_FOUND) => Ok(None),
            Err(HostError(_)) => Err(MemoryError),
        }
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, MemoryError> {
        // Over nothing: any version but 0, which would overwrite, is written only while nothing is there.
        match raw::set_shared_data(name, value, version.unwrap_or(u32::MAX)) {
            Ok(()) => Ok(true),
            Err(raw::CAS_MISMATCH) => Ok(false),
            Err(HostError(_)) => Err(MemoryError),
        }
    }
}

/// What was fetched last from a remote store.
#[derive(Clone)]
struct Fetched {
    remote: Remote,
    version: u64,
    revocations: Rc<Revocations>,
    epoch: u64,
    confirmed: u64,
}

/// A session that is open.
struct Session {
    shared: Rc<Shared>,
    held: OpenSession,
    /// Unix seconds.
    since: u64,
    renewed: u64,
}

thread_local! {
    static SESSIONS: RefCell<BTreeMap<u32, Session>> = const { RefCell::new(BTreeMap::new()) };
    /// Changes for a remote store that were not sent yet.
    static PENDING: RefCell<Vec<(Remote, Change)>> = const { RefCell::new(Vec::new()) };
    /// How often keys were used since a remote store was told, and when last, in Unix seconds.
    static USED: RefCell<BTreeMap<String, (u64, u64)>> = const { RefCell::new(BTreeMap::new()) };
    static FETCHED: RefCell<Option<Fetched>> = const { RefCell::new(None) };
}

/// The store of one policy.
pub(super) struct Store {
    local: Option<Local<SharedMemory>>,
    /// The version of this gateway's own revocations that is known.
    known: std::cell::Cell<Option<u32>>,
    /// When a remote store began to remember; of the local one its own.
    epoch: std::cell::Cell<Option<u64>>,
}

impl Store {
    /// Opens what the policy needs.
    pub(super) fn open(policy: &Policy, now: u64) -> Result<Self, StoreError> {
        let opened = Local::open(SharedMemory, &policy.store.key, policy.store.size, now);
        let is_local = policy.store.home == Home::Local;
        let local = match opened {
            Err(error) if needs_local(policy) => return Err(error),
            opened => opened.ok(),
        };
        let epoch = local.as_ref().filter(|_| is_local).map(Local::epoch);
        Ok(Self { local, known: std::cell::Cell::new(None), epoch: std::cell::Cell::new(epoch) })
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch.get()
    }

    /// In how many milliseconds there is one left of a charge for failures; `now` in microseconds.
    pub(super) fn has_failed(&self, charge: &Charge, now: u64) -> Result<Option<u64>, StoreError> {
        self.local.as_ref().ok_or(StoreError::Unavailable)?.has_failed(charge, now)
    }

    pub(super) fn fail(&self, charges: &[Charge], now: u64) {
        if let Some(local) = &self.local {
            charges.iter().for_each(|charge| local.fail(charge, now));
        }
    }

    /// Settles what is due in this gateway's own memory.
    pub(super) fn settle(&self, due: &Due, now: u64) -> Result<Settled, StoreError> {
        let local = self.local.as_ref().ok_or(StoreError::Unavailable)?;
        let taken = local.take(due.charges(), now)?;
        let is_spent = match due.question() {
            Some(question) => local.look(question, now)?.is_err(),
            None => false,
        };
        if let (Some(revocation), Taken::All(_)) = (due.revocation(), &taken) {
            local.revoke(revocation, now / 1_000_000)?;
        }
        Ok(Settled { taken, is_spent })
    }

    /// The revocations made at this gateway, when they are others than those known.
    pub(super) fn new_revocations(&self) -> Result<Option<Revocations>, StoreError> {
        let local = self.local.as_ref().ok_or(StoreError::Unavailable)?;
        let Some((revocations, version)) = local.revocations(self.known.get())? else { return Ok(None) };
        self.known.set(Some(version));
        Ok(Some(revocations))
    }
}

/// Whether anything of a policy stands in this gateway's own memory.
fn needs_local(policy: &Policy) -> bool {
    use crate::policy::{Counts, Local};
    let counts = |route: &crate::policy::Route| {
        !route.limits.is_empty() || route.uses != crate::policy::UsesRule::default()
    };
    let mints_counted = policy.routes.iter().filter_map(|route| route.mint());
    let mut mints_counted = mints_counted.flat_map(|rule| [&rule.uses, &rule.total]);
    match policy.store.home {
        Home::Redis(_) => policy.limits.list.iter().any(|limit| limit.counts == Counts::Failures),
        Home::Local => {
            policy.routes.iter().any(|route| counts(route) || matches!(route.local, Some(Local::Revoke(_))))
                || mints_counted.any(|allowance| allowance.asked.is_some() || allowance.default.is_some())
        }
    }
}

/// A batch that was sent to a remote store.
pub(super) struct Sent {
    call: u32,
    is_open: bool,
    nonce: String,
    operations: Vec<Operation>,
}

impl Sent {
    /// Sends a batch; the answer comes to the context that sent it.
    pub(super) fn send(
        context: &impl Context,
        remote: &Remote,
        operations: Vec<Operation>,
    ) -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            return Err(StoreError::Unavailable);
        }
        let nonce = crate::credential::hex(&bytes);
        let body = remote::request(remote, &nonce, &operations);
        let length = body.len().to_string();
        let headers = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", &remote.authority),
            (":path", "/"),
            ("content-length", &length),
        ];
        let timeout = Duration::from_millis(remote.timeout);
        let call = context.dispatch_http_call(&remote.cluster, headers, Some(&body), Vec::new(), timeout);
        Ok(Self { call: call.map_err(|_| StoreError::Unavailable)?, is_open: true, nonce, operations })
    }

    /// Sends what is due of a request.
    pub(super) fn send_due(context: &impl Context, remote: &Remote, due: &Due) -> Result<Self, StoreError> {
        let charges = due.charges().iter().cloned().map(Operation::Charge);
        let question = due.question().cloned().map(Operation::Question);
        let revocation = due.revocation().cloned().map(Operation::Revoke);
        Self::send(context, remote, charges.chain(question).chain(revocation).collect())
    }

    /// Looks a key up.
    pub(super) fn find(context: &impl Context, remote: &Remote, lookup: &Lookup) -> Result<Self, StoreError> {
        Self::send(context, remote, vec![Operation::Find(lookup.clone())])
    }

    /// Whether its answer has not come.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    pub(super) fn is(&self, call: u32) -> bool {
        self.call == call
    }

    /// Reads the answer to the batch in the callback that brings it.
    pub(super) fn answer(&self, size: usize) -> Result<Reply, StoreError> {
        let body =
            raw::buffer(raw::BufferType::CallResponseBody, size).map_err(|_| StoreError::Unavailable)?;
        remote::answer(call_status(), &body, &self.nonce, &self.operations)
    }
}

/// What a remote store's answer settles.
pub(super) fn settled(reply: Result<Reply, StoreError>) -> Result<Settled, StoreError> {
    let reply = reply?;
    if reply.is_full {
        return Err(StoreError::Full);
    }
    Ok(Settled { taken: reply.taken, is_spent: reply.is_spent })
}

/// Notes a session that begins.
pub(super) fn begin_session(context: u32, shared: &Rc<Shared>, held: OpenSession, now: u64) {
    let session = Session { shared: Rc::clone(shared), held, since: now, renewed: now };
    SESSIONS.with_borrow_mut(|sessions| sessions.insert(context, session));
}

/// Gives back what a session held; part of a second counts as one, or short sessions would cost nothing.
pub(super) fn end_session(context: u32, now: u64) {
    let Some(session) = SESSIONS.with_borrow_mut(|sessions| sessions.remove(&context)) else { return };
    let mut changes: Vec<Change> = session.held.leases.iter().map(|lease| Change::End(*lease)).collect();
    if let Some((cell, seconds)) = session.held.seconds {
        let lasted = now.saturating_sub(session.since).saturating_add(1);
        changes.push(Change::GiveBack(cell, seconds.saturating_sub(lasted)));
    }
    session.shared.change(&changes, now);
}

/// Renews the leases of all sessions that are due.
pub(super) fn renew_sessions(now: u64) {
    SESSIONS.with_borrow_mut(|sessions| {
        for session in sessions.values_mut() {
            if now.saturating_sub(session.renewed) >= RENEW_SECONDS {
                session.renewed = now;
                let changes: Vec<Change> =
                    session.held.leases.iter().map(|lease| Change::Renew(*lease)).collect();
                session.shared.change(&changes, now);
            }
        }
    });
}

impl Shared {
    fn change(&self, changes: &[Change], now: u64) {
        match (&self.engine.policy().store.home, &self.store.local) {
            (Home::Local, Some(local)) => local.change(changes, now),
            (Home::Local, None) => {}
            (Home::Redis(remote), _) => PENDING.with_borrow_mut(|pending| {
                pending.extend(changes.iter().map(|change| (remote.clone(), *change)));
            }),
        }
    }

    /// Takes over what an earlier policy with the same store had fetched.
    pub(super) fn inherit(&self) {
        let Home::Redis(remote) = &self.engine.policy().store.home else { return };
        let fetched =
            FETCHED.with_borrow(|fetched| fetched.clone().filter(|fetched| fetched.remote == *remote));
        if let Some(fetched) = fetched {
            self.engine.take_revocations(fetched.revocations);
            self.engine.confirm_revocations(fetched.confirmed);
            self.store.epoch.set(Some(fetched.epoch));
        }
    }

    /// Takes what a remote store says is revoked.
    pub(super) fn take_feed(&self, remote: &Remote, reply: Reply, now: u64) -> bool {
        if reply.may_evict {
            raw::log(
                raw::Level::Error,
                "store: Redis may forget what it was told: set `maxmemory-policy noeviction`",
            );
            self.store.epoch.set(None);
            FETCHED.set(None);
            return false;
        }
        self.store.epoch.set(Some(reply.epoch));
        let Some((version, revocations)) = reply.feed else { return false };
        let known =
            FETCHED.with_borrow(|fetched| fetched.as_ref().map(|fetched| Rc::clone(&fetched.revocations)));
        let Some(revocations) = revocations.map(Rc::new).or(known) else { return false };
        self.engine.take_revocations(Rc::clone(&revocations));
        self.engine.confirm_revocations(now);
        let fetched =
            Fetched { remote: remote.clone(), version, revocations, epoch: reply.epoch, confirmed: now };
        FETCHED.set(Some(fetched));
        true
    }
}

/// What a root tells a remote store at a tick, and asks it.
pub(super) fn news(remote: &Remote) -> Vec<Operation> {
    let mut operations = Vec::new();
    PENDING.with_borrow_mut(|pending| {
        pending.retain(|(to, change)| {
            let is_own = to == remote && operations.len() < MAX_NEWS;
            if is_own {
                operations.push(Operation::Change(*change));
            }
            !is_own
        });
        // Nobody sends to a store that no policy knows any more; the leases there end by themselves.
        pending.truncate(MAX_PENDING);
    });
    let known = FETCHED.with_borrow(|fetched| {
        fetched.as_ref().filter(|fetched| fetched.remote == *remote).map(|fetched| fetched.version)
    });
    operations.push(Operation::Feed(known));
    USED.with_borrow_mut(|used| {
        while let Some((key, (uses, last))) =
            (operations.len() < MAX_NEWS).then(|| used.pop_first()).flatten()
        {
            operations.push(Operation::Usage(key, uses, last));
        }
    });
    operations
}

/// Notes that a key was used, for a store that is told so.
pub(super) fn note_use(policy: &Policy, record: &Record, now: u64) {
    let (Home::Redis(_), Some(key)) = (&policy.store.home, &record.key) else { return };
    if record.outcome == Outcome::Deny {
        return;
    }
    USED.with_borrow_mut(|used| {
        if used.len() < MAX_PENDING || used.contains_key(key) {
            let (uses, last) = used.entry(key.clone()).or_default();
            (*uses, *last) = (*uses + 1, now);
        }
    });
}

/// Whether a root has something to tell a remote store.
pub(super) fn has_news(remote: &Remote) -> bool {
    PENDING.with_borrow(|pending| pending.iter().any(|(to, _)| to == remote))
}

/// Notes again that sessions ended, when it is not known whether the store heard of it. What was given back is not said
/// twice: it might count twice.
pub(super) fn say_again(remote: &Remote, sent: &Sent) {
    let ended = sent.operations.iter().filter_map(|operation| match operation {
        Operation::Change(change @ Change::End(_)) => Some((remote.clone(), *change)),
        _ => None,
    });
    PENDING.with_borrow_mut(|pending| pending.extend(ended));
}

/// Changes in one batch.
const MAX_NEWS: usize = 500;

/// Changes that wait.
const MAX_PENDING: usize = 100_000;
