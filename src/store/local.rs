//! The store of one gateway: memory that all its workers share, changed by compare-and-swap.
//!
//! The memory is a fixed number of values, each a bucket of entries under a seal: other programs may share it, and what
//! they wrote is refused, never believed. There is no lock: a charge is read, judged and written back, and whoever was
//! overtaken tries again.

use std::collections::BTreeMap;

use super::bucket::{Bucket, Room};
use super::{
    Change, Charge, ChargeDenied, ChargeResult, CounterKey, Remaining, Revocation, Revocations, Rule,
    StoreError, seal,
};

/// How many buckets there are: fixed, so that another size in a new policy finds what was written under the old one.
const BUCKETS: usize = 4_096;

/// How many of those are for failures of strangers, kept apart so that nobody without a credential can fill the rest.
const FAILURE_BUCKETS: usize = 256;

/// Entries in one of those.
const FAILURE_CAPACITY: usize = 32;

/// How often an overtaken writer tries again. Each time somebody else got through, so many in a row mean a flood.
const ATTEMPTS: usize = 64;

/// Buckets of sessions, kept apart: of one count there may be many, and each is an open connection.
const SESSION_BUCKETS: usize = 256;

/// Sessions in one of those.
const SESSION_CAPACITY: usize = 16_384;

/// The same where every value has its full length from the beginning: with its seal it fits a page of memory.
pub const SESSION_CAPACITY_LAID_OUT: usize = 120;

/// Bytes of all revocations where every value has its full length from the beginning.
const REVOCATION_BYTES: usize = 64 * 1024;

/// Bytes of when it began, and of whether all of it was written.
const BEGINNING_BYTES: usize = 9;

/// How often a value is read again whose seal does not hold, where one may be read while it is written.
const READS: usize = 3;

const EPOCH: &str = "epoch";
const REVOCATIONS: &str = "revocations";
/// Changed after every change of the revocations: so short that it can be looked at for every request.
const REVISION: &str = "revision";

/// The most revocations remembered here.
const MAX_REVOCATIONS: usize = 1_024;

/// The most of them by one team's word: nobody can keep the others from revoking.
const MAX_REVOCATIONS_BY_ONE: usize = 128;

/// Memory that all workers of a gateway share.
pub trait Memory {
    /// Reads a value and the number of its version.
    ///
    /// # Errors
    ///
    /// When the memory cannot be read, which is not the same as nothing being there.
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, MemoryError>;

    /// Writes a value over the version that was read, or over nothing; false when somebody else wrote in between.
    ///
    /// # Errors
    ///
    /// When the memory cannot be written.
    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, MemoryError>;

    /// Whether it may drop what was written, when it has no room. Then everything is written once, at its full length,
    /// before any of it is believed: what is missing later was dropped, and that is an error, not an empty beginning.
    fn forgets(&self) -> bool {
        false
    }
}

/// The memory failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryError;

impl From<MemoryError> for StoreError {
    fn from(_: MemoryError) -> Self {
        Self::Unavailable
    }
}

/// How much a local store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The most entries; each takes 32 bytes.
    pub entries: usize,
    /// Whether several teams share it.
    pub is_shared: bool,
}

/// A store in a gateway's own memory.
pub struct SharedMemoryStore<M> {
    memory: M,
    key: Vec<u8>,
    /// What every name begins with: another key is another store, as young as one after a restart.
    prefix: String,
    /// Where it says when it began.
    beginning: Slot,
    room: Room,
    epoch: u64,
}

/// One value of the memory.
struct Slot {
    name: String,
    /// The most bytes it holds, where it has its full length from the beginning.
    bytes: usize,
}

