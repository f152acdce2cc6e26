//! Decisions: release or answer, with a record for the operator.

use std::rc::Rc;

use crate::policy::{Policy, Route};
use crate::store::Strength;

use super::answer::Answer;
use super::denial::Denial;
use super::upstream_headers::Obligations;

/// A decision and its record.
pub struct Decision {
    /// The effect on the request.
    pub effect: Effect,
    /// The record to log and count.
    pub record: Record,
}

/// Effect of a decision on its request.
pub enum Effect {
    /// Releases the request to the upstream, once the obligations are met.
    Release(Obligations),
    /// Answers the request; the upstream sees nothing of it.
    Answer(Answer),
}

/// Outcome of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Released to the upstream.
    #[default]
    Allow,
    /// Refused with a reason.
    Deny,
    /// Answered with a new token.
    Mint,
    /// Answered with other content.
    Answer,
}

impl Outcome {
    /// Returns the word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Mint => "mint",
            Self::Answer => "answer",
        }
    }
}

/// Record of a decision for the operator: ids only, never a credential or a phone number.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Outcome of the request.
    pub outcome: Outcome,
    /// The cause of a refusal.
    pub denial: Option<Denial>,
    /// Route of the request; `None` when no route matched.
    pub route: Option<Rc<Route>>,
    /// Id of the API key, once known.
    pub key: Option<String>,
    /// Id of the team or user, once known.
    pub team: Option<String>,
    /// Id of the token, once verified.
    pub token: Option<String>,
    /// Id of the new token.
    pub minted: Option<String>,
    /// Id of the limit that was reached.
    pub limit: Option<String>,
    /// Reach of the store that took the charges; `None` when there were none.
    pub strength: Option<Strength>,
    /// Uses the token has left.
    pub remaining: Option<u64>,
    /// Subject and author of the revocation that was requested.
    pub revoked: Option<String>,
    /// Id of the request.
    pub request_id: Option<String>,
}

impl Decision {
    /// Refuses a request.
    pub(super) fn refusal(policy: &Policy, denial: Denial, record: Record) -> Self {
        let answer = Answer::refusal(policy, &denial, record.route.as_deref(), record.request_id.as_deref());
        // A token or revocation that was prepared is not given with a refusal.
        let record =
            Record { outcome: Outcome::Deny, denial: Some(denial), minted: None, revoked: None, ..record };
        Self { effect: Effect::Answer(answer), record }
    }
}
