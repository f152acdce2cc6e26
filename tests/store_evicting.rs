//! The store in a memory that evicts, as nginx's zones do: a lost value is an error, never an empty start, and no value
//! grows.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use callbound::store::{
    Charge, ChargeDenied, ChargeResult, CounterKey, Layout, Memory, Revocation, Rule,
    SESSION_CAPACITY_PREALLOCATED, SharedMemoryStore, Size, StoreError, Subject,
};

const BEGAN: u64 = 1_800_000_000;
const NOW: u64 = BEGAN + 1_000;
const SIZE: Size = Size { entries: 65_536, is_shared: false };

/// Memory zone: each value has its own version, from 1; an evicted one starts again at 1.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    values: HashMap<String, (Vec<u8>, u32)>,
    /// Capacity in bytes; 0: unlimited.
    room: usize,
    order: Vec<String>,
    grown: usize,
    /// Number of coming reads that see a half-written value.
    torn: usize,
}

impl Memory for Zone {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        let mut state = self.0.lock().unwrap();
        let mut found = state.values.get(name).cloned();
        if let Some((value, _)) = found.as_mut().filter(|_| state.torn > 0) {
            state.torn -= 1;
            value.iter_mut().take(40).for_each(|byte| *byte ^= 0x55);
        }
        Ok(found)
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, StoreError> {
        let mut state = self.0.lock().unwrap();
        let present = state.values.get(name).map(|(_, version)| *version);
        if present != version {
            return Ok(false);
        }
        let before = state.values.get(name).map(|(value, _)| value.len());
        state.grown += usize::from(before.is_some_and(|before| before != value.len()));
        if before.is_none() {
            state.order.push(name.to_owned());
        }
        state.values.insert(name.to_owned(), (value.to_vec(), present.unwrap_or(0) + 1));
        while state.room > 0
            && state.values.values().map(|(value, _)| value.len()).sum::<usize>() > state.room
        {
            let oldest = state.order.remove(0);
            state.values.remove(&oldest);
        }
        Ok(true)
    }

    fn layout(&self) -> Layout {
        Layout::Preallocated
    }
}

impl Zone {
    fn drop_values(&self, which: impl Fn(&str) -> bool) {
        self.0.lock().unwrap().values.retain(|name, _| !which(name));
    }
}

fn open(zone: &Zone) -> SharedMemoryStore<Zone> {
    SharedMemoryStore::open(zone.clone(), b"a key of the test's own", SIZE, BEGAN).expect("a store")
}

fn uses(name: u64) -> Charge {
    let rule = Rule::Uses { max: 1, issued_at: BEGAN + 1, until: NOW + 960, stream: None };
    Charge { key: CounterKey::of(&[b"test", &name.to_le_bytes()]), share: 1, rule }
}

fn take(store: &SharedMemoryStore<Zone>, charge: &Charge) -> Result<ChargeResult, StoreError> {
    store.take(std::slice::from_ref(charge), NOW * 1_000_000)
}

fn takes(store: &SharedMemoryStore<Zone>, charge: &Charge) -> bool {
    matches!(take(store, charge), Ok(ChargeResult::All(_)))
}

