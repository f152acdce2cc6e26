//! Sections that routes and limits refer to by name.

use std::rc::Rc;

use super::accept::{Accept, TokenSource};
use super::families::CompiledFamily;
use super::platform::Platform;
use super::reader::{List, Members, Raw, Reader};
use super::refusals::Refusals;
use super::text_bounds::TextBound;
use super::upstream_credentials::UpstreamCredentials;
use crate::credential::{CredentialLocation, Issuer};
use crate::json::Json;

/// Names that `accept` may hold, and the sections that define them.
const ACCEPTED: (&str, &[&str]) =
    ("`api_key`, `public`, a family of `tokens` or one of `issuers`", &["tokens", "issuers"]);

/// Compiled sections that routes and limits refer to by name.
pub(super) struct RouteDefinitions<'a> {
    pub(super) platform: &'a Platform,
    pub(super) bounds: &'a [Rc<TextBound>],
    pub(super) families: &'a [CompiledFamily<'a>],
    pub(super) issuers: &'a [Rc<Issuer>],
    /// Names of all issuers, including those with a fault.
    pub(super) issuer_names: Vec<&'a str>,
    pub(super) locations: &'a [CredentialLocation],
    pub(super) forwards_credential: bool,
    pub(super) upstream_credentials: &'a UpstreamCredentials,
    pub(super) constants: &'a Members<Raw>,
    /// Names of all groups of refusals, including those with a fault.
    pub(super) refusal_groups: Vec<&'a str>,
    pub(super) refusals: Option<&'a Refusals>,
}

impl RouteDefinitions<'_> {
    /// Finds the family or issuer of a name.
    pub(super) fn token_source(&self, name: &str) -> Option<TokenSource> {
        let family = self.family(name).map(|family| TokenSource::Family(Rc::clone(&family.family)));
        let issuer = || self.issuers.iter().find(|issuer| issuer.name == name).cloned();
        family.or_else(|| issuer().map(TokenSource::Issuer))
    }

    /// Finds a family by its name.
    pub(super) fn family(&self, name: &str) -> Option<&CompiledFamily<'_>> {
        self.families.iter().find(|family| family.family.name == name)
    }

    /// Reads a list of `api_key`, families and issuers; anything else is reported.
    pub(super) fn read_accept(&self, names: &List<String>, at: &Reader<'_>) -> Accept {
        let (mut api_key, mut tokens) = (false, Vec::new());
        for (at, name) in names.each(at) {
            match self.token_source(name) {
                _ if name == "api_key" => api_key = true,
                Some(source) => tokens.push(source),
                None if name == "public" => {
                    at.refuse("`public` is accepted alone, without credentials beside it")
                }
                None => at.check_one_of(name, ACCEPTED, self.credential_names()),
            }
        }
        Accept::Credentials { api_key, tokens }
    }

    /// Returns the names of all families.
    pub(super) fn family_names(&self) -> impl Iterator<Item = &str> {
        self.families.iter().map(|family| family.family.name.as_str())
    }

    /// Returns every name that `accept` may list.
    pub(super) fn credential_names(&self) -> impl Iterator<Item = &str> {
        self.family_names().chain(self.issuer_names.iter().copied()).chain(["api_key"])
    }

    /// Finds families by name; unknown ones are reported.
    pub(super) fn families(&self, names: &List<String>, at: &Reader<'_>) -> Vec<&CompiledFamily<'_>> {
        let find = |(at, name): (Reader<'_>, &String)| {
            at.check_listed(name, "tokens", self.family_names());
            self.family(name)
        };
        names.each(at).filter_map(find).collect()
    }

    /// Returns names with those of all text bounds.
    pub(super) fn with_bounds(&self, names: &[&str]) -> Vec<String> {
        let bounds = self.bounds.iter().map(|bound| bound.name.clone());
        names.iter().map(|name| (*name).to_owned()).chain(bounds).collect()
    }

    /// Writes the public keys of families as a JWK set (RFC 7517 section 5); a secret is never in it.
    pub(super) fn key_set(&self, names: &List<String>, at: &Reader<'_>) -> Vec<u8> {
        let mut keys: Vec<Json<'static>> = Vec::new();
        for family in self.families(names, at) {
            if !family.has_public_key {
                at.refuse(format!(
                    "`{}` has only secret keys: no one else can verify its tokens",
                    family.family.name
                ));
            }
            for key in family.family.public_keys().filter(|key| !keys.contains(key)).collect::<Vec<_>>() {
                if keys.iter().any(|other| other.get("kid") == key.get("kid")) {
                    at.refuse("two of these families have different keys of one `kid`: give each its own");
                }
                keys.push(key);
            }
        }
        serde_json::to_vec(&Json::Object(vec![("keys".into(), Json::Array(keys))])).unwrap_or_default()
    }
}
