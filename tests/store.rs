//! The store in a gateway's own memory: exact under threads, flat under a flood, closed when it is full, corrupt or
//! evicting. Its Redis backend is tested in `tests/stories`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use callbound::store::{
    Change, Charge, ChargeDenied, ChargeResult, CounterKey, Lease, Memory, Remaining, Revocation, Rule,
    SharedMemoryStore, Size, StoreError, Subject,
};
use proptest::prelude::*;

/// Unix time at which the store was opened first.
const BEGAN: u64 = 1_800_000_000;
const NOW: u64 = BEGAN + 1_000;
const SIZE: Size = Size { entries: 65_536, is_shared: false };

/// Memory with versions and compare-and-swap, shared by threads, as a host offers it.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Values>>);

/// Value and version by name.
type Values = HashMap<String, (Vec<u8>, u32)>;

impl Memory for Shared {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, StoreError> {
        let mut values = self.0.lock().unwrap();
        let present = values.get(name).map(|(_, version)| *version);
        if present == version {
            values.insert(name.to_owned(), (value.to_vec(), present.unwrap_or(0) + 1));
        }
        Ok(present == version)
    }
}

impl Shared {
    fn bytes(&self) -> usize {
        self.0.lock().unwrap().values().map(|(value, _)| value.len()).sum()
    }

    /// Returns the common prefix of the store's names.
    fn prefix(&self) -> String {
        let values = self.0.lock().unwrap();
        values.keys().find_map(|name| name.strip_suffix("epoch")).expect("a store").to_owned()
    }

