//! What may be done: the policy document, its compiler and the compiled, immutable [`Policy`].
//!
//! Two stages. [`config`] is a dumb mirror of the document; `compile` is one fallible step from there to a [`Policy`]
//! that every request shares. Refuses to know requests: it answers questions about teams, keys, numbers and routes,
//! and leaves it to [`crate::decision`] when to ask them.

mod bound;
mod compile;
pub mod config;
mod directory;
mod error;
mod guarantee;
mod host;
mod key;
mod limit;
mod local;
mod memory;
mod merge;
mod place;
mod refusal;
mod route;
#[cfg(feature = "cli")]
mod schema;
mod team;
mod template;

use crate::credential::{CredentialLocation, Family, Issuer, KeyShape, candidates, digest, holds_credential};

pub use bound::{BoundSource, Bounds, Call, ENDPOINT, FieldRef, Form, TextBound, TextRule};
pub use compile::{Secrets, compile, read_key};
pub use config::Host;
pub use directory::{Directory, Endpoint, Network};
pub use error::{ConfigError, Problem};
pub use guarantee::{Enforcement, Guarantee, guarantees};
pub use host::host_of;
pub use host::{End, Hold, Profile, SharedMemory};
pub use key::{ApiKey, Ceiling, Keys};
pub use limit::{Counted, Counts, Limit, Limits, Measure, Per, Shown, UsesRule};
pub use local::{
    Allowance, Asked, Field, IntrospectRule, ListingRule, MetadataField, MintRule, RangeField, RevokeRule,
    SizedList, TextField,
};
pub use memory::{DirectoryRule, Remembers, StoreBackend, StoreRule};
pub use merge::merge;
pub use place::{Pointer, RequestField};
pub use refusal::{RefusalFormat, Refusals};
pub use route::{Accept, LocalReply, Present, Route, RouteMatch, Routes, TokenSource, Told};
#[cfg(feature = "cli")]
pub use schema::schema;
pub use team::{Owner, Party, PartyId, Reach, Tree};
pub use template::Template;

/// The compiled configuration. Immutable: a change is a new policy.
pub struct Policy {
    /// What the gateway gives that loads the module.
    pub host: &'static Profile,
    /// Who keeps a request's headers back while its body is awaited.
    pub hold: Hold,
    /// Where new tokens' randomness begins, on hosts that have none; a secret. Deliberately not in any `Debug`.
    pub entropy: Vec<u8>,
    /// Whether the gateway ends open connections at their limit; otherwise the upstream is told it.
    pub ends_sessions: bool,
    /// Where a credential may stand.
    pub carriers: Vec<CredentialLocation>,
    /// Every prefix that marks a text as one of our credentials.
    pub prefixes: Vec<String>,
    /// How API keys are written.
    pub key_shapes: Vec<KeyShape>,
    /// Whether the client's credential goes on to the upstream.
    pub forward_credential: bool,
    /// The token families minted here.
    pub families: Vec<Family>,
    /// Those whose tokens are accepted though they were minted elsewhere.
    pub issuers: Vec<Issuer>,
    /// The API keys.
    pub keys: Keys,
    /// The texts that credentials can be bounded in.
    pub bounds: Vec<TextBound>,
    /// The endpoints.
    pub directory: Directory,
    /// Teams and users, and who owns which number.
    pub tree: Tree,
    /// What the platform switches on.
    pub platform: Platform,
    /// The routes.
    pub routes: Routes,
    /// What happens to a request no route matches.
    pub unmatched: Unmatched,
    /// Folded names of members that carry a caller or a destination somewhere on this platform.
    pub vocabulary: Vec<String>,
    /// How refusals are worded.
    pub refusals: Refusals,
    /// Seconds a request may be held for its body before the watchdog answers.
    pub hold_seconds: u64,
    /// The beginning of the document's SHA-256, in hex: which policy decided.
    pub revision: String,
    /// The limits.
    pub limits: Limits,
    /// Whether decisions are counted.
    pub counts: bool,
    /// Whether each decision is logged, not only refusals and new tokens.
    pub audits_all: bool,
    /// What is remembered, and where.
    pub store: StoreRule,
    /// Whether anything is.
    pub remembers: Remembers,
    /// What an operator should know although the policy is valid.
    pub warnings: Vec<String>,
}

/// What the whole platform allows.
pub struct Platform {
    /// Every feature there is, on or off.
    pub features: Vec<(String, bool)>,
    /// The scopes that exist.
    pub scopes: Vec<String>,
    /// For a feature, the others that must be on as well.
    pub requires: Vec<(String, Vec<String>)>,
    /// For a scope, the others whose holders hold it as well.
    pub implied_by: Vec<(String, Vec<String>)>,
    /// Whether API keys may reach premium-rate destinations; client tokens only ones they name.
    pub premium_for_keys: bool,
}

/// What happens to a request no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// 404.
    Deny,
    /// On to the upstream, untouched but for the headers only we may set.
    Pass,
}

impl Platform {
    /// Whether a feature is on; one that is not listed is off.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, on)| *on && name == feature)
    }

    /// Whether a list of scopes holds one, or another that implies it.
    pub fn holds(&self, list: &[String], scope: &str) -> bool {
        let stands = |scope: &str| list.iter().any(|held| held == scope);
        let implied = |(name, by): &(String, Vec<String>)| name == scope && by.iter().any(|by| stands(by));
        stands(scope) || self.implied_by.iter().any(implied)
    }

    fn knows_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, _)| name == feature)
    }
}

impl Policy {
    /// Finds the family whose prefix a credential has.
    pub fn family_of(&self, credential: &str) -> Option<(usize, &Family)> {
        self.families.iter().enumerate().find(|(_, family)| family.matches_prefix(credential))
    }

    /// Whether a text holds one of our credentials: by what it begins with, and where keys have no mark of their own,
    /// by being one of them.
    pub fn holds_credential(&self, value: &[u8]) -> bool {
        let unmarked = || self.key_shapes.iter().filter(|shape| shape.prefix.is_empty());
        let is_key = |part: &[u8]| {
            let text = std::str::from_utf8(part).unwrap_or_default();
            unmarked().any(|shape| shape.matches(text)) && self.keys.with_digest(&digest(text)).is_some()
        };
        holds_credential(value, &self.prefixes)
            || (unmarked().next().is_some() && candidates(value).any(is_key))
    }

    /// Whether a credential may stand in the query of some route.
    pub fn reads_credentials_in_query(&self) -> bool {
        let of_routes = self.routes.iter().flat_map(|route| route.carriers.iter().flatten());
        of_routes.chain(&self.carriers).any(|carrier| carrier.parameter().is_some())
    }

    /// Whether a header is one that says something here: a credential, or what is judged. Names are in lower case.
    pub fn reads_header(&self, name: &[u8]) -> bool {
        let carriers =
            self.routes.iter().flat_map(|route| route.carriers.iter().flatten()).chain(&self.carriers);
        let presented = self.routes.iter().filter_map(|route| Some(&route.present.as_ref()?.place));
        let places = self.routes.iter().flat_map(Route::places).chain(presented);
        let headers = places.filter_map(|place| match place {
            RequestField::Header(name) => Some(name.as_str()),
            _ => None,
        });
        carriers.filter_map(CredentialLocation::header).chain(headers).any(|header| header.as_bytes() == name)
    }

    /// Finds a text bound by its name.
    pub fn bound(&self, name: &str) -> Option<(usize, &TextBound)> {
        bound::index_of(&self.bounds, name).and_then(|index| Some((index, self.bounds.get(index)?)))
    }
}
