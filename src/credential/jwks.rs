//! JWK sets: the public keys of an issuer.

use crate::json::{Arrays, Json, Limits};

use super::key::{Jwk, Key};

/// Most bytes of a key set that are read.
const MAX_BYTES: usize = 256 * 1024;

/// Most keys that are taken from one set.
const MAX_KEYS: usize = 64;

/// Public keys by `kid`.
#[derive(Default)]
pub struct KeySet(Vec<(String, Key)>);

impl KeySet {
    /// Returns the key with this `kid`.
    pub fn get(&self, kid: &str) -> Option<&Key> {
        self.0.iter().find_map(|(known, key)| (known == kid).then_some(key))
    }

    /// Adds a key and returns true; false when its `kid` is taken.
    pub fn add(&mut self, kid: &str, key: Key) -> bool {
        let is_new = self.get(kid).is_none();
        if is_new {
            self.0.push((kid.to_owned(), key));
        }
        is_new
    }

    /// Returns whether the set holds no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a JWK set (RFC 7517 section 5).
    ///
    /// Keys for another purpose, private, weak, without a `kid` or of an unknown algorithm are skipped. Returns `None`
    /// when no key is left, or two have one `kid`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let limits = Limits { values: 4_096, arrays: Arrays::Kept, odd_names: false };
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

/// Reads one key, ignoring members that RFC 7517 does not define for signature keys.
fn read(item: &Json<'_>) -> Option<(String, Key)> {
    // A private key in a public place is compromised.
    if ["d", "k", "p", "q", "oth"].iter().any(|name| item.get(name).is_some()) {
        return None;
    }
    // A key whose type or purpose is unreadable must not be used.
    let is_unreadable = |name: &str| item.get(name).is_some_and(|value| value.as_str().is_none());
    if ["kty", "crv", "kid", "alg", "use"].into_iter().any(is_unreadable) {
        return None;
    }
    let key_ops = match item.get("key_ops") {
        Some(Json::Array(ops)) => {
            Some(ops.iter().map(|op| op.as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        Some(_) => return None,
        None => None,
    };
    let jwk = jwk(item, key_ops)?;
    let key = Key::from_jwk(jwk.algorithm()?, &jwk).ok()?;
    Some((jwk.kid?, key))
}

fn jwk(item: &Json<'_>, key_ops: Option<Vec<String>>) -> Option<Jwk> {
    let text = |name: &str| item.get(name).and_then(Json::as_str).map(str::to_owned);
    Some(Jwk {
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x5t":"?",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"EC","crv":"P-521","kid":"b"}]}"#;

    #[test]
    fn unusable_keys_are_skipped_and_two_keys_of_one_kid_refused() {
        let set = KeySet::parse(GOOD).unwrap();
        assert!(set.get("a").is_some() && set.get("b").is_none());
        let twice = String::from_utf8_lossy(GOOD).replace("\"kid\":\"b\"", "\"kid\":\"a\"");
        assert!(KeySet::parse(twice.as_bytes()).is_some(), "the other is skipped");
        let key =
            r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert!(KeySet::parse(format!(r#"{{"keys":[{key},{key}]}}"#).as_bytes()).is_none());
        for text in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":{}}"#, "[]", r#"{"keys":[1,null]}"#] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
        let private = key.replace("\"kid\"", "\"d\":\"AA\",\"kid\"");
        assert!(KeySet::parse(format!(r#"{{"keys":[{private}]}}"#).as_bytes()).is_none());
    }
}
