//! What a decision is made of: the effect, its obligations, and the record for the operator.

use std::borrow::Cow;

use crate::credential::CredentialLocation;
use crate::policy::{Policy, RequestField};
use crate::reason::Reason;
use crate::store::{CounterKey, Lease, Strength};

use super::answer::Answer;
use super::request::OWN_HEADER_PREFIX;

/// The header by which a gateway ends a connection, in milliseconds.
const DEADLINE: &str = "x-envoy-upstream-stream-duration-ms";

/// The header by which an upstream is told after how many seconds to end it.
const LIMIT_TOLD: &str = "x-callbound-session-seconds";

/// A decision and what is known about it.
pub struct Decision {
    /// What must happen.
    pub effect: Effect,
    /// What is logged and counted.
    pub record: Record,
}

/// What must happen to the request.
pub enum Effect {
    /// It goes on to the upstream, once the obligations are met.
    Release(Obligations),
    /// It is answered here; the upstream sees nothing.
    Answer(Answer),
}

/// The cause of a refusal, with the member of the request it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// Which member, as the client wrote it; never its value.
    pub field: Option<String>,
    /// The part of the request it stands in.
    pub part: &'static str,
    /// Milliseconds after which it is worth asking again.
    pub retry: Option<u64>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self { reason, field: None, part: "body", retry: None }
    }
}

impl Denial {
    /// A refusal that concerns one member.
    pub fn of(reason: Reason, field: impl Into<String>) -> Self {
        Self { reason, field: Some(field.into()), part: "body", retry: None }
    }

    /// A refusal that concerns what stands at a place.
    pub fn at(reason: Reason, place: &RequestField) -> Self {
        let field = match place {
            RequestField::Body(pointer) => pointer.dotted(),
            other => other.name().to_owned(),
        };
        Self { reason, field: Some(field), part: place.part(), retry: None }
    }

    /// Says which part of the request the member stands in.
    pub fn inside(self, part: &'static str) -> Self {
        Self { part, ..self }
    }
}

/// What the enforcer must do for an allow to count; if it cannot, the request is denied.
#[derive(Debug, Default)]
pub struct Obligations {
    /// Headers to remove, every occurrence.
    pub remove: Vec<String>,
    /// Headers to set to exactly this value.
    pub set: Vec<(Cow<'static, str>, String)>,
    /// Headers of the upstream's answer to set to exactly this value.
    pub answer: Vec<(Cow<'static, str>, String)>,
    /// What is held while the connection lasts.
    pub session: Option<OpenSession>,
}

/// What a session holds of what is counted.
#[derive(Debug, Default)]
pub struct OpenSession {
    /// Its places, to be renewed while it lasts.
    pub leases: Vec<Lease>,
    /// Where seconds were set aside for it, and how many.
    pub seconds: Option<(CounterKey, u64)>,
}

impl Obligations {
    /// Removes what only we may set, and what would make an upstream read another request than was judged.
    pub(super) fn strip(headers: &[(&[u8], &[u8])]) -> Self {
        let mut obligations = Self::default();
        for (name, _) in headers {
            if is_reserved(name) {
                obligations.remove(name);
            }
        }
        obligations
    }

    pub(super) fn strip_credentials(&mut self, headers: &[(&[u8], &[u8])], carriers: &[CredentialLocation]) {
        for (name, _) in headers
            .iter()
            .filter(|(name, _)| carriers.iter().any(|c| c.header().map(str::as_bytes) == Some(*name)))
        {
            self.remove(name);
        }
    }

    /// Removes every header that holds one of our credentials and leaves foreign ones alone: for routes on which nobody
    /// is asked for one.
    pub(super) fn strip_own_credentials(&mut self, headers: &[(&[u8], &[u8])], policy: &Policy) {
        for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
            if policy.holds_credential(value) {
                self.remove(name);
            }
        }
    }

    /// Removes every header that an upstream could take for one called `name`.
    pub(super) fn remove_twins(&mut self, headers: &[(&[u8], &[u8])], name: &str) {
        for (twin, _) in headers.iter().filter(|(other, _)| is_like(other, name.as_bytes())) {
            self.remove(twin);
        }
    }

    pub(super) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.set.push((name.into(), value.into()));
        }
    }

    /// Has the connection end after so many seconds: by the gateway, or by the upstream, which is told.
    pub(super) fn end_after(&mut self, seconds: u64, by_gateway: bool) {
        self.set.retain(|(name, _)| name != DEADLINE && name != LIMIT_TOLD);
        match by_gateway {
            true => self.set(DEADLINE, Some(seconds.saturating_mul(1_000).to_string())),
            false => self.set(LIMIT_TOLD, Some(seconds.to_string())),
        }
    }

    /// Notes what a session holds; it lasts no longer than the seconds it was given.
    pub(super) fn open(&mut self, session: OpenSession, by_gateway: bool) {
        if let Some((_, seconds)) = session.seconds {
            self.end_after(seconds, by_gateway);
        }
        if !session.leases.is_empty() || session.seconds.is_some() {
            self.session = Some(session);
        }
    }

    fn remove(&mut self, name: &[u8]) {
        // Hosts refuse header names that are not ASCII; the lossy copy of one would match nothing.
        let name = String::from_utf8_lossy(name).into_owned();
        if !self.remove.contains(&name) {
            self.remove.push(name);
        }
    }
}

