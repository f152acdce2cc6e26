//! Reasons for refusing a key.

use std::fmt;

/// Reason for refusing a key; holds none of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// Not unpadded base64url.
    Encoding,
    /// Fewer bytes than the algorithm needs.
    TooShort,
    /// Not the number of bytes the algorithm needs.
    Length,
    /// Well-known, repeated or otherwise guessable secret.
    Guessable,
    /// Bytes that are no key of this algorithm.
    Invalid,
    /// Public key on which signatures can be forged.
    Weak,
    /// JWK members of another algorithm, or of a private key.
    JwkMembers,
    /// JWK for another purpose than verifying signatures.
    JwkUse,
    /// Algorithm that is only verified, with a public `jwk`.
    VerifyOnly,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "the key is not unpadded base64url; make one with `callbound gen-secret`",
            Self::TooShort => "the secret is shorter than 32 bytes; make one with `callbound gen-secret`",
            Self::Length => "the secret must be exactly 32 bytes in unpadded base64url",
            Self::Guessable => "the secret is guessable; make one with `callbound gen-secret`",
            Self::Invalid => "the bytes are not a key of this algorithm",
            Self::Weak => "signatures can be forged on this public key",
            Self::JwkMembers => "the members are not those of a public key of this algorithm",
            Self::JwkUse => "`use`, `key_ops` or `alg` mark the key for another purpose",
            Self::VerifyOnly => "RS256 is verified only; give a public `jwk` and no secret",
        })
    }
}

impl std::error::Error for KeyError {}
