//! Batches under way to Redis: HTTP callouts whose answer comes in a later callback.

use std::time::Duration;

use proxy_wasm::hostcalls;

use crate::decision::{PendingCharge, Settled};
use crate::hex::hex;
use crate::store::StoreError;
use crate::store::redis::{self, Operation, RedisStore, Reply};

use super::host::HostAdapter;
use super::raw;

/// Batch whose answer has not come.
pub(super) struct PendingCallout {
    call: u32,
    nonce: String,
    pub(super) operations: Vec<Operation>,
}

/// Returns the operations that settle the charges of a request.
pub(super) fn operations_of(charge: &PendingCharge) -> Vec<Operation> {
    let charges = charge.charges().iter().cloned().map(Operation::Charge);
    let question = charge.question().cloned().map(Operation::Question);
    charges.chain(question).chain(charge.revocation().cloned().map(Operation::Revoke)).collect()
}

impl PendingCallout {
    /// Sends a batch, whose answer goes to the calling context. Returns the operations when the host refuses the callout
    /// or could send only part of it.
    pub(super) fn send(
        host: &HostAdapter,
        redis: &RedisStore,
        operations: Vec<Operation>,
    ) -> Result<Self, (StoreError, Vec<Operation>)> {
        if host.profile.max_callout_bytes.is_some_and(|most| redis.request_bytes(&operations) > most) {
            return Err((StoreError::TooLong, operations));
        }
        let mut bytes = [0; 16];
        if !host.random(&mut bytes) {
            return Err((StoreError::Unavailable, operations));
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
            Err(_) => Err((StoreError::Unavailable, operations)),
        }
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

    pub(super) fn settled(&self, size: usize) -> Result<Settled, StoreError> {
        match self.answer(size)? {
            reply if reply.is_full => Err(StoreError::Full),
            reply => Ok(Settled { taken: reply.result, is_spent: reply.is_spent }),
        }
    }
}
