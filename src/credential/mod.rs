//! Who is asking: from untrusted header bytes to a verified key or token.
//!
//! Knows the shapes of credentials and the keys that sign them. Refuses to know what anybody may do: a verified token
//! is a statement about identity and bounds, never rights; those are computed in [`crate::policy`] at every use.

mod api_key;
mod cache;
mod claims;
mod entropy;
mod extract;
mod family;
mod issuer;
mod keyring;
mod remote;
mod rsa;
mod spki;

pub use api_key::{Alphabet, Digest, KeyShape, digest};
pub use cache::VerificationCache;
pub use claims::{Claims, TextBounds, VerifiedToken, is_bound_text};
pub use entropy::Entropy;
pub use extract::{
    CredentialError, CredentialLocation, CredentialLocations, MAX_CREDENTIAL_BYTES, candidates, extract,
    holds_credential,
};
pub use family::{Clock, Family, TokenError, Ttl, UnverifiedToken, peek};
pub use issuer::{ClaimPath, ClaimRules, Issuer, KeySource};
pub use keyring::{Algorithm, HostVerify, Jwk, Key, KeyError, decode_base64url, derive_secret};
pub use remote::{KeySet, RemoteJwks, RemoteKeys};
