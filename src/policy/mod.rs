//! What may be done: the policy document, its compiler and the compiled, immutable [`Policy`].
//!
//! Two stages. [`config`] is a dumb mirror of the document; `compile` is one fallible step from there to a [`Policy`]
//! that every request shares. Refuses to know requests: it answers questions about teams, keys, numbers and routes,
//! and leaves it to [`crate::decision`] when to ask them.

mod compile;
pub mod config;
mod error;
mod merge;
mod refusal;
mod route;
mod team;
mod template;

use std::collections::HashMap;

use crate::credential::{Carrier, Digest, Family, KeyShape};
use crate::number::Number;

pub use compile::{Secrets, compile};
pub use error::{ConfigError, Problem};
pub use merge::merge;
pub use refusal::Refusals;
pub use route::{
    Accept, Bounds, Direction, Member, MintRule, Pointer, Route, RouteMatch, Routes, SizedList, Tenant,
    decode_escapes, escaped_byte, fold,
};
pub use team::{Owner, Party, PartyId, Reach, Tree};
pub use template::Template;

/// The compiled configuration. Immutable: a change is a new policy.
pub struct Policy {
    /// Where a credential may stand.
    pub carriers: Vec<Carrier>,
    /// Every prefix that marks a text as one of our credentials.
    pub prefixes: Vec<String>,
    /// How API keys are written.
    pub key_shapes: Vec<KeyShape>,
    /// Whether the client's credential goes on to the upstream.
    pub forward_credential: bool,
    /// The token families.
    pub families: Vec<Family>,
    /// API keys by digest.
    pub keys: HashMap<Digest, ApiKey>,
    /// Digests of API keys by id: a token names its key by id.
    pub key_ids: HashMap<String, Digest>,
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
    /// What an operator should know although the policy is valid.
    pub warnings: Vec<String>,
}

/// What the whole platform allows.
pub struct Platform {
    /// Every feature there is, on or off.
    pub features: Vec<(String, bool)>,
    /// The scopes that exist.
    pub scopes: Vec<String>,
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

/// A registered API key.
#[derive(Debug)]
pub struct ApiKey {
    /// Its id: what logs, tokens and upstream headers call it.
    pub id: String,
    /// The team or user it belongs to.
    pub owner: PartyId,
    /// The scopes it was given.
    pub scopes: Vec<String>,
    /// Its bounds: they hold for direct calls and for every token minted from it.
    pub ceiling: Ceiling,
    /// Unix seconds at which it stops working.
    pub expires_at: Option<u64>,
    /// Whether it was revoked, and its tokens with it.
    pub revoked: bool,
}

/// The bounds of a key; `None` is "whatever the next wider level allows". The lists are sorted.
#[derive(Debug, Default)]
pub struct Ceiling {
    /// The caller IDs it may present, out of those its owner owns.
    pub from: Option<Vec<Number>>,
    /// The destinations it may reach.
    pub to: Option<Vec<Number>>,
}

impl Platform {
    /// Whether a feature is on; one that is not listed is off.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, on)| *on && name == feature)
    }

    fn knows_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, _)| name == feature)
    }
}

impl Policy {
    /// Finds a key by the digest of its text.
    pub fn key_by_digest(&self, digest: &Digest) -> Option<&ApiKey> {
        self.keys.get(digest)
    }

    /// Finds a key by its id.
    pub fn key_by_id(&self, id: &str) -> Option<&ApiKey> {
        self.keys.get(self.key_ids.get(id)?)
    }

    /// Finds the family whose prefix a credential has.
    pub fn family_of(&self, credential: &str) -> Option<(usize, &Family)> {
        self.families.iter().enumerate().find(|(_, family)| credential.starts_with(family.prefix.as_str()))
    }
}
