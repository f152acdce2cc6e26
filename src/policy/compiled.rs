//! The compiled, immutable policy.

use crate::credential::{
    CredentialLocation, Family, Issuer, KeyFormat, TokenVerifier, candidates, digest, holds_credential,
};

use super::accept::TokenSource;
use super::api_keys::Keys;
use super::document::Unmatched;
use super::endpoints::Directory;
use super::fields::RequestField;
use super::host::{Hold, Profile};
use super::limits::Limits;
use super::platform::Platform;
use super::refusals::Refusals;
use super::report::Problem;
use super::route::Route;
use super::routes::Routes;
use super::store::{Remembers, StoreRule};
use super::teams::Tree;
use super::text_bounds::{TextBound, index_of};

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
    pub key_shapes: Vec<KeyFormat>,
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
    /// Environment variables that hold the policy's secrets, sorted.
    pub secret_names: Vec<String>,
    /// What an operator should know although the policy is valid.
    pub warnings: Vec<Problem>,
}

impl Policy {
    /// Returns the verifier of a source of tokens.
    pub fn verifier(&self, source: TokenSource) -> Option<&dyn TokenVerifier> {
        match source {
            TokenSource::Family(index) => self.families.get(index).map(|family| family as _),
            TokenSource::Issuer(index) => self.issuers.get(index).map(|issuer| issuer as _),
        }
    }

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
        index_of(&self.bounds, name).and_then(|index| Some((index, self.bounds.get(index)?)))
    }
}
