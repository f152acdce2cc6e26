//! Section `refusals`: the platform's envelope, codes and challenge.
//!
//! Turns a [`Reason`] into status, code, message and challenge. The reason itself comes from [`crate::decision`].

use std::collections::HashMap;
use std::rc::Rc;

use super::ids::check_id;
use super::reader::{FromJson, Members, Raw, Reader, document};
use super::template::{Template, template_document};
use crate::json::Json;
use crate::reason::Reason;

document! {
    /// Wording of refusals.
    pub struct RefusalsDocument {
        /// Body of every refusal; a text `$name` is replaced by a value.
        envelope: Envelope,
        /// Other bodies, by status.
        envelopes: ByStatus<Envelope>,
        /// Public codes, by status.
        codes: ByStatus<String>,
        /// Changes to single reasons; `callbound reasons` lists them.
        reasons: ByReason,
        /// Other wordings, for the routes that name them.
        groups: Members<GroupDocument>,
        /// Protection space in `www-authenticate`.
        realm: String,
        /// URL of the protected-resource metadata (RFC 9728).
        resource_metadata: Option<String>,
    }
}

document! {
    /// Wording of one group of routes; the default's where it has none.
    pub struct GroupDocument {
        /// Body of the group's refusals.
        envelope: Option<Envelope>,
        /// Other bodies, by status.
        envelopes: ByStatus<Envelope>,
        /// Public codes, by status.
        codes: ByStatus<String>,
        /// Changes to single reasons.
        reasons: ByReason,
    }
}

document! {
    /// Changes to one reason.
    pub struct ReasonDocument {
        /// Status, 400 to 599.
        status: Option<u64>,
        /// Public code of the refusal.
        code: Option<String>,
        /// Text for people.
        message: Option<String>,
    }
}

/// A value for each status of a refusal.
#[derive(Clone)]
pub struct ByStatus<T>(pub Members<T>);

/// Changes by reason.
#[derive(Default)]
pub struct ByReason(pub Members<ReasonDocument>);

impl<T> Default for ByStatus<T> {
    fn default() -> Self {
        Self(Members::default())
    }
}

