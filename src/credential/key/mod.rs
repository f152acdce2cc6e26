//! The keys that sign and verify client tokens: one algorithm each, their strength checked when they are loaded.
//!
//! Refuses to know where a secret came from or which tokens it signs. What the signature library would accept and we
//! do not (short and placeholder secrets, weak points, encryption keys, 1024-bit RSA) is refused here.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use hkdf::Hkdf;
use jwt_compact::alg::{Ed25519, Es256, Hs256, Hs256Key};
use jwt_compact::{Algorithm as _, AlgorithmSignature as _};
use serde::Deserialize;
use sha2::Sha256;

use crate::json::Json;

use super::{rsa, spki};

/// The signature algorithms a key may have; the key fixes it, never the token (RFC 8725 section 3.1).
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
    /// The name in the JOSE header (RFC 7518 section 3.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// Why a key was refused; never says anything of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// Not unpadded base64url.
    Encoding,
    /// Fewer bytes than the algorithm needs.
    TooShort,
    /// Not the number of bytes the algorithm needs.
    Length,
    /// A well-known, repeated or otherwise guessable secret.
    Guessable,
    /// Bytes that are no key of this algorithm.
    Invalid,
    /// A public key on which signatures can be forged.
    Weak,
    /// The members of the JWK belong to another algorithm, or to a private key.
    JwkMembers,
    /// The JWK is meant for something else than verifying signatures.
    JwkUse,
    /// This algorithm is only verified with a public `jwk`.
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
            Self::JwkUse => "`use`, `key_ops` or `alg` say the key is for something else",
            Self::VerifyOnly => "RS256 is verified only; give a public `jwk` and no secret",
        })
    }
}

impl std::error::Error for KeyError {}

/// A public key as RFC 7517 writes it; only the members a signature key may have.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Jwk {
    /// The kind of key: `OKP`, `EC` or `RSA`.
    pub kty: String,
    /// The curve: `Ed25519` or `P-256`.
    pub crv: Option<String>,
    /// The point, or its x coordinate, in base64url.
    pub x: Option<String>,
    /// The point's y coordinate, in base64url.
    pub y: Option<String>,
    /// The RSA modulus, in base64url.
    pub n: Option<String>,
    /// The RSA exponent, in base64url.
    pub e: Option<String>,
    /// The key's id.
    pub kid: Option<String>,
    /// The algorithm the key is for.
    pub alg: Option<String>,
    /// What the key is for: `sig`.
    #[serde(rename = "use")]
    pub usage: Option<String>,
    /// What may be done with the key: `verify`.
    pub key_ops: Option<Vec<String>>,
}

/// Asks the host to verify a signature: algorithm, public key in DER, message, and signature (DER for ECDSA). `None` =
/// it offers no such thing.
pub type HostVerify<'a> = dyn Fn(Algorithm, &[u8], &[u8], &[u8]) -> Option<bool> + 'a;

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
        let material = match algorithm {
            Algorithm::Hs256 => Material::Hs256(Hs256Key::new(bytes)),
            Algorithm::EdDsa => {
                let seed = <&[u8; 32]>::try_from(bytes).map_err(|_| KeyError::Length)?;
                let signing = ed25519_dalek::SigningKey::from_bytes(seed);
                let verifying = signing.verifying_key();
                Material::EdDsa(Box::new(Pair { signing: Some(signing), verifying }))
            }
            Algorithm::Es256 => {
                let signing = p256::ecdsa::SigningKey::from_slice(bytes).map_err(|_| KeyError::Invalid)?;
                let verifying = *signing.verifying_key();
                Material::Es256(Box::new(Pair { signing: Some(signing), verifying }))
            }
            Algorithm::Rs256 => return Err(KeyError::VerifyOnly),
        };
        Ok(Self { algorithm, material })
    }

    /// Reads a public key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the JWK is of another algorithm, meant for another use, private or weak.
    pub fn from_jwk(algorithm: Algorithm, jwk: &Jwk) -> Result<Self, KeyError> {
        check_usage(algorithm, jwk)?;
        let material = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::JwkMembers),
            Algorithm::EdDsa => {
                Material::EdDsa(Box::new(Pair { signing: None, verifying: ed25519_public(jwk)? }))
            }
            Algorithm::Es256 => {
                Material::Es256(Box::new(Pair { signing: None, verifying: p256_public(jwk)? }))
            }
            Algorithm::Rs256 => Material::Rs256(Box::new(rsa::PublicKey::from_jwk(jwk)?)),
        };
        Ok(Self { algorithm, material })
    }

    /// The algorithm this key is for, and no other.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Tells whether this key can sign.
    pub fn can_sign(&self) -> bool {
        match &self.material {
            Material::Hs256(_) => true,
            Material::EdDsa(pair) => pair.signing.is_some(),
            Material::Es256(pair) => pair.signing.is_some(),
            Material::Rs256(..) => false,
        }
    }

    /// Tells whether `signature` is this key's over `message`; in constant time where the key is secret.
    ///
    /// ES256 and RS256 are first offered to the `host`, which verifies them ten times faster than a module can.
    pub fn verify(&self, message: &[u8], signature: &[u8], host: &HostVerify<'_>) -> bool {
        fn check<A: jwt_compact::Algorithm>(
            a: &A,
            key: &A::VerifyingKey,
            message: &[u8],
            signature: &[u8],
        ) -> bool {
            A::Signature::LENGTH.is_none_or(|length| length.get() == signature.len())
                && A::Signature::try_from_slice(signature)
                    .is_ok_and(|signature| a.verify_signature(&signature, key, message))
        }
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

    /// The public key as a JWK (RFC 7517, RFC 8037); `None` for a secret.
    pub fn public_jwk(&self, kid: &str) -> Option<Json<'static>> {
        let encode = |bytes: &[u8]| Json::String(Base64UrlUnpadded::encode_string(bytes).into());
        let text = |text: &str| Json::String(text.to_owned().into());
        let material = match &self.material {
            Material::Hs256(_) => return None,
            Material::EdDsa(pair) => {
                vec![("kty", text("OKP")), ("crv", text("Ed25519")), ("x", encode(pair.verifying.as_bytes()))]
            }
            Material::Es256(pair) => {
                let point = pair.verifying.to_encoded_point(false);
                let (x, y) = (encode(point.x()?), encode(point.y()?));
                vec![("kty", text("EC")), ("crv", text("P-256")), ("x", x), ("y", y)]
            }
            Material::Rs256(key) => {
                let (n, e) = key.parts();
                vec![("kty", text("RSA")), ("n", encode(n)), ("e", encode(e))]
            }
        };
        let names = [("kid", text(kid)), ("alg", text(self.algorithm.name())), ("use", text("sig"))];
        Some(Json::Object(
            material.into_iter().chain(names).map(|(name, value)| (name.into(), value)).collect(),
        ))
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

/// Decodes unpadded base64url (RFC 4648 section 5), refusing every second spelling.
///
/// # Errors
///
/// [`KeyError::Encoding`].
pub fn decode_base64url(text: &str) -> Result<Vec<u8>, KeyError> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| KeyError::Encoding)
}

