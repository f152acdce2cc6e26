//! Everything a decision depends on besides policy and request.

use core::net::IpAddr;

use crate::credential::HostVerify;
use crate::reason::Reason;
use crate::store::{Charge, StoreError};

/// 2020-01-01 in Unix seconds. An earlier clock was never set, and every token would seem unexpired to it.
pub const EARLIEST_NOW: u64 = 1_577_836_800;

/// Clock, randomness and what the host knows, as arguments of a decision.
///
/// ```
/// use callbound::decision::DecisionContext;
///
/// let random = |bytes: &mut [u8]| {
///     bytes.fill(7);
///     true
/// };
/// let context = DecisionContext::new(1_800_000_000, &random).with_epoch(Some(1_799_990_000));
/// ```
pub struct DecisionContext<'a> {
    pub(super) now: u64,
    pub(super) host_verify: &'a HostVerify<'a>,
    pub(super) epoch: Option<u64>,
    lacks_store: bool,
    random: &'a dyn Fn(&mut [u8]) -> bool,
    peer: &'a dyn Fn() -> Option<IpAddr>,
    failure_limit: &'a dyn Fn(&Charge) -> Result<Option<u64>, StoreError>,
}

impl<'a> DecisionContext<'a> {
    /// Makes a context from the time in Unix seconds and a source of random bytes, which returns false when it fails.
    ///
    /// By default the host verifies no signatures, the client's address and the store's epoch are unknown, and no
    /// failures are counted.
    pub fn new(now: u64, random: &'a dyn Fn(&mut [u8]) -> bool) -> Self {
        Self {
            now,
            host_verify: &|_, _, _, _| None,
            epoch: None,
            lacks_store: false,
            random,
            peer: &|| None,
            failure_limit: &|_| Ok(None),
        }
    }

    /// Sets the host's signature verification.
    pub fn with_host_verify(self, host_verify: &'a HostVerify<'a>) -> Self {
        Self { host_verify, ..self }
    }

    /// Sets the source of the client's address.
    pub fn with_peer(self, peer: &'a dyn Fn() -> Option<IpAddr>) -> Self {
        Self { peer, ..self }
    }

    /// Sets the Unix second since which the store has counted; `None` while that is unknown.
    pub fn with_epoch(self, epoch: Option<u64>) -> Self {
        Self { epoch, ..self }
    }

    /// Sets the last failure of the store that gateways share; `None` while it answers.
    pub fn with_store_failure(self, failure: Option<StoreError>) -> Self {
        Self { lacks_store: failure == Some(StoreError::NotInstalled), ..self }
    }

    /// Sets the check of a failure limit: milliseconds until another try is allowed, `None` when one is allowed now.
    pub fn with_failure_limit(
        self,
        failure_limit: &'a dyn Fn(&Charge) -> Result<Option<u64>, StoreError>,
    ) -> Self {
        Self { failure_limit, ..self }
    }

    /// Returns random bytes.
    ///
    /// # Errors
    ///
    /// [`Reason::HostError`] when the source fails or leaves them all zero.
    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N], Reason> {
        let mut bytes = [0; N];
        if self.fill_random(&mut bytes) && bytes != [0; N] { Ok(bytes) } else { Err(Reason::HostError) }
    }

    pub(super) fn fill_random(&self, bytes: &mut [u8]) -> bool {
        (self.random)(bytes)
    }

    /// Returns the client's address.
    ///
    /// # Errors
    ///
    /// [`Reason::HostError`] when the host does not know it.
    pub(super) fn peer(&self) -> Result<IpAddr, Reason> {
        (self.peer)().ok_or(Reason::HostError)
    }

    /// Returns the reason for a refusal because the store has not answered: that it is not installed, else `reason`.
    pub(super) fn reason_without_store(&self, reason: Reason) -> Reason {
        if self.lacks_store { Reason::StoreNotInstalled } else { reason }
    }

    pub(super) fn failure_retry(&self, charge: &Charge) -> Result<Option<u64>, StoreError> {
        (self.failure_limit)(charge)
    }
}
