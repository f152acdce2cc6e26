//! API keys: the format of their text and the digest under which they are stored.
//!
//! Which keys exist is the policy's: a text of the right format is not yet a key.

use sha2::{Digest as _, Sha256};

/// SHA-256 of the whole text of an API key, prefix included (requirement 002: keys are hashed before storage).
pub type Digest = [u8; 32];

/// Computes the digest under which an API key is stored and looked up.
pub fn digest(credential: &str) -> Digest {
    Sha256::digest(credential.as_bytes()).into()
}

/// Characters after the prefix of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `0-9a-f`, lower case only: a second spelling of a key would be a second digest.
    Hex,
    /// ASCII letters and digits.
    Alphanumeric,
    /// ASCII letters, digits, `-` and `_`.
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

/// Format of an API key: a fixed prefix, then between `min` and `max` characters of one alphabet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFormat {
    /// Exact bytes at the start of every such key.
    pub prefix: String,
    /// Alphabet of the rest.
    pub alphabet: Alphabet,
    /// Fewest characters after the prefix.
    pub min: usize,
    /// Most characters after the prefix.
    pub max: usize,
}

impl KeyFormat {
    /// Returns whether a text has this format; checked before anything is hashed.
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
    fn key_in_another_format_is_not_matched() {
        let format = KeyFormat { prefix: "acme_".into(), alphabet: Alphabet::Hex, min: 32, max: 32 };
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(format.matches(&format!("acme_{hex}")));
        for wrong in [
            format!("acme_{}", hex.to_uppercase()),
            format!("acme_{hex}0"),
            format!("acme_acme_{hex}"),
            format!("acme_{}", hex.replace('0', "٠")),
            format!("Acme_{hex}"),
            hex.to_owned(),
            String::new(),
        ] {
            assert!(!format.matches(&wrong), "{wrong}");
        }
    }
}