/// Derives a family's secret from a master by HKDF-SHA256 (RFC 5869), so that a new `kid` is a new key without a new
/// secret in the environment.
///
/// # Errors
///
/// [`KeyError`] when the master itself is too short or guessable.
pub fn derive_secret(
    master: &[u8],
    family: &str,
    kid: &str,
    algorithm: Algorithm,
) -> Result<[u8; 32], KeyError> {
    check_secret(master)?;
    let info = format!("callbound/1|{family}|{kid}|{}", algorithm.name());
    let mut secret = [0; 32];
    Hkdf::<Sha256>::new(Some(b"callbound"), master)
        .expand(info.as_bytes(), &mut secret)
        .map_err(|_| KeyError::Invalid)?;
    Ok(secret)
}

/// Random bytes repeat little: 32 of them hold fewer than 16 different values about once in 10^9 draws.
fn check_secret(bytes: &[u8]) -> Result<(), KeyError> {
    if bytes.len() < 32 {
        return Err(KeyError::TooShort);
    }
    let mut seen = [false; 256];
    for &byte in bytes {
        if let Some(slot) = seen.get_mut(usize::from(byte)) {
            *slot = true;
        }
    }
    let distinct = seen.iter().filter(|&&slot| slot).count();
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let is_pem = bytes.starts_with(b"-----BEGIN");
    let ascending = bytes.iter().zip(bytes.iter().skip(1)).all(|(a, b)| a.wrapping_add(1) == *b);
    let is_rfc_example = bytes.starts_with(&[0x03, 0x23, 0x35, 0x4b, 0x2b, 0x0f, 0xa5, 0xbc, 0x83, 0x7e]);
    if distinct < 16 || is_text || is_pem || ascending || is_rfc_example {
        return Err(KeyError::Guessable);
    }
    Ok(())
}

fn check_usage(algorithm: Algorithm, jwk: &Jwk) -> Result<(), KeyError> {
    let use_fits = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let ops_fit = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().all(|op| op == "verify"));
    let alg_fits = jwk.alg.as_deref().is_none_or(|alg| alg == algorithm.name());
    if use_fits && ops_fit && alg_fits { Ok(()) } else { Err(KeyError::JwkUse) }
}

fn ed25519_public(jwk: &Jwk) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
    let (Some("Ed25519"), Some(x), None, None, None) = (jwk.crv.as_deref(), &jwk.x, &jwk.y, &jwk.n, &jwk.e)
    else {
        return Err(KeyError::JwkMembers);
    };
    if jwk.kty != "OKP" {
        return Err(KeyError::JwkMembers);
    }
    let bytes: [u8; 32] = decode_base64url(x)?.try_into().map_err(|_| KeyError::Invalid)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Invalid)?;
    // A second encoding of the same point, or a point of small order, lets one signature fit many messages.
    if key.is_weak() || key.to_edwards().compress().to_bytes() != bytes {
        return Err(KeyError::Weak);
    }
    Ok(key)
}

fn p256_public(jwk: &Jwk) -> Result<p256::ecdsa::VerifyingKey, KeyError> {
    let (Some("P-256"), Some(x), Some(y), None, None) = (jwk.crv.as_deref(), &jwk.x, &jwk.y, &jwk.n, &jwk.e)
    else {
        return Err(KeyError::JwkMembers);
    };
    let (x, y) = (decode_base64url(x)?, decode_base64url(y)?);
    if jwk.kty != "EC" || x.len() != 32 || y.len() != 32 {
        return Err(KeyError::JwkMembers);
    }
    let sec1 = [&[4], x.as_slice(), y.as_slice()].concat();
    p256::ecdsa::VerifyingKey::from_sec1_bytes(&sec1).map_err(|_| KeyError::Invalid)
}
