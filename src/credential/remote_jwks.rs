//! Key sets of others: reading one, and keeping a fetched one fresh.
//!
//! Pure: it says when to ask and takes the answer; the asking is [`crate::filter`]'s. A failed fetch never empties what
//! is known, and what is known does not count for ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::json::{Arrays, Json, Limits};

use super::family::TokenError;
use super::keyring::{Algorithm, Jwk, Key};

/// The most bytes of a key set that are read.
const MAX_BYTES: usize = 256 * 1024;

/// The most keys that are taken from one.
const MAX_KEYS: usize = 64;

/// The public keys of an issuer, by `kid`.
#[derive(Default)]
pub struct KeySet(Vec<(String, Key)>);

impl KeySet {
    /// Finds a key.
    pub fn get(&self, kid: &str) -> Option<&Key> {
        self.0.iter().find_map(|(known, key)| (known == kid).then_some(key))
    }

    /// Adds a key; false when its name is taken.
    pub fn add(&mut self, kid: &str, key: Key) -> bool {
        let is_new = self.get(kid).is_none();
        if is_new {
            self.0.push((kid.to_owned(), key));
        }
        is_new
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a JWK set (RFC 7517 section 5). Keys that are for something else, private, weak, without a name or of an
    /// algorithm nobody here knows are passed over; `None` when there is no good one, or one name stands for two.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let limits = Limits { values: 4_096, arrays: Arrays::Kept, prototypes: false };
        let json = Json::parse_within(text, limits).ok()?;
        let Some(Json::Array(items)) = json.get("keys") else { return None };
        let mut set = Self::default();
        for item in items.iter().take(MAX_KEYS) {
            if let Some((kid, key)) = read(item)
                && !set.add(&kid, key)
            {
                return None;
            }
        }
        (!set.is_empty()).then_some(set)
    }
}

/// Reads one key; members this gateway does not know are not looked at.
fn read(item: &Json<'_>) -> Option<(String, Key)> {
    let text = |name: &str| item.get(name).and_then(Json::as_str).map(str::to_owned);
    // A private key in a public place is a key everybody has.
    if ["d", "k", "p", "q", "oth"].iter().any(|name| item.get(name).is_some()) {
        return None;
    }
    // What says what a key is for must be readable: a key whose purpose nobody can tell is not for this.
    let is_odd = |name: &str| item.get(name).is_some_and(|value| value.as_str().is_none());
    if ["kty", "crv", "kid", "alg", "use"].into_iter().any(is_odd) {
        return None;
    }
    let key_ops = match item.get("key_ops") {
        Some(Json::Array(ops)) => {
            Some(ops.iter().map(|op| op.as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        Some(_) => return None,
        None => None,
    };
    let jwk = Jwk {
        kty: text("kty")?,
        crv: text("crv"),
        x: text("x"),
        y: text("y"),
        n: text("n"),
        e: text("e"),
        kid: text("kid"),
        alg: text("alg"),
        usage: text("use"),
        key_ops,
    };
    let algorithm = jwk.algorithm()?;
    let key = Key::from_jwk(algorithm, &jwk).ok()?;
    Some((jwk.kid?, key))
}

impl Jwk {
    /// The one algorithm a key of this type is used with here.
    pub fn algorithm(&self) -> Option<Algorithm> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDsa),
            ("EC", Some("P-256")) => Some(Algorithm::Es256),
            ("RSA", None) => Some(Algorithm::Rs256),
            _ => None,
        }
    }
}

/// How a key set is fetched. Times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteJwks {
    /// What the host calls the place that is asked.
    pub cluster: String,
    /// `http` or `https`, as the URL says.
    pub scheme: String,
    /// The URL's authority.
    pub authority: String,
    /// The URL's path, with its query.
    pub path: String,
    /// After how long it is asked again.
    pub refresh: u64,
    /// How long after the last good answer the keys still count.
    pub stale: u64,
    /// The shortest time between two questions.
    pub cooldown: u64,
}

/// A fetched key set and when to ask again.
pub struct RemoteKeys {
    remote: RemoteJwks,
    keys: RefCell<Rc<KeySet>>,
    good_at: Cell<Option<u64>>,
    asked_at: Cell<Option<u64>>,
    /// Whether a token named a key that is not there.
    is_wanted: Cell<bool>,
}

impl RemoteKeys {
    /// Knows nothing yet.
    pub fn new(remote: RemoteJwks) -> Self {
        Self {
            remote,
            keys: RefCell::default(),
            good_at: Cell::new(None),
            asked_at: Cell::new(None),
            is_wanted: Cell::new(false),
        }
    }

