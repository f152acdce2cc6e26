//! Signature algorithms of API keys and tokens.

use serde::Deserialize;

/// Signature algorithm of a key; the key fixes it, never the token (RFC 8725 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-256; the key is a secret of at least 32 bytes.
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519 (RFC 8037).
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256; verified, never signed here (RUSTSEC-2023-0071).
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// Returns the name in the JOSE header (RFC 7518 section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// Verification by the host, in this order: algorithm, public key in DER, message, and signature (DER for ECDSA).
///
/// Returns `None` where the host offers no verification.
pub type HostVerify<'a> = dyn Fn(Algorithm, &[u8], &[u8], &[u8]) -> Option<bool> + 'a;
