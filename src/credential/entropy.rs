//! Random bytes from a secret, for hosts whose own random bytes can be guessed.
//!
//! HMAC-SHA256 in counter mode (NIST SP 800-108 section 4.1). Without the secret the bytes are indistinguishable from
//! random ones. Two workers differ by their seeds, two calls by the counter and the time.

use std::cell::Cell;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Separates these bytes from others derived from the same secret.
const LABEL: &[u8] = b"callbound entropy 1";

/// A source of random bytes. Deliberately without `Debug`.
pub struct Entropy {
    secret: Vec<u8>,
    seed: Vec<u8>,
    counter: Cell<u64>,
}

impl Entropy {
    /// Creates a source; `seed` is unique to this worker and need not be secret.
    pub fn new(secret: &[u8], seed: &[u8]) -> Self {
        Self { secret: secret.to_vec(), seed: seed.to_vec(), counter: Cell::new(0) }
    }

    /// Fills a slice and returns true; false when the bytes must not be used. `now` is in nanoseconds.
    pub fn fill(&self, bytes: &mut [u8], now: u64) -> bool {
        for block in bytes.chunks_mut(32) {
            let Some(counter) = self.counter.get().checked_add(1) else { return false };
            self.counter.set(counter);
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else { return false };
            mac.update(LABEL);
            mac.update(&counter.to_le_bytes());
            mac.update(&now.to_le_bytes());
            mac.update(&self.seed);
            let whole: [u8; 32] = mac.finalize().into_bytes().into();
            block.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        }
        !self.secret.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(source: &Entropy, now: u64) -> [u8; 80] {
        let mut bytes = [0; 80];
        assert!(source.fill(&mut bytes, now));
        bytes
    }

    #[test]
    fn bytes_of_two_calls_workers_or_secrets_differ() {
        let source = Entropy::new(b"secret", b"worker 1");
        let first = bytes(&source, 1);
        assert_ne!(first, bytes(&source, 1), "same time");
        assert_ne!(first[..32], first[32..64], "same call");
        assert_ne!(first, bytes(&Entropy::new(b"secret", b"worker 2"), 1), "another worker");
        assert_ne!(first, bytes(&Entropy::new(b"other", b"worker 1"), 1), "another secret");
        assert_ne!(first, bytes(&Entropy::new(b"secret", b"worker 1"), 2), "worker restarted");
    }

    #[test]
    fn missing_secret_gives_no_bytes() {
        assert!(!Entropy::new(b"", b"worker").fill(&mut [0; 16], 1));
    }
}
