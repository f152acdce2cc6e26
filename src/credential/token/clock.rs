//! Times of a token.

use super::error::TokenError;
use super::verified::VerifiedToken;

/// Lifetimes of a family's tokens, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// Shortest that may be requested.
    pub min: u64,
    /// Longest that may be requested, and longest that is accepted at use.
    pub max: u64,
    /// Lifetime of a mint request that names none.
    pub default: u64,
}

/// Tolerance for the minting clock's difference from this gateway's, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Time after `exp` for which a token is still accepted; 0 unless configured, 5 at most.
    pub leeway: u64,
    /// Furthest that `iat` and `nbf` may lie in the future; 60 at most.
    pub ahead: u64,
}

impl Clock {
    /// Checks a token's times against `now` and its lifetime against `max`, in seconds.
    ///
    /// `exp` itself is too late (RFC 7519 section 4.1.4).
    pub(super) fn check(self, max: u64, token: &VerifiedToken, now: u64) -> Result<(), TokenError> {
        if token.exp.saturating_sub(token.iat) > max {
            return Err(TokenError::Lifetime);
        }
        let latest = now.saturating_add(self.ahead);
        if token.iat > latest || token.nbf.is_some_and(|nbf| nbf > latest) {
            return Err(TokenError::NotYetValid);
        }
        if token.exp.saturating_add(self.leeway) <= now {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}
