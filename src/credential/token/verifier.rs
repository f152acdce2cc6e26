//! The interface that families and issuers share.

use super::super::key::HostVerify;
use super::super::remote_jwks::RemoteKeys;
use super::error::TokenError;
use super::verified::VerifiedToken;

/// A source of accepted tokens: a family minted here, or an issuer.
pub trait TokenVerifier {
    /// Returns the name in the policy.
    fn name(&self) -> &str;

    /// Returns whether this gateway mints the tokens from its own API keys.
    fn is_minted_here(&self) -> bool;

    /// Returns the namespace in which the ids of these tokens are unique: one for all families, one for each issuer.
    fn id_namespace(&self) -> &str;

    /// Returns whether some signature can only be verified by the host.
    fn needs_host(&self) -> bool;

    /// Verifies a token, time included.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for the first check that fails.
    fn verify(&self, token: &str, context: &VerificationContext<'_>) -> Result<VerifiedToken, TokenError>;

    /// Checks a verified token's time; to be repeated at each use.
    ///
    /// # Errors
    ///
    /// [`TokenError::Lifetime`], [`TokenError::NotYetValid`] or [`TokenError::Expired`].
    fn check_time(&self, token: &VerifiedToken, now: u64) -> Result<(), TokenError>;

    /// Returns the earliest time, in Unix seconds on this gateway's clock, at which a token can have been issued.
    fn earliest_issue(&self, token: &VerifiedToken) -> u64;
}

/// Circumstances in which a token is verified.
#[derive(Clone, Copy)]
pub struct VerificationContext<'a> {
    /// Time in Unix seconds.
    pub now: u64,
    /// Verification by the host.
    pub host_verify: &'a HostVerify<'a>,
    /// Fetched keys of the issuer; `None` where the policy holds the keys.
    pub fetched_keys: Option<&'a RemoteKeys>,
}
