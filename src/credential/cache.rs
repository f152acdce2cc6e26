//! Cache of verified tokens, so that a token seen before costs a look-up instead of a signature check.
//!
//! Keyed by the whole credential, because a hash of a part would let one token pass for another. Holds verified claims,
//! never rights; the caller checks the time again at each use. Only verified tokens are stored, so a stranger cannot
//! fill it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use lru::LruCache;

use super::token::VerifiedToken;

/// A bounded map from credential to verified token; the least recently used entry is dropped first.
pub struct VerificationCache {
    entries: RefCell<LruCache<Box<str>, Rc<VerifiedToken>>>,
    bytes: Cell<usize>,
    limit: usize,
}

impl VerificationCache {
    /// Creates a cache of about `limit` bytes of memory.
    pub fn new(limit: usize) -> Self {
        Self { entries: RefCell::new(LruCache::unbounded()), bytes: Cell::new(0), limit }
    }

    /// Returns the token verified for exactly this credential.
    pub fn get(&self, credential: &str) -> Option<Rc<VerifiedToken>> {
        self.entries.try_borrow_mut().ok()?.get(credential).cloned()
    }

    /// Stores a verified token.
    pub fn put(&self, credential: &str, token: Rc<VerifiedToken>) {
        let Ok(mut entries) = self.entries.try_borrow_mut() else { return };
        if entries.put(credential.into(), token).is_none() {
            self.bytes.set(self.bytes.get() + cost(credential));
        }
        while self.bytes.get() > self.limit {
            let Some((oldest, _)) = entries.pop_lru() else { return };
            self.bytes.set(self.bytes.get().saturating_sub(cost(&oldest)));
        }
    }
}

/// Estimates an entry's memory in bytes: the text, about as much again for its claims, and the bookkeeping.
fn cost(credential: &str) -> usize {
    credential.len() * 2 + 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_cache_drops_the_least_recently_used() {
        let token = Rc::new(VerifiedToken::default());
        let cache = VerificationCache::new(3 * cost("ct_1"));
        for credential in ["ct_1", "ct_2", "ct_3", "ct_1", "ct_4"] {
            let _ = cache.get(credential);
            cache.put(credential, Rc::clone(&token));
        }
        assert!(cache.get("ct_2").is_none());
        assert!(["ct_1", "ct_3", "ct_4"].iter().all(|credential| cache.get(credential).is_some()));
    }
}