impl<M: Memory> SharedMemoryStore<M> {
    /// Opens the store, or begins it; `key` seals its values, `now` is in Unix seconds.
    ///
    /// # Errors
    ///
    /// When the memory fails or holds something else.
    pub fn open(memory: M, key: &[u8], size: Size, now: u64) -> Result<Self, StoreError> {
        let room = Room { capacity: (size.entries / BUCKETS).max(1), is_shared: size.is_shared };
        // Where values have their full length, a store of another size is another store: none may have to grow.
        let size = if memory.forgets() { room.capacity.to_string() } else { String::new() };
        let parts = [b"prefix".as_slice(), key, size.as_bytes()];
        let cell = CounterKey::of(if size.is_empty() { &parts[..2] } else { &parts });
        let prefix = format!("callbound/1/{:08x}/", cell.share());
        let beginning = Slot { name: format!("{prefix}{EPOCH}"), bytes: BEGINNING_BYTES };
        let mut store = Self { memory, key: key.to_vec(), prefix, beginning, room, epoch: now };
        if store.memory.forgets() {
            store.begin(now)?;
            return Ok(store);
        }
        store.epoch = store.update(&store.beginning, true, |value| {
            let begun = <[u8; 8]>::try_from(value.as_slice()).ok().map(u64::from_le_bytes);
            if begun.is_none() {
                *value = now.to_le_bytes().to_vec();
            }
            Ok(begun.unwrap_or(now))
        })?;
        Ok(store)
    }

    /// Finds the beginning that others have made, or makes one. What it is called by holds the time it began: whoever
    /// knew an earlier one, which was dropped with all the rest, finds nothing under its names.
    fn begin(&mut self, now: u64) -> Result<(), StoreError> {
        let written =
            |epoch: u64, is_laid_out: bool| [&epoch.to_le_bytes()[..], &[u8::from(is_laid_out)]].concat();
        let (epoch, is_laid_out) = self.update(&self.beginning, true, |value| {
            if value.is_empty() {
                *value = written(now, false);
            }
            let (epoch, state) = value.split_first_chunk::<8>().ok_or(StoreError::Corrupt)?;
            Ok((u64::from_le_bytes(*epoch), state == [1]))
        })?;
        self.epoch = epoch;
        self.prefix += &format!("{epoch:x}/");
        if is_laid_out {
            return Ok(());
        }
        self.lay_out()?;
        // Only now is it believed by anybody, and only if it is still the same.
        self.update(&self.beginning, false, |value| {
            if *value != written(epoch, false) && *value != written(epoch, true) {
                return Err(StoreError::Dropped);
            }
            *value = written(epoch, true);
            Ok(())
        })
    }

    /// Writes everything once, and looks whether all of it is there. What is there already was written by another worker.
    fn lay_out(&self) -> Result<(), StoreError> {
        let empty = Bucket::default().write();
        let numbered =
            |slot: fn(&Self, usize) -> Slot, count: usize| (0..count).map(move |index| slot(self, index));
        let buckets = numbered(Self::bucket, BUCKETS)
            .chain(numbered(Self::session_bucket, SESSION_BUCKETS))
            .chain(numbered(Self::failure_bucket, FAILURE_BUCKETS))
            .map(|slot| (slot, empty.as_slice()));
        let others =
            [(self.slot(REVOCATIONS, REVOCATION_BYTES), &[][..]), (self.slot(REVISION, 8), &[0; 8][..])];
        let all: Vec<(Slot, &[u8])> = buckets.chain(others).collect();
        for (slot, value) in &all {
            self.memory.swap(&slot.name, &self.seal_value(slot, value)?, None)?;
        }
        for (slot, _) in &all {
            self.memory.get(&slot.name)?.ok_or(StoreError::Dropped)?;
        }
        Ok(())
    }

    /// Whether what is remembered is still what it was when this store was opened. Of a memory that drops what is asked
    /// for least, the beginning would be the first to go, and somebody else would begin anew beside us.
    fn check_beginning(&self) -> Result<(), StoreError> {
        if !self.memory.forgets() {
            return Ok(());
        }
        let (value, _) = self.read(&self.beginning)?.ok_or(StoreError::Dropped)?;
        if value.starts_with(&self.epoch.to_le_bytes()) { Ok(()) } else { Err(StoreError::Dropped) }
    }

