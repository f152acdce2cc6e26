//! Public keys on Ed25519 and P-256.

use super::error::KeyError;
use super::jwk::Jwk;
use super::secret::decode_base64url;

/// Reads an Ed25519 key (RFC 8037).
pub(super) fn ed25519(jwk: &Jwk) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
    let (Some("Ed25519"), Some(x), None, None, None) = (jwk.crv.as_deref(), &jwk.x, &jwk.y, &jwk.n, &jwk.e)
    else {
        return Err(KeyError::JwkMembers);
    };
    if jwk.kty != "OKP" {
        return Err(KeyError::JwkMembers);
    }
    let bytes: [u8; 32] = decode_base64url(x)?.try_into().map_err(|_| KeyError::Invalid)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Invalid)?;
    // With another encoding of the same point, or a point of small order, one signature fits many messages.
    if key.is_weak() || key.to_edwards().compress().to_bytes() != bytes {
        return Err(KeyError::Weak);
    }
    Ok(key)
}

/// Reads a P-256 key (RFC 7518 section 6.2).
pub(super) fn p256(jwk: &Jwk) -> Result<p256::ecdsa::VerifyingKey, KeyError> {
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
