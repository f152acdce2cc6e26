//! API keys that stand outside the policy: what was looked up, and for how long it is believed.
//!
//! Found and not found are kept apart, so that whoever guesses cannot push out what is known. Refuses to know where
//! they stand: the filter asks, and tells what it heard.

use std::cell::RefCell;
use std::rc::Rc;

use lru::LruCache;

use crate::policy::{ApiKey, DirectoryRule, Policy, read_key};
use crate::store::redis::Lookup;

/// What is known of a key.
pub(super) enum Known {
    /// The key.
    Key(Rc<ApiKey>),
    /// There is none.
    Unknown,
    /// Nothing yet, or nothing that still counts.
    Ask(Lookup),
}

/// Keys that were looked up.
pub(super) struct LookedUp {
    /// With the Unix second from which it counts no more.
    found: RefCell<LruCache<Lookup, (Rc<ApiKey>, u64)>>,
    missing: RefCell<LruCache<Lookup, u64>>,
    /// The most of either sort.
    entries: usize,
}

impl LookedUp {
    pub(super) fn new(entries: usize) -> Self {
        // Bounded by hand: the cache's own bound is memory taken at once.
        let (found, missing) = (RefCell::new(LruCache::unbounded()), RefCell::new(LruCache::unbounded()));
        Self { found, missing, entries }
    }

    pub(super) fn find(&self, lookup: Lookup, now: u64) -> Known {
        let found = self.found.try_borrow_mut().ok().and_then(|mut found| found.get(&lookup).cloned());
        if let Some((key, _)) = found.filter(|(_, until)| now < *until) {
            return Known::Key(key);
        }
        let missing =
            self.missing.try_borrow_mut().ok().and_then(|mut missing| missing.get(&lookup).copied());
        match missing.is_some_and(|until| now < until) {
            true => Known::Unknown,
            false => Known::Ask(lookup),
        }
    }

    pub(super) fn learn(&self, lookup: Lookup, key: Option<Rc<ApiKey>>, rule: DirectoryRule, now: u64) {
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

/// Reads a key's text; `None` when it is not one of this policy, or not the one that was asked for.
pub(super) fn read(policy: &Policy, lookup: &Lookup, text: &[u8]) -> Option<Rc<ApiKey>> {
    let (key, digest) = read_key(policy, text).ok()?;
    let is_asked = match lookup {
        Lookup::Digest(asked) => *asked == digest,
        Lookup::Id(id) => *id == key.id,
    };
    is_asked.then(|| Rc::new(key))
}
