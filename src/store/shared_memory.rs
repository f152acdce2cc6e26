//! Store in the memory of one gateway, shared by its workers and changed by compare-and-swap.
//!
//! The memory holds a fixed number of values, most of them buckets of counters, each under a seal (see [`super::sealed`]).
//! There is no lock: a writer reads a value, changes it and writes it back, and starts over when another was faster.

use std::collections::BTreeMap;

use super::bucket::Bucket;
use super::sealed::{Layout, Sealer, Slot};
use super::{
    Change, Charge, ChargeDenied, ChargeResult, Charged, CounterKey, Remaining, Revocation, Revocations,
    Rule, Size, StoreError,
};

/// Number of buckets. It is fixed, so that a policy with another store size finds the values written before.
const BUCKETS: usize = 4_096;

/// Buckets for sessions, apart from the rest because one counter may have many sessions.
const SESSION_BUCKETS: usize = 256;

/// Buckets for failed authentication, apart from the rest so that clients without a credential cannot fill it.
const FAILURE_BUCKETS: usize = 256;

/// Limits of a bucket for failed authentication.
const FAILURE_CAPACITY: Size = Size { entries: 32, is_shared: false };

/// Attempts of a writer. Each failed one means another writer succeeded, so this many in a row mean overload.
const ATTEMPTS: usize = 64;

/// Bytes of all revocations where values are preallocated.
const REVOCATION_BYTES: usize = 64 * 1024;

/// Bytes of the epoch and of the mark that all values are written.
const EPOCH_BYTES: usize = 9;

const EPOCH: &str = "epoch";
const REVOCATIONS: &str = "revocations";
/// Counter of changes to the revocations: short enough to read for every request.
const REVISION: &str = "revision";

/// Most revocations in this store.
const MAX_REVOCATIONS: usize = 1_024;

/// Most revocations by one team, so that none keeps the others from revoking.
const MAX_REVOCATIONS_BY_ONE: usize = 128;

/// Memory that all workers of a gateway share.
pub trait Memory {
    /// Reads a value and its version; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the memory fails.
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, StoreError>;

    /// Writes a value if its version is still `version`, where `None` means that there is no value. Returns false when
    /// another writer was faster.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the memory fails.
    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, StoreError>;

    /// Returns the way values occupy this memory.
    fn layout(&self) -> Layout {
        Layout::Growing
    }
}

/// Store in a gateway's own memory.
pub struct SharedMemoryStore<M> {
    memory: M,
    sealer: Sealer,
    /// Prefix of every name. It depends on the secret, so a store with another secret begins empty.
    prefix: String,
    epoch_slot: Slot,
    /// Limits of one bucket.
    capacity: Size,
    epoch: u64,
}

impl<M: Memory> SharedMemoryStore<M> {
    /// Opens the store, or creates it; `key` seals its values, `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the memory fails or holds values under another seal.
    pub fn open(memory: M, key: &[u8], size: Size, now: u64) -> Result<Self, StoreError> {
        let capacity = Size { entries: (size.entries / BUCKETS).max(1), ..size };
        let layout = memory.layout();
        let preallocated = capacity.entries.to_string();
        let prefix = match layout {
            Layout::Growing => CounterKey::of(&[b"prefix", key]),
            // A preallocated value cannot grow, so another size is another store.
            Layout::Preallocated => CounterKey::of(&[b"prefix", key, preallocated.as_bytes()]),
        };
        let prefix = format!("callbound/1/{:08x}/", prefix.share());
        let epoch_slot = Slot { name: format!("{prefix}{EPOCH}"), bytes: EPOCH_BYTES };
        let sealer = Sealer { key: key.to_vec(), layout };
        let mut store = Self { memory, sealer, prefix, epoch_slot, capacity, epoch: now };
        match layout {
            Layout::Growing => store.epoch = store.find_epoch(now)?,
            Layout::Preallocated => store.preallocate(now)?,
        }
        Ok(store)
    }

    /// Returns the recorded epoch; records `now` when there is none.
    fn find_epoch(&self, now: u64) -> Result<u64, StoreError> {
        self.update(&self.epoch_slot, true, |value| {
            let epoch = <[u8; 8]>::try_from(value.as_slice()).ok().map(u64::from_le_bytes);
            if epoch.is_none() {
                *value = now.to_le_bytes().to_vec();
            }
            Ok(epoch.unwrap_or(now))
        })
    }