/// Whether an upstream that takes `_` or `.` for `-` reads two header names as one; names are in lower case.
pub fn is_like(one: &[u8], other: &[u8]) -> bool {
    let folded = |byte: &u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    one.len() == other.len() && one.iter().map(folded).eq(other.iter().map(folded))
}

/// Tells whether a header or trailer may only be set by us, or would make an upstream read another request than was
/// judged; also where an upstream would take `_` or `.` for `-`.
pub fn is_reserved(name: &[u8]) -> bool {
    let folded = |byte: &u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    // Every name here begins with `x`; most of a request's do not.
    if !name.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'x')) {
        return false;
    }
    let name: Vec<u8> = name.iter().map(folded).collect();
    name.starts_with(OWN_HEADER_PREFIX.as_bytes()) || is_override(&name)
}

/// Headers by which upstream frameworks replace method or path after the decision, and by which a client could set
/// this gateway's own limits.
fn is_override(name: &[u8]) -> bool {
    matches!(
        name,
        b"x-http-method-override"
            | b"x-http-method"
            | b"x-method-override"
            | b"x-original-method"
            | b"x-original-url"
            | b"x-original-uri"
            | b"x-rewrite-url"
            | b"x-forwarded-uri"
            | b"x-forwarded-path"
            | b"x-envoy-upstream-stream-duration-ms"
    )
}

/// What came of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was released.
    #[default]
    Allow,
    /// It was refused.
    Deny,
    /// It was answered with a new token.
    Mint,
    /// It was answered with something else the gateway knows.
    Answer,
}

impl Outcome {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Mint => "mint",
            Self::Answer => "answer",
        }
    }
}

/// What the operator learns of a decision. Holds ids, never credentials or numbers.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was refused, and for which member.
    pub denial: Option<Denial>,
    /// The route, by place in the policy.
    pub route: Option<usize>,
    /// The API key's id, once known.
    pub key: Option<String>,
    /// The team or user, once known.
    pub team: Option<String>,
    /// The token's id, once verified.
    pub token: Option<String>,
    /// The new token's id.
    pub minted: Option<String>,
    /// The limit that was reached.
    pub limit: Option<String>,
    /// How far what was remembered reaches, where something was.
    pub strength: Option<Strength>,
    /// How many uses the token has left.
    pub remaining: Option<u64>,
    /// What it revoked, and by whose word.
    pub revoked: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

impl Record {
    pub(super) fn refused(self, denial: Denial) -> Self {
        Self { outcome: Outcome::Deny, denial: Some(denial), ..self }
    }

    pub(super) fn with(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }
}
