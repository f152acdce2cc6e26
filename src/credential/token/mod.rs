//! Client tokens: those of the families minted here, and those of issuers.

mod claim_rules;
mod claims;
mod clock;
mod compact;
mod error;
mod family;
mod issuer;
mod verified;
mod verifier;

pub use claim_rules::{ClaimPath, ClaimRules};
pub use claims::{Claims, TextBounds, is_bound_text};
pub use clock::{Clock, Ttl};
pub use compact::{UnverifiedToken, peek};
pub use error::TokenError;
pub use family::{Family, FamilyKeys};
pub use issuer::{Issuer, KeySource};
pub use verified::VerifiedToken;
pub use verifier::{TokenVerifier, VerificationContext};
