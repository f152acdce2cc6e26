//! Counters and revocations that outlive a request: token uses, limits, sessions, granted seconds.
//!
//! Two implementations share one vocabulary. [`SharedMemoryStore`] keeps counters in memory that all workers of one
//! gateway share; [`redis`] writes the same operations as a batch for a store that all gateways share and reads the
//! answer. The charges of a request are taken together or not at all, each on a [`CounterKey`] of its own. A charge that
//! cannot be recorded is denied.
//!
//! Nothing here knows credentials, routes or hosts: memory, time and bytes are arguments.

mod bucket;
pub mod redis;
mod revocation;
mod sealed;
mod shared_memory;

use sha2::{Digest as _, Sha256};

pub use revocation::{Revocation, Revocations, Subject};
pub use sealed::{Layout, SESSION_CAPACITY_PREALLOCATED};
pub use shared_memory::{Memory, SharedMemoryStore};

/// Seconds a session's lease lasts unless renewed, which is also how long the slots of a crashed worker stay taken.
pub const LEASE_SECONDS: u64 = 15;

/// Seconds between two renewals of a lease.
pub const RENEW_SECONDS: u64 = 5;

/// Seconds the uses of a token stay recorded after its expiry: longer than clocks differ.
pub const KEPT_SECONDS: u64 = 60;

/// Result of one charge, or the failure of the store.
type Charged<T> = Result<Result<T, ChargeDenied>, StoreError>;

/// Group of gateways and workers over which a counter is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// All workers of one gateway.
    Node,
    /// All gateways that use the store.
    Fleet,
}

impl Strength {
    /// Returns the word used in policies, logs and replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Fleet => "fleet",
        }
    }
}

/// Name of one counter: half of a SHA-256 over its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterKey([u8; 16]);

impl CounterKey {
    /// Derives a key from its parts. Each part is hashed with its length, so different lists never give the same key.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(first_half(hash.finalize().into()))
    }

    /// Derives the key of a token's stream, stored in the same bucket as the token's uses (`self`).
    pub fn stream(self, session: &str) -> Self {
        let mut key = Self::of(&[&self.0, session.as_bytes()]);
        key.0.iter_mut().zip(self.0).take(2).for_each(|(to, from)| *to = from);
        key
    }

    /// Returns a short number for the key, for uses where a collision only costs fairness.
    pub fn share(self) -> u32 {
        let [first, second, third, fourth, ..] = self.0;
        u32::from_le_bytes([first, second, third, fourth])
    }

    /// Returns the number that selects the bucket.
    fn number(self) -> usize {
        let [first, second, ..] = self.0;
        usize::from(u16::from_le_bytes([first, second]))
    }
}

/// Size of a store or of one of its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Most entries, of 32 bytes each.
    pub entries: usize,
    /// Several teams share it, and none may crowd out the others.
    pub is_shared: bool,
}

/// One amount to record before a request is released.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Counter this charge is recorded on.
    pub key: CounterKey,
    /// Team whose share of the memory a new counter takes, as [`CounterKey::share`] of the team.
    pub share: u32,
    /// Algorithm and its parameters.
    pub rule: Rule,
}

/// Algorithm of a counter. No maximum means "unlimited": with 0 nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Fixed window: `max` per window. Windows begin at multiples of their length since 1970, so days are UTC days.
    Window {
        /// Most charges per window.
        max: u64,
        /// Length of the window in seconds.
        seconds: u64,
    },
    /// Rate: `max` per `seconds`, spread evenly (generic cell rate algorithm, ITU-T I.371).
    Rate {
        /// Most charges per period.
        max: u64,
        /// Length of the period in seconds.
        seconds: u64,
        /// Charges accepted at once after a pause.
        burst: u64,
    },
    /// Uses of one token.
    Uses {
        /// Most uses of the token.
        max: u64,
        /// Unix seconds at which the token was issued. A token older than the store may have been used already.
        issued_at: u64,
        /// Unix seconds until which the uses stay recorded.
        until: u64,
        /// Stream that a use opens and that may reconnect without another use, on [`CounterKey::stream`] of the uses.
        stream: Option<Lease>,
    },
    /// Sessions open at once.
    Sessions {
        /// Most concurrent sessions.
        max: u64,
        /// Id of the new session.
        holder: u64,
    },
    /// Total seconds of all sessions of a token. The seconds of a session are reserved when it begins.
    Seconds {
        /// Most seconds in total.
        max: u64,
        /// Seconds the new session requests; it gets at most the rest.
        ask: u64,
        /// Unix seconds at which the token was issued, as for [`Rule::Uses`].
        issued_at: u64,
        /// Unix seconds until which the counter stays recorded.
        until: u64,
    },
}

