//! The compact form of a token.

use base64ct::{Base64UrlUnpadded, Encoding};

use super::error::TokenError;

/// The three parts of the compact form (RFC 7515 section 3.1), encoded.
pub(super) struct Parts<'a> {
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
    /// Header and claims, the text that the signature covers.
    pub(super) signed: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn split(compact: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = compact.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let is_part = |part: &str| !part.is_empty() && !part.contains('.');
        if is_part(header) && is_part(claims) && is_part(signature) {
            Ok(Self { header, claims, signature, signed })
        } else {
            Err(TokenError::Malformed)
        }
    }
}

/// Decodes one part, refusing non-canonical base64url.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::Malformed)
}

/// A token's content with nothing verified: for `callbound inspect`, never for a decision.
pub struct UnverifiedToken {
    /// JOSE header as JSON text.
    pub header: String,
    /// Claims as JSON text.
    pub claims: String,
}

/// Decodes a token without verifying anything.
///
/// # Errors
///
/// [`TokenError::Malformed`] for anything but three parts of base64url.
pub fn peek(compact: &str) -> Result<UnverifiedToken, TokenError> {
    let parts = Parts::split(compact)?;
    let text = |part| String::from_utf8(decode(part)?).map_err(|_| TokenError::Malformed);
    Ok(UnverifiedToken { header: text(parts.header)?, claims: text(parts.claims)? })
}
