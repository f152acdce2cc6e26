//! What is remembered and where: the store's home, and how fresh what is known of it must be.

use crate::store::redis::RedisStore;
use crate::store::{Revocations, Size, Strength};

/// The store.
pub struct StoreRule {
    /// Where it is.
    pub home: StoreBackend,
    /// Seals what stands in memory that others may share; a secret. Deliberately not in any `Debug`.
    pub key: Vec<u8>,
    /// How much is kept in the gateway's own memory.
    pub size: Size,
    /// Seconds after which the revocations are asked for again.
    pub refresh: u64,
    /// Seconds after which what is known of them is too old.
    pub stale: u64,
    /// Whether requests are refused while it is.
    pub refuses_when_stale: bool,
    /// How API keys are looked up that are not in the policy.
    pub directory: Option<DirectoryRule>,
    /// What the policy itself revokes.
    pub revocations: Revocations,
}

/// Whether a policy has anything remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remembers {
    /// In the gateway's own memory.
    pub here: bool,
}

/// How long what was looked up is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryRule {
    /// Seconds a key that was found counts.
    pub fresh: u64,
    /// Seconds a key that was not found is not asked after again.
    pub unknown: u64,
    /// The most keys of either sort that are kept.
    pub entries: usize,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreBackend {
    /// In the gateway's own memory.
    Memory,
    /// In Redis, for all gateways.
    Redis(RedisStore),
}

impl StoreBackend {
    /// How far it reaches.
    pub fn strength(&self) -> Strength {
        match self {
            Self::Memory => Strength::Node,
            Self::Redis(_) => Strength::Fleet,
        }
    }
}
