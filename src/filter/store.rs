//! Store in the gateway's own memory, as this host provides it.

use std::cell::{Cell, OnceCell};

use crate::decision::{EARLIEST_NOW, PendingCharge, Settled};
use crate::policy::{Policy, SharedMemory, StoreBackend};
use crate::store::{ChargeResult, Layout, Memory, Revocations, SharedMemoryStore, Size, StoreError};

use super::raw::{self, HostError};

pub(super) struct HostMemory(Layout);

impl Memory for HostMemory {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        match raw::shared_data(name) {
            Ok(present) => Ok(Some(present)),
            Err(raw::NOT_FOUND) => Ok(None),
            Err(HostError(_)) => Err(StoreError::Unavailable),
        }
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, StoreError> {
        // Version that writes only where there is no value. Where each value has versions of its own, it is 0. Where one
        // counter numbers all values, 0 overwrites, so it is a version that no value has.
        let absent = if self.0 == Layout::Preallocated { 0 } else { u32::MAX };
        match raw::set_shared_data(name, value, version.unwrap_or(absent)) {
            Ok(()) => Ok(true),
            Err(raw::CAS_MISMATCH) => Ok(false),
            Err(HostError(_)) => Err(StoreError::Unavailable),
        }
    }

    fn layout(&self) -> Layout {
        self.0
    }
}

pub(super) struct Store {
    local: OnceCell<SharedMemoryStore<HostMemory>>,
    /// Store to open with the first request that needs it.
    lazy: Option<LazyStore>,
    /// Counters and revocations are kept in this memory, not in Redis.
    is_backend: bool,
    /// Version of this gateway's revocations that the engine has.
    seen: Cell<Option<u32>>,
    /// Unix seconds at which Redis began to record; `None` while that is unknown or Redis is not to be trusted.
    pub(super) redis_epoch: Cell<Option<u64>>,
    /// Last failure of Redis; `None` while it answers.
    pub(super) redis_failure: Cell<Option<StoreError>>,
}

impl Store {
    /// Opens the store that the policy needs; `now` in Unix seconds.
    pub(super) fn open(policy: &Policy, now: u64) -> Result<Self, StoreError> {
        let store = Self {
            local: OnceCell::new(),
            lazy: None,
            is_backend: policy.store.backend == StoreBackend::Memory,
            seen: Cell::new(None),
            redis_epoch: Cell::new(None),
            redis_failure: Cell::new(None),
        };
        let (key, size) = (&policy.store.key, policy.store.size);
        match policy.host.memory {
            SharedMemory::None => Ok(store),
            // On these hosts a missing zone ends the worker. During a request that denies; at the start it would not.
            SharedMemory::Evicted => {
                let lazy = LazyStore { key: key.clone(), size, failed: Cell::new(0) };
                Ok(Self { lazy: policy.remembers.here.then_some(lazy), ..store })
            }
            SharedMemory::Kept => {
                match SharedMemoryStore::open(HostMemory(Layout::Growing), key, size, now) {
                    Err(error) if policy.remembers.here => Err(error),
                    opened => {
                        Ok(Self { local: opened.ok().map(OnceCell::from).unwrap_or_default(), ..store })
                    }
                }
            }
        }
    }

    /// Returns the Unix seconds at which the store began to record; `None` while that is unknown.
    pub(super) fn epoch(&self) -> Option<u64> {
        match self.is_backend {
            true => self.local().ok().map(SharedMemoryStore::epoch),
            false => self.redis_epoch.get(),
        }
    }

    /// Returns the store in this gateway's memory, opened if necessary.
    pub(super) fn local(&self) -> Result<&SharedMemoryStore<HostMemory>, StoreError> {
        if let Some(local) = self.local.get() {
            return Ok(local);
        }
        let lazy = self.lazy.as_ref().ok_or(StoreError::Unavailable)?;
        let local = lazy.open()?;
        Ok(self.local.get_or_init(|| local))
    }

    /// Takes the charges of a request from this gateway's memory; `now` in microseconds.
    pub(super) fn take(&self, pending: &PendingCharge, now: u64) -> Result<Settled, StoreError> {
        let local = self.local()?;
        let taken = local.take(pending.charges(), now)?;
        let is_spent = match pending.question() {
            Some(question) => local.check(question, now)?.is_err(),
            None => false,
        };
        if let (Some(revocation), ChargeResult::All(_)) = (pending.revocation(), &taken) {
            local.revoke(revocation, now / 1_000_000)?;
        }
        Ok(Settled { taken, is_spent })
    }

    /// Returns this gateway's revocations when they have changed. Those in Redis come with its feed.
    pub(super) fn new_revocations(&self) -> Result<Option<Revocations>, StoreError> {
        if !self.is_backend || (self.local.get().is_none() && self.lazy.is_none()) {
            return Ok(None);
        }
        let Some((revocations, version)) = self.local()?.revocations(self.seen.get())? else {
            return Ok(None);
        };
        self.seen.set(Some(version));
        Ok(Some(revocations))
    }
}

/// Store that is not open yet.
struct LazyStore {
    key: Vec<u8>,
    size: Size,
    /// Unix seconds of the last failed attempt.
    failed: Cell<u64>,
}

impl LazyStore {
    /// Opens the store, at most one attempt per second because even a failed one may write every value.
    fn open(&self) -> Result<SharedMemoryStore<HostMemory>, StoreError> {
        let now = raw::now_seconds().filter(|now| *now >= EARLIEST_NOW).ok_or(StoreError::Unavailable)?;
        if self.failed.get() == now {
            return Err(StoreError::Dropped);
        }
        let opened = SharedMemoryStore::open(HostMemory(Layout::Preallocated), &self.key, self.size, now);
        if opened.is_err() {
            self.failed.set(now);
        }
        opened
    }
}
