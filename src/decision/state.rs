//! Everything an engine learns at run time: verified tokens, fetched key sets, revocations and looked-up keys.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::credential::{Issuer, RemoteJwks, RemoteKeys, VerificationCache};
use crate::policy::{Policy, StoreBackend, StoreRule, TokenSource};
use crate::reason::Reason;
use crate::store::Revocations;

use super::directory::DirectoryCache;

/// Bytes of verified tokens cached per policy and worker: two to three thousand ordinary tokens.
const CACHE_BYTES: usize = 4 << 20;

/// Run-time knowledge of one engine.
pub(super) struct EngineState {
    pub(super) verified_tokens: VerificationCache,
    /// Fetched keys of the issuers whose keys the policy does not hold.
    pub(super) key_sets: Vec<(Rc<Issuer>, Rc<RemoteKeys>)>,
    pub(super) directory: DirectoryCache,
    pub(super) revocations: RefCell<Rc<Revocations>>,
    /// Unix second at which the revocations were last known to be current.
    pub(super) confirmed_at: Cell<Option<u64>>,
    /// True while the gateway's own memory of revocations cannot be read.
    pub(super) is_unreadable: Cell<bool>,
}

impl EngineState {
    /// Starts empty, except for key sets that an earlier policy fetched from the same addresses.
    pub(super) fn new(policy: &Policy, fetched: &[Rc<RemoteKeys>]) -> Self {
        let keys_of = |remote: &RemoteJwks| {
            let known = fetched.iter().find(|keys| keys.is_from(remote)).cloned();
            known.unwrap_or_else(|| Rc::new(RemoteKeys::new(remote.clone())))
        };
        let key_sets = policy
            .issuers
            .iter()
            .filter_map(|issuer| Some((Rc::clone(issuer), keys_of(issuer.keys.remote()?))));
        Self {
            verified_tokens: VerificationCache::new(CACHE_BYTES),
            key_sets: key_sets.collect(),
            directory: DirectoryCache::new(policy.store.directory.map_or(0, |rule| rule.entries)),
            revocations: RefCell::default(),
            confirmed_at: Cell::new(None),
            is_unreadable: Cell::new(false),
        }
    }

    /// Returns the fetched keys of an issuer; `None` for a family and for an issuer whose keys the policy holds.
    pub(super) fn fetched_keys(&self, source: &TokenSource) -> Option<&RemoteKeys> {
        match source {
            TokenSource::Family(_) => None,
            TokenSource::Issuer(issuer) => self.keys_of(issuer),
        }
    }

    /// Returns the fetched keys of an issuer; `None` when the policy holds its keys.
    pub(super) fn keys_of(&self, issuer: &Rc<Issuer>) -> Option<&RemoteKeys> {
        self.key_sets.iter().find(|(known, _)| Rc::ptr_eq(known, issuer)).map(|(_, keys)| keys.as_ref())
    }

    pub(super) fn current_revocations(&self) -> Rc<Revocations> {
        self.revocations.try_borrow().map(|known| Rc::clone(&known)).unwrap_or_default()
    }

    /// Refuses every credential while the revocations are unknown or too old.
    pub(super) fn check_revocations_current(&self, store: &StoreRule, now: u64) -> Result<(), Reason> {
        // After a clock that was set back, no time in the future counts as recent.
        let is_stale = |confirmed: Option<u64>| confirmed.is_none_or(|at| now.abs_diff(at) > store.stale);
        if store.backend != StoreBackend::Memory
            && store.refuses_when_stale
            && is_stale(self.confirmed_at.get())
        {
            return Err(Reason::RevocationsStale);
        }
        if self.is_unreadable.get() {
            return Err(Reason::StoreUnavailable);
        }
        Ok(())
    }
}
