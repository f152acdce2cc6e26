//! One value of the shared memory: a short list of counters, read and written whole.
//!
//! Every write drops the expired entries and records its time. A clock that ran ahead may have dropped uses too early, so
//! a token issued before that time is denied instead of counted from zero.

use super::{
    Change, Charge, ChargeDenied, Charged, CounterKey, LEASE_SECONDS, Lease, Remaining, Rule, Size,
    StoreError, interval,
};

/// Bytes of one entry: key, share, end, value.
const ENTRY_BYTES: usize = 32;

/// One counter, or one of the sessions of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: CounterKey,
    share: u32,
    /// Unix seconds at which it expires.
    ends: u32,
    /// Count, microseconds or session id, by the rule of the charge.
    value: u64,
}

/// Entries and the time expired ones were last dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Unix seconds of the last cleaning.
    cleaned: u32,
    entries: Vec<Entry>,
}

/// Clamps Unix seconds to the width of a stored time.
fn stored(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl Bucket {
    /// Reads a stored bucket; `None` when the bytes have another form.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (cleaned, rest) = bytes.split_first_chunk::<4>()?;
        let (entries, []) = rest.as_chunks::<ENTRY_BYTES>() else { return None };
        let entry = |bytes: &[u8; ENTRY_BYTES]| {
            let (key, rest) = bytes.split_first_chunk::<16>()?;
            let (share, rest) = rest.split_first_chunk::<4>()?;
            let (ends, value) = rest.split_first_chunk::<4>()?;
            let (share, ends) = (u32::from_le_bytes(*share), u32::from_le_bytes(*ends));
            Some(Entry {
                key: CounterKey(*key),
                share,
                ends,
                value: u64::from_le_bytes(value.try_into().ok()?),
            })
        };
        let entries = entries.iter().map(entry).collect::<Option<_>>()?;
        Some(Self { cleaned: u32::from_le_bytes(*cleaned), entries })
    }

    /// Returns the stored length of a bucket with this many entries.
    pub(super) fn bytes(entries: usize) -> usize {
        4 + entries * ENTRY_BYTES
    }

    /// Writes the bucket in its stored form.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::bytes(self.entries.len()));
        bytes.extend_from_slice(&self.cleaned.to_le_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.key.0);
            bytes.extend_from_slice(&entry.share.to_le_bytes());
            bytes.extend_from_slice(&entry.ends.to_le_bytes());
            bytes.extend_from_slice(&entry.value.to_le_bytes());
        }
        bytes
    }

    /// Drops the newest entries that exceed a stored length.
    pub(super) fn cut(&mut self, bytes: usize) {
        self.entries.truncate(bytes.saturating_sub(Self::bytes(0)) / ENTRY_BYTES);
    }

    /// Drops expired entries; `now` in Unix seconds.
    pub(super) fn clean(&mut self, now: u64) {
        let now = stored(now);
        self.cleaned = self.cleaned.max(now);
        self.entries.retain(|entry| entry.ends > now);
    }

    fn entry(&self, key: CounterKey) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Replaces the entry with the same key, or adds a new one.
    fn put(&mut self, entry: Entry, capacity: Size) -> Result<(), StoreError> {
        let Some(present) = self.entries.iter_mut().find(|present| present.key == entry.key) else {
            return self.add(entry, capacity);
        };
        (present.ends, present.value) = (entry.ends, entry.value);
        Ok(())
    }

    /// Adds an entry. In a shared bucket a team may hold at most as many entries as are free: the first team gets half,
    /// the next half of the rest, so no team alone can fill it. A full bucket refuses a new team too.
    fn add(&mut self, entry: Entry, capacity: Size) -> Result<(), StoreError> {
        let free = capacity.entries.saturating_sub(self.entries.len());
        let own = self.entries.iter().filter(|other| other.share == entry.share).count();
        if free == 0 || (capacity.is_shared && own >= free) {
            return Err(StoreError::Full);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Makes room for a new key by dropping the entries that expire first and, among those, the lowest counts.
    pub(super) fn make_room(&mut self, charge: &Charge, capacity: Size) {
        while self.entry(charge.key).is_none() && self.entries.len() >= capacity.entries.max(1) {
            let all = self.entries.iter().enumerate();
            let Some((index, _)) = all.min_by_key(|(_, entry)| (entry.ends, entry.value)) else { return };
            self.entries.swap_remove(index);
        }
    }

    /// Takes one charge; `now` in microseconds. Expired entries must be dropped before.
    pub(super) fn take(&mut self, charge: &Charge, now: u64, capacity: Size) -> Charged<Remaining> {
        let remaining = match self.check(charge, now) {
            Ok(remaining) => remaining,
            Err(denied) => return Ok(Err(denied)),
        };
        let (key, share, second) = (charge.key, charge.share, now / 1_000_000);
        let entry = |key, ends, value| Entry { key, share, ends: stored(ends), value };
        let value = self.entry(key).map_or(0, |entry| entry.value);
        match charge.rule {
            Rule::Window { seconds, .. } => {
                let ends = self.window_end(key, second, seconds);
                self.put(entry(key, ends, value.saturating_add(1)), capacity)?;
            }
            Rule::Rate { max, seconds, .. } => {
                let arrival = value.max(now).saturating_add(interval(max, seconds));
                self.put(entry(key, arrival.div_ceil(1_000_000), arrival), capacity)?;
            }
            Rule::Uses { until, stream, .. } => {
                let reconnects = stream.is_some_and(|stream| self.entry(stream.key).is_some());
                if !reconnects {
                    self.put(entry(key, until, value.saturating_add(1)), capacity)?;
                }
                if let Some(Lease { key, holder, grace }) = stream {
                    self.put(entry(key, second + LEASE_SECONDS + grace, holder), capacity)?;
                }
            }
            Rule::Sessions { holder, .. } => {
                self.add(entry(key, second + LEASE_SECONDS, holder), capacity)?
            }
            Rule::Seconds { until, .. } => {
                self.put(entry(key, until, value.saturating_add(remaining.remaining)), capacity)?;
            }
        }
        Ok(Ok(remaining))
    }

    /// Returns the state a charge would leave, or the cause of its denial; records nothing.
    pub(super) fn check(&self, charge: &Charge, now: u64) -> Result<Remaining, ChargeDenied> {
        let second = now / 1_000_000;
        let value = self.entry(charge.key).map_or(0, |entry| entry.value);
        match charge.rule {
            Rule::Window { max, seconds } => {
                let ends = self.window_end(charge.key, second, seconds);
                let reset = ends.saturating_mul(1_000).saturating_sub(now / 1_000);
                check_count(value, max, reset, reset)
            }
            Rule::Rate { max, seconds, burst } => check_rate(value, interval(max, seconds), burst, now),
            Rule::Uses { until, .. } | Rule::Seconds { until, .. } if until <= u64::from(self.cleaned) => {
                Err(ChargeDenied::Forgotten)
            }
            Rule::Uses { max, stream, .. } => {
                match stream.and_then(|stream| Some((stream, self.entry(stream.key)?))) {
                    // An entry that outlives the grace period belongs to a stream that is still open.
                    Some((stream, open)) if u64::from(open.ends) > second + stream.grace => {
                        Err(ChargeDenied::Spent { retry: 0, reset: 0 })
                    }
                    Some(_) => Ok(Remaining { remaining: max.saturating_sub(value), reset: 0 }),
                    None => check_count(value, max, 0, 0),
                }
            }
            Rule::Sessions { max, .. } => {
                let open = self.entries.iter().filter(|entry| entry.key == charge.key);
                check_count(open.count() as u64, max, 1_000, 0)
            }
            Rule::Seconds { max, ask, .. } => match max.saturating_sub(value).min(ask) {
                0 => Err(ChargeDenied::Spent { retry: 0, reset: 0 }),
                granted => Ok(Remaining { remaining: granted, reset: 0 }),
            },
        }
    }

    /// Returns the end of the open window, or of the window a first charge would open.
    fn window_end(&self, key: CounterKey, second: u64, length: u64) -> u64 {
        let length = length.max(1);
        let end = (second / length).saturating_add(1).saturating_mul(length);
        self.entry(key).map_or(end, |entry| u64::from(entry.ends))
    }

    /// Reverts a charge because a later one of the same request was denied. A use of a token is never returned.
    pub(super) fn undo(&mut self, charge: &Charge, remaining: Remaining) {
        match charge.rule {
            Rule::Sessions { holder, .. } => self.remove(charge.key, holder),
            Rule::Window { .. } => self.reduce(charge.key, 1),
            Rule::Rate { max, seconds, .. } => self.reduce(charge.key, interval(max, seconds)),
            Rule::Seconds { .. } => self.reduce(charge.key, remaining.remaining),
            Rule::Uses { .. } => {}
        }
    }

    fn remove(&mut self, key: CounterKey, value: u64) {
        self.entries.retain(|entry| entry.key != key || entry.value != value);
    }

    fn reduce(&mut self, key: CounterKey, amount: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.key == key) {
            entry.value = entry.value.saturating_sub(amount);
        }
    }

    /// Applies a change; `now` in Unix seconds.
    pub(super) fn apply(&mut self, change: Change, now: u64) {
        match change {
            Change::Renew(lease) => {
                let ends = now + LEASE_SECONDS + lease.grace;
                // A session dropped while its worker slept is counted again. A stream is not: it may have reconnected
                // with another id.
                if !self.extend(lease, ends) && lease.grace == 0 {
                    let Lease { key, holder, .. } = lease;
                    self.entries.push(Entry { key, share: 0, ends: stored(ends), value: holder });
                }
            }
            Change::End(lease) if lease.grace > 0 => _ = self.extend(lease, now + lease.grace),
            Change::End(lease) => self.remove(lease.key, lease.holder),
            Change::GiveBack(key, seconds) => self.reduce(key, seconds),
        }
    }

    /// Sets the end of a lease; false when it is not recorded.
    fn extend(&mut self, lease: Lease, ends: u64) -> bool {
        let is_own = |entry: &&mut Entry| entry.key == lease.key && entry.value == lease.holder;
        let own = self.entries.iter_mut().find(is_own);
        own.map(|entry| entry.ends = stored(ends)).is_some()
    }
}

/// Checks a count that is one higher after the charge.
fn check_count(count: u64, max: u64, retry: u64, reset: u64) -> Result<Remaining, ChargeDenied> {
    match max.checked_sub(count) {
        None | Some(0) => Err(ChargeDenied::Spent { retry, reset }),
        Some(left) => Ok(Remaining { remaining: left - 1, reset }),
    }
}

/// Applies the generic cell rate algorithm; `arrival` is the theoretical arrival time of the next charge.
fn check_rate(arrival: u64, interval: u64, burst: u64, now: u64) -> Result<Remaining, ChargeDenied> {
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
