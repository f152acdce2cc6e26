//! Public keys as JWKs.

use serde::Deserialize;

use super::algorithm::Algorithm;
use super::error::KeyError;

/// A public key as RFC 7517 writes it, with only the members a signature key may have.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Jwk {
    /// Key type: `OKP`, `EC` or `RSA`.
    pub kty: String,
    /// Curve: `Ed25519` or `P-256`.
    pub crv: Option<String>,
    /// Point, or its x coordinate, in base64url.
    pub x: Option<String>,
    /// The point's y coordinate, in base64url.
    pub y: Option<String>,
    /// RSA modulus, in base64url.
    pub n: Option<String>,
    /// RSA exponent, in base64url.
    pub e: Option<String>,
    /// Id of the key, named by tokens.
    pub kid: Option<String>,
    /// Algorithm the key is for.
    pub alg: Option<String>,
    /// Purpose of the key: `sig`.
    #[serde(rename = "use")]
    pub usage: Option<String>,
    /// Operations the key is for: `verify`.
    pub key_ops: Option<Vec<String>>,
}

impl Jwk {
    /// Returns the one algorithm that is used here with keys of this type and curve; `None` for other keys.
    pub fn algorithm(&self) -> Option<Algorithm> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDsa),
            ("EC", Some("P-256")) => Some(Algorithm::Es256),
            ("RSA", None) => Some(Algorithm::Rs256),
            _ => None,
        }
    }

    /// Refuses a key for another purpose than verifying signatures of `algorithm`.
    pub(super) fn check_usage(&self, algorithm: Algorithm) -> Result<(), KeyError> {
        let use_fits = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let ops_fit = self.key_ops.as_ref().is_none_or(|ops| ops.iter().all(|op| op == "verify"));
        let alg_fits = self.alg.as_deref().is_none_or(|alg| alg == algorithm.name());
        if use_fits && ops_fit && alg_fits { Ok(()) } else { Err(KeyError::JwkUse) }
    }
}
