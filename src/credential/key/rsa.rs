//! RS256, verified only: by the host where the module runs in one, by the `rsa` crate in native tools and tests.
//!
//! The crate alone would be a tenth of the module's size and is ten times slower than a host's BoringSSL.

use super::algorithm::{Algorithm, HostVerify};
use super::error::KeyError;
use super::jwk::Jwk;
use super::secret::decode_base64url;
use super::spki;

/// Exponent 65537, big-endian: every maintained issuer uses it, and small exponents have a history of attacks.
const EXPONENT: &[u8] = &[1, 0, 1];

/// An RSA public key of 2048 to 4096 bits with the exponent 65537.
pub(super) struct PublicKey {
    spki: Vec<u8>,
    modulus: Vec<u8>,
    #[cfg(not(target_arch = "wasm32"))]
    software: jwt_compact::alg::RsaPublicKey,
}

impl PublicKey {
    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let (None, None, None, Some(n), Some(e)) = (&jwk.crv, &jwk.x, &jwk.y, &jwk.n, &jwk.e) else {
            return Err(KeyError::JwkMembers);
        };
        let (modulus, exponent) = (decode_base64url(n)?, decode_base64url(e)?);
        let (Some(&first), Some(&last)) = (modulus.first(), modulus.last()) else {
            return Err(KeyError::JwkMembers);
        };
        if jwk.kty != "RSA" || first == 0 {
            return Err(KeyError::JwkMembers);
        }
        let bits = modulus.len() * 8 - first.leading_zeros() as usize;
        if !(2_048..=4_096).contains(&bits) || last % 2 == 0 || exponent != EXPONENT {
            return Err(KeyError::Weak);
        }
        Ok(Self {
            spki: spki::rsa(&modulus, EXPONENT),
            modulus,
            #[cfg(not(target_arch = "wasm32"))]
            software: software::key(n, e)?,
        })
    }

    /// Returns modulus and exponent, big-endian.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.modulus, EXPONENT)
    }

    /// Verifies a signature; false where neither the host nor this build can.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8], host: &HostVerify<'_>) -> bool {
        let answer = host(Algorithm::Rs256, &self.spki, message, signature);
        answer.unwrap_or_else(|| self.verify_in_software(message, signature))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn verify_in_software(&self, message: &[u8], signature: &[u8]) -> bool {
        software::verify(&self.software, message, signature)
    }

    #[cfg(target_arch = "wasm32")]
    fn verify_in_software(&self, _: &[u8], _: &[u8]) -> bool {
        false
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod software {
    use jwt_compact::alg::{Rsa, RsaPublicKey};
    use jwt_compact::jwk::JsonWebKey;
    use jwt_compact::{Algorithm as _, AlgorithmSignature as _};

    use super::KeyError;

    pub(super) fn key(n: &str, e: &str) -> Result<RsaPublicKey, KeyError> {
        let text = serde_json::json!({"kty": "RSA", "n": n, "e": e}).to_string();
        let jwk: JsonWebKey<'_> = serde_json::from_str(&text).map_err(|_| KeyError::Invalid)?;
        RsaPublicKey::try_from(&jwk).map_err(|_| KeyError::Invalid)
    }

    pub(super) fn verify(key: &RsaPublicKey, message: &[u8], signature: &[u8]) -> bool {
        let rsa = Rsa::rs256();
        jwt_compact::alg::RsaSignature::try_from_slice(signature)
            .is_ok_and(|signature| rsa.verify_signature(&signature, key, message))
    }
}
