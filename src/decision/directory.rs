//! API keys that are kept in the store's directory: a bounded cache of look-ups.
//!
//! Keys that exist and keys that do not are cached apart, so that guessed keys cannot push out real ones. The adapter
//! does the look-up; [`super::Engine::record_lookup`] brings its result here.

use std::cell::RefCell;
use std::rc::Rc;

use lru::LruCache;

use crate::policy::{ApiKey, DirectoryRule, Policy, read_key};
use crate::store::redis::Lookup;

/// An API key in the policy or the directory, as far as it is known.
pub(super) enum DirectoryEntry {
    /// The key itself.
    Key(Rc<ApiKey>),
    /// No such key.
    Unknown,
    /// Not looked up yet, or too long ago.
    NotCached(Lookup),
}

/// Keys that were looked up.
pub(super) struct DirectoryCache {
    /// Keys that exist, each with the Unix second at which it must be looked up again.
    found: RefCell<LruCache<Lookup, (Rc<ApiKey>, u64)>>,
    /// Keys that do not exist, each with the same.
    missing: RefCell<LruCache<Lookup, u64>>,
    /// Capacity of either cache.
    entries: usize,
}

impl DirectoryCache {
    pub(super) fn new(entries: usize) -> Self {
        // The cache's own bound would allocate all its memory at once.
        let (found, missing) = (RefCell::new(LruCache::unbounded()), RefCell::new(LruCache::unbounded()));
        Self { found, missing, entries }
    }

    pub(super) fn get(&self, lookup: Lookup, now: u64) -> DirectoryEntry {
        let found = self.found.try_borrow_mut().ok().and_then(|mut found| found.get(&lookup).cloned());
        if let Some((key, _)) = found.filter(|(_, until)| now < *until) {
            return DirectoryEntry::Key(key);
        }
        let missing =
            self.missing.try_borrow_mut().ok().and_then(|mut missing| missing.get(&lookup).copied());
        match missing.is_some_and(|until| now < until) {
            true => DirectoryEntry::Unknown,
            false => DirectoryEntry::NotCached(lookup),
        }
    }

    pub(super) fn put(&self, lookup: Lookup, key: Option<Rc<ApiKey>>, rule: DirectoryRule, now: u64) {
        let (Ok(mut found), Ok(mut missing)) = (self.found.try_borrow_mut(), self.missing.try_borrow_mut())
        else {
            return;
        };
        match key {
            Some(key) => {
                missing.pop(&lookup);
                found.put(lookup, (key, now + rule.fresh));
            }
            None => {
                found.pop(&lookup);
                missing.put(lookup, now + rule.unknown);
            }
        }
        if found.len() > self.entries {
            found.pop_lru();
        }
        if missing.len() > self.entries {
            missing.pop_lru();
        }
    }
}

/// Reads the text of a key that was looked up; `None` when it does not fit the policy or is another key's.
pub(super) fn read(policy: &Policy, lookup: &Lookup, text: &[u8]) -> Option<Rc<ApiKey>> {
    let (key, digest) = read_key(policy, text).ok()?;
    let is_requested = match lookup {
        Lookup::Digest(requested) => *requested == digest,
        Lookup::Id(id) => *id == key.id,
    };
    is_requested.then(|| Rc::new(key))
}
