//! One value of the local store: a short list of entries, written and read whole.
//!
//! Entries that are over are left out whenever it is written. What was left out by a clock that ran ahead is known by
//! the time of that cleaning, so that a token forgotten so is refused, not taken for fresh.

use super::{
    Change, Charge, ChargeDenied, CounterKey, LEASE_SECONDS, Lease, Remaining, Rule, StoreError, Stream,
    interval,
};

/// Bytes of one entry: cell, share, end, value.
const ENTRY_BYTES: usize = 32;

/// What is remembered of one cell; a cell of sessions has one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    cell: CounterKey,
    share: u32,
    /// Unix seconds from which it counts no more.
    ends: u32,
    /// A count, microseconds, or a session.
    value: u64,
}

/// A list of entries and the time it was last cleaned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Unix seconds.
    cleaned: u32,
    entries: Vec<Entry>,
}

/// How much a bucket may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The most entries.
    pub(super) capacity: usize,
    /// Whether several teams share it, none of which may crowd the others out.
    pub(super) is_shared: bool,
}

fn seconds(time: u64) -> u32 {
    u32::try_from(time).unwrap_or(u32::MAX)
}

impl Bucket {
    /// Reads a value; `None` when it is not one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (cleaned, rest) = bytes.split_first_chunk::<4>()?;
        let (entries, left) = rest.as_chunks::<ENTRY_BYTES>();
        let entry = |bytes: &[u8; ENTRY_BYTES]| {
            let (cell, rest) = bytes.split_first_chunk::<16>()?;
            let (share, rest) = rest.split_first_chunk::<4>()?;
            let (ends, value) = rest.split_first_chunk::<4>()?;
            Some(Entry {
                cell: CounterKey(*cell),
                share: u32::from_le_bytes(*share),
                ends: u32::from_le_bytes(*ends),
                value: u64::from_le_bytes(value.try_into().ok()?),
            })
        };
        let entries = entries.iter().map(entry).collect::<Option<_>>()?;
        left.is_empty().then_some(Self { cleaned: u32::from_le_bytes(*cleaned), entries })
    }

    /// The length of one with so many entries.
    pub(super) fn bytes(entries: usize) -> usize {
        4 + entries * ENTRY_BYTES
    }

    /// Writes the value.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::bytes(self.entries.len()));
        bytes.extend_from_slice(&self.cleaned.to_le_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.cell.0);
            bytes.extend_from_slice(&entry.share.to_le_bytes());
            bytes.extend_from_slice(&entry.ends.to_le_bytes());
            bytes.extend_from_slice(&entry.value.to_le_bytes());
        }
        bytes
    }

    /// Leaves out the newest entries that do not fit so many bytes.
    pub(super) fn cut(&mut self, bytes: usize) {
        self.entries.truncate(bytes.saturating_sub(Self::bytes(0)) / ENTRY_BYTES);
    }

    /// Leaves out what is over.
    pub(super) fn clean(&mut self, now: u64) {
        let now = seconds(now);
        self.cleaned = self.cleaned.max(now);
        self.entries.retain(|entry| entry.ends > now);
    }

    fn entry(&self, cell: CounterKey) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.cell == cell)
    }

    /// Sets an entry; a new one must find room.
    fn put(
        &mut self,
        charge: &Charge,
        cell: CounterKey,
        ends: u64,
        value: u64,
        room: Room,
    ) -> Result<(), StoreError> {
        let ends = seconds(ends);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.cell == cell) {
            (entry.ends, entry.value) = (ends, value);
            return Ok(());
        }
        self.add(Entry { cell, share: charge.share, ends, value }, room)
    }

    /// Adds an entry. A team may hold as many as there are free ones: the first half to whoever comes first, then half
    /// of what is left, so that there is always some for a team that holds none.
    fn add(&mut self, entry: Entry, room: Room) -> Result<(), StoreError> {
        let free = room.capacity.saturating_sub(self.entries.len());
        let own = self.entries.iter().filter(|other| other.share == entry.share).count();
        if free == 0 || (room.is_shared && own >= free) {
            return Err(StoreError::Full);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Makes room for a cell that is not there yet by forgetting what ends first, and of that the least: for what may be
    /// forgotten.
    pub(super) fn make_room(&mut self, charge: &Charge, capacity: usize) {
        while self.entry(charge.cell).is_none() && self.entries.len() >= capacity.max(1) {
            let all = self.entries.iter().enumerate();
            let Some((index, _)) = all.min_by_key(|(_, entry)| (entry.ends, entry.value)) else { return };
            self.entries.swap_remove(index);
        }
    }

    /// Takes one charge; `now` in microseconds. What is over must have been cleaned.
    pub(super) fn take(
        &mut self,
        charge: &Charge,
        now: u64,
        room: Room,
    ) -> Result<Result<Remaining, ChargeDenied>, StoreError> {
        let standing = match self.look(charge, now) {
            Ok(standing) => standing,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (cell, second) = (charge.cell, now / 1_000_000);
        let value = self.entry(cell).map_or(0, |entry| entry.value);
        match charge.rule {
            Rule::Window { seconds, .. } => {
                let ends =
                    self.entry(cell).map_or(window_end(second, seconds), |entry| u64::from(entry.ends));
                self.put(charge, cell, ends, value.saturating_add(1), room)?;
            }
            Rule::Rate { max, seconds, .. } => {
                let arrival = value.max(now).saturating_add(interval(max, seconds));
                self.put(charge, cell, arrival.div_ceil(1_000_000), arrival, room)?;
            }
            Rule::Uses { until, stream, .. } => {
                let comes_back = stream.is_some_and(|stream| self.entry(stream.cell).is_some());
                if !comes_back {
                    self.put(charge, cell, until, value.saturating_add(1), room)?;
                }
                if let Some(Stream { cell, holder, grace }) = stream {
                    self.put(charge, cell, second + LEASE_SECONDS + grace, holder, room)?;
                }
            }
            Rule::Sessions { holder, .. } => {
                let ends = seconds(second + LEASE_SECONDS);
                self.add(Entry { cell, share: charge.share, ends, value: holder }, room)?;
            }
            Rule::Seconds { until, .. } => {
                self.put(charge, cell, until, value.saturating_add(standing.remaining), room)?;
            }
        }
        Ok(Ok(standing))
    }

    /// Tells how the cell would stand after a charge, or why it would be refused.
    pub(super) fn look(&self, charge: &Charge, now: u64) -> Result<Remaining, ChargeDenied> {
        let second = now / 1_000_000;
        let entry = self.entry(charge.cell);
        let value = entry.map_or(0, |entry| entry.value);
        match charge.rule {
            Rule::Window { max, seconds } => {
                let ends = entry.map_or(window_end(second, seconds), |entry| u64::from(entry.ends));
                let reset = ends.saturating_mul(1_000).saturating_sub(now / 1_000);
                counted(value, max, reset, reset)
            }
            Rule::Rate { max, seconds, burst } => look_at_rate(value, interval(max, seconds), burst, now),
            Rule::Uses { max, until, stream, .. } => {
                if until <= u64::from(self.cleaned) {
                    return Err(ChargeDenied::Forgotten);
                }
                match stream.and_then(|stream| Some((stream, self.entry(stream.cell)?))) {
                    // What ends after its grace from now has not ended.
                    Some((stream, open)) if u64::from(open.ends) > second + stream.grace => {
                        Err(ChargeDenied::Spent { retry: 0, reset: 0 })
                    }
                    Some(_) => Ok(Remaining { remaining: max.saturating_sub(value), reset: 0 }),
                    None => counted(value, max, 0, 0),
                }
            }
            Rule::Sessions { max, .. } => {
                let open = self.entries.iter().filter(|entry| entry.cell == charge.cell);
                counted(open.count() as u64, max, 1_000, 0)
            }
            Rule::Seconds { until, .. } if until <= u64::from(self.cleaned) => Err(ChargeDenied::Forgotten),
            Rule::Seconds { max, ask, .. } => match max.saturating_sub(value).min(ask) {
                0 => Err(ChargeDenied::Spent { retry: 0, reset: 0 }),
                granted => Ok(Remaining { remaining: granted, reset: 0 }),
            },
        }
    }

    /// Takes a charge back that was taken with others of which one was refused. A use is never taken back.
    pub(super) fn undo(&mut self, charge: &Charge, standing: Remaining) {
        match charge.rule {
            Rule::Sessions { holder, .. } => self.remove(charge.cell, holder),
            Rule::Window { .. } => self.lessen(charge.cell, 1),
            Rule::Rate { max, seconds, .. } => self.lessen(charge.cell, interval(max, seconds)),
            Rule::Seconds { .. } => self.lessen(charge.cell, standing.remaining),
            Rule::Uses { .. } => {}
        }
    }

    fn remove(&mut self, cell: CounterKey, value: u64) {
        self.entries.retain(|entry| entry.cell != cell || entry.value != value);
    }

    fn lessen(&mut self, cell: CounterKey, less: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.cell == cell) {
            entry.value = entry.value.saturating_sub(less);
        }
    }

    /// Makes a change.
    pub(super) fn change(&mut self, change: Change, now: u64) {
        match change {
            Change::Renew(lease) => {
                let ends = now + LEASE_SECONDS + lease.grace;
                // A worker that slept too long finds its session forgotten: it counts again. A stream may be somebody
                // else's by then.
                if !self.extend(lease, ends) && lease.grace == 0 {
                    let (cell, value) = (lease.cell, lease.holder);
                    self.entries.push(Entry { cell, share: 0, ends: seconds(ends), value });
                }
            }
            Change::End(lease) if lease.grace > 0 => _ = self.extend(lease, now + lease.grace),
            Change::End(lease) => self.remove(lease.cell, lease.holder),
            Change::GiveBack(cell, seconds) => self.lessen(cell, seconds),
        }
    }

    fn extend(&mut self, lease: Lease, ends: u64) -> bool {
        let own = |entry: &&mut Entry| entry.cell == lease.cell && entry.value == lease.holder;
        let found = self.entries.iter_mut().find(own);
        found.map(|entry| entry.ends = seconds(ends)).is_some()
    }
}

/// When the window ends in which a second lies.
fn window_end(second: u64, length: u64) -> u64 {
    (second / length.max(1)).saturating_add(1).saturating_mul(length.max(1))
}

fn counted(count: u64, max: u64, retry: u64, reset: u64) -> Result<Remaining, ChargeDenied> {
    match max.checked_sub(count) {
        None | Some(0) => Err(ChargeDenied::Spent { retry, reset }),
        Some(left) => Ok(Remaining { remaining: left - 1, reset }),
    }
}

/// The generic cell rate algorithm: `arrival` is when the next one would be due if all came evenly.
fn look_at_rate(arrival: u64, interval: u64, burst: u64, now: u64) -> Result<Remaining, ChargeDenied> {
    let tolerated = interval.saturating_mul(burst);
    let ahead = arrival.max(now).saturating_add(interval).saturating_sub(now);
    match tolerated.checked_sub(ahead) {
        Some(left) => Ok(Remaining { remaining: left / interval.max(1), reset: ahead.div_ceil(1_000) }),
        None => Err(ChargeDenied::Spent {
            retry: (ahead - tolerated).div_ceil(1_000),
            reset: (ahead - interval).div_ceil(1_000),
        }),
    }
}
