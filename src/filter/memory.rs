//! The store as this host gives it: shared memory at once, Redis by a call whose answer comes later.

use std::cell::Cell;
use std::time::Duration;

use proxy_wasm::traits::Context;

use crate::decision::{Due, Settled};
use crate::policy::{Home, Policy};
use crate::store::remote::{self, Lookup, Operation, Remote, Reply};
use crate::store::{Charge, Local, Memory, MemoryError, Revocations, StoreError, Taken};

use super::raw::{self, HostError};
use super::root::call_status;

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

/// The store of one policy.
pub(super) struct Store {
    local: Option<Local<SharedMemory>>,
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
        let is_local = policy.store.home == Home::Local;
        let local = match Local::open(SharedMemory, &policy.store.key, policy.store.size, now) {
            Err(error) if policy.remembers.here => return Err(error),
            opened => opened.ok(),
        };
        let epoch = local.as_ref().filter(|_| is_local).map(Local::epoch);
        Ok(Self { local, is_home: is_local, known: Cell::new(None), epoch: Cell::new(epoch) })
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch.get()
    }

    /// Notes when a remote store began to remember, or that it is not to be trusted.
    pub(super) fn begin(&self, epoch: Option<u64>) {
        self.epoch.set(epoch);
    }

    pub(super) fn local(&self) -> Option<&Local<SharedMemory>> {
        self.local.as_ref()
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
        // Those of a remote store come by its feed.
        let Some(local) = self.local.as_ref().filter(|_| self.is_home) else { return Ok(None) };
        let Some((revocations, version)) = local.revocations(self.known.get())? else { return Ok(None) };
        self.known.set(Some(version));
        Ok(Some(revocations))
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
    ) -> Result<Self, Vec<Operation>> {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            return Err(operations);
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
        match context.dispatch_http_call(&remote.cluster, headers, Some(&body), Vec::new(), timeout) {
            Ok(call) => Ok(Self { call, is_open: true, nonce, operations }),
            Err(_) => Err(operations),
        }
    }

    /// Sends what is due of a request.
    pub(super) fn send_due(context: &impl Context, remote: &Remote, due: &Due) -> Result<Self, StoreError> {
        let charges = due.charges().iter().cloned().map(Operation::Charge);
        let question = due.question().cloned().map(Operation::Question);
        let revocation = due.revocation().cloned().map(Operation::Revoke);
        let operations = charges.chain(question).chain(revocation).collect();
        Self::send(context, remote, operations).map_err(|_| StoreError::Unavailable)
    }

    /// Looks a key up.
    pub(super) fn find(context: &impl Context, remote: &Remote, lookup: &Lookup) -> Result<Self, StoreError> {
        Self::send(context, remote, vec![Operation::Find(lookup.clone())])
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
