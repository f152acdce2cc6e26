//! Section `limits`: the most requests, sessions and new tokens, and the parties they are counted for.
//!
//! The counts themselves are in [`crate::store`].

use std::rc::Rc;

use super::accept::Accept;
use super::counting::StrengthWord;
use super::reader::{FromJson, List, Members, Reader, document, words};
use super::route_definitions::RouteDefinitions;
use crate::json::Json;
use crate::store::Strength;

document! {
    /// One limit: exactly one of `window`, `rate` and `sessions`.
    pub struct LimitDocument {
        /// Name in logs and in `RateLimit`.
        id: String,
        /// Each combination of these is counted by itself.
        per: List<Per>,
        /// Kind of event that is counted; default `requests`.
        count: Option<Counts>,
        /// The most events in a fixed window.
        window: Option<WindowDocument>,
        /// The most events at an even rate, and at once.
        rate: Option<RateDocument>,
        /// The most open sessions, on routes with `upgrade`.
        sessions: Option<SessionsDocument>,
        /// The only routes; absent: all that require a credential.
        routes: Option<List<String>>,
        /// The only credentials, `api_key`, families and issuers; absent: all.
        credentials: Option<List<String>>,
        /// Reach of the count; default `node`.
        strength: StrengthWord = StrengthWord::Node,
        /// Annotations, text to text; never judged.
        labels: Members<String>,
    }
}

document! {
    /// A fixed window; it begins at a multiple of its length since 1970, so 86,400 is a day in UTC.
    pub struct WindowDocument {
        /// The most events, at least 1.
        max: u64,
        /// Length of the window in seconds, 1 to 2,678,400.
        seconds: u64,
    }
}

document! {
    /// An even rate, with a burst.
    pub struct RateDocument {
        /// The most events, at least 1.
        max: u64,
        /// Seconds in which they may occur, 1 to 86,400.
        seconds: u64,
        /// The most at once after a pause, at least 1.
        burst: u64,
    }
}

document! {
    /// Open sessions at a time.
    pub struct SessionsDocument {
        /// The most, 1 to 10,000.
        max: u64,
    }
}

words! {
    /// Content of the platform's own header about the tightest limit.
    pub enum Shown {
        /// Maximum of the limit.
        Limit = "limit",
        /// Number that is left.
        Remaining = "remaining",
        /// Seconds until the maximum is available again.
        ResetSeconds = "reset_seconds",
        /// Unix second at which the maximum is available again.
        ResetUnix = "reset_unix",
        /// Unix millisecond at which the maximum is available again.
        ResetUnixMilliseconds = "reset_unix_ms",
    }
}

words! {
    /// Kind of event that is counted.
    pub enum Counts {
        /// Requests that pass everything else.
        Requests = "requests",
        /// New tokens of mint routes.
        Mints = "mints",
        /// Credentials that failed (401), per address.
        Failures = "failures",
    }
}

/// One compiled limit.
#[derive(Debug)]
pub struct Limit {
    /// Name in logs and in `RateLimit`.
    pub id: String,
    /// Subjects of the count, the narrowest first: each combination of them is counted by itself.
    pub per: Vec<Per>,
    /// Kind of event that is counted.
    pub counts: Counts,
    /// Algorithm, with the maximum.
    pub measure: Measure,
    /// The only credentials it counts; `None`: all.
    pub credentials: Option<Accept>,
    /// Reach that the count must have.
    pub strength: Strength,
}

/// Subject of a count; from the narrowest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
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
    /// One route of the policy.
    Route,
    /// The whole platform.
    #[default]
    Platform,
}

impl Per {
    /// Every word with its meaning, in the order in which policies list them.
    pub const ALL: [(&'static str, Self); 8] = [
        ("platform", Self::Platform),
        ("organization", Self::Organization),
        ("team", Self::Team),
        ("key", Self::Key),
        ("token", Self::Token),
        ("family", Self::Family),
        ("route", Self::Route),
        ("address", Self::Address),
    ];

    /// Returns the word in policies.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find_map(|(word, per)| (per == self).then_some(word)).unwrap_or_default()
    }
}

impl FromJson for Per {
    const KIND: (&'static str, &'static str) = ("a word", "words");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        super::reader::read_word(json, at, &Self::ALL)
    }
}

/// Algorithm of a limit, with the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Fixed window of time.
    Window {
        /// The most events in a window.
        max: u64,
        /// Length of the window in seconds.
        seconds: u64,
    },
    /// Even rate, with a burst.
    Rate {
        /// The most events in `seconds`.
        max: u64,
        /// Length of time in seconds.
        seconds: u64,
        /// The most events at once.
        burst: u64,
    },
    /// Open sessions at a time.
    Sessions {
        /// The most open sessions.
        max: u64,
    },
}

/// All limits, and the platform's own headers about them.
#[derive(Debug, Default)]
pub struct Limits {
    /// Limits, the narrowest first: a key above its own limit must not use up its team's.
    pub list: Vec<Rc<Limit>>,
    /// Further headers than `RateLimit`: name in lower case, and content.
    pub headers: Vec<(String, Shown)>,
}

impl Limit {
    /// Returns whether each key, or a narrower subject, has a count of its own.
    pub fn is_per_key(&self) -> bool {
        self.per.iter().any(|per| matches!(per, Per::Token | Per::Key))
    }

