//! The foreign function `verify_signature` as Envoy offers it: protobuf in, protobuf out, keys and ECDSA signatures in
//! DER, the hash named by the caller.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jwt_compact::alg::{Rsa, RsaPublicKey, RsaSignature};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm as _, AlgorithmSignature as _};
use p256::ecdsa::signature::Verifier as _;

/// Envoy's status for arguments it cannot read.
const BAD_ARGUMENT: u32 = 2;

/// `VerifySignatureArguments` to `VerifySignatureResult`.
pub fn verify_signature(arguments: &[u8]) -> Result<Vec<u8>, u32> {
    let [hash, key, signature, text] = fields(arguments).ok_or(BAD_ARGUMENT)?;
    let holds = hash == b"sha256"
        && match rsa_key(key) {
            Some(key) => rsa_holds(&key, signature, text),
            None => ecdsa_holds(key, signature, text),
        };
    // 1: bool result, absent when false. 2: string error.
    Ok(if holds { vec![1 << 3, 1] } else { [&[2 << 3 | 2, 2], b"no".as_slice()].concat() })
}

fn rsa_holds(key: &RsaPublicKey, signature: &[u8], text: &[u8]) -> bool {
    RsaSignature::try_from_slice(signature)
        .is_ok_and(|signature| Rsa::rs256().verify_signature(&signature, key, text))
}

fn ecdsa_holds(key: &[u8], signature: &[u8], text: &[u8]) -> bool {
    // SubjectPublicKeyInfo of P-256 ends in the uncompressed point.
    let point = key.len().checked_sub(65).and_then(|start| key.get(start..)).unwrap_or_default();
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point);
    let signature = p256::ecdsa::Signature::from_der(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(text, &signature).is_ok())
}

/// Reads fields 1 to 4, all length-delimited.
fn fields(mut message: &[u8]) -> Option<[&[u8]; 4]> {
    let mut found = [&[][..]; 4];
    while let Some((tag, rest)) = message.split_first() {
        let (length, rest) = varint(rest)?;
        let (value, rest) = rest.split_at_checked(length)?;
        let slot = found.get_mut(usize::from(tag >> 3).checked_sub(1)?)?;
        *slot = value;
        message = rest;
    }
    Some(found)
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// SubjectPublicKeyInfo ::= SEQUENCE { algorithm, BIT STRING { SEQUENCE { modulus, exponent } } }
fn rsa_key(der: &[u8]) -> Option<RsaPublicKey> {
    let (info, _) = element(0x30, der)?;
    let (_algorithm, rest) = element(0x30, info)?;
    let (bits, _) = element(0x03, rest)?;
    let (key, _) = element(0x30, bits.strip_prefix(&[0])?)?;
    let (modulus, rest) = element(0x02, key)?;
    let (exponent, _) = element(0x02, rest)?;
    let text =
        |integer: &[u8]| Base64UrlUnpadded::encode_string(integer.strip_prefix(&[0]).unwrap_or(integer));
    let jwk = serde_json::json!({"kty": "RSA", "n": text(modulus), "e": text(exponent)}).to_string();
    RsaPublicKey::try_from(&serde_json::from_str::<JsonWebKey<'_>>(&jwk).ok()?).ok()
}

/// Splits a DER element of this tag into its content and the rest.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    if first & 0x80 == 0 {
        return rest.split_at_checked(usize::from(*first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(4))?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}
