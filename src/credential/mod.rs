//! Credentials: from untrusted header bytes to a verified key or token.
//!
//! Knows how credentials are written and which keys sign them. A verified token states identity and bounds, never
//! rights; those are computed in [`crate::policy`] and [`crate::decision`] at every use.

mod api_key;
mod cache;
mod entropy;
mod extract;
mod jwks;
mod key;
mod location;
mod remote_jwks;
mod token;

pub use api_key::{Alphabet, Digest, KeyFormat, digest};
pub use cache::VerificationCache;
pub use entropy::Entropy;
pub use extract::{CredentialError, MAX_CREDENTIAL_BYTES, candidates, extract, holds_credential};
pub use jwks::KeySet;
pub use key::{
    Algorithm, HostVerify, Jwk, Key, KeyError, check_seed, decode_base64url, derive_secret, is_text,
};
pub use location::{CredentialLocation, CredentialLocations};
pub use remote_jwks::{RemoteJwks, RemoteKeys};
pub use token::{
    ClaimPath, ClaimRules, Claims, Clock, Family, FamilyKeys, Issuer, KeySource, TextBounds, TokenError,
    TokenVerifier, Ttl, UnverifiedToken, VerificationContext, VerifiedToken, is_bound_text, peek,
};
