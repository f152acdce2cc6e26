//! The compiled, immutable policy.

use crate::credential::{
    CredentialLocation, Family, Issuer, KeyFormat, candidates, digest, holds_credential,
};

use std::rc::Rc;

use super::accept::TokenSource;
use super::api_keys::Keys;
use super::document::Unmatched;
use super::endpoints::Endpoints;
use super::host::{Hold, Profile};
use super::limits::Limits;
use super::platform::Platform;
use super::read_headers::ReadHeaders;
use super::refusals::Refusals;
use super::report::Problem;
use super::routes::Routes;
use super::store::{Remembers, StoreRule};
use super::teams::Tree;
use super::text_bounds::{TextBound, find};

/// The compiled configuration. Immutable: a change is a new policy.
pub struct Policy {
    /// Gateway that loads the module.
    pub host: &'static Profile,
    /// Party that holds a request's headers while its body is awaited.
    pub hold: Hold,
    /// Seed of new tokens' randomness, on hosts that have none; a secret. Deliberately not in any `Debug`.
    pub entropy: Vec<u8>,
    /// True when the gateway ends open connections at their limit; otherwise the upstream receives the limit.
    pub ends_sessions: bool,
    /// Places of the credential in a request.
    pub locations: Vec<CredentialLocation>,
    /// Every prefix that marks a text as one of our credentials.
    pub prefixes: Vec<String>,
    /// Formats of API keys.
    pub key_formats: Vec<KeyFormat>,
    /// True when the client's credential is sent on to the upstream.
    pub forward_credential: bool,
    /// Families of tokens minted here.
    pub families: Vec<Rc<Family>>,
    /// Issuers whose tokens are accepted.
    pub issuers: Vec<Rc<Issuer>>,
    /// API keys, by digest and by id.
    pub keys: Keys,
    /// Text bounds that credentials can have.
    pub bounds: Vec<Rc<TextBound>>,
    /// Endpoints, by id.
    pub endpoints: Endpoints,
    /// Teams and users, with the numbers they own.
    pub tree: Tree,
    /// Features and scopes of the platform.
    pub platform: Platform,
    /// Routes, by path and method.
    pub routes: Routes,
    /// Headers that carry a credential or a judged value.
    pub read_headers: ReadHeaders,
    /// Treatment of a request that no route matches.
    pub unmatched: Unmatched,
    /// Folded names of members that carry a caller or a destination: those of all routes, and those of `vocabulary`.
    pub vocabulary: Vec<String>,
    /// Wording of refusals.
    pub refusals: Refusals,
    /// Seconds a request may be held for its body before the watchdog answers.
    pub hold_seconds: u64,
    /// First 12 hex digits of the document's SHA-256, which identify the policy.
    pub revision: String,
    /// Limits, and the headers about them.
    pub limits: Limits,
    /// True when decisions are counted.
    pub counts: bool,
    /// True when each decision is logged, not only refusals and new tokens.
    pub audits_all: bool,
    /// Backend of counts and revocations, and their freshness.
    pub store: StoreRule,
    /// Use of the gateway's own memory.
    pub remembers: Remembers,
    /// Environment variables that hold the policy's secrets, sorted.
    pub secret_names: Vec<String>,
    /// Problems an operator should know of although the policy is valid.
    pub warnings: Vec<Problem>,
}

impl Policy {
    /// Finds the family whose prefix a credential has.
    pub fn family_of(&self, credential: &str) -> Option<&Rc<Family>> {
        self.families.iter().find(|family| family.matches_prefix(credential))
    }

    /// Returns whether a text holds one of our credentials: a text with one of their prefixes or, where a format of API
    /// keys has no prefix, a registered key.
    pub fn holds_credential(&self, value: &[u8]) -> bool {
        let unmarked = || self.key_formats.iter().filter(|format| format.prefix.is_empty());
        let is_key = |part: &[u8]| {
            let text = std::str::from_utf8(part).unwrap_or_default();
            unmarked().any(|format| format.matches(text)) && self.keys.with_digest(&digest(text)).is_some()
        };
        holds_credential(value, &self.prefixes)
            || (unmarked().next().is_some() && candidates(value).any(is_key))
    }

    /// Returns whether some route reads the credential from the query.
    pub fn reads_credentials_in_query(&self) -> bool {
        let of_routes = self.routes.iter().flat_map(|route| route.locations.iter().flatten());
        of_routes.chain(&self.locations).any(|location| location.parameter().is_some())
    }

    /// Returns whether a token may have a scope, however it came by it: its family gives the scope, and neither the scope nor
    /// one that it implies opens a route that mints. A token that could mint would outlive every bound.
    pub fn gives_to_tokens(&self, source: &TokenSource, scope: &String) -> bool {
        let held = std::slice::from_ref(scope);
        let mintable = match source {
            TokenSource::Family(family) => family.mintable_scopes.as_ref(),
            TokenSource::Issuer(_) => None,
        };
        mintable.is_none_or(|list| list.contains(scope))
            && !self.routes.mint_scopes().iter().any(|needed| self.platform.holds(held, needed))
    }

    /// Finds a text bound by its name.
    pub fn bound(&self, name: &str) -> Option<&Rc<TextBound>> {
        find(&self.bounds, name)
    }
}
