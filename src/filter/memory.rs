//! The store as this host gives it: shared memory at once, Redis by a call whose answer comes later.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use proxy_wasm::traits::Context;

use crate::decision::{EARLIEST_NOW, PendingCharge, Settled};
use crate::policy::{Policy, SharedMemory, StoreBackend};
use crate::store::redis::{self, Lookup, Operation, RedisStore, Reply};
use crate::store::{
    self, Charge, ChargeResult, Layout, MemoryError, Revocations, SharedMemoryStore, Size, StoreError,
};

use super::host::HostAdapter;
use super::http::seconds;
use super::raw::{self, HostError};
use super::root::call_status;

/// Memory that all workers of this host share.
pub(super) struct Memory {
    /// Whether it may drop what was written; then "over nothing" is a version of its own.
    evicts: bool,
}

impl store::Memory for Memory {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, MemoryError> {
        match raw::shared_data(name) {
            Ok(found) => Ok(Some(found)),
            Err(raw::NOT_FOUND) => Ok(None),
            Err(HostError(_)) => Err(MemoryError),
        }
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, MemoryError> {
        // Over nothing: where versions are the whole memory's, any but 0 is written while nothing is there, and 0
        // overwrites; where they are a value's own, 0 is written while nothing is there, and no other.
        let nothing = if self.evicts { 0 } else { u32::MAX };
        match raw::set_shared_data(name, value, version.unwrap_or(nothing)) {
            Ok(()) => Ok(true),
            Err(raw::CAS_MISMATCH) => Ok(false),
            Err(HostError(_)) => Err(MemoryError),
        }
    }

    fn layout(&self) -> Layout {
        if self.evicts { Layout::Preallocated } else { Layout::Growing }
    }
}

/// The store of one policy.
pub(super) struct Store {
    local: OnceCell<SharedMemoryStore<Memory>>,
    /// How the local one is opened with the first request, where opening it may end the worker.
    later: Option<LazyStore>,
    /// Whether the local one is the home of what is remembered.
    is_home: bool,
    /// The version of this gateway's own revocations that is known.
    known: Cell<Option<u32>>,
    /// When a remote store began to remember; of the local one its own.
    epoch: Cell<Option<u64>>,
}

impl Store {
    /// Opens what the policy needs.
    pub(super) fn open(policy: &Policy, now: u64) -> Result<Self, StoreError> {
        let store = Self {
            local: OnceCell::new(),
            later: None,
            is_home: policy.store.home == StoreBackend::Memory,
            known: Cell::new(None),
            epoch: Cell::new(None),
        };
        let (key, size) = (&policy.store.key, policy.store.size);
        match policy.host.memory {
            SharedMemory::None => Ok(store),
            // A zone that is not there ends the worker: in a request that is a refusal, at the start it would be none.
            SharedMemory::Evicted => {
                let later = LazyStore { key: key.clone(), size, failed: Cell::new(0) };
                Ok(Self { later: policy.remembers.here.then_some(later), ..store })
            }
            SharedMemory::Kept => match SharedMemoryStore::open(Memory { evicts: false }, key, size, now) {
                Err(error) if policy.remembers.here => Err(error),
                opened => Ok(Self { local: opened.ok().map(OnceCell::from).unwrap_or_default(), ..store }),
            },
        }
    }

    /// When the store began to remember.
    pub(super) fn epoch(&self) -> Option<u64> {
        match self.is_home {
            true => self.local().ok().map(SharedMemoryStore::epoch),
            false => self.epoch.get(),
        }
    }

    /// Notes when a remote store began to remember, or that it is not to be trusted.
    pub(super) fn begin(&self, epoch: Option<u64>) {
        self.epoch.set(epoch);
    }

    /// The store in this gateway's own memory.
    pub(super) fn local(&self) -> Result<&SharedMemoryStore<Memory>, StoreError> {
        if let Some(local) = self.local.get() {
            return Ok(local);
        }
        let later = self.later.as_ref().ok_or(StoreError::Unavailable)?;
        let local = later.open()?;
        Ok(self.local.get_or_init(|| local))
    }

    /// In how many milliseconds there is one left of a charge for failures; `now` in microseconds.
    pub(super) fn has_failed(&self, charge: &Charge, now: u64) -> Result<Option<u64>, StoreError> {
        self.local()?.failure_retry(charge, now)
    }

    pub(super) fn fail(&self, charges: &[Charge], now: u64) {
        if let Ok(local) = self.local() {
            charges.iter().for_each(|charge| local.record_failure(charge, now));
        }
    }