/// State of a counter after a charge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Charges left; for [`Rule::Seconds`] the seconds granted to this session.
    pub remaining: u64,
    /// Milliseconds until the counter is full again.
    pub reset: u64,
}

/// Cause for which a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeDenied {
    /// Nothing is left.
    Spent {
        /// Milliseconds until a retry can succeed; 0 when none ever will.
        retry: u64,
        /// Milliseconds until the counter is full again.
        reset: u64,
    },
    /// The token was issued before the store began, or its uses are no longer recorded.
    Forgotten,
}

/// Result of the charges of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeResult {
    /// All were taken; one state per charge.
    All(Vec<Remaining>),
    /// None was taken, because one was denied.
    Denied {
        /// Index of the denied charge.
        charge: usize,
        /// Cause of the denial.
        refusal: ChargeDenied,
    },
}

/// Cause for which a store could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// No room is left, or none for this team.
    Full,
    /// A stored value does not carry a valid seal.
    Corrupt,
    /// Too many writers changed the same value at once.
    Contended,
    /// The memory evicted a value.
    Dropped,
    /// No answer came in time, or not an expected one.
    Unavailable,
    /// The gateway would let the request pass before the answer.
    NotHeld,
    /// Redis lacks the function of this layout, or cannot have one.
    NotInstalled,
    /// The bridge forbids calls of functions.
    BridgeForbids,
    /// Redis denies the bridge's user a command or key that the function needs.
    NotPermitted,
    /// The bridge is not logged in to Redis.
    NotLoggedIn,
    /// Redis has reached its limit of memory.
    OutOfMemory,
    /// Redis is a replica.
    ReadOnly,
    /// Redis reads its data after a start.
    Loading,
    /// Redis cannot write its data to the disk.
    DiskFailed,
    /// Redis refused the batch for another cause.
    Refused,
    /// The batch is longer than this host can send.
    TooLong,
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "the store is full",
            Self::Corrupt => "another program changed the store's memory; restart the gateway",
            Self::Dropped => {
                "the gateway evicted values of the store: give the zone `callbound` 16 MiB or more and `eviction=none`, and restart the gateway"
            }
            Self::Contended => "too many requests change the same entry of the store",
            Self::Unavailable => "the store does not answer",
            Self::NotHeld => {
                "this is nginx without Kong, which lets later requests of a connection pass while Redis is asked: give `host: \"nginx\"` and `store.backend: \"memory\"`"
            }
            Self::NotInstalled => {
                "Redis lacks the function `callbound_1`, or is older than version 7: run `callbound store install`"
            }
            Self::BridgeForbids => "Webdis forbids FCALL: enable it under `acl` in webdis.json",
            Self::NotPermitted => {
                "Redis denies Webdis a command or key of the function: compare users.acl with the one of this version, \
                 and its `~` pattern with `store.redis.prefix`"
            }
            Self::NotLoggedIn => "Webdis is not logged in to Redis: compare `redis_auth` in webdis.json with users.acl",
            Self::OutOfMemory => "Redis has reached its limit of memory: raise `maxmemory`",
            Self::ReadOnly => "Redis is a replica, which accepts no writes",
            Self::Loading => "Redis is loading its data after a start",
            Self::DiskFailed => "Redis cannot write its data to the disk",
            Self::TooLong => "a request needs a longer call to Redis than this host can send",
            Self::Refused => "Redis refused the call: is its library of this version? `callbound store install` replaces it",
        })
    }
}

/// Slot of an open session in its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Counter the session is recorded on.
    pub key: CounterKey,
    /// Id of the session.
    pub holder: u64,
    /// Seconds after its end in which it may reconnect; 0 for a session that is only counted.
    pub grace: u64,
}

/// Change that is never denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Extends the lease of an open session.
    Renew(Lease),
    /// Ends a session.
    End(Lease),
    /// Returns reserved seconds that a session did not use.
    GiveBack(CounterKey, u64),
}

impl Charge {
    /// Returns the lease a session holds once this charge is taken.
    pub fn lease(&self) -> Option<Lease> {
        match self.rule {
            Rule::Sessions { holder, .. } => Some(Lease { key: self.key, holder, grace: 0 }),
            Rule::Uses { stream, .. } => stream,
            _ => None,
        }
    }
}

/// Returns the microseconds between two charges of a rate, rounded up so that rounding never admits more.
fn interval(max: u64, seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000).div_ceil(max.max(1))
}

/// Returns the first 16 bytes of a SHA-256 value.
fn first_half(digest: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    half
}
