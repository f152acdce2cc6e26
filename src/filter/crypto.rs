//! Signature checks by the host: Envoy's foreign function `verify_signature` (BoringSSL).
//!
//! Its arguments and result are small protobuf messages, encoded here field by field.

use std::cell::Cell;

use crate::credential::Algorithm;

use super::raw;

const FUNCTION: &str = "verify_signature";

thread_local! {
    /// The host lacks the function. Recorded because on some hosts even a failed call is slow.
    static IS_MISSING: Cell<bool> = const { Cell::new(false) };
}

/// Returns true when the host verifies signatures.
pub(super) fn is_offered() -> bool {
    let _ = verify(Algorithm::Rs256, b"", b"", b"");
    !IS_MISSING.get()
}

/// Verifies an RSA signature over SHA-256; `None` when the host cannot.
///
/// `VerifySignatureArguments` (Envoy, `verify_signature.proto`): 1 hash function, 2 public key in DER, 3 signature, 4 text.
pub(super) fn verify(_: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    if IS_MISSING.get() {
        return None;
    }
    let mut arguments = Vec::with_capacity(key.len() + message.len() + signature.len() + 32);
    for (field, bytes) in [(1, b"sha256".as_slice()), (2, key), (3, signature), (4, message)] {
        write_field(&mut arguments, field, bytes);
    }
    match raw::call_foreign(FUNCTION, &arguments) {
        Ok(answer) => Some(is_verified(&answer)),
        Err(error) => {
            IS_MISSING.set(error == raw::NOT_FOUND);
            None
        }
    }
}

/// Appends a length-delimited field (wire type 2).
fn write_field(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

/// Reads `VerifySignatureResult`: 1 result (bool), 2 error. Any other form counts as not verified.
fn is_verified(answer: &[u8]) -> bool {
    answer.starts_with(&[1 << 3, 1])
}