    /// When it began to remember, in Unix seconds.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes all charges or none; `now` in microseconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be said whether they may be taken; then none was, but for one of a use, which is
    /// never taken back.
    pub fn take(&self, charges: &[Charge], now: u64) -> Result<ChargeResult, StoreError> {
        self.check_beginning()?;
        if charges.len() > 1 {
            // Looked at before any is written: what one refuses should not weigh on the others even for a moment.
            for (index, charge) in charges.iter().enumerate() {
                if let Err(refusal) = self.look(charge, now)? {
                    return Ok(ChargeResult::None { charge: index, refusal });
                }
            }
        }
        let mut standings: Vec<Remaining> = Vec::with_capacity(charges.len());
        for (index, charge) in charges.iter().enumerate() {
            let taken = self.take_one(charge, now);
            if let Ok(Ok(standing)) = taken {
                standings.push(standing);
                continue;
            }
            for (charge, standing) in charges.iter().zip(&standings) {
                // What cannot be taken back stays taken: too little for somebody, never too much.
                let _ = self.update_bucket(&self.place(charge).0, now, |bucket| {
                    bucket.undo(charge, *standing);
                    Ok(Ok::<(), ChargeDenied>(()))
                });
            }
            return taken.map(|refusal| match refusal {
                Ok(_) => ChargeResult::All(Vec::new()),
                Err(refusal) => ChargeResult::None { charge: index, refusal },
            });
        }
        Ok(ChargeResult::All(standings))
    }

    /// Tells how a cell would stand after a charge, and charges nothing; `now` in microseconds.
    ///
    /// # Errors
    ///
    /// As [`SharedMemoryStore::take`].
    pub fn look(&self, charge: &Charge, now: u64) -> Result<Result<Remaining, ChargeDenied>, StoreError> {
        if self.is_forgotten(charge) {
            return Ok(Err(ChargeDenied::Forgotten));
        }
        let (mut bucket, _) = self.read_bucket(&self.place(charge).0)?;
        bucket.clean(now / 1_000_000);
        Ok(bucket.look(charge, now))
    }

    /// The bucket a charge is counted in, and how much that may hold.
    fn place(&self, charge: &Charge) -> (Slot, Room) {
        match charge.rule {
            Rule::Sessions { .. } => (
                self.session_bucket(charge.cell.number()),
                Room { capacity: self.session_capacity(), is_shared: false },
            ),
            _ => (self.bucket(charge.cell.number()), self.room),
        }
    }

    fn session_capacity(&self) -> usize {
        if self.memory.forgets() { SESSION_CAPACITY_LAID_OUT } else { SESSION_CAPACITY }
    }

    fn take_one(&self, charge: &Charge, now: u64) -> Result<Result<Remaining, ChargeDenied>, StoreError> {
        if self.is_forgotten(charge) {
            return Ok(Err(ChargeDenied::Forgotten));
        }
        let (slot, room) = self.place(charge);
        self.update_bucket(&slot, now, |bucket| bucket.take(charge, now, room))
    }

    /// What was issued in the second in which the store began may have been used just before it.
    fn is_forgotten(&self, charge: &Charge) -> bool {
        let issued_at = match charge.rule {
            Rule::Uses { issued_at, .. } | Rule::Seconds { issued_at, .. } => issued_at,
            _ => return false,
        };
        issued_at <= self.epoch
    }

    /// Makes changes; `now` in Unix seconds. What fails is tried no more: a lease ends by itself.
    pub fn change(&self, changes: &[Change], now: u64) {
        let slot = |change: &Change| match change {
            Change::Renew(lease) | Change::End(lease) if lease.grace == 0 => {
                self.session_bucket(lease.cell.number())
            }
            Change::Renew(lease) | Change::End(lease) => self.bucket(lease.cell.number()),
            Change::GiveBack(cell, _) => self.bucket(cell.number()),
        };
        // Those of one bucket together: a thousand sessions of one count are renewed by one write.
        let mut by_bucket: BTreeMap<String, (Slot, Vec<Change>)> = BTreeMap::new();
        for change in changes {
            let slot = slot(change);
            by_bucket.entry(slot.name.clone()).or_insert((slot, Vec::new())).1.push(*change);
        }
        for (slot, changes) in by_bucket.into_values() {
            let _ = self.update_bucket(&slot, now.saturating_mul(1_000_000), |bucket| {
                changes.iter().for_each(|change| bucket.change(*change, now));
                // One place too many must not cost the others theirs.
                if self.memory.forgets() {
                    bucket.cut(slot.bytes);
                }
                Ok(Ok::<(), ChargeDenied>(()))
            });
        }
    }