    /// Finds the epoch and the values another worker has written, or writes them. The epoch becomes part of every name,
    /// so a worker that knows an evicted epoch finds no value.
    fn preallocate(&mut self, now: u64) -> Result<(), StoreError> {
        let marked =
            |epoch: u64, is_complete: bool| [&epoch.to_le_bytes()[..], &[u8::from(is_complete)]].concat();
        let (epoch, is_complete) = self.update(&self.epoch_slot, true, |value| {
            if value.is_empty() {
                *value = marked(now, false);
            }
            let (epoch, mark) = value.split_first_chunk::<8>().ok_or(StoreError::Corrupt)?;
            Ok((u64::from_le_bytes(*epoch), mark == [1]))
        })?;
        self.epoch = epoch;
        self.prefix += &format!("{epoch:x}/");
        if is_complete {
            return Ok(());
        }
        self.write_all_values()?;
        // Marks the store as complete, unless the epoch was evicted meanwhile.
        self.update(&self.epoch_slot, false, |value| {
            if *value != marked(epoch, false) && *value != marked(epoch, true) {
                return Err(StoreError::Dropped);
            }
            *value = marked(epoch, true);
            Ok(())
        })
    }

    /// Writes every value that is missing, then checks that all are present. Present ones are another worker's.
    fn write_all_values(&self) -> Result<(), StoreError> {
        let empty = Bucket::default().write();
        let numbered =
            |slot: fn(&Self, usize) -> Slot, count: usize| (0..count).map(move |index| slot(self, index));
        let buckets = numbered(Self::bucket, BUCKETS)
            .chain(numbered(Self::session_bucket, SESSION_BUCKETS))
            .chain(numbered(Self::failure_bucket, FAILURE_BUCKETS))
            .map(|slot| (slot, empty.as_slice()));
        let others = [(self.revocations_slot(), &[][..]), (self.revision_slot(), &[0; 8][..])];
        let all: Vec<(Slot, &[u8])> = buckets.chain(others).collect();
        for (slot, value) in &all {
            self.write(slot, value, None)?;
        }
        for (slot, _) in &all {
            self.memory.get(&slot.name)?.ok_or(StoreError::Dropped)?;
        }
        Ok(())
    }

    /// Checks that the epoch is still the one this store was opened with. Memory that evicts values may evict the epoch,
    /// and another worker would then create a second store.
    fn check_epoch(&self) -> Result<(), StoreError> {
        if self.sealer.layout == Layout::Growing {
            return Ok(());
        }
        let (value, _) = self.read(&self.epoch_slot)?.ok_or(StoreError::Dropped)?;
        if value.starts_with(&self.epoch.to_le_bytes()) { Ok(()) } else { Err(StoreError::Dropped) }
    }

    /// Returns the Unix seconds at which the store began to record.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes all charges or none; `now` in microseconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the outcome is unknown. All charges are reverted then, except the use of a token.
    pub fn take(&self, charges: &[Charge], now: u64) -> Result<ChargeResult, StoreError> {
        self.check_epoch()?;
        if charges.len() > 1 {
            // A denied request must not occupy the other counters even for a moment.
            for (index, charge) in charges.iter().enumerate() {
                if let Err(refusal) = self.check(charge, now)? {
                    return Ok(ChargeResult::Denied { charge: index, refusal });
                }
            }
        }
        let mut taken: Vec<Remaining> = Vec::with_capacity(charges.len());
        for (index, charge) in charges.iter().enumerate() {
            let denied = match self.take_one(charge, now) {
                Ok(Ok(remaining)) => {
                    taken.push(remaining);
                    continue;
                }
                Ok(Err(refusal)) => Ok(ChargeResult::Denied { charge: index, refusal }),
                Err(error) => Err(error),
            };
            self.undo(charges, &taken, now);
            return denied;
        }
        Ok(ChargeResult::All(taken))
    }

    /// Reverts charges. One that cannot be reverted stays taken: that denies too much, never too little.
    fn undo(&self, charges: &[Charge], taken: &[Remaining], now: u64) {
        for (charge, remaining) in charges.iter().zip(taken) {
            let _ = self.update_bucket(&self.bucket_of(charge).0, now, |bucket| {
                bucket.undo(charge, *remaining);
                Ok(Ok(()))
            });
        }
    }

