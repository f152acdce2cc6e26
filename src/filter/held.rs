//! Requests that are held until their body has come.

use std::cell::{BorrowMutError, RefCell};
use std::collections::BTreeMap;

use crate::decision::Record;

/// Request that waits for its body.
pub(super) struct HeldRequest {
    /// Unix seconds at which its headers came.
    pub(super) since: u64,
    pub(super) record: Record,
}

#[derive(Default)]
pub(super) struct HeldRequests(RefCell<BTreeMap<u32, HeldRequest>>);

impl HeldRequests {
    pub(super) fn insert(&self, context: u32, request: HeldRequest) -> Result<(), BorrowMutError> {
        self.0.try_borrow_mut().map(|mut held| _ = held.insert(context, request))
    }

    /// Removes a request; false when it is not held, for example because it was answered as overdue.
    pub(super) fn remove(&self, context: u32) -> bool {
        self.0.try_borrow_mut().is_ok_and(|mut held| held.remove(&context).is_some())
    }

    /// Removes and returns the requests held for at least `limit` seconds; `now` in Unix seconds.
    pub(super) fn take_overdue(&self, now: u64, limit: u64) -> Vec<(u32, HeldRequest)> {
        let Ok(mut held) = self.0.try_borrow_mut() else { return Vec::new() };
        let is_overdue = |request: &HeldRequest| now.saturating_sub(request.since) >= limit;
        let overdue: Vec<u32> =
            held.iter().filter(|(_, request)| is_overdue(request)).map(|(context, _)| *context).collect();
        overdue.into_iter().filter_map(|context| held.remove_entry(&context)).collect()
    }
}