    /// Counts a failure of a stranger; the oldest make room for new ones.
    pub fn fail(&self, charge: &Charge, now: u64) {
        let room = Room { capacity: FAILURE_CAPACITY, is_shared: false };
        let _ = self.update_bucket(&self.failure_bucket(charge.cell.number()), now, |bucket| {
            bucket.make_room(charge, FAILURE_CAPACITY);
            bucket.take(charge, now, room)
        });
    }

    /// Whether a stranger has failed too often: how long it is until the next try, in milliseconds.
    ///
    /// # Errors
    ///
    /// As [`SharedMemoryStore::take`].
    pub fn has_failed(&self, charge: &Charge, now: u64) -> Result<Option<u64>, StoreError> {
        let (mut bucket, _) = self.read_bucket(&self.failure_bucket(charge.cell.number()))?;
        bucket.clean(now / 1_000_000);
        Ok(match bucket.look(charge, now) {
            Ok(_) => None,
            Err(ChargeDenied::Spent { retry, .. }) => Some(retry),
            Err(ChargeDenied::Forgotten) => Some(0),
        })
    }

    /// The revocations, when they are others than those of `known`, which is a version.
    ///
    /// # Errors
    ///
    /// As [`SharedMemoryStore::take`].
    pub fn revocations(&self, known: Option<u32>) -> Result<Option<(Revocations, u32)>, StoreError> {
        self.check_beginning()?;
        let found = self.memory.get(&self.slot(REVISION, 8).name)?;
        if found.is_none() && self.memory.forgets() {
            return Err(StoreError::Dropped);
        }
        let Some((_, version)) = found.filter(|(_, version)| known != Some(*version)) else {
            return Ok(None);
        };
        let (text, _) = self.read(&self.slot(REVOCATIONS, REVOCATION_BYTES))?.ok_or(StoreError::Corrupt)?;
        Ok(Some((Revocations::read(&text).ok_or(StoreError::Corrupt)?, version)))
    }

    /// Adds a revocation; `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] when there are as many as may be: then it is not in force.
    pub fn revoke(&self, revocation: &Revocation, now: u64) -> Result<(), StoreError> {
        self.update(&self.slot(REVOCATIONS, REVOCATION_BYTES), false, |value| {
            let mut revocations = Revocations::read(value).ok_or(StoreError::Corrupt)?;
            revocations.clean(now);
            revocations.add(revocation.clone());
            let by = revocation.by.as_deref();
            let is_crowd = by.is_some() && revocations.by(by) > MAX_REVOCATIONS_BY_ONE;
            if is_crowd || revocations.len() > MAX_REVOCATIONS {
                return Err(StoreError::Full);
            }
            *value = revocations.write();
            Ok(())
        })?;
        self.update(&self.slot(REVISION, 8), false, |value| {
            let revision = <[u8; 8]>::try_from(value.as_slice()).map_or(0, u64::from_le_bytes);
            *value = revision.wrapping_add(1).to_le_bytes().to_vec();
            Ok(())
        })
    }

    fn read_bucket(&self, slot: &Slot) -> Result<(Bucket, Option<u32>), StoreError> {
        let Some((value, version)) = self.read(slot)? else { return Ok((Bucket::default(), None)) };
        Ok((Bucket::read(&value).ok_or(StoreError::Corrupt)?, Some(version)))
    }

