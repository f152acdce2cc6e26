//! Section `api_keys`: the API keys, by the SHA-256 of their text.

use std::collections::HashMap;
use std::rc::Rc;

use super::ceilings::{Ceiling, CeilingDocument};
use super::definitions::Definitions;
use super::ids::{check_id, check_labels, check_scopes};
use super::reader::{List, Members, Reader, document};
use super::teams::PartyId;
use crate::credential::Digest;

document! {
    /// One API key.
    pub struct ApiKeyDocument {
        /// Name in logs, tokens and for the upstream.
        id: String,
        /// SHA-256 of the key's whole text as 64 hex digits, never the key. An issuer's entry needs none.
        sha256: Option<String>,
        /// The team it belongs to; this or `user`.
        team: Option<String>,
        /// The user it belongs to.
        user: Option<String>,
        /// Scopes it holds; absent: none.
        scopes: List<String> = List::default(),
        /// Bounds of the key and of any token minted from it.
        ceiling: CeilingDocument = CeilingDocument::default(),
        /// Unix second at which it expires.
        expires_at: Option<u64>,
        /// True when the key and its tokens are revoked; default false.
        revoked: bool = false,
        /// Maxima of limits for the key, by the limit's id.
        limits: Members<u64>,
        /// Annotations, text to text; never judged.
        labels: Members<String>,
    }
}

/// A registered API key.
#[derive(Debug)]
pub struct ApiKey {
    /// Name in logs, tokens and upstream headers.
    pub id: String,
    /// Team or user it belongs to.
    pub owner: PartyId,
    /// Scopes it holds.
    pub scopes: Vec<String>,
    /// Bounds of direct calls and of every token minted from it.
    pub ceiling: Ceiling,
    /// Unix second at which it expires; `None`: never.
    pub expires_at: Option<u64>,
    /// True when the key and its tokens are revoked.
    pub revoked: bool,
    /// Maxima of limits for the key, by the limit's id.
    pub limits: Vec<(String, u64)>,
}

/// All API keys.
#[derive(Debug, Default)]
pub struct Keys {
    list: Vec<Rc<ApiKey>>,
    by_digest: HashMap<Digest, usize>,
    by_id: HashMap<String, usize>,
}

impl Keys {
    /// Adds a key. Without a digest no client can present it: it only bounds an issuer's tokens.
    ///
    /// # Errors
    ///
    /// The member that another key has as well: `id` or `sha256`.
    pub(super) fn add(&mut self, key: ApiKey, digest: Option<Digest>) -> Result<(), &'static str> {
        let index = self.list.len();
        if self.by_id.insert(key.id.clone(), index).is_some() {
            return Err("id");
        }
        if digest.is_some_and(|digest| self.by_digest.insert(digest, index).is_some()) {
            return Err("sha256");
        }
        self.list.push(Rc::new(key));
        Ok(())
    }

    /// Finds a key by the digest of its text.
    pub fn with_digest(&self, digest: &Digest) -> Option<&Rc<ApiKey>> {
        self.list.get(*self.by_digest.get(digest)?)
    }

    /// Finds a key by its id, which tokens carry.
    pub fn with_id(&self, id: &str) -> Option<&Rc<ApiKey>> {
        self.list.get(*self.by_id.get(id)?)
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns all keys, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.list.iter().map(Rc::as_ref)
    }
}

/// Compiles the keys; those of issuers need no digest, since no client presents them.
pub(super) fn compile(
    documents: &List<ApiKeyDocument>,
    definitions: &Definitions<'_>,
    is_of_issuer: impl Fn(&str) -> bool,
    at: &Reader<'_>,
) -> Keys {
    let mut keys = Keys::default();
    for (at, document) in documents.each(at) {
        let digest = document.digest(is_of_issuer(&document.id), &at);
        let Some(key) = document.compile(definitions, &at) else { continue };
        match keys.add(key, digest) {
            Ok(()) => {}
            Err(member) => at.member(member).refuse(format!("duplicate `{member}` of an API key")),
        }
    }
    keys
}

/// Latest Unix second that is accepted; a larger number is one of milliseconds.
const YEAR_2100: u64 = 4_102_444_800;

/// Refuses Unix milliseconds: a key would never expire, and a revocation would last for centuries.
pub(super) fn check_unix_seconds(seconds: Option<u64>, at: &Reader<'_>) {
    if seconds.is_some_and(|seconds| seconds > YEAR_2100) {
        at.refuse_with("expected Unix seconds before the year 2100", "milliseconds must be divided by 1000");
    }
}

impl ApiKeyDocument {
    pub(super) fn digest(&self, is_optional: bool, at: &Reader<'_>) -> Option<Digest> {
        let digest = self.sha256.as_deref().map(read_digest);
        if digest == Some(None) || (digest.is_none() && !is_optional) {
            at.member("sha256").refuse_with(
                "expected the 64 lower-case hex digits of the key's SHA-256, never the key itself",
                "`callbound hash-key` prints them",
            );
        }
        digest.flatten()
    }

    pub(super) fn compile(&self, definitions: &Definitions<'_>, at: &Reader<'_>) -> Option<ApiKey> {
        check_id(&self.id, &at.member("id"));
        check_labels(&self.labels, &at.member("labels"));
        check_scopes(&self.scopes, &definitions.platform.scopes, &at.member("scopes"));
        check_unix_seconds(self.expires_at, &at.member("expires_at"));
        let owner = self.owner(definitions, at);
        let ceiling = self.ceiling.compile(definitions.bounds, &at.member("ceiling"));
        Some(ApiKey {
            id: self.id.clone(),
            owner: owner?,
            scopes: self.scopes.to_vec(),
            ceiling,
            expires_at: self.expires_at,
            revoked: self.revoked,
            limits: self.limits.0.clone(),
        })
    }

    fn owner(&self, definitions: &Definitions<'_>, at: &Reader<'_>) -> Option<PartyId> {
        let tree = definitions.tree;
        match (&self.team, &self.user) {
            (Some(team), None) => {
                at.member("team").check_listed(team, "teams", tree.team_ids());
                tree.team(team)
            }
            (None, Some(user)) => {
                at.member("user").check_listed(user, "users", tree.user_ids());
                tree.user(user)
            }
            _ => {
                at.refuse("a key belongs to exactly one `team` or `user`");
                None
            }
        }
    }
}

fn read_digest(hex: &str) -> Option<Digest> {
    if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut digest = Digest::default();
    for (slot, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
