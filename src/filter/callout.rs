//! Batches under way to Redis: HTTP callouts whose answer comes in a later callback.

use std::time::Duration;

use proxy_wasm::hostcalls;

use crate::credential::hex;
use crate::decision::{PendingCharge, Settled};
use crate::store::StoreError;
use crate::store::redis::{self, Lookup, Operation, RedisStore, Reply};

use super::host::HostAdapter;
use super::raw;

/// Batch whose answer has not come.
pub(super) struct PendingCallout {
    call: u32,
    nonce: String,
    operations: Vec<Operation>,
}

impl PendingCallout {
    /// Sends a batch. The context that sends it gets the answer.
    ///
    /// # Errors
    ///
    /// The operations, when the host does not accept the callout.
    pub(super) fn send(
        host: &HostAdapter,
        redis: &RedisStore,
        operations: Vec<Operation>,
    ) -> Result<Self, Vec<Operation>> {
        let mut bytes = [0; 16];
        if !host.random(&mut bytes) {
            return Err(operations);
        }
        let upstream = host.callout_upstream(&redis.cluster, "http", &redis.authority);
        let nonce = hex(&bytes);
        let body = redis::request(redis, &nonce, &operations);
        let length = body.len().to_string();
        let headers = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", &redis.authority),
            (":path", "/"),
            ("content-length", &length),
        ];
        let timeout = Duration::from_millis(redis.timeout);
        match hostcalls::dispatch_http_call(&upstream, headers, Some(&body), Vec::new(), timeout) {
            Ok(call) => Ok(Self { call, nonce, operations }),
            Err(_) => Err(operations),
        }
    }

    /// Sends the charges of a request.
    pub(super) fn charge(
        host: &HostAdapter,
        redis: &RedisStore,
        pending: &PendingCharge,
    ) -> Result<Self, StoreError> {
        let charges = pending.charges().iter().cloned().map(Operation::Charge);
        let question = pending.question().cloned().map(Operation::Question);
        let revocation = pending.revocation().cloned().map(Operation::Revoke);
        let operations = charges.chain(question).chain(revocation).collect();
        Self::send(host, redis, operations).map_err(|_| StoreError::Unavailable)
    }

    /// Looks up an API key.
    pub(super) fn find(host: &HostAdapter, redis: &RedisStore, lookup: &Lookup) -> Result<Self, StoreError> {
        let operations = vec![Operation::Find(lookup.clone())];
        Self::send(host, redis, operations).map_err(|_| StoreError::Unavailable)
    }

    /// Returns the operations of the batch.
    pub(super) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns true when the host gave this callout the number `call`.
    pub(super) fn is(&self, call: u32) -> bool {
        self.call == call
    }

    /// Reads the answer, which is available only in the callback for it.
    pub(super) fn answer(&self, size: usize) -> Result<Reply, StoreError> {
        let body =
            raw::buffer(raw::BufferType::CallResponseBody, size).map_err(|_| StoreError::Unavailable)?;
        redis::answer(raw::callout_status(), &body, &self.nonce, &self.operations)
    }

    /// Reads the answer to the charges of a request.
    pub(super) fn settled(&self, size: usize) -> Result<Settled, StoreError> {
        match self.answer(size)? {
            reply if reply.is_full => Err(StoreError::Full),
            reply => Ok(Settled { taken: reply.result, is_spent: reply.is_spent }),
        }
    }
}
