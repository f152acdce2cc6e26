//! Key-value store of a gateway's workers.

use super::*;

/// The key-value store all workers of a gateway share.
#[derive(Clone, Default)]
pub struct SharedData(Arc<Mutex<SharedEntries>>);

#[derive(Default)]
struct SharedEntries {
    last_cas: u32,
    /// Entries by identity of the key; see [`identity`].
    entries: BTreeMap<Vec<u8>, Entry>,
    grown: usize,
}

struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    cas: u32,
}

impl SharedData {
    pub fn get(&self, key: &[u8], rules: SharedDataRules) -> Option<(Vec<u8>, u32)> {
        let store = self.lock();
        let entry = store.entries.get(&identity(key, rules))?;
        Some((entry.value.clone(), entry.cas))
    }

    /// Writes if the version allows it; no value deletes.
    pub fn set(&self, key: &[u8], value: Option<&[u8]>, cas: u32, rules: SharedDataRules) -> bool {
        let mut store = self.lock();
        let id = identity(key, rules);
        let present = store.entries.get(&id).map(|entry| entry.cas);
        let may = match rules {
            // Version 0, or a key that is not there yet, always writes.
            SharedDataRules::Process => cas == 0 || present.is_none_or(|present| present == cas),
            SharedDataRules::Zones => cas == present.unwrap_or(0) && (value.is_some() || present.is_some()),
        };
        let Some(value) = value.filter(|_| may) else {
            if may {
                store.entries.remove(&id);
            }
            return may;
        };
        store.last_cas = store.last_cas.wrapping_add(1).max(1);
        let cas = match rules {
            SharedDataRules::Process => store.last_cas,
            SharedDataRules::Zones => present.unwrap_or(0).wrapping_add(1),
        };
        let entry = Entry { key: key.to_vec(), value: value.to_vec(), cas };
        let before = store.entries.insert(id, entry);
        store.grown += usize::from(before.is_some_and(|before| before.value.len() < value.len()));
        true
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().entries.values().map(|entry| entry.key.clone()).collect()
    }

    /// Drops the values for which `drops` returns true, as a full zone with eviction may.
    pub fn evict(&self, mut drops: impl FnMut(&[u8]) -> bool) {
        self.lock().entries.retain(|_, entry| !drops(&entry.key));
    }

    /// Returns the number of values replaced by a longer one: in a full zone that fails.
    pub fn times_grown(&self) -> usize {
        self.lock().grown
    }

    /// Returns the size of keys and values together.
    pub fn size_in_bytes(&self) -> usize {
        self.lock().entries.values().map(|entry| entry.key.len() + entry.value.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, SharedEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the identity by which a host finds a key.
fn identity(key: &[u8], rules: SharedDataRules) -> Vec<u8> {
    match rules {
        SharedDataRules::Process => key.to_vec(),
        // ngx_wa_shm_rbtree_lookup(rbtree, crc32): the text is never compared.
        SharedDataRules::Zones => crc32(key).to_be_bytes().to_vec(),
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    !bytes.iter().fold(!0, |crc, byte| step(crc ^ u32::from(*byte)))
}