    /// Changes a bucket; a change that refuses writes nothing.
    fn update_bucket<T, R>(
        &self,
        slot: &Slot,
        now: u64,
        change: impl Fn(&mut Bucket) -> Result<Result<T, R>, StoreError>,
    ) -> Result<Result<T, R>, StoreError> {
        for _ in 0..ATTEMPTS {
            let (mut bucket, version) = self.read_bucket(slot)?;
            bucket.clean(now / 1_000_000);
            let changed = change(&mut bucket)?;
            if changed.is_err()
                || self.memory.swap(&slot.name, &self.seal_value(slot, &bucket.write())?, version)?
            {
                return Ok(changed);
            }
        }
        Err(StoreError::Contended)
    }

    /// Changes a value that is no bucket; nothing there is empty, and may be new only where that is said.
    fn update<T>(
        &self,
        slot: &Slot,
        may_begin: bool,
        change: impl Fn(&mut Vec<u8>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..ATTEMPTS {
            let found = if may_begin { self.look_at(slot)? } else { self.read(slot)? };
            let (before, version) =
                found.map_or((Vec::new(), None), |(value, version)| (value, Some(version)));
            let mut value = before.clone();
            let result = change(&mut value)?;
            if value == before || self.memory.swap(&slot.name, &self.seal_value(slot, &value)?, version)? {
                return Ok(result);
            }
        }
        Err(StoreError::Contended)
    }

    /// Reads a value under its seal; what must be there is not nothing.
    fn read(&self, slot: &Slot) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        match self.look_at(slot)? {
            None if self.memory.forgets() => Err(StoreError::Dropped),
            found => Ok(found),
        }
    }

    fn look_at(&self, slot: &Slot) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        let reads = if self.memory.forgets() { READS } else { 1 };
        for _ in 0..reads {
            let Some((sealed, version)) = self.memory.get(&slot.name)? else { return Ok(None) };
            if let Ok(value) = self.open_value(&slot.name, &sealed) {
                return Ok(Some((value.to_vec(), version)));
            }
        }
        Err(StoreError::Corrupt)
    }

    /// A value under its seal. Where values have their full length from the beginning, its own length stands before it:
    /// such a memory must never be asked to make a value longer, which some do badly.
    fn seal_value(&self, slot: &Slot, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut content = Vec::with_capacity(value.len().max(slot.bytes) + 20);
        if self.memory.forgets() {
            if value.len() > slot.bytes {
                return Err(StoreError::Full);
            }
            content.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
        }
        content.extend_from_slice(value);
        let mut sealed = seal(&self.key, &slot.name, &content).to_vec();
        sealed.append(&mut content);
        if self.memory.forgets() {
            sealed.resize(16 + 4 + slot.bytes, 0);
        }
        Ok(sealed)
    }

    /// The value below a seal that holds.
    fn open_value<'v>(&self, name: &str, sealed: &'v [u8]) -> Result<&'v [u8], StoreError> {
        let (found, mut content) = sealed.split_first_chunk::<16>().ok_or(StoreError::Corrupt)?;
        if self.memory.forgets() {
            let length = content.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
            let end = length.and_then(|length| length.checked_add(4)).ok_or(StoreError::Corrupt)?;
            content = content.get(..end).ok_or(StoreError::Corrupt)?;
        }
        // Whoever shares the memory sees how long this takes as little as anybody else: all bytes are compared.
        let pairs = seal(&self.key, name, content).into_iter().zip(*found);
        let differs = pairs.fold(0u8, |all, (one, other)| all | (one ^ other));
        if differs != 0 {
            return Err(StoreError::Corrupt);
        }
        Ok(if self.memory.forgets() { content.get(4..).unwrap_or_default() } else { content })
    }

    fn slot(&self, name: &str, bytes: usize) -> Slot {
        Slot { name: format!("{}{name}", self.prefix), bytes }
    }

    fn bucket(&self, number: usize) -> Slot {
        self.slot(&(number % BUCKETS).to_string(), Bucket::bytes(self.room.capacity))
    }

    fn session_bucket(&self, number: usize) -> Slot {
        self.slot(&format!("s/{}", number % SESSION_BUCKETS), Bucket::bytes(self.session_capacity()))
    }

    fn failure_bucket(&self, number: usize) -> Slot {
        self.slot(&format!("f/{}", number % FAILURE_BUCKETS), Bucket::bytes(FAILURE_CAPACITY))
    }
}