    /// Returns whether each team, address or narrower subject has a count of its own: their number is unbounded.
    pub fn is_per_tenant_or_address(&self) -> bool {
        self.is_per_team() || self.per.contains(&Per::Address)
    }

    /// Returns whether each team, or a narrower subject, has a count of its own.
    pub fn is_per_team(&self) -> bool {
        self.is_per_key() || self.per.iter().any(|per| matches!(per, Per::Team | Per::Organization))
    }
}

impl Measure {
    /// Returns the maximum of the limit.
    pub fn max(self) -> u64 {
        match self {
            Self::Window { max, .. } | Self::Rate { max, .. } | Self::Sessions { max } => max,
        }
    }

    /// Replaces the maximum of the limit.
    pub fn with_max(self, max: u64) -> Self {
        match self {
            Self::Window { seconds, .. } => Self::Window { max, seconds },
            Self::Rate { seconds, burst, .. } => Self::Rate { max, seconds, burst },
            Self::Sessions { .. } => Self::Sessions { max },
        }
    }
}

/// Largest `max` of a window.
pub(super) const MAX_WINDOW: u64 = 1_000_000_000;

/// Largest `max` and `burst` of a rate.
const MAX_RATE: u64 = 1_000_000;

/// Largest `max` of open sessions.
pub(super) const MAX_SESSIONS: u64 = 10_000;

const ZERO: &str = "0 is no limit: to let nothing through, take the scope or the route away";

impl LimitDocument {
    pub(super) fn compile(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Option<Limit> {
        let counts = self.count.unwrap_or_default();
        let per = self.per(&at.member("per"));
        let measure = self.measure(at)?;
        self.check_meaning(&per, counts, measure, at);
        let credentials_at = at.member("credentials");
        let credentials =
            self.credentials.as_ref().map(|names| definitions.read_accept(names, &credentials_at));
        Some(Limit { id: self.id.clone(), per, counts, measure, credentials, strength: self.strength.into() })
    }

    fn per(&self, at: &Reader<'_>) -> Vec<Per> {
        let mut per: Vec<Per> = Vec::new();
        for (at, word) in self.per.each(at) {
            at.check_unique("word", word.as_str(), per.contains(word));
            per.push(*word);
        }
        per.sort_unstable();
        per.dedup();
        if per.len() > 1 && per.contains(&Per::Platform) {
            at.refuse("`platform` counts everything together; no other word goes beside it");
        }
        per
    }

    fn measure(&self, at: &Reader<'_>) -> Option<Measure> {
        let range = |value, most, at: &Reader<'_>| {
            if !(1..=most).contains(&value) {
                at.refuse_with(format!("expected 1 to {most}, found {value}"), ZERO);
            }
        };
        match (&self.window, &self.rate, &self.sessions) {
            (Some(WindowDocument { max, seconds }), None, None) => {
                let at = at.member("window");
                range(*max, MAX_WINDOW, &at.member("max"));
                at.member("seconds").check_range(*seconds, 1..=2_678_400, "seconds");
                Some(Measure::Window { max: *max, seconds: *seconds })
            }
            (None, Some(RateDocument { max, seconds, burst }), None) => {
                let at = at.member("rate");
                range(*max, MAX_RATE, &at.member("max"));
                range(*burst, MAX_RATE, &at.member("burst"));
                at.member("seconds").check_range(*seconds, 1..=86_400, "seconds");
                Some(Measure::Rate { max: *max, seconds: *seconds, burst: *burst })
            }
            (None, None, Some(SessionsDocument { max })) => {
                range(*max, MAX_SESSIONS, &at.member("sessions").member("max"));
                Some(Measure::Sessions { max: *max })
            }
            _ => {
                at.refuse("expected exactly one of `window`, `rate` and `sessions`");
                None
            }
        }
    }

    fn check_meaning(&self, per: &[Per], counts: Counts, measure: Measure, at: &Reader<'_>) {
        if matches!(measure, Measure::Sessions { .. }) && counts != Counts::Requests {
            at.member("count").refuse("sessions are counted while they are open; leave `count` out");
        }
        if counts != Counts::Failures {
            return;
        }
        // A failed credential belongs to no key or team.
        if per != [Per::Address] {
            at.member("per").refuse("failures are counted per `address` alone");
        }
        if self.credentials.is_some() {
            at.member("credentials").refuse("failures are counted for every credential; leave it out");
        }
        if self.strength == StrengthWord::Fleet {
            at.member("strength").refuse("failures are counted by each gateway: `node`");
        }
    }
}

impl Limit {
    /// Checks the maximum that a party or key has for itself.
    pub(super) fn check_maximum(&self, is_apart: bool, max: u64, at: &Reader<'_>) {
        let most = match self.measure {
            Measure::Window { .. } => MAX_WINDOW,
            Measure::Rate { .. } => MAX_RATE,
            Measure::Sessions { .. } => MAX_SESSIONS,
        };
        if !is_apart {
            at.refuse("this limit has no count of its own here");
        } else if !(1..=most).contains(&max) {
            at.refuse_with(format!("expected 1 to {most}, found {max}"), ZERO);
        }
    }
}
