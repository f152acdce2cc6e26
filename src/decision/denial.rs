//! The cause of a refusal, with the member of the request it concerns.

use crate::policy::RequestField;
use crate::reason::Reason;
use crate::store::StoreError;

/// The cause of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Code of the cause.
    pub reason: Reason,
    /// The member it concerns, under the name the client used; never its value.
    pub field: Option<String>,
    /// The part of the request that holds the member: `body`, `query`, `header` or `path`.
    pub part: &'static str,
    /// Milliseconds until a retry may succeed; `None` when waiting does not help.
    pub retry: Option<u64>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self { reason, field: None, part: "body", retry: None }
    }
}

impl From<StoreError> for Denial {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Reason::StoreFull,
            StoreError::NotInstalled => Reason::StoreNotInstalled,
            _ => Reason::StoreUnavailable,
        }
        .into()
    }
}

impl Denial {
    /// Denies because of one member.
    pub fn of(reason: Reason, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..reason.into() }
    }

    /// Denies because of the value of a request field.
    pub fn at(reason: Reason, field: &RequestField) -> Self {
        let name = match field {
            RequestField::Body(pointer) => pointer.dotted(),
            other => other.name().to_owned(),
        };
        Self { part: field.part(), ..Self::of(reason, name) }
    }

    /// Sets the part of the request that holds the member.
    pub fn inside(self, part: &'static str) -> Self {
        Self { part, ..self }
    }
}

/// Shortens a name that the client chose and drops its control characters, so that an answer may show it.
pub(super) fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}
