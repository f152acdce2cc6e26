//! The store in a memory that drops what it has no room for, as nginx's zones do: what is gone is an error, never an empty
//! beginning; nothing ever grows.
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

/// A zone: versions of each value's own, beginning at 1; one that is gone begins anew.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    values: HashMap<String, (Vec<u8>, u32)>,
    /// The most bytes there is room for; 0 is any.
    room: usize,
    order: Vec<String>,
    grown: usize,
    /// How many reads from now on see half of an old value.
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
fn a_use_is_spent_once_over_all_workers() {
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
fn what_was_dropped_is_no_empty_beginning() {
    let zone = Zone::default();
    let store = open(&zone);
    assert!(takes(&store, &uses(1)));
    zone.drop_values(|name| !name.ends_with("epoch"));
    assert_eq!(take(&store, &uses(1)), Err(StoreError::Dropped));
    assert_eq!(take(&store, &uses(2)), Err(StoreError::Dropped), "who was never there cannot be told apart");
    assert_eq!(store.revocations(None).err(), Some(StoreError::Dropped));
    // A worker that comes later believes the beginning, not that there is nothing.
    assert_eq!(take(&open(&zone), &uses(1)), Err(StoreError::Dropped));
}

#[test]
fn a_beginning_that_is_dropped_alone_does_not_make_two_stores() {
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
fn who_begins_anew_after_everything_was_dropped_lets_nothing_old_through() {
    let zone = Zone::default();
    let store = open(&zone);
    assert!(takes(&store, &uses(1)));
    zone.drop_values(|_| true);
    let anew = SharedMemoryStore::open(zone.clone(), b"a key of the test's own", SIZE, NOW).expect("a store");
    let refused = ChargeResult::None { charge: 0, refusal: ChargeDenied::Forgotten };
    assert_eq!(take(&anew, &uses(1)), Ok(refused));
    assert_eq!(take(&store, &uses(1)), Err(StoreError::Dropped), "a worker that knew the earlier beginning");
}

#[test]
fn a_zone_that_is_too_small_is_noticed_at_the_beginning() {
    let zone = Zone::default();
    zone.0.lock().unwrap().room = 1 << 20;
    let opened = SharedMemoryStore::open(zone.clone(), b"key", SIZE, BEGAN);
    assert_eq!(opened.err(), Some(StoreError::Dropped));
    let again = SharedMemoryStore::open(zone.clone(), b"key", SIZE, BEGAN + 1);
    assert_eq!(again.err(), Some(StoreError::Dropped), "nor is it believed later");
}

#[test]
fn no_value_ever_changes_its_length() {
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
fn sessions_are_counted_as_far_as_there_is_room_and_then_refused() {
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
fn a_value_that_was_read_while_it_was_written_is_read_again() {
    let zone = Zone::default();
    let store = open(&zone);
    zone.0.lock().unwrap().torn = 2;
    assert!(takes(&store, &uses(1)));
    zone.0.lock().unwrap().torn = 1_000;
    assert_eq!(take(&store, &uses(2)), Err(StoreError::Corrupt), "but not for ever");
}
