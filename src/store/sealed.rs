//! Seals over the values in shared memory.
//!
//! Other programs may write to that memory, so every value carries a MAC over its content and its name. A value without
//! a valid seal is an error, never data.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{StoreError, first_half};

const SEAL_BYTES: usize = 16;

/// Bytes of the length that precedes a preallocated value.
const LENGTH_BYTES: usize = 4;

/// Most sessions per bucket where values are preallocated: with its seal such a bucket fits a page of memory.
pub const SESSION_CAPACITY_PREALLOCATED: usize = 120;

/// Way values occupy the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Values grow and shrink, and the memory keeps them: a missing value was never written.
    Growing,
    /// The memory may evict values. All are written once, at full length, before any is trusted, and keep that length
    /// because some hosts fail to grow a value. A missing value was evicted, which is an error.
    Preallocated,
}

impl Layout {
    /// Returns the most sessions per bucket.
    pub(super) fn session_capacity(self) -> usize {
        if self == Self::Growing { 16_384 } else { SESSION_CAPACITY_PREALLOCATED }
    }

    /// Passes a value on; a missing preallocated one is [`StoreError::Dropped`].
    pub(super) fn check_present<T>(self, value: Option<T>) -> Result<Option<T>, StoreError> {
        if self == Self::Preallocated && value.is_none() { Err(StoreError::Dropped) } else { Ok(value) }
    }
}

/// Name and size of one value.
pub(super) struct Slot {
    pub(super) name: String,
    /// Most bytes of content; the length of a preallocated value.
    pub(super) bytes: usize,
}

/// Seals and opens values with one secret.
pub(super) struct Sealer {
    pub(super) key: Vec<u8>,
    pub(super) layout: Layout,
}

impl Sealer {
    /// Returns a value under its seal; [`StoreError::Full`] when it exceeds its preallocated length.
    pub(super) fn seal(&self, slot: &Slot, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut sealed = Vec::with_capacity(SEAL_BYTES + LENGTH_BYTES + value.len().max(slot.bytes));
        sealed.resize(SEAL_BYTES, 0);
        if self.layout == Layout::Preallocated {
            let length = u32::try_from(value.len()).ok().filter(|_| value.len() <= slot.bytes);
            sealed.extend_from_slice(&length.ok_or(StoreError::Full)?.to_le_bytes());
        }
        sealed.extend_from_slice(value);
        if let Some((seal, content)) = sealed.split_first_chunk_mut::<SEAL_BYTES>() {
            *seal = mac(&self.key, &slot.name, content);
        }
        if self.layout == Layout::Preallocated {
            sealed.resize(SEAL_BYTES + LENGTH_BYTES + slot.bytes, 0);
        }
        Ok(sealed)
    }

    /// Returns the value below its seal; [`StoreError::Corrupt`] when the seal is not valid.
    pub(super) fn open<'v>(&self, name: &str, sealed: &'v [u8]) -> Result<&'v [u8], StoreError> {
        let (seal, content) = sealed.split_first_chunk::<SEAL_BYTES>().ok_or(StoreError::Corrupt)?;
        let (content, value) = match self.layout {
            Layout::Growing => (content, content),
            Layout::Preallocated => preallocated(content).ok_or(StoreError::Corrupt)?,
        };
        // Constant time: other users of the memory could measure a comparison that stops early.
        let pairs = mac(&self.key, name, content).into_iter().zip(*seal);
        let difference = pairs.fold(0u8, |all, (one, other)| all | (one ^ other));
        if difference == 0 { Ok(value) } else { Err(StoreError::Corrupt) }
    }
}

/// Splits preallocated content into the sealed part, which is length and value, and the value alone.
fn preallocated(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(*content.first_chunk::<LENGTH_BYTES>()?) as usize;
    let sealed = content.get(..length.checked_add(LENGTH_BYTES)?)?;
    Some((sealed, sealed.get(LENGTH_BYTES..)?))
}

/// Computes the first half of HMAC-SHA256 (RFC 2104 section 5 allows it) over a value and its name.
fn mac(key: &[u8], name: &str, value: &[u8]) -> [u8; SEAL_BYTES] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; SEAL_BYTES] };
    mac.update(&(name.len() as u64).to_le_bytes());
    mac.update(name.as_bytes());
    mac.update(value);
    first_half(mac.finalize().into_bytes().into())
}
