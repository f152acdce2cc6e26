//! Secrets: decoding, derivation and strength.

use base64ct::{Base64UrlUnpadded, Encoding};
use hkdf::Hkdf;
use sha2::Sha256;

use super::algorithm::Algorithm;
use super::error::KeyError;

/// Decodes unpadded base64url (RFC 4648 section 5), refusing non-canonical spellings.
///
/// # Errors
///
/// [`KeyError::Encoding`].
pub fn decode_base64url(text: &str) -> Result<Vec<u8>, KeyError> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| KeyError::Encoding)
}

/// Derives a family's secret from a master secret by HKDF-SHA256 (RFC 5869), so that a new `kid` is a new key without
/// a new secret in the environment.
///
/// # Errors
///
/// [`KeyError`] when the master secret itself is too short or guessable.
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

/// Refuses short and guessable secrets.
pub(super) fn check_secret(bytes: &[u8]) -> Result<(), KeyError> {
    check_seed(bytes)?;
    if is_text(bytes) { Err(KeyError::Guessable) } else { Ok(()) }
}

/// Returns whether a secret consists of characters that a person may have typed.
pub fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// Refuses short, repeated and well-known bytes as the seed of random numbers. A text is accepted: each number is also
/// derived from the time and a counter.
///
/// 32 random bytes hold fewer than 16 different values about once in 10^9 draws.
///
/// # Errors
///
/// [`KeyError::TooShort`] and [`KeyError::Guessable`].
pub fn check_seed(bytes: &[u8]) -> Result<(), KeyError> {
    if bytes.len() < 32 {
        return Err(KeyError::TooShort);
    }
    let distinct = (0..=u8::MAX).filter(|value| bytes.contains(value)).count();
    let is_pem = bytes.starts_with(b"-----BEGIN");
    let is_ascending = bytes.iter().zip(bytes.iter().skip(1)).all(|(a, b)| a.wrapping_add(1) == *b);
    let is_rfc_example = bytes.starts_with(&[0x03, 0x23, 0x35, 0x4b, 0x2b, 0x0f, 0xa5, 0xbc, 0x83, 0x7e]);
    if distinct < 16 || is_pem || is_ascending || is_rfc_example {
        return Err(KeyError::Guessable);
    }
    Ok(())
}