    /// Whether these are the keys of a place, asked on the same terms.
    pub fn is_of(&self, remote: &RemoteJwks) -> bool {
        self.remote == *remote
    }

    /// Says whom to ask now, if anybody, and notes that it was asked.
    pub fn ask(&self, now: u64) -> Option<&RemoteJwks> {
        let since = |at: &Cell<Option<u64>>| at.get().map(|at| now.saturating_sub(at));
        let is_rested = since(&self.asked_at).is_none_or(|seconds| seconds >= self.remote.cooldown);
        let is_due = since(&self.good_at).is_none_or(|seconds| seconds >= self.remote.refresh);
        if !is_rested || !(is_due || self.is_wanted.get()) {
            return None;
        }
        self.asked_at.set(Some(now));
        self.is_wanted.set(false);
        Some(&self.remote)
    }

    /// Takes an answer; false when it is no good key set, and what was known stays.
    pub fn answer(&self, status: u16, body: &[u8], now: u64) -> bool {
        let Some(set) = (status == 200).then(|| KeySet::parse(body)).flatten() else { return false };
        let Ok(mut keys) = self.keys.try_borrow_mut() else { return false };
        *keys = Rc::new(set);
        self.good_at.set(Some(now));
        true
    }

    /// The keys that count now.
    ///
    /// # Errors
    ///
    /// [`TokenError::KeysUnavailable`] when there never were any or they are too old.
    pub fn current(&self, now: u64) -> Result<Rc<KeySet>, TokenError> {
        let is_good = self.good_at.get().is_some_and(|at| now.saturating_sub(at) <= self.remote.stale);
        let keys = self.keys.try_borrow().map_err(|_| TokenError::KeysUnavailable)?;
        if is_good { Ok(Rc::clone(&keys)) } else { Err(TokenError::KeysUnavailable) }
    }

    /// Notes that a token named a key that is not there: it may be new.
    pub fn want(&self) {
        self.is_wanted.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x5t":"?",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"EC","crv":"P-521","kid":"b"}]}"#;

    fn remote() -> RemoteKeys {
        let text = |text: &str| text.to_owned();
        RemoteKeys::new(RemoteJwks {
            cluster: text("idp"),
            scheme: text("https"),
            authority: text("idp.example"),
            path: text("/keys"),
            refresh: 300,
            stale: 3_600,
            cooldown: 30,
        })
    }

    #[test]
    fn passes_over_what_it_cannot_use_and_refuses_two_keys_of_one_name() {
        let set = KeySet::parse(GOOD).unwrap();
        assert!(set.get("a").is_some() && set.get("b").is_none());
        let twice = String::from_utf8_lossy(GOOD).replace("\"kid\":\"b\"", "\"kid\":\"a\"");
        assert!(KeySet::parse(twice.as_bytes()).is_some(), "the other is of no use anyway");
        let key =
            r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert!(KeySet::parse(format!(r#"{{"keys":[{key},{key}]}}"#).as_bytes()).is_none());
        for text in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":{}}"#, "[]", r#"{"keys":[1,null]}"#] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
        let private = key.replace("\"kid\"", "\"d\":\"AA\",\"kid\"");
        assert!(KeySet::parse(format!(r#"{{"keys":[{private}]}}"#).as_bytes()).is_none());
    }

    #[test]
    fn asks_again_when_due_and_once_per_cooldown() {
        let keys = remote();
        assert!(keys.current(1_000).is_err());
        assert!(keys.ask(1_000).is_some());
        assert!(keys.ask(1_001).is_none(), "it was asked just now");
        assert!(keys.ask(1_030).is_some(), "there was no answer");
        assert!(keys.answer(200, GOOD, 1_031));
        assert!(keys.ask(1_200).is_none());
        keys.want();
        assert!(keys.ask(1_201).is_some() && keys.ask(1_202).is_none());
        keys.want();
        assert!(keys.ask(1_230).is_none() && keys.ask(1_231).is_some());
        assert!(keys.ask(1_331).is_some(), "due");
    }

    #[test]
    fn a_failed_fetch_keeps_what_is_known_until_it_is_too_old() {
        let keys = remote();
        assert!(keys.answer(200, GOOD, 1_000));
        assert!(!keys.answer(500, GOOD, 2_000) && !keys.answer(200, b"{}", 2_000));
        assert!(keys.current(4_600).is_ok_and(|keys| keys.get("a").is_some()));
        assert!(keys.current(4_601).is_err());
    }
}
