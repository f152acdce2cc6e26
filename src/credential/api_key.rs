//! API keys: the shape of their text and the one digest they are stored as.
//!
//! Refuses to know which keys exist; a text of the right shape is still a stranger's.

use sha2::{Digest as _, Sha256};

/// SHA-256 of the whole text of an API key, prefix included (requirement 002: keys are hashed before storage).
pub type Digest = [u8; 32];

/// Computes the digest under which an API key is stored and looked up.
pub fn digest(credential: &str) -> Digest {
    Sha256::digest(credential.as_bytes()).into()
}

/// The characters that may follow the prefix of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `0-9a-f`, lower case only: a second spelling of a key would be a second digest.
    Hex,
    /// `0-9A-Za-z`.
    Alphanumeric,
    /// `0-9A-Za-z-_`.
    Base64Url,
}

impl Alphabet {
    fn contains(self, byte: u8) -> bool {
        match self {
            Self::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Base64Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
        }
    }
}

/// How an API key is written: a fixed prefix, then between `min` and `max` characters of one alphabet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyShape {
    /// The exact bytes every such key begins with.
    pub prefix: String,
    /// What follows the prefix.
    pub alphabet: Alphabet,
    /// The least number of characters after the prefix.
    pub min: usize,
    /// The greatest number of characters after the prefix.
    pub max: usize,
}

impl KeyShape {
    /// Tells whether a text is written like such a key, before anything is hashed.
    pub fn matches(&self, text: &str) -> bool {
        text.strip_prefix(self.prefix.as_str()).is_some_and(|rest| {
            (self.min..=self.max).contains(&rest.len())
                && rest.bytes().all(|byte| self.alphabet.contains(byte))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_shape_is_a_key() {
        let shape = KeyShape { prefix: "acme_".into(), alphabet: Alphabet::Hex, min: 32, max: 32 };
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(shape.matches(&format!("acme_{hex}")));
        for wrong in [
            format!("acme_{}", hex.to_uppercase()),
            format!("acme_{hex}0"),
            format!("acme_acme_{hex}"),
            format!("acme_{}", hex.replace('0', "٠")),
            format!("Acme_{hex}"),
            hex.to_owned(),
            String::new(),
        ] {
            assert!(!shape.matches(&wrong), "{wrong}");
        }
    }
}
