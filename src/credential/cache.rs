//! Remembers which credentials were verified, so that a token seen before costs a look-up instead of a signature.
//!
//! Keyed by the whole credential (a hash of a part would let one token stand for another), holds verified claims only,
//! never rights; the caller checks the time again at each use. Only what verified is stored: a stranger cannot fill it.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use lru::LruCache;

use super::claims::VerifiedToken;

/// A bounded map from credential to verified token, least recently used first out.
pub struct VerificationCache {
    entries: RefCell<LruCache<Box<str>, Rc<VerifiedToken>>>,
}

impl VerificationCache {
    /// Makes a cache of at most `capacity` tokens; each takes about twice its own length in memory.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: RefCell::new(LruCache::new(capacity)) }
    }

    /// Returns what was verified for exactly this credential.
    pub fn get(&self, credential: &str) -> Option<Rc<VerifiedToken>> {
        self.entries.try_borrow_mut().ok()?.get(credential).cloned()
    }

    /// Stores a verified token.
    pub fn put(&self, credential: &str, token: Rc<VerifiedToken>) {
        if let Ok(mut entries) = self.entries.try_borrow_mut() {
            entries.put(credential.into(), token);
        }
    }
}
