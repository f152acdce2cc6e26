//! How refusals are worded: the platform's envelope, codes and challenge.
//!
//! Refuses to know why a request was refused; it turns a [`Reason`] into status, code, message and challenge.

use std::collections::HashMap;

use crate::reason::Reason;

use super::template::Template;

/// The values an envelope may use.
pub(super) const ENVELOPE_NAMES: &[&str] = &["code", "message", "fields", "field", "loc", "request_id"];

/// The platform's way of refusing.
pub struct Refusals {
    /// The protection space of the challenge (RFC 9110 section 11.5).
    pub realm: String,
    /// Where clients find how to get a credential (RFC 9728 section 5.1).
    pub resource_metadata: Option<String>,
    /// The wording of every route that names no other.
    pub default: RefusalFormat,
    /// The wordings of groups of routes; a route counts them from 1.
    pub groups: Vec<RefusalFormat>,
}

/// How one group of routes words its refusals.
pub struct RefusalFormat {
    pub(super) envelope: Template,
    /// Other envelopes, by status.
    pub(super) envelopes: HashMap<u16, Template>,
    pub(super) codes: HashMap<u16, String>,
    pub(super) overrides: HashMap<Reason, Override>,
}

/// What a policy changes about one reason.
#[derive(Debug, Default)]
pub(super) struct Override {
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

impl RefusalFormat {
    /// The body of refusals with a status.
    pub fn envelope(&self, status: u16) -> &Template {
        self.envelopes.get(&status).unwrap_or(&self.envelope)
    }

    /// The HTTP status of a reason.
    pub fn status(&self, reason: Reason) -> u16 {
        self.overrides.get(&reason).and_then(|changed| changed.status).unwrap_or(reason.status())
    }

    /// The public code of a reason.
    pub fn code(&self, reason: Reason) -> &str {
        let changed = self.overrides.get(&reason).and_then(|changed| changed.code.as_deref());
        let status = self.status(reason);
        changed
            .or_else(|| self.codes.get(&status).map(String::as_str))
            .unwrap_or_else(|| default_code(status))
    }

    /// The public message of a reason.
    pub fn message(&self, reason: Reason) -> &str {
        let changed = self.overrides.get(&reason).and_then(|changed| changed.message.as_deref());
        changed.unwrap_or(reason.message())
    }
}

impl Refusals {
    /// The style at a place; the default where there is none.
    pub fn style(&self, index: usize) -> &RefusalFormat {
        self.groups.get(index.wrapping_sub(1)).unwrap_or(&self.default)
    }

    /// The `www-authenticate` header of a 401 or 403 (RFC 6750 section 3); `scopes` are those the route needs.
    pub fn challenge(&self, reason: Reason, scopes: &[String]) -> String {
        let mut parts = vec![format!("realm=\"{}\"", self.realm)];
        match (reason, reason.status()) {
            (Reason::CredentialMissing, _) => {}
            (Reason::ScopeMissing, _) => {
                parts.push("error=\"insufficient_scope\"".into());
                parts.push(format!("scope=\"{}\"", scopes.join(" ")));
            }
            (_, 401) => parts.push("error=\"invalid_token\"".into()),
            _ => {}
        }
        if let Some(url) = &self.resource_metadata {
            parts.push(format!("resource_metadata=\"{url}\""));
        }
        format!("Bearer {}", parts.join(", "))
    }
}

fn default_code(status: u16) -> &'static str {
    match status {
        401 => "invalid_token",
        403 => "forbidden",
        404 => "not_found",
        408 => "timeout",
        409 => "conflict",
        413 => "too_large",
        415 => "unsupported_media_type",
        429 => "rate_limited",
        400..500 => "invalid_request",
        _ => "unavailable",
    }
}
