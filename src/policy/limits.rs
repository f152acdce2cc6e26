//! Section `limits`: the most requests, sessions and new tokens, and the parties they are counted for.
//!
//! The counts themselves are in [`crate::store`].

use super::accept::Accept;
use super::counting::StrengthWord;
use super::ids::{check_header_name, check_id, check_labels};
use super::path_templates::Match;
use super::reader::{FromJson, List, Members, Reader, document, words};
use super::route::{LocalReply, Route};
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
    pub list: Vec<Limit>,
    /// Further headers than `RateLimit`: name in lower case, and content.
    pub headers: Vec<(String, Shown)>,
}

impl Limit {
    /// Returns whether each key, or a narrower subject, has a count of its own.
    pub fn knows_keys(&self) -> bool {
        self.per.iter().any(|per| matches!(per, Per::Token | Per::Key))
    }

    /// Returns whether each team, address or narrower subject has a count of its own: their number is unbounded.
    pub fn knows_payer(&self) -> bool {
        self.knows_teams() || self.per.contains(&Per::Address)
    }

    /// Returns whether each team, or a narrower subject, has a count of its own.
    pub fn knows_teams(&self) -> bool {
        self.knows_keys() || self.per.iter().any(|per| matches!(per, Per::Team | Per::Organization))
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

/// Sections whose limits are compiled together.
pub(super) struct LimitDocuments<'d> {
    pub(super) limits: &'d List<LimitDocument>,
    pub(super) headers: &'d Members<Shown>,
}

impl LimitDocuments<'_> {
    /// Compiles the limits and gives each route those that count there.
    pub(super) fn compile(
        &self,
        definitions: &RouteDefinitions<'_>,
        routes: &mut [(Route, Vec<Match>)],
        root: &Reader<'_>,
    ) -> Limits {
        let at = root.member("limits");
        let mut read: Vec<(Reader<'_>, &LimitDocument, Limit)> = Vec::new();
        for (at, document) in self.limits.each(&at) {
            check_id(&document.id, &at.member("id"));
            check_labels(&document.labels, &at.member("labels"));
            let is_taken = read.iter().any(|(_, other, _)| other.id == document.id);
            at.member("id").check_unique("limit id", &document.id, is_taken);
            read.extend(document.compile(definitions, &at).map(|limit| (at, document, limit)));
        }
        read.sort_by_key(|(.., limit)| limit.per.iter().min().copied());
        for (index, (at, document, limit)) in read.iter().enumerate() {
            document.assign((index, limit), routes, at);
        }
        let list = read.into_iter().map(|(.., limit)| limit).collect();
        Limits { list, headers: self.headers(&root.member("limit_headers")) }
    }

    fn headers(&self, at: &Reader<'_>) -> Vec<(String, Shown)> {
        for name in self.headers.names() {
            let at = at.member(name);
            check_header_name(name, &at);
            // The header replaces one of the upstream's.
            let is_ours = ["x-callbound", "x-envoy-"].iter().any(|prefix| name.starts_with(prefix));
            let is_taken = ["ratelimit-policy", "x-content-type-options", "x-request-id"].contains(&name);
            let is_own = name.starts_with("x-") || name.starts_with("ratelimit-");
            if !at.has_error() && (is_ours || is_taken || !is_own) {
                at.refuse("expected a header of its own, as in `x-ratelimit-limit`");
            }
        }
        self.headers.0.clone()
    }
}

/// Largest `max` of a window.
const MAX_WINDOW: u64 = 1_000_000_000;

/// Largest `max` and `burst` of a rate.
const MAX_RATE: u64 = 1_000_000;

/// Largest `max` of open sessions.
const MAX_SESSIONS: u64 = 10_000;

const ZERO: &str = "0 is no limit: to let nothing through, take the scope or the route away";

impl LimitDocument {
    fn compile(&self, definitions: &RouteDefinitions<'_>, at: &Reader<'_>) -> Option<Limit> {
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

    /// Adds a limit to the routes where it counts; refuses one that counts on no route.
    fn assign(&self, (index, limit): (usize, &Limit), routes: &mut [(Route, Vec<Match>)], at: &Reader<'_>) {
        let routes_at = at.member("routes");
        for (at, name) in self.routes.iter().flat_map(|names| names.each(&routes_at)) {
            at.check_listed(name, "routes", routes.iter().map(|(route, _)| route.id.as_str()));
            let named = routes.iter().map(|(route, _)| route).find(|route| route.id == *name);
            if named.is_some_and(|route| !limit.counts_on(route)) {
                at.refuse(format!("route `{name}` has nothing that this limit counts"));
            }
        }
        let is_named = |route: &Route| self.routes.as_ref().map(|names| names.contains(&route.id));
        let mut is_used = false;
        for (route, _) in routes.iter_mut().filter(|(route, _)| limit.counts_on(route)) {
            // A thief who exhausts the limit of a stolen key must not keep its owner from revoking the key.
            let is_exempt = is_named(route).is_none() && matches!(route.local, Some(LocalReply::Revoke(_)));
            if is_named(route) != Some(false) && !is_exempt {
                route.limits.push(index);
                is_used = true;
            }
        }
        if !is_used && !at.has_error() {
            at.refuse("no route has anything that this limit counts");
        }
    }
}

impl Limit {
    fn counts_on(&self, route: &Route) -> bool {
        route.accept != Accept::Public
            && (self.counts != Counts::Mints || route.mint().is_some())
            && (!matches!(self.measure, Measure::Sessions { .. }) || route.is_upgrade)
            && self.credentials.as_ref().is_none_or(|counted| route.accept.shares(counted))
    }

    /// Checks the maximum that a party or key has for itself.
    fn check_maximum(&self, is_apart: bool, max: u64, at: &Reader<'_>) {
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

/// Checks of the maxima that teams, users and keys have for themselves.
pub(super) struct Maxima<'a> {
    pub(super) limits: &'a Limits,
    pub(super) documents: &'a List<LimitDocument>,
    pub(super) root: &'a Reader<'a>,
}

impl Maxima<'_> {
    fn find(&self, name: &str, at: &Reader<'_>) -> Option<&Limit> {
        at.check_listed(name, "limits", self.documents.iter().map(|limit| limit.id.as_str()));
        let limits_at = self.root.member("limits");
        let mut named = self.documents.each(&limits_at).filter(|(_, limit)| limit.id == name);
        // A maximum is not compared with a limit that has a fault.
        let is_sound = named.all(|(at, _)| !at.has_error());
        self.limits.list.iter().find(|limit| is_sound && limit.id == name)
    }

    /// Checks the maxima of a team or user.
    pub(super) fn check_party(&self, maxima: &Members<u64>, is_top: bool, at: &Reader<'_>) {
        for (name, max) in maxima.iter() {
            let at = at.member(name);
            let Some(limit) = self.find(name, &at) else { continue };
            limit.check_maximum(limit.knows_teams(), *max, &at);
            // All teams below the top share one count, and so one maximum.
            if limit.per.contains(&Per::Organization) && !is_top {
                at.refuse("per `organization` only the maximum of the top team counts");
            }
        }
    }

    /// Checks the maxima of a key.
    pub(super) fn check_key(&self, maxima: &Members<u64>, at: &Reader<'_>) {
        for (name, max) in maxima.iter() {
            let at = at.member(name);
            if let Some(limit) = self.find(name, &at) {
                limit.check_maximum(limit.knows_keys(), *max, &at);
            }
        }
    }
}
