//! Key sets fetched from issuers.
//!
//! Pure: decides when a fetch is due and stores its answer; fetching is the adapter's task. A failed fetch never discards
//! the keys of an earlier one, and those are used for a limited time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::jwks::KeySet;

/// Source of a fetched key set. Times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteJwks {
    /// The host's name for the server.
    pub cluster: String,
    /// Scheme of the URL: `http` or `https`.
    pub scheme: String,
    /// Authority of the URL.
    pub authority: String,
    /// Path of the URL, with its query.
    pub path: String,
    /// Time after an answer until the next fetch is due.
    pub refresh: u64,
    /// Time after the last good answer for which its keys are used.
    pub stale: u64,
    /// Shortest time between two fetches.
    pub cooldown: u64,
}

/// The keys of one [`RemoteJwks`] and the times of its fetches, in Unix seconds.
pub struct RemoteKeys {
    source: RemoteJwks,
    keys: RefCell<Rc<KeySet>>,
    received_at: Cell<Option<u64>>,
    fetched_at: Cell<Option<u64>>,
    /// True after a token named a `kid` that the keys lack.
    is_requested: Cell<bool>,
}

impl RemoteKeys {
    /// Creates an empty set, due to be fetched.
    pub fn new(source: RemoteJwks) -> Self {
        Self {
            source,
            keys: RefCell::default(),
            received_at: Cell::new(None),
            fetched_at: Cell::new(None),
            is_requested: Cell::new(false),
        }
    }

    /// Returns whether the keys come from this source, with the same times.
    pub fn is_from(&self, source: &RemoteJwks) -> bool {
        self.source == *source
    }

    /// Returns the source to fetch from when a fetch is due, and records the fetch; `None` when none is due.
    pub fn take_due(&self, now: u64) -> Option<&RemoteJwks> {
        let since = |at: &Cell<Option<u64>>| at.get().map(|at| now.saturating_sub(at));
        let is_rested = since(&self.fetched_at).is_none_or(|seconds| seconds >= self.source.cooldown);
        let is_due = since(&self.received_at).is_none_or(|seconds| seconds >= self.source.refresh);
        if !is_rested || !(is_due || self.is_requested.get()) {
            return None;
        }
        self.fetched_at.set(Some(now));
        self.is_requested.set(false);
        Some(&self.source)
    }

    /// Stores the keys of an answer and returns true; false when it holds no good key set, and the old keys stay.
    pub fn receive(&self, status: u16, body: &[u8], now: u64) -> bool {
        let Some(set) = (status == 200).then(|| KeySet::parse(body)).flatten() else { return false };
        let Ok(mut keys) = self.keys.try_borrow_mut() else { return false };
        *keys = Rc::new(set);
        self.received_at.set(Some(now));
        true
    }

    /// Returns the keys; `None` when none were received or they are stale.
    pub fn current(&self, now: u64) -> Option<Rc<KeySet>> {
        let is_fresh = self.received_at.get().is_some_and(|at| now.saturating_sub(at) <= self.source.stale);
        let keys = self.keys.try_borrow().ok()?;
        is_fresh.then(|| Rc::clone(&keys))
    }

    /// Requests a fetch before the refresh time, for a token that names an unknown `kid`: the key may be new.
    pub fn request(&self) {
        self.is_requested.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn remote() -> RemoteKeys {
        let text = |text: &str| text.to_owned();
        RemoteKeys::new(RemoteJwks {
            cluster: text("idp"),
            scheme: text("https"),
            authority: text("idp.example"),
            path: text("/keys"),
            refresh: 300,
            stale: 3_600,
            cooldown: 30,
        })
    }

    #[test]
    fn fetch_is_due_after_the_refresh_time_and_once_per_cooldown() {
        let keys = remote();
        assert!(keys.current(1_000).is_none());
        assert!(keys.take_due(1_000).is_some());
        assert!(keys.take_due(1_001).is_none(), "within the cooldown");
        assert!(keys.take_due(1_030).is_some(), "no answer came");
        assert!(keys.receive(200, GOOD, 1_031));
        assert!(keys.take_due(1_200).is_none());
        keys.request();
        assert!(keys.take_due(1_201).is_some() && keys.take_due(1_202).is_none());
        keys.request();
        assert!(keys.take_due(1_230).is_none() && keys.take_due(1_231).is_some());
        assert!(keys.take_due(1_331).is_some(), "due");
    }

    #[test]
    fn failed_fetch_keeps_the_old_keys_until_they_are_stale() {
        let keys = remote();
        assert!(keys.receive(200, GOOD, 1_000));
        assert!(!keys.receive(500, GOOD, 2_000) && !keys.receive(200, b"{}", 2_000));
        assert!(keys.current(4_600).is_some_and(|keys| keys.get("a").is_some()));
        assert!(keys.current(4_601).is_none());
    }
}