    /// Returns the state a charge would leave, or the cause of its denial; records nothing. `now` is in microseconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the memory fails.
    pub fn check(&self, charge: &Charge, now: u64) -> Result<Result<Remaining, ChargeDenied>, StoreError> {
        if self.is_forgotten(charge) {
            return Ok(Err(ChargeDenied::Forgotten));
        }
        let (mut bucket, _) = self.read_bucket(&self.bucket_of(charge).0)?;
        bucket.clean(now / 1_000_000);
        Ok(bucket.check(charge, now))
    }

    /// Returns the bucket of a charge and its limits.
    fn bucket_of(&self, charge: &Charge) -> (Slot, Size) {
        let number = charge.key.number();
        let sessions = Size { entries: self.sealer.layout.session_capacity(), is_shared: false };
        match charge.rule {
            Rule::Sessions { .. } => (self.session_bucket(number), sessions),
            _ => (self.bucket(number), self.capacity),
        }
    }

    fn take_one(&self, charge: &Charge, now: u64) -> Charged<Remaining> {
        if self.is_forgotten(charge) {
            return Ok(Err(ChargeDenied::Forgotten));
        }
        let (slot, capacity) = self.bucket_of(charge);
        self.update_bucket(&slot, now, |bucket| bucket.take(charge, now, capacity))
    }

    /// Returns true for a token that may have been used before the store began, in the same second included.
    fn is_forgotten(&self, charge: &Charge) -> bool {
        match charge.rule {
            Rule::Uses { issued_at, .. } | Rule::Seconds { issued_at, .. } => issued_at <= self.epoch,
            _ => false,
        }
    }

    /// Applies changes; `now` in Unix seconds. A change that fails is not repeated, because leases expire.
    pub fn change(&self, changes: &[Change], now: u64) {
        // Grouped by bucket: one write renews all sessions of one counter.
        let mut by_bucket: BTreeMap<String, (Slot, Vec<Change>)> = BTreeMap::new();
        for change in changes {
            let (key, is_session) = match *change {
                Change::Renew(lease) | Change::End(lease) => (lease.key, lease.grace == 0),
                Change::GiveBack(key, _) => (key, false),
            };
            let number = key.number();
            let slot = if is_session { self.session_bucket(number) } else { self.bucket(number) };
            by_bucket.entry(slot.name.clone()).or_insert((slot, Vec::new())).1.push(*change);
        }
        for (slot, changes) in by_bucket.into_values() {
            let _ = self.update_bucket(&slot, now.saturating_mul(1_000_000), |bucket| {
                changes.iter().for_each(|change| bucket.apply(*change, now));
                // Without the cut, one entry too many would fail the renewal of all others.
                if self.sealer.layout == Layout::Preallocated {
                    bucket.cut(slot.bytes);
                }
                Ok(Ok(()))
            });
        }
    }

    /// Records a failed authentication; `now` in microseconds. The entries that expire first make room for new ones.
    pub fn record_failure(&self, charge: &Charge, now: u64) {
        let _ = self.update_bucket(&self.failure_bucket(charge.key.number()), now, |bucket| {
            bucket.make_room(charge, FAILURE_CAPACITY);
            bucket.take(charge, now, FAILURE_CAPACITY)
        });
    }

    /// Returns the milliseconds until authentication may be tried again; `None` for now. `now` is in microseconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the memory fails.
    pub fn failure_retry(&self, charge: &Charge, now: u64) -> Result<Option<u64>, StoreError> {
        let (mut bucket, _) = self.read_bucket(&self.failure_bucket(charge.key.number()))?;
        bucket.clean(now / 1_000_000);
        Ok(bucket.check(charge, now).err().map(|denied| match denied {
            ChargeDenied::Spent { retry, .. } => retry,
            ChargeDenied::Forgotten => 0,
        }))
    }

    /// Returns the revocations and their version; `None` when that version is `seen`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the memory fails.
    pub fn revocations(&self, seen: Option<u32>) -> Result<Option<(Revocations, u32)>, StoreError> {
        self.check_epoch()?;
        let revision = self.memory.get(&self.revision_slot().name)?;
        let revision = self.sealer.layout.check_present(revision)?;
        let Some((_, version)) = revision.filter(|(_, version)| seen != Some(*version)) else {
            return Ok(None);
        };
        let (text, _) = self.read(&self.revocations_slot())?.ok_or(StoreError::Corrupt)?;
        Ok(Some((Revocations::read(&text).ok_or(StoreError::Corrupt)?, version)))
    }

