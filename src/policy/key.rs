//! API keys and the ceilings that bound what is done with them.

use std::collections::HashMap;
use std::rc::Rc;

use crate::credential::Digest;
use crate::number::Number;

use super::team::PartyId;

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
    /// Its own maxima of limits, by the limit's id.
    pub limits: Vec<(String, u64)>,
}

/// The bounds of a key or a team; `None` is "whatever the next wider level allows". The lists are sorted.
#[derive(Debug, Default)]
pub struct Ceiling {
    /// The caller IDs that may be presented, out of those that are owned.
    pub from: Option<Vec<Number>>,
    /// The destinations that may be reached.
    pub to: Option<Vec<Number>>,
    /// The longest session, in seconds.
    pub session: Option<u64>,
    /// The values allowed of text bounds, by the bound's place in the policy; canonical.
    pub texts: Vec<(usize, Vec<String>)>,
}

impl Ceiling {
    /// The values allowed of one text bound.
    pub fn text(&self, bound: usize) -> Option<&[String]> {
        self.texts.iter().find_map(|(known, values)| (*known == bound).then_some(values.as_slice()))
    }
}

/// All API keys.
#[derive(Debug, Default)]
pub struct Keys {
    list: Vec<Rc<ApiKey>>,
    by_digest: HashMap<Digest, usize>,
    by_id: HashMap<String, usize>,
}

impl Keys {
    /// Adds a key; without a digest nobody can present it, and it only bounds an issuer's tokens. `Err` says which of
    /// the two names is taken.
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

    /// Finds a key by its id: a token names its key so.
    pub fn with_id(&self, id: &str) -> Option<&Rc<ApiKey>> {
        self.list.get(*self.by_id.get(id)?)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.list.iter().map(Rc::as_ref)
    }
}
