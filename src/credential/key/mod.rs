//! Keys that sign and verify client tokens: one algorithm each, strength checked when they are loaded.
//!
//! Refuses keys that the signature library would accept: short and placeholder secrets, weak points, encryption keys,
//! 1024-bit RSA.

mod algorithm;
mod curves;
mod error;
mod jwk;
mod rsa;
mod secret;
mod spki;

pub use algorithm::{Algorithm, HostVerify};
pub use error::KeyError;
pub use jwk::Jwk;
pub use secret::{check_seed, decode_base64url, derive_secret, is_text};

use base64ct::{Base64UrlUnpadded, Encoding};
use jwt_compact::alg::{Ed25519, Es256, Hs256, Hs256Key};
use jwt_compact::{Algorithm as _, AlgorithmSignature as _};

use crate::json::Json;

use secret::check_secret;

/// A key under its algorithm. Deliberately without `Debug` and `Clone`.
pub struct Key {
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Hs256(Hs256Key),
    EdDsa(Box<Pair<ed25519_dalek::SigningKey, ed25519_dalek::VerifyingKey>>),
    Es256(Box<Pair<p256::ecdsa::SigningKey, p256::ecdsa::VerifyingKey>>),
    Rs256(Box<rsa::PublicKey>),
}

struct Pair<S, V> {
    signing: Option<S>,
    verifying: V,
}

impl Key {
    /// Reads a secret: the HMAC key, the Ed25519 seed or the P-256 scalar.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the bytes are too few, guessable or no key.
    pub fn from_secret(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        if algorithm == Algorithm::Rs256 {
            return Err(KeyError::VerifyOnly);
        }
        check_secret(bytes)?;
        if algorithm != Algorithm::Hs256 && bytes.len() != 32 {
            return Err(KeyError::Length);
        }
        Ok(Self { algorithm, material: Material::from_secret(algorithm, bytes)? })
    }

    /// Reads a public key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the JWK is of another algorithm, meant for another use, private or weak.
    pub fn from_jwk(algorithm: Algorithm, jwk: &Jwk) -> Result<Self, KeyError> {
        jwk.check_usage(algorithm)?;
        let material = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::JwkMembers),
            Algorithm::EdDsa => {
                Material::EdDsa(Box::new(Pair { signing: None, verifying: curves::ed25519(jwk)? }))
            }
            Algorithm::Es256 => {
                Material::Es256(Box::new(Pair { signing: None, verifying: curves::p256(jwk)? }))
            }
            Algorithm::Rs256 => Material::Rs256(Box::new(rsa::PublicKey::from_jwk(jwk)?)),
        };
        Ok(Self { algorithm, material })
    }

    /// Returns the algorithm of this key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Verifies a signature over `message`, in constant time where the key is secret.
    ///
    /// ES256 and RS256 are offered to the `host` first, which verifies them ten times faster than a module can.
    pub fn verify(&self, message: &[u8], signature: &[u8], host: &HostVerify<'_>) -> bool {
        match &self.material {
            Material::Hs256(key) => check(&Hs256, key, message, signature),
            Material::EdDsa(pair) => check(&Ed25519, &pair.verifying, message, signature),
            Material::Es256(_) if signature.len() != 64 => false,
            Material::Es256(pair) => {
                let key = spki::p256(pair.verifying.to_encoded_point(false).as_bytes());
                let answer = host(Algorithm::Es256, &key, message, &spki::ecdsa_signature(signature));
                answer.unwrap_or_else(|| check(&Es256, &pair.verifying, message, signature))
            }
            Material::Rs256(key) => key.verify(message, signature, host),
        }
    }

    /// Returns the public key as a JWK (RFC 7517, RFC 8037); `None` for a secret.
    pub fn public_jwk(&self, kid: &str) -> Option<Json<'static>> {
        let text = |text: &str| Json::String(text.to_owned().into());
        let names = [("kid", text(kid)), ("alg", text(self.algorithm.name())), ("use", text("sig"))];
        let members = self.material.public_members()?.into_iter().chain(names);
        Some(Json::Object(members.map(|(name, value)| (name.into(), value)).collect()))
    }

    /// Signs `message`; `None` when the key can only verify.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(match &self.material {
            Material::Hs256(key) => Hs256.sign(key, message).as_bytes().into_owned(),
            Material::EdDsa(pair) => Ed25519.sign(pair.signing.as_ref()?, message).as_bytes().into_owned(),
            Material::Es256(pair) => Es256.sign(pair.signing.as_ref()?, message).as_bytes().into_owned(),
            Material::Rs256(..) => return None,
        })
    }
}

impl Material {
    fn from_secret(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyError> {
        Ok(match algorithm {
            Algorithm::Hs256 => Self::Hs256(Hs256Key::new(bytes)),
            Algorithm::EdDsa => {
                let seed = <&[u8; 32]>::try_from(bytes).map_err(|_| KeyError::Length)?;
                let signing = ed25519_dalek::SigningKey::from_bytes(seed);
                let verifying = signing.verifying_key();
                Self::EdDsa(Box::new(Pair { signing: Some(signing), verifying }))
            }
            Algorithm::Es256 => {
                let signing = p256::ecdsa::SigningKey::from_slice(bytes).map_err(|_| KeyError::Invalid)?;
                let verifying = *signing.verifying_key();
                Self::Es256(Box::new(Pair { signing: Some(signing), verifying }))
            }
            Algorithm::Rs256 => return Err(KeyError::VerifyOnly),
        })
    }

    /// Returns the JWK members of the key itself; `None` for a secret.
    fn public_members(&self) -> Option<Vec<(&'static str, Json<'static>)>> {
        let encode = |bytes: &[u8]| Json::String(Base64UrlUnpadded::encode_string(bytes).into());
        Some(match self {
            Self::Hs256(_) => return None,
            Self::EdDsa(pair) => {
                vec![
                    ("kty", "OKP".into()),
                    ("crv", "Ed25519".into()),
                    ("x", encode(pair.verifying.as_bytes())),
                ]
            }
            Self::Es256(pair) => {
                let point = pair.verifying.to_encoded_point(false);
                let (x, y) = (encode(point.x()?), encode(point.y()?));
                vec![("kty", "EC".into()), ("crv", "P-256".into()), ("x", x), ("y", y)]
            }
            Self::Rs256(key) => {
                let (n, e) = key.parts();
                vec![("kty", "RSA".into()), ("n", encode(n)), ("e", encode(e))]
            }
        })
    }
}

fn check<A>(algorithm: &A, key: &A::VerifyingKey, message: &[u8], signature: &[u8]) -> bool
where
    A: jwt_compact::Algorithm,
{
    A::Signature::LENGTH.is_none_or(|length| length.get() == signature.len())
        && A::Signature::try_from_slice(signature)
            .is_ok_and(|signature| algorithm.verify_signature(&signature, key, message))
}