    /// Adds a revocation; `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] when the store or the team has as many as allowed; the revocation is not in force then.
    pub fn revoke(&self, revocation: &Revocation, now: u64) -> Result<(), StoreError> {
        self.update(&self.revocations_slot(), false, |value| {
            let mut revocations = Revocations::read(value).ok_or(StoreError::Corrupt)?;
            revocations.clean(now);
            revocations.add(revocation.clone());
            let by = revocation.by.as_deref();
            let exceeds_share = by.is_some() && revocations.by(by) > MAX_REVOCATIONS_BY_ONE;
            if exceeds_share || revocations.len() > MAX_REVOCATIONS {
                return Err(StoreError::Full);
            }
            *value = revocations.write();
            Ok(())
        })?;
        self.update(&self.revision_slot(), false, |value| {
            let revision = <[u8; 8]>::try_from(value.as_slice()).map_or(0, u64::from_le_bytes);
            *value = revision.wrapping_add(1).to_le_bytes().to_vec();
            Ok(())
        })
    }

    fn read_bucket(&self, slot: &Slot) -> Result<(Bucket, Option<u32>), StoreError> {
        let Some((value, version)) = self.read(slot)? else { return Ok((Bucket::default(), None)) };
        Ok((Bucket::read(&value).ok_or(StoreError::Corrupt)?, Some(version)))
    }

    /// Changes a bucket; writes nothing when the change is denied.
    fn update_bucket<T>(
        &self,
        slot: &Slot,
        now: u64,
        change: impl Fn(&mut Bucket) -> Charged<T>,
    ) -> Charged<T> {
        for _ in 0..ATTEMPTS {
            let (mut bucket, version) = self.read_bucket(slot)?;
            bucket.clean(now / 1_000_000);
            let changed = change(&mut bucket)?;
            if changed.is_err() || self.write(slot, &bucket.write(), version)? {
                return Ok(changed);
            }
        }
        Err(StoreError::Contended)
    }

    /// Changes a value other than a bucket; a missing one reads as empty, a preallocated one only with `may_create`.
    fn update<T, F>(&self, slot: &Slot, may_create: bool, change: F) -> Result<T, StoreError>
    where
        F: Fn(&mut Vec<u8>) -> Result<T, StoreError>,
    {
        for _ in 0..ATTEMPTS {
            let present = if may_create { self.read_if_present(slot)? } else { self.read(slot)? };
            let version = present.as_ref().map(|(_, version)| *version);
            let before = present.map_or(Vec::new(), |(value, _)| value);
            let mut value = before.clone();
            let result = change(&mut value)?;
            if value == before || self.write(slot, &value, version)? {
                return Ok(result);
            }
        }
        Err(StoreError::Contended)
    }

    /// Reads a value and its version; a preallocated one must be present.
    fn read(&self, slot: &Slot) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        self.sealer.layout.check_present(self.read_if_present(slot)?)
    }

    fn read_if_present(&self, slot: &Slot) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        // A preallocated value may be read while it is written.
        let reads = if self.sealer.layout == Layout::Preallocated { 3 } else { 1 };
        for _ in 0..reads {
            let Some((sealed, version)) = self.memory.get(&slot.name)? else { return Ok(None) };
            if let Ok(value) = self.sealer.open(&slot.name, &sealed) {
                return Ok(Some((value.to_vec(), version)));
            }
        }
        Err(StoreError::Corrupt)
    }

    fn write(&self, slot: &Slot, value: &[u8], version: Option<u32>) -> Result<bool, StoreError> {
        self.memory.swap(&slot.name, &self.sealer.seal(slot, value)?, version)
    }

    fn slot(&self, name: &str, bytes: usize) -> Slot {
        Slot { name: format!("{}{name}", self.prefix), bytes }
    }

    fn revocations_slot(&self) -> Slot {
        self.slot(REVOCATIONS, REVOCATION_BYTES)
    }

    fn revision_slot(&self) -> Slot {
        self.slot(REVISION, 8)
    }

    fn bucket(&self, number: usize) -> Slot {
        self.slot(&(number % BUCKETS).to_string(), Bucket::bytes(self.capacity.entries))
    }

    fn session_bucket(&self, number: usize) -> Slot {
        let bytes = Bucket::bytes(self.sealer.layout.session_capacity());
        self.slot(&format!("s/{}", number % SESSION_BUCKETS), bytes)
    }

    fn failure_bucket(&self, number: usize) -> Slot {
        let bytes = Bucket::bytes(FAILURE_CAPACITY.entries);
        self.slot(&format!("f/{}", number % FAILURE_BUCKETS), bytes)
    }
}
