//! What is remembered between requests: uses, limits, sessions, seconds and revocations.
//!
//! One language, two homes. A request's [`Charge`]s are taken all or none, each on a [`CounterKey`] that nobody else's charge
//! shares; what cannot be remembered is refused. [`SharedMemoryStore`] keeps cells in memory that all workers of a gateway share;
//! [`remote`] writes the same batch for a store that all gateways share, and reads its answer. Refuses to know who is
//! asking and what for, and calls no host: memory, time and bytes are arguments.

mod bucket;
mod local;
pub mod remote;
mod revocation;

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

pub use local::{Memory, MemoryError, SESSION_CAPACITY_LAID_OUT, SharedMemoryStore, Size};
pub use revocation::{Revocation, RevocationError, Revocations, Subject};

/// Seconds a session's lease lasts unless it is renewed: how long a crashed worker's slots stay taken.
pub const LEASE_SECONDS: u64 = 15;

/// Seconds after which a lease is renewed.
pub const RENEW_SECONDS: u64 = 5;

/// Seconds a spent token is remembered after it has expired: longer than any clock may be off.
pub const KEPT_SECONDS: u64 = 60;

/// How far what is remembered reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// Every worker of one gateway.
    Node,
    /// Every gateway that uses the store.
    Fleet,
}

impl Strength {
    /// The word in policies, logs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Fleet => "fleet",
        }
    }
}

/// What a charge is counted on: a name that no other charge has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterKey([u8; 16]);

impl CounterKey {
    /// Names a cell after its parts; each is hashed with its length, so that no two lists of parts are one name.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut cell = [0; 16];
        cell.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(cell)
    }

    /// A cell kept in the same place as this one: the stream of a session that a use of a token opened.
    pub fn beside(self, session: &str) -> Self {
        let mut beside = Self::of(&[&self.0, session.as_bytes()]);
        beside.0.iter_mut().zip(self.0).take(2).for_each(|(to, from)| *to = from);
        beside
    }

    /// A number that stands for the cell where few are told apart.
    pub fn share(self) -> u32 {
        let [first, second, third, fourth, ..] = self.0;
        u32::from_le_bytes([first, second, third, fourth])
    }

    fn number(self) -> usize {
        let [first, second, ..] = self.0;
        usize::from(u16::from_le_bytes([first, second]))
    }

    fn hex(self) -> String {
        hex(&self.0)
    }
}

/// One thing that is counted before a request goes on.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Where.
    pub cell: CounterKey,
    /// Whose share of the memory it takes, as a number that is the same for everything of one team.
    pub share: u32,
    /// How.
    pub rule: Rule,
}

/// How something is counted. No maximum is ever "unlimited": of 0 nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// So many in each window; windows begin at multiples of their length since 1970, so days are UTC's.
    Window {
        /// How many.
        max: u64,
        /// The window's length in seconds.
        seconds: u64,
    },
    /// So many in so many seconds, evenly: the generic cell rate algorithm (ITU-T I.371).
    Rate {
        /// How many.
        max: u64,
        /// In how many seconds.
        seconds: u64,
        /// How many at once after a pause.
        burst: u64,
    },
    /// So many uses of one token.
    Uses {
        /// How many.
        max: u64,
        /// When the token was issued, in Unix seconds: what was issued before the store began may have been used.
        issued_at: u64,
        /// Until when its uses are remembered, in Unix seconds.
        until: u64,
        /// Whether the stream opened by a use may be opened again without another use.
        stream: Option<Stream>,
    },
    /// So many sessions at once.
    Sessions {
        /// How many.
        max: u64,
        /// The new session.
        holder: u64,
    },
    /// So many seconds of all sessions together; what a session may take is set aside when it begins.
    Seconds {
        /// How many.
        max: u64,
        /// How many the new session would like; it gets what is left.
        ask: u64,
        /// When the token was issued, in Unix seconds, as for [`Rule::Uses`].
        issued_at: u64,
        /// Until when they are remembered, in Unix seconds.
        until: u64,
    },
}

/// A stream that may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Where it is remembered: [`CounterKey::beside`] the token's uses.
    pub cell: CounterKey,
    /// The session that opens it now.
    pub holder: u64,
    /// Seconds after its end in which it may be opened again.
    pub grace: u64,
}

/// How a cell stands after its charge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remaining {
    /// How many are left; for [`Rule::Seconds`], how many this session was given.
    pub remaining: u64,
    /// Milliseconds until there are as many as there can be.
    pub reset: u64,
}

/// Why a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeDenied {
    /// There are none left; milliseconds until there is one, 0 when there never will be.
    Spent {
        /// Milliseconds until it is worth asking again.
        retry: u64,
        /// Milliseconds until there are as many as there can be.
        reset: u64,
    },
    /// The token was issued before the store began to remember, or its uses are remembered no more.
    Forgotten,
}

/// What came of a request's charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeResult {
    /// All were taken; each stands so.
    All(Vec<Remaining>),
    /// None was taken, because of this one.
    None {
        /// Its place in the list.
        charge: usize,
        /// Why.
        refusal: ChargeDenied,
    },
}

/// Why a store could not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// It holds as much as it may, or as much of this team's.
    Full,
    /// Its memory does not hold what was written there.
    Corrupt,
    /// Too many want the same cell at once.
    Contended,
    /// Its memory dropped what was written there.
    Dropped,
    /// It did not answer, or not in time, or not in words that are understood.
    Unavailable,
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "the store is full",
            Self::Corrupt => "the store's memory was changed by somebody else; restart the gateway",
            Self::Dropped => {
                "the store's memory dropped what was written there: give the zone `callbound` 16 MiB or more and `eviction=none`, and restart the gateway"
            }
            Self::Contended => "too many requests want the same entry of the store",
            Self::Unavailable => "the store does not answer",
        })
    }
}

/// A session's place among those that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Where it is counted.
    pub cell: CounterKey,
    /// The session.
    pub holder: u64,
    /// Seconds after its end in which it may come back; 0 for one that is only counted.
    pub grace: u64,
}

/// Something that changes without being refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The session goes on.
    Renew(Lease),
    /// The session is over.
    End(Lease),
    /// It did not take the seconds that were set aside for it.
    GiveBack(CounterKey, u64),
}

impl Charge {
    /// The lease a session holds once its charge is taken.
    pub fn lease(&self) -> Option<Lease> {
        match self.rule {
            Rule::Sessions { holder, .. } => Some(Lease { cell: self.cell, holder, grace: 0 }),
            Rule::Uses { stream: Some(Stream { cell, holder, grace }), .. } => {
                Some(Lease { cell, holder, grace })
            }
            _ => None,
        }
    }
}

/// Bytes as they stand in names.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Microseconds between two of a rate; rounded up, so that rounding never lets more through.
fn interval(max: u64, seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000).div_ceil(max.max(1))
}

/// The first half of HMAC-SHA256 (RFC 2104 section 5 allows it) over a value and the name it is kept under.
fn seal(key: &[u8], name: &str, value: &[u8]) -> [u8; 16] {
    let mut seal = [0; 16];
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) {
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(value);
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        seal.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
    }
    seal
}