#[test]
fn use_over_all_workers_is_spent_once() {
    let zone = Zone::default();
    let won: usize = std::thread::scope(|scope| {
        let worker = || {
            let store = open(&zone);
            (0..200).filter(|name| takes(&store, &uses(*name))).count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(won, 200);
}

#[test]
fn dropped_values_are_an_error_not_an_empty_store() {
    let zone = Zone::default();
    let store = open(&zone);
    assert!(takes(&store, &uses(1)));
    zone.drop_values(|name| !name.ends_with("epoch"));
    assert_eq!(take(&store, &uses(1)), Err(StoreError::Dropped));
    assert_eq!(
        take(&store, &uses(2)),
        Err(StoreError::Dropped),
        "an unknown name cannot be distinguished from a dropped one"
    );
    assert_eq!(store.revocations(None).err(), Some(StoreError::Dropped));
    // A worker that opens it later reads the epoch and refuses, instead of starting empty.
    assert_eq!(take(&open(&zone), &uses(1)), Err(StoreError::Dropped));
}

#[test]
fn dropped_epoch_does_not_split_the_store() {
    let zone = Zone::default();
    let store = open(&zone);
    assert!(takes(&store, &uses(1)));
    zone.drop_values(|name| name.ends_with("epoch"));
    let other =
        SharedMemoryStore::open(zone.clone(), b"a key of the test's own", SIZE, BEGAN + 5).expect("a store");
    let later = Rule::Uses { max: 1, issued_at: BEGAN + 6, until: NOW + 960, stream: None };
    let later = Charge { rule: later, ..uses(2) };
    assert!(takes(&other, &later));
    assert_eq!(take(&store, &later), Err(StoreError::Dropped), "not once more at a worker of the first");
    assert_eq!(store.revocations(None).err(), Some(StoreError::Dropped));
}

#[test]
fn store_after_full_eviction_refuses_older_tokens() {
    let zone = Zone::default();
    let store = open(&zone);
    assert!(takes(&store, &uses(1)));
    zone.drop_values(|_| true);
    let reopened =
        SharedMemoryStore::open(zone.clone(), b"a key of the test's own", SIZE, NOW).expect("a store");
    let refused = ChargeResult::Denied { charge: 0, refusal: ChargeDenied::Forgotten };
    assert_eq!(take(&reopened, &uses(1)), Ok(refused));
    assert_eq!(take(&store, &uses(1)), Err(StoreError::Dropped), "a worker that knew the earlier beginning");
}

#[test]
fn too_small_zone_is_refused_at_open() {
    let zone = Zone::default();
    zone.0.lock().unwrap().room = 1 << 20;
    let opened = SharedMemoryStore::open(zone.clone(), b"key", SIZE, BEGAN);
    assert_eq!(opened.err(), Some(StoreError::Dropped));
    let again = SharedMemoryStore::open(zone.clone(), b"key", SIZE, BEGAN + 1);
    assert_eq!(again.err(), Some(StoreError::Dropped), "nor when opened again");
}

#[test]
fn values_never_change_their_length() {
    let zone = Zone::default();
    let store = open(&zone);
    for name in 0..2_000 {
        let _ = take(&store, &uses(name));
        let window = Charge { rule: Rule::Window { max: 9, seconds: 60 }, ..uses(name) };
        let _ = store.take(&[window], NOW * 1_000_000);
        let session = Rule::Sessions { max: 1_000, holder: name + 1 };
        let _ = store.take(&[Charge { rule: session, ..uses(0) }], NOW * 1_000_000);
        store.record_failure(
            &Charge { rule: Rule::Window { max: 3, seconds: 60 }, ..uses(name) },
            NOW * 1_000_000,
        );
        let subject = Subject::Token(format!("token-{name}"));
        let _ = store.revoke(&Revocation { subject, by: None, before: NOW + 900 }, NOW);
    }
    let larger = Size { entries: 131_072, is_shared: false };
    let other =
        SharedMemoryStore::open(zone.clone(), b"a key of the test's own", larger, BEGAN).expect("a store");
    assert!(takes(&other, &uses(1)), "another size is another store");
    assert_eq!(zone.0.lock().unwrap().grown, 0);
    let bytes: usize = zone.0.lock().unwrap().values.values().map(|(value, _)| value.len()).sum();
    assert!(bytes < 12 << 20, "{bytes}");
}

#[test]
fn sessions_beyond_capacity_are_refused() {
    let store = open(&Zone::default());
    let mut open = 0;
    for holder in 1..=200 {
        let rule = Rule::Sessions { max: 1_000, holder };
        match take(&store, &Charge { rule, ..uses(7) }) {
            Ok(ChargeResult::All(_)) => open += 1,
            other => assert_eq!(other, Err(StoreError::Full)),
        }
    }
    assert_eq!(open, SESSION_CAPACITY_PREALLOCATED);
}

#[test]
fn torn_read_is_repeated() {
    let zone = Zone::default();
    let store = open(&zone);
    zone.0.lock().unwrap().torn = 2;
    assert!(takes(&store, &uses(1)));
    zone.0.lock().unwrap().torn = 1_000;
    assert_eq!(take(&store, &uses(2)), Err(StoreError::Corrupt), "but not for ever");
}