impl<T: FromJson> FromJson for ByStatus<T> {
    const KIND: (&'static str, &'static str) = ("an object", "objects");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        Self(Members::from_json(json, at))
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl FromJson for ByReason {
    const KIND: (&'static str, &'static str) = ("an object", "objects");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        Self(Members::from_json(json, at))
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

template_document! {
    /// Body of a refusal.
    Envelope, &["code", "message", "fields", "field", "loc", "request_id"], super::schema_parts::Others::None
}

/// Wording of refusals and challenges.
pub struct Refusals {
    /// Protection space of the challenge (RFC 9110 section 11.5).
    pub realm: String,
    /// URL of the protected-resource metadata (RFC 9728 section 5.1).
    pub resource_metadata: Option<String>,
    /// Wording of routes that name no group.
    pub default: RefusalFormat,
    /// Wordings of the groups, by name.
    pub groups: Vec<(String, Rc<RefusalFormat>)>,
}

/// Wording of the refusals of one group of routes.
pub struct RefusalFormat {
    pub(super) envelope: Template,
    /// Other envelopes, by status.
    pub(super) envelopes: HashMap<u16, Template>,
    pub(super) codes: HashMap<u16, String>,
    pub(super) overrides: HashMap<Reason, Override>,
}

/// Changes to one reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Override {
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

impl RefusalFormat {
    /// Returns the body of refusals with a status.
    pub fn envelope(&self, status: u16) -> &Template {
        self.envelopes.get(&status).unwrap_or(&self.envelope)
    }

    /// Returns the HTTP status of a reason.
    pub fn status(&self, reason: Reason) -> u16 {
        self.overrides.get(&reason).and_then(|changed| changed.status).unwrap_or(reason.status())
    }

    /// Returns the public code of a reason.
    pub fn code(&self, reason: Reason) -> &str {
        let changed = self.overrides.get(&reason).and_then(|changed| changed.code.as_deref());
        let status = self.status(reason);
        changed
            .or_else(|| self.codes.get(&status).map(String::as_str))
            .unwrap_or_else(|| default_code(status))
    }

    /// Returns the public message of a reason.
    pub fn message(&self, reason: Reason) -> &str {
        let changed = self.overrides.get(&reason).and_then(|changed| changed.message.as_deref());
        changed.unwrap_or(reason.message())
    }
}

impl Refusals {
    /// Finds the wording of a group.
    pub(super) fn group(&self, name: &str) -> Option<Rc<RefusalFormat>> {
        self.groups.iter().find_map(|(group, format)| (group == name).then(|| Rc::clone(format)))
    }

    /// Returns the `www-authenticate` header of a 401 or 403 (RFC 6750 section 3); `scopes` are those the route needs.
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

impl RefusalsDocument {
    pub(super) fn compile(&self, at: &Reader<'_>) -> Option<Refusals> {
        self.check_challenge(at);
        let own = Wording::read((&self.envelopes.0, &self.codes.0, &self.reasons.0), at);
        let envelope = self.envelope.compile(&at.member("envelope"));
        let groups_at = at.member("groups");
        let mut groups = Vec::new();
        for (name, group) in self.groups.iter() {
            let at = groups_at.member(name);
            check_id(name, &at);
            let envelope_at = at.member("envelope");
            let wording = Wording::read((&group.envelopes.0, &group.codes.0, &group.reasons.0), &at);
            // An envelope of the group is for every status that is not in the group's own `envelopes`.
            let format = match &group.envelope {
                Some(replaced) => {
                    let envelopes = wording.envelopes.clone();
                    Wording { envelopes, ..wording.over(&own) }.format(replaced.compile(&envelope_at))
                }
                None => wording.over(&own).format(envelope.clone()),
            };
            groups.extend(format.map(|format| (name.clone(), Rc::new(format))));
        }
        let (realm, resource_metadata) = (self.realm.clone(), self.resource_metadata.clone());
        let default = own.format(envelope)?;
        Some(Refusals { realm, resource_metadata, default, groups })
    }

    fn check_challenge(&self, at: &Reader<'_>) {
        let fits = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'"' | b'\\');
        let is_quotable = |text: &str| !text.is_empty() && text.bytes().all(fits);
        if !is_quotable(&self.realm) {
            at.member("realm").refuse("expected visible ASCII without quotes");
        }
        if self.resource_metadata.as_deref().is_some_and(|url| !is_quotable(url) || url.contains(' ')) {
            at.member("resource_metadata").refuse("expected a URL");
        }
    }
}

impl Envelope {
    fn compile(&self, at: &Reader<'_>) -> Option<Template> {
        Template::compile(Raw(self.0.clone()), Self::NAMES, at)
    }
}

/// Members of a wording as a policy writes them: envelopes and codes by status, changes by reason.
type WordingDocuments<'d> = (&'d Members<Envelope>, &'d Members<String>, &'d Members<ReasonDocument>);

/// Wording of the default or of a group, without the envelope of all statuses.
#[derive(Clone)]
struct Wording {
    envelopes: HashMap<u16, Template>,
    codes: HashMap<u16, String>,
    overrides: HashMap<Reason, Override>,
}

impl Wording {
    fn read((envelopes, codes, reasons): WordingDocuments<'_>, at: &Reader<'_>) -> Self {
        let (envelopes_at, codes_at) = (at.member("envelopes"), at.member("codes"));
        let envelope = |(status, envelope): &(String, Envelope)| {
            let at = envelopes_at.member(status);
            read_status(status, &at).zip(envelope.compile(&at))
        };
        let code = |(status, code): &(String, String)| {
            Some((read_status(status, &codes_at.member(status))?, code.clone()))
        };
        let reasons_at = at.member("reasons");
        Self {
            envelopes: envelopes.iter().filter_map(envelope).collect(),
            codes: codes.iter().filter_map(code).collect(),
            overrides: reasons
                .iter()
                .filter_map(|(code, changed)| changed.compile(code, &reasons_at))
                .collect(),
        }
    }

    /// Fills the parts that a group leaves out from the default.
    fn over(self, default: &Self) -> Self {
        let Self { mut envelopes, mut codes, mut overrides } = default.clone();
        envelopes.extend(self.envelopes);
        codes.extend(self.codes);
        overrides.extend(self.overrides);
        Self { envelopes, codes, overrides }
    }

    fn format(self, envelope: Option<Template>) -> Option<RefusalFormat> {
        let Self { envelopes, codes, overrides } = self;
        Some(RefusalFormat { envelope: envelope?, envelopes, codes, overrides })
    }
}

fn read_status(text: &str, at: &Reader<'_>) -> Option<u16> {
    let status = text.parse().ok().filter(|status| (400..600).contains(status));
    if status.is_none() {
        at.refuse("expected a status from 400 to 599");
    }
    status
}

impl ReasonDocument {
    fn compile(&self, code: &str, at: &Reader<'_>) -> Option<(Reason, Override)> {
        let at = at.member(code);
        let reason = Reason::from_code(code);
        if reason.is_none() {
            let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            let meant = super::suggest::nearest(code, &codes).map(|meant| format!("did you mean `{meant}`?"));
            at.refuse_with(
                "no such reason",
                meant.unwrap_or_else(|| "`callbound reasons` lists them".to_owned()),
            );
        }
        if let Some(status) = self.status {
            at.member("status").check_range(status, 400..=599, "");
        }
        let status = self.status.and_then(|status| u16::try_from(status).ok());
        Some((reason?, Override { status, code: self.code.clone(), message: self.message.clone() }))
    }
}
