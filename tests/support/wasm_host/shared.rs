//! What all workers of a gateway share.

use super::*;

/// The key-value store all workers of a gateway share.
#[derive(Clone, Default)]
pub struct SharedData(Arc<Mutex<SharedEntries>>);

#[derive(Default)]
struct SharedEntries {
    last_cas: u32,
    /// By key, or by what a host takes for it.
    entries: BTreeMap<Vec<u8>, Entry>,
    grown: usize,
}

struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    cas: u32,
}

impl SharedData {
    pub fn get(&self, key: &[u8], rules: Sharing) -> Option<(Vec<u8>, u32)> {
        let store = self.lock();
        let entry = store.entries.get(&identity(key, rules))?;
        Some((entry.value.clone(), entry.cas))
    }

    /// Writes if the version allows it; no value deletes.
    pub fn set(&self, key: &[u8], value: Option<&[u8]>, cas: u32, rules: Sharing) -> bool {
        let mut store = self.lock();
        let id = identity(key, rules);
        let present = store.entries.get(&id).map(|entry| entry.cas);
        let may = match rules {
            // Version 0, or a key that is not there yet, always writes.
            Sharing::Process => cas == 0 || present.is_none_or(|present| present == cas),
            Sharing::Zones => cas == present.unwrap_or(0) && (value.is_some() || present.is_some()),
        };
        let Some(value) = value.filter(|_| may) else {
            if may {
                store.entries.remove(&id);
            }
            return may;
        };
        store.last_cas = store.last_cas.wrapping_add(1).max(1);
        let cas = match rules {
            Sharing::Process => store.last_cas,
            Sharing::Zones => present.unwrap_or(0).wrapping_add(1),
        };
        let entry = Entry { key: key.to_vec(), value: value.to_vec(), cas };
        let before = store.entries.insert(id, entry);
        store.grown += usize::from(before.is_some_and(|before| before.value.len() < value.len()));
        true
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().entries.values().map(|entry| entry.key.clone()).collect()
    }

    /// Drops what a full zone with eviction might drop.
    pub fn evict(&self, mut drops: impl FnMut(&[u8]) -> bool) {
        self.lock().entries.retain(|_, entry| !drops(&entry.key));
    }

    /// How often a value was replaced by a longer one: in a zone that is full that is an error, or worse.
    pub fn times_grown(&self) -> usize {
        self.lock().grown
    }

    /// Keys and values together: what an unbounded store would show as growth.
    pub fn size_in_bytes(&self) -> usize {
        self.lock().entries.values().map(|entry| entry.key.len() + entry.value.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, SharedEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a key is found by.
fn identity(key: &[u8], rules: Sharing) -> Vec<u8> {
    match rules {
        Sharing::Process => key.to_vec(),
        // ngx_wa_shm_rbtree_lookup(rbtree, crc32): the text is never compared.
        Sharing::Zones => crc32(key).to_be_bytes().to_vec(),
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    !bytes.iter().fold(!0, |crc, byte| step(crc ^ u32::from(*byte)))
}