    fn values(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn open(memory: &Shared, size: Size) -> SharedMemoryStore<Shared> {
    SharedMemoryStore::open(memory.clone(), b"a key of the test's own", size, BEGAN).expect("a store")
}

fn cell(name: u64) -> CounterKey {
    CounterKey::of(&[b"test", &name.to_le_bytes()])
}

fn uses(name: u64, max: u64) -> Charge {
    let rule = Rule::Uses { max, issued_at: BEGAN + 1, until: NOW + 960, stream: None };
    Charge { key: cell(name), share: 1, rule }
}

fn window(name: u64, max: u64, seconds: u64) -> Charge {
    Charge { key: cell(name), share: 1, rule: Rule::Window { max, seconds } }
}

fn micros(seconds: u64) -> u64 {
    seconds * 1_000_000
}

/// Returns true if the charge is taken.
fn takes(store: &SharedMemoryStore<Shared>, charge: &Charge, second: u64) -> bool {
    let taken = store.take(std::slice::from_ref(charge), micros(second)).expect("an answer");
    matches!(taken, ChargeResult::All(_))
}

fn is_spent(taken: &ChargeResult, place: usize) -> bool {
    matches!(taken, ChargeResult::Denied { charge, refusal: ChargeDenied::Spent { .. } } if *charge == place)
}

#[test]
fn concurrent_uses_are_allowed_exactly_as_often_as_limited() {
    for round in 0..50 {
        let memory = Shared::default();
        let max = 1 + round % 3;
        let won: usize = std::thread::scope(|scope| {
            let worker = || {
                let store = open(&memory, SIZE);
                (0..50).filter(|_| takes(&store, &uses(round, max), NOW)).count()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(won as u64, max, "round {round}");
    }
}

#[test]
fn use_is_remembered_until_after_token_expiry() {
    let store = open(&Shared::default(), SIZE);
    let charge = uses(1, 1);
    assert!(takes(&store, &charge, NOW));
    assert!(!takes(&store, &charge, NOW + 959), "still remembered");
    // Later the token's own expiry would refuse it.
    let taken = store.take(&[charge], micros(NOW + 960)).unwrap();
    assert_eq!(taken, ChargeResult::Denied { charge: 0, refusal: ChargeDenied::Forgotten });
}

#[test]
fn use_after_clock_jump_is_refused_as_forgotten() {
    let store = open(&Shared::default(), SIZE);
    let charge = uses(1, 1);
    assert!(takes(&store, &charge, NOW));
    // The clock jumps ahead, the bucket is written, and the token's entry is dropped.
    assert!(takes(&store, &window(1, 5, 60), NOW + 100_000));
    let taken = store.take(&[charge], micros(NOW)).unwrap();
    assert_eq!(taken, ChargeResult::Denied { charge: 0, refusal: ChargeDenied::Forgotten });
}

#[test]
fn token_issued_before_store_epoch_is_refused() {
    let store = open(&Shared::default(), SIZE);
    for (issued_at, is_taken) in [(BEGAN - 1, false), (BEGAN, false), (BEGAN + 1, true)] {
        let rule = Rule::Uses { max: 1, issued_at, until: NOW + 960, stream: None };
        let charge = Charge { key: cell(issued_at), share: 1, rule };
        assert_eq!(takes(&store, &charge, NOW), is_taken, "issued {issued_at}");
    }
}

#[test]
fn use_under_earlier_policy_stays_spent() {
    let memory = Shared::default();
    assert!(takes(&open(&memory, SIZE), &uses(1, 1), NOW));
    let larger = Size { entries: 1_048_576, is_shared: true };
    let second = SharedMemoryStore::open(memory, b"a key of the test's own", larger, NOW + 5).unwrap();
    assert_eq!(second.epoch(), BEGAN, "it began with the first");
    assert!(!takes(&second, &uses(1, 1), NOW + 5));
}

#[test]
fn store_with_other_key_is_separate_and_refuses_older_tokens() {
    let memory = Shared::default();
    assert!(takes(&open(&memory, SIZE), &uses(1, 1), NOW));
    let other = SharedMemoryStore::open(memory.clone(), b"another key", SIZE, NOW).unwrap();
    assert_eq!(other.epoch(), NOW);
    assert!(!takes(&other, &uses(1, 1), NOW), "it was spent under the first");
    assert!(!takes(&open(&memory, SIZE), &uses(1, 1), NOW), "and still is");
}

#[test]
fn several_charges_are_taken_all_or_none() {
    let store = open(&Shared::default(), SIZE);
    let (wide, narrow, token) = (window(1, 10, 60), window(2, 2, 60), uses(3, 1));
    let all = [narrow.clone(), wide.clone(), token.clone()];
    let ChargeResult::All(standings) = store.take(&all, micros(NOW)).unwrap() else {
        panic!("the first is taken")
    };
    let left: Vec<u64> = standings.iter().map(|standing| standing.remaining).collect();
    assert_eq!(left, [1, 9, 0]);
    for _ in 0..5 {
        assert!(is_spent(&store.take(&all, micros(NOW)).unwrap(), 2), "the token is spent");
    }
    let rest = |charge: &Charge| store.check(charge, micros(NOW)).unwrap().map(|standing| standing.remaining);
    assert_eq!(rest(&narrow), Ok(0), "refused requests cost the narrow limit nothing");
    assert_eq!(rest(&wide), Ok(8), "nor the wide one");
}

#[test]
fn concurrent_refusal_by_one_limit_refunds_the_others() {
    let memory = Shared::default();
    let (narrow, wide) = (window(1, 1_000, 3_600), window(2, 30, 3_600));
    let won: usize = std::thread::scope(|scope| {
        let worker = || {
            let store = open(&memory, SIZE);
            let both = [narrow.clone(), wide.clone()];
            let taken =
                (0..40).filter(|_| matches!(store.take(&both, micros(NOW)), Ok(ChargeResult::All(_))));
            taken.count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(won, 30);
    let store = open(&memory, SIZE);
    let rest = store.check(&narrow, micros(NOW)).unwrap().map(|standing| standing.remaining);
    assert_eq!(rest, Ok(1_000 - 30 - 1));
}

#[test]
fn windows_start_at_multiples_of_their_length() {
    let store = open(&Shared::default(), SIZE);
    let charge = window(1, 2, 60);
    let start = NOW - NOW % 60;
    assert!(takes(&store, &charge, start + 59) && takes(&store, &charge, start + 59));
    let taken = store.take(std::slice::from_ref(&charge), micros(start + 59)).unwrap();
    assert_eq!(
        taken,
        ChargeResult::Denied { charge: 0, refusal: ChargeDenied::Spent { retry: 1_000, reset: 1_000 } }
    );
    assert!(takes(&store, &charge, start + 60), "a new window");
    // A clock that steps back does not reopen the old window.
    assert!(takes(&store, &charge, start + 30) && !takes(&store, &charge, start + 30));
}

#[test]
fn rate_allows_burst_and_then_its_pace() {
    let store = open(&Shared::default(), SIZE);
    let charge = Charge { key: cell(1), share: 1, rule: Rule::Rate { max: 10, seconds: 1, burst: 5 } };
    let at =
        |micros: u64| matches!(store.take(std::slice::from_ref(&charge), micros), Ok(ChargeResult::All(_)));
    let start = micros(NOW);
    assert_eq!((0..20).filter(|_| at(start)).count(), 5, "the burst");
    assert!(!at(start + 99_999));
    assert!(at(start + 100_000) && !at(start + 100_000), "one in each tenth of a second");
    assert_eq!(
        (0..20).filter(|_| at(start + 10_000_000)).count(),
        5,
        "a pause fills it, and no more than that"
    );
}

#[test]
fn sessions_are_freed_by_end_and_by_expired_lease() {
    let store = open(&Shared::default(), SIZE);
    let session = |holder| Charge { key: cell(1), share: 1, rule: Rule::Sessions { max: 2, holder } };
    assert!(
        takes(&store, &session(1), NOW)
            && takes(&store, &session(2), NOW)
            && !takes(&store, &session(3), NOW)
    );
    store.change(&[Change::End(session(1).lease().unwrap())], NOW + 1);
    assert!(takes(&store, &session(3), NOW + 1) && !takes(&store, &session(4), NOW + 1));
    store.change(&[Change::Renew(session(3).lease().unwrap())], NOW + 10);
    assert!(takes(&store, &session(4), NOW + 16), "the second was never renewed");
    assert!(!takes(&store, &session(5), NOW + 16), "the third was");
}

#[test]
fn stream_within_grace_is_resumed_without_another_use() {
    let store = open(&Shared::default(), SIZE);
    let stream = |session: &str, holder| {
        let stream = Lease { key: cell(1).stream(session), holder, grace: 20 };
        let rule = Rule::Uses { max: 1, issued_at: BEGAN + 1, until: NOW + 960, stream: Some(stream) };
        Charge { key: cell(1), share: 1, rule }
    };
    let end = |holder| Change::End(Lease { key: cell(1).stream("s"), holder, grace: 20 });
    assert!(takes(&store, &stream("s", 1), NOW));
    assert!(!takes(&store, &stream("s", 2), NOW + 3), "it is open");
    store.change(&[end(1)], NOW + 5);
    assert!(!takes(&store, &stream("other", 3), NOW + 6), "another session is another use");
    assert!(takes(&store, &stream("s", 4), NOW + 24));
    // The end of a replaced stream has no effect.
    store.change(&[end(1)], NOW + 25);
    assert!(!takes(&store, &stream("s", 5), NOW + 26));
    store.change(&[end(4)], NOW + 26);
    assert!(!takes(&store, &stream("s", 6), NOW + 46), "too late");
}

#[test]
fn seconds_are_reserved_and_unused_ones_returned() {
    let store = open(&Shared::default(), SIZE);
    let ask = |ask| Charge {
        key: cell(1),
        share: 1,
        rule: Rule::Seconds { max: 100, ask, issued_at: BEGAN + 1, until: NOW + 960 },
    };
    let given = |charge: Charge| match store.take(&[charge], micros(NOW)).unwrap() {
        ChargeResult::All(standings) => standings.first().map(|standing| standing.remaining),
        ChargeResult::Denied { .. } => None,
    };
    assert_eq!(given(ask(60)), Some(60));
    assert_eq!(given(ask(60)), Some(40), "what is left");
    assert_eq!(given(ask(1)), None);
    store.change(&[Change::GiveBack(cell(1), 25)], NOW);
    assert_eq!(given(ask(60)), Some(25));
    store.change(&[Change::GiveBack(cell(1), 1_000)], NOW);
    assert_eq!(given(ask(1_000)), Some(100), "never more than there were");
}

#[test]
fn seconds_of_token_older_than_store_are_refused() {
    let store = open(&Shared::default(), SIZE);
    let rule = Rule::Seconds { max: 100, ask: 10, issued_at: BEGAN, until: NOW + 960 };
    let taken = store.take(&[Charge { key: cell(1), share: 1, rule }], micros(NOW)).unwrap();
    assert_eq!(taken, ChargeResult::Denied { charge: 0, refusal: ChargeDenied::Forgotten });
}

#[test]
fn full_store_refuses_and_keeps_live_entries() {
    let memory = Shared::default();
    let store = open(&memory, SIZE);
    let mut taken = Vec::new();
    let mut refused = 0;
    for name in 0..120_000 {
        match store.take(&[uses(name, 1)], micros(NOW)) {
            Ok(ChargeResult::All(_)) => taken.push(name),
            Err(StoreError::Full) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(taken.len() > 60_000 && refused > 50_000, "{} taken, {refused} refused", taken.len());
    assert!(memory.bytes() < 65_536 * 33 + 4_096 * 64, "{} bytes", memory.bytes());
    for name in taken.iter().step_by(97) {
        assert!(!takes(&store, &uses(*name, 1), NOW), "token {name} was used");
    }
}

/// Holds the store to its fixed size with a million tokens: each lives a minute, a thousand come per second.
#[test]
fn million_tokens_leave_memory_flat() {
    let memory = Shared::default();
    let store = open(&memory, Size { entries: 262_144, is_shared: false });
    let mut most = 0;
    for name in 0..1_000_000_u64 {
        let second = NOW + name / 1_000;
        let rule = Rule::Uses { max: 1, issued_at: BEGAN + 1, until: second + 60, stream: None };
        let charge = Charge { key: cell(name), share: 1, rule };
        assert!(takes(&store, &charge, second), "token {name}: the expired make room");
        if name % 1_000 == 999 {
            assert!(!takes(&store, &charge, second), "token {name} was used");
        }
        if name % 100_000 == 99_999 {
            most = most.max(memory.bytes());
        }
    }
    assert!(most < 8 * 1024 * 1024, "{most} bytes");
    assert!(memory.values() <= 4_096 + 1, "{} values", memory.values());
}

#[test]
fn flooding_team_leaves_room_for_others() {
    let store = open(&Shared::default(), Size { entries: 65_536, is_shared: true });
    let of_team = |team: u32, name: u64| Charge { share: team, ..uses(name, 1) };
    let fill = |team: u32| {
        let names = (0..100_000_u64).map(|name| u64::from(team) * 1_000_000 + name);
        names
            .filter(|name| {
                matches!(store.take(&[of_team(team, *name)], micros(NOW)), Ok(ChargeResult::All(_)))
            })
            .count()
    };
    let (first, second) = (fill(1), fill(2));
    assert!((30_000..=34_000).contains(&first), "half for the first team: {first}");
    assert!((15_000..=17_500).contains(&second), "half of the rest for the next: {second}");
    assert!(takes(&store, &of_team(3, 5), NOW), "room for the others");
}

#[test]
fn failures_are_counted_apart_and_never_fill_the_store() {
    let store = open(&Shared::default(), SIZE);
    let failure = |address: u64| window(address, 3, 3_600);
    for _ in 0..3 {
        assert_eq!(store.failure_retry(&failure(1), micros(NOW)), Ok(None));
        store.record_failure(&failure(1), micros(NOW));
    }
    assert!(store.failure_retry(&failure(1), micros(NOW)).unwrap().is_some());
    (10..200_000).for_each(|address| store.record_failure(&failure(address), micros(NOW)));
    assert!(takes(&store, &uses(7, 1), NOW), "requests with a credential have their own room");
}

#[test]
fn foreign_value_is_refused_as_corrupt() {
    for change in [0, 3, 20, 30] {
        let memory = Shared::default();
        let store = open(&memory, SIZE);
        assert!(takes(&store, &uses(1, 2), NOW));
        for (value, _) in memory.0.lock().unwrap().values_mut() {
            if let Some(byte) = value.get_mut(change) {
                *byte ^= 1;
            }
        }
        assert_eq!(store.take(&[uses(1, 2)], micros(NOW)), Err(StoreError::Corrupt), "byte {change}");
        assert_eq!(store.take(&[uses(1, 2)], micros(NOW)), Err(StoreError::Corrupt), "and stays so");
    }
}

#[test]
fn value_of_other_bucket_is_refused_as_corrupt() {
    let memory = Shared::default();
    let store = open(&memory, SIZE);
    let prefix = memory.prefix();
    assert!(takes(&store, &uses(1, 1), NOW));
    let mut values = memory.0.lock().unwrap();
    let bucket =
        values.iter().find(|(name, _)| !name.ends_with("epoch")).map(|(_, value)| value.clone()).unwrap();
    (0..4_096).for_each(|number| _ = values.insert(format!("{prefix}{number}"), bucket.clone()));
    drop(values);
    assert_eq!(store.take(&[uses(2, 1)], micros(NOW)), Err(StoreError::Corrupt));
}

/// Memory that fails on demand.
struct Failing(Shared, bool);

impl Memory for Failing {
    fn get(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, StoreError> {
        self.0.get(name)
    }

    fn swap(&self, name: &str, value: &[u8], version: Option<u32>) -> Result<bool, StoreError> {
        match (name.ends_with("epoch"), self.1) {
            (true, _) => self.0.swap(name, value, version),
            (false, true) => Ok(false),
            (false, false) => Err(StoreError::Unavailable),
        }
    }
}

#[test]
fn failing_or_contended_memory_allows_nothing() {
    for (is_overtaken, error) in [(true, StoreError::Contended), (false, StoreError::Unavailable)] {
        let store =
            SharedMemoryStore::open(Failing(Shared::default(), is_overtaken), b"key", SIZE, BEGAN).unwrap();
        assert_eq!(store.take(&[uses(1, 1)], micros(NOW)), Err(error));
    }
}

#[test]
fn revocations_reach_every_worker_and_expire() {
    let memory = Shared::default();
    let (one, other) = (open(&memory, SIZE), open(&memory, SIZE));
    assert_eq!(other.revocations(None), Ok(None), "nothing was ever revoked");
    let revocation = |subject| Revocation { subject, by: Some("acme".to_owned()), before: NOW };
    one.revoke(&revocation(Subject::Token("t1".into())), NOW).unwrap();
    one.revoke(&revocation(Subject::Key("k1".into())), NOW).unwrap();
    let (known, version) = other.revocations(None).unwrap().expect("revocations");
    assert_eq!(other.revocations(Some(version)), Ok(None), "unchanged");
    let by_acme = |by: Option<&str>| by == Some("acme");
    assert!(known.covers(&Subject::Token("t1".into()), NOW + 50, by_acme));
    assert!(
        !known.covers(&Subject::Token("t1".into()), NOW, |_| false),
        "outside the reach of the revoking team"
    );
    assert!(!known.covers(&Subject::Token("t2".into()), NOW, by_acme));
    // Two days later every token of that time is expired; a key stays revoked.
    other.revoke(&revocation(Subject::TokensOfTeam("acme".into())), NOW + 2 * 86_400).unwrap();
    let (known, _) = one.revocations(Some(version)).unwrap().expect("revocations");
    assert!(!known.covers(&Subject::Token("t1".into()), NOW, by_acme));
    assert!(known.covers(&Subject::Key("k1".into()), NOW, by_acme));
}

#[test]
fn revocations_beyond_capacity_are_refused_not_dropped() {
    let store = open(&Shared::default(), SIZE);
    let revoke = |name: usize| {
        let subject = Subject::Token(format!("t{name}"));
        store.revoke(&Revocation { subject, by: None, before: NOW }, NOW)
    };
    let refused = (0..1_100).find(|name| revoke(*name).is_err());
    assert_eq!(refused, Some(1_024));
    assert_eq!(revoke(1_024), Err(StoreError::Full));
    let (known, _) = store.revocations(None).unwrap().expect("revocations");
    assert!(known.covers(&Subject::Token("t0".into()), NOW, |_| true), "the first still counts");
}

#[derive(Debug, Clone)]
enum Step {
    Take(u64, u64),
    Wait(u64),
}

proptest! {
    /// Compares with the simplest model: a list of the allowed requests.
    #[test]
    fn window_never_exceeds_its_maximum(
        steps in prop::collection::vec(prop_oneof![
            4 => (0_u64..3, 1_u64..4).prop_map(|(name, max)| Step::Take(name, max)),
            1 => (1_u64..40).prop_map(Step::Wait),
        ], 1..120),
        seconds in 1_u64..50,
    ) {
        let store = open(&Shared::default(), SIZE);
        let mut now = NOW;
        let mut counts: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Wait(wait) => now += wait,
                Step::Take(name, max) => {
                    let count = counts.entry((name, now / seconds)).or_default();
                    let expected = *count < max;
                    prop_assert_eq!(takes(&store, &window(name, max, seconds), now), expected);
                    *count += u64::from(expected);
                }
            }
        }
    }

    /// In any interval a rate allows its burst and the increase of its pace, and not one more.
    #[test]
    fn rate_never_exceeds_burst_and_pace(
        gaps in prop::collection::vec(0_u64..2_000_000, 1..150),
        (max, seconds, burst) in (1_u64..20, 1_u64..5, 1_u64..6),
    ) {
        let store = open(&Shared::default(), SIZE);
        let charge = Charge { key: cell(1), share: 1, rule: Rule::Rate { max, seconds, burst } };
        let (mut now, start, mut through) = (micros(NOW), micros(NOW), 0);
        for gap in gaps {
            now += gap;
            through += u64::from(matches!(store.take(std::slice::from_ref(&charge), now), Ok(ChargeResult::All(_))));
            prop_assert!(through <= burst + (now - start) * max / (seconds * 1_000_000));
        }
    }

    /// Arbitrary bytes in the memory neither panic nor count as a value.
    #[test]
    fn value_without_valid_seal_is_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let memory = Shared::default();
        let store = open(&memory, SIZE);
        let prefix = memory.prefix();
        (0..4_096).for_each(|number| {
            memory.0.lock().unwrap().insert(format!("{prefix}{number}"), (value.clone(), 1));
        });
        prop_assert_eq!(store.take(&[uses(1, 1)], micros(NOW)), Err(StoreError::Corrupt));
    }
}

#[test]
fn remaining_counts_match_limit_headers() {
    let store = open(&Shared::default(), SIZE);
    let start = NOW - NOW % 60;
    let taken = store.take(&[window(1, 3, 60)], micros(start + 20)).unwrap();
    assert_eq!(taken, ChargeResult::All(vec![Remaining { remaining: 2, reset: 40_000 }]));
}
