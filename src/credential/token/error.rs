//! Reasons for refusing a token.

use std::fmt;

/// Reason for refusing a token; holds nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not three parts of canonical base64url, or a header that is not exactly `alg`, `kid` and `typ`.
    Malformed,
    /// No key of this source has that `kid`.
    UnknownKid,
    /// Algorithm in the header other than the key's.
    Algorithm,
    /// `typ` of another family.
    Type,
    /// Signature that the key did not make.
    Signature,
    /// Claim that is missing, mistyped or impossible.
    Claims,
    /// `iss` of another issuer.
    Issuer,
    /// `aud` without this audience.
    Audience,
    /// Use after `exp` and the leeway.
    Expired,
    /// Use before `iat` or `nbf`, clock tolerance included.
    NotYetValid,
    /// Lifetime longer than its source may give.
    Lifetime,
    /// The issuer's keys could not be fetched, or are stale.
    KeysUnavailable,
    /// No key of this family can sign.
    NoSigningKey,
    /// Token longer than [`MAX_CREDENTIAL_BYTES`](crate::credential::MAX_CREDENTIAL_BYTES).
    TooLong,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::UnknownKid => "no key of this family has that `kid`",
            Self::Algorithm => "the algorithm is not the key's",
            Self::Type => "the token is of another family",
            Self::Signature => "the signature does not hold",
            Self::Claims => "a claim is missing, mistyped or impossible",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Lifetime => "the token's lifetime is longer than its family allows",
            Self::KeysUnavailable => "the issuer's keys are not known at present",
            Self::NoSigningKey => "no key of this family can sign",
            Self::TooLong => "the token would be longer than a credential may be",
        })
    }
}

impl std::error::Error for TokenError {}
