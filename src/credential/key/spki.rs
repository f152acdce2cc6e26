//! Public keys and signatures in DER (X.690), the form that hosts verify.

/// SubjectPublicKeyInfo of an uncompressed P-256 point (RFC 5480 section 2), without the point.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// AlgorithmIdentifier of rsaEncryption (RFC 3279 section 2.3.1).
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// Encodes the key of a P-256 point in its 65-byte uncompressed form.
pub(super) fn p256(point: &[u8]) -> Vec<u8> {
    [&P256_PREFIX, point].concat()
}

/// Encodes the key of an RSA modulus and exponent, both big-endian.
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = tagged(SEQUENCE, &[integer(modulus), integer(exponent)].concat());
    let bits = tagged(BIT_STRING, &[&[0], key.as_slice()].concat());
    tagged(SEQUENCE, &[&RSA_ALGORITHM, bits.as_slice()].concat())
}

/// Encodes an ECDSA signature `r ‖ s` (RFC 7518 section 3.4) as a pair of integers.
pub(super) fn ecdsa_signature(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    tagged(SEQUENCE, &[integer(r), integer(s)].concat())
}

/// Encodes an unsigned integer without leading zeros, except the one that keeps it positive.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(start..).unwrap_or_default();
    let needs_zero = digits.first().is_none_or(|&byte| byte >= 0x80);
    let zero: &[u8] = if needs_zero { &[0] } else { &[] };
    tagged(INTEGER, &[zero, digits].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            let size = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            let size: &[u8] = if length > 0xff { &size } else { size.split_at(1).1 };
            bytes.push(0x80 | if length > 0xff { 2 } else { 1 });
            bytes.extend_from_slice(size);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}
