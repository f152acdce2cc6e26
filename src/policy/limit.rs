//! Limits: how much of something is let through, and whose it is counted as.
//!
//! Refuses to know what has been counted: that is [`crate::store`]'s.

use crate::store::Strength;

use super::route::TokenSource;

/// One limit.
#[derive(Debug)]
pub struct Limit {
    /// What logs and headers call it.
    pub id: String,
    /// What is counted apart: each combination of these has its own count.
    pub per: Vec<Per>,
    /// What is counted.
    pub counts: Counts,
    /// How.
    pub measure: Measure,
    /// The only credentials it is for; `None` = all.
    pub credentials: Option<Counted>,
    /// How far the count must reach.
    pub strength: Strength,
}

/// Whose requests are counted together; from the narrowest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Per {
    /// One token; an API key counts as itself.
    Token,
    /// One client address; of IPv6 the first 64 bits.
    Address,
    /// One API key with all its tokens.
    Key,
    /// One team or user.
    Team,
    /// Everything below one top team.
    Organization,
    /// One kind of credential.
    Family,
    /// One route.
    Route,
    /// Everything.
    Platform,
}

impl Per {
    /// All of them, in the order in which policies list them.
    pub const ALL: [Self; 8] = [
        Self::Platform,
        Self::Organization,
        Self::Team,
        Self::Key,
        Self::Token,
        Self::Family,
        Self::Route,
        Self::Address,
    ];

    /// The word in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Organization => "organization",
            Self::Team => "team",
            Self::Key => "key",
            Self::Token => "token",
            Self::Family => "family",
            Self::Route => "route",
            Self::Address => "address",
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Requests that pass everything else.
    Requests,
    /// New tokens.
    Mints,
    /// Credentials that were no good (401).
    Failures,
}

/// How something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// So many in each window of so many seconds.
    Window {
        /// How many.
        max: u64,
        /// The window in seconds.
        seconds: u64,
    },
    /// So many in so many seconds, evenly, and so many at once.
    Rate {
        /// How many.
        max: u64,
        /// In how many seconds.
        seconds: u64,
        /// How many at once.
        burst: u64,
    },
    /// So many open sessions.
    Sessions {
        /// How many.
        max: u64,
    },
}

/// The credentials a limit is for.
#[derive(Debug)]
pub struct Counted {
    /// API keys.
    pub api_key: bool,
    /// Tokens of these sources.
    pub tokens: Vec<TokenSource>,
}

/// All limits and how clients are told of them.
#[derive(Debug, Default)]
pub struct Limits {
    /// From the narrowest to the widest: what one key may no longer do must not weigh on its team.
    pub list: Vec<Limit>,
    /// The platform's own headers beside `RateLimit`: name in lower case, and what it says.
    pub headers: Vec<(String, Shown)>,
}

/// What a platform's own header says of the tightest limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The most there can be.
    Limit,
    /// How many are left.
    Remaining,
    /// Seconds until there are as many as there can be.
    ResetSeconds,
    /// The same as Unix seconds.
    ResetUnix,
    /// The same as Unix milliseconds.
    ResetUnixMilliseconds,
}

/// What using a token on a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsesRule {
    /// Whether it takes a use.
    pub is_counted: bool,
    /// The most uses of a token that may have been made when one is made here.
    pub max: Option<u64>,
    /// Seconds after a stream's end in which its token opens it again without another use.
    pub reconnect: Option<u64>,
}

impl Default for UsesRule {
    fn default() -> Self {
        Self { is_counted: true, max: None, reconnect: None }
    }
}

impl Limit {
    /// Whether it is counted apart for each key or for something narrower.
    pub fn knows_keys(&self) -> bool {
        self.per.iter().any(|per| matches!(per, Per::Token | Per::Key))
    }

    /// Whether it is counted apart for whoever pays, so that there may be any number of its counts.
    pub fn knows_payer(&self) -> bool {
        self.knows_teams() || self.per.contains(&Per::Address)
    }

    /// Whether it is counted apart for each team or for something narrower.
    pub fn knows_teams(&self) -> bool {
        self.knows_keys() || self.per.iter().any(|per| matches!(per, Per::Team | Per::Organization))
    }
}

impl Measure {
    /// The most there may be.
    pub fn max(self) -> u64 {
        match self {
            Self::Window { max, .. } | Self::Rate { max, .. } | Self::Sessions { max } => max,
        }
    }

    /// The same with another maximum.
    pub fn with_max(self, max: u64) -> Self {
        match self {
            Self::Window { seconds, .. } => Self::Window { max, seconds },
            Self::Rate { seconds, burst, .. } => Self::Rate { max, seconds, burst },
            Self::Sessions { .. } => Self::Sessions { max },
        }
    }
}