    /// Settles what is due in this gateway's own memory.
    pub(super) fn settle(&self, due: &PendingCharge, now: u64) -> Result<Settled, StoreError> {
        let local = self.local()?;
        let taken = local.take(due.charges(), now)?;
        let is_spent = match due.question() {
            Some(question) => local.check(question, now)?.is_err(),
            None => false,
        };
        if let (Some(revocation), ChargeResult::All(_)) = (due.revocation(), &taken) {
            local.revoke(revocation, now / 1_000_000)?;
        }
        Ok(Settled { taken, is_spent })
    }

    /// The revocations made at this gateway, when they are others than those known.
    pub(super) fn new_revocations(&self) -> Result<Option<Revocations>, StoreError> {
        // Those of a remote store come by its feed.
        if !self.is_home || (self.local.get().is_none() && self.later.is_none()) {
            return Ok(None);
        }
        let local = self.local()?;
        let Some((revocations, version)) = local.revocations(self.known.get())? else { return Ok(None) };
        self.known.set(Some(version));
        Ok(Some(revocations))
    }
}

/// A store that is not open yet.
struct LazyStore {
    key: Vec<u8>,
    size: Size,
    /// The Unix second in which it could not be opened.
    failed: Cell<u64>,
}

impl LazyStore {
    /// Opens it, at most once a second: what is laid out in vain costs as much as what is laid out.
    fn open(&self) -> Result<SharedMemoryStore<Memory>, StoreError> {
        let now = seconds().filter(|now| *now >= EARLIEST_NOW).ok_or(StoreError::Unavailable)?;
        if self.failed.get() == now {
            return Err(StoreError::Dropped);
        }
        let opened = SharedMemoryStore::open(Memory { evicts: true }, &self.key, self.size, now);
        if opened.is_err() {
            self.failed.set(now);
        }
        opened
    }
}

/// A batch that was sent to a remote store.
pub(super) struct PendingCallout {
    call: u32,
    is_open: bool,
    nonce: String,
    operations: Vec<Operation>,
}

impl PendingCallout {
    /// Sends a batch; the answer comes to the context that sent it.
    pub(super) fn send(
        context: &impl Context,
        port: &HostAdapter,
        remote: &RedisStore,
        operations: Vec<Operation>,
    ) -> Result<Self, Vec<Operation>> {
        let mut bytes = [0; 16];
        if !port.random(&mut bytes) {
            return Err(operations);
        }
        let place = port.called(&remote.cluster, "http", &remote.authority);
        let nonce = crate::credential::hex(&bytes);
        let body = redis::request(remote, &nonce, &operations);
        let length = body.len().to_string();
        let headers = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", &remote.authority),
            (":path", "/"),
            ("content-length", &length),
        ];
        let timeout = Duration::from_millis(remote.timeout);
        match context.dispatch_http_call(&place, headers, Some(&body), Vec::new(), timeout) {
            Ok(call) => Ok(Self { call, is_open: true, nonce, operations }),
            Err(_) => Err(operations),
        }
    }

    /// Sends what is due of a request.
    pub(super) fn send_due(
        context: &impl Context,
        port: &HostAdapter,
        remote: &RedisStore,
        due: &PendingCharge,
    ) -> Result<Self, StoreError> {
        let charges = due.charges().iter().cloned().map(Operation::Charge);
        let question = due.question().cloned().map(Operation::Question);
        let revocation = due.revocation().cloned().map(Operation::Revoke);
        let operations = charges.chain(question).chain(revocation).collect();
        Self::send(context, port, remote, operations).map_err(|_| StoreError::Unavailable)
    }

    /// Looks a key up.
    pub(super) fn find(
        context: &impl Context,
        port: &HostAdapter,
        remote: &RedisStore,
        lookup: &Lookup,
    ) -> Result<Self, StoreError> {
        Self::send(context, port, remote, vec![Operation::Find(lookup.clone())])
            .map_err(|_| StoreError::Unavailable)
    }

    /// Whether its answer has not come.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    pub(super) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub(super) fn is(&self, call: u32) -> bool {
        self.call == call
    }

    /// Reads the answer to the batch in the callback that brings it.
    pub(super) fn answer(&self, size: usize) -> Result<Reply, StoreError> {
        let body =
            raw::buffer(raw::BufferType::CallResponseBody, size).map_err(|_| StoreError::Unavailable)?;
        redis::answer(call_status(), &body, &self.nonce, &self.operations)
    }
}

/// What a remote store's answer settles.
pub(super) fn settled(reply: Result<Reply, StoreError>) -> Result<Settled, StoreError> {
    let reply = reply?;
    if reply.is_full {
        return Err(StoreError::Full);
    }
    Ok(Settled { taken: reply.result, is_spent: reply.is_spent })
}
