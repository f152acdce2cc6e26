//! Ranges and words that several sections share.

use super::reader::words;
use crate::store::Strength;

/// The most seconds a session may last: a week.
pub(super) const MAX_SESSION_SECONDS: u64 = 604_800;

/// The most uses a token may be given.
pub(super) const MAX_USES: u64 = 1_000;

words! {
    /// Reach of a count.
    pub enum StrengthWord {
        /// All workers of one gateway.
        Node = "node",
        /// All gateways; needs `store.backend: "redis"`.
        Fleet = "fleet",
    }
}

impl From<StrengthWord> for Strength {
    fn from(word: StrengthWord) -> Self {
        match word {
            StrengthWord::Node => Self::Node,
            StrengthWord::Fleet => Self::Fleet,
        }
    }
}
