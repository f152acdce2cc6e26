//! Headers for the upstream: those that are removed from a request and those that are set on it.

use std::borrow::Cow;

use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::credential::CredentialLocation;
use crate::header::{STREAM_DEADLINE, is_look_alike, is_reserved};
use crate::policy::{ForwardedField, InsertedCredential, Policy, Profile, Reach, RequestField, TextBound};
use crate::reason::Reason;
use crate::store::{CounterKey, Lease};
use crate::uri::{Query, holds_decoded};

use super::denial::Denial;
use super::fields::JudgedValue;
use super::head::{MatchedHead, RequestHead};
use super::request::GuardedRequest;
use super::rights::Rights;

/// Header that names the longest session in seconds to an upstream that must end it.
const SESSION_SECONDS: &str = "x-callbound-session-seconds";

/// Headers that steer the connection; without a value the upstream would read another request.
const NEVER_EMPTY: &[&str] =
    &["host", "connection", "content-length", "transfer-encoding", "sec-websocket-protocol"];

type Headers<'a> = [(&'a [u8], &'a [u8])];

/// Changes the adapter must make before a request may be released; if one fails, the request is denied.
#[derive(Debug, Default)]
pub struct Obligations {
    /// Headers to remove, every occurrence; none where the host cannot remove.
    pub remove: Vec<String>,
    /// Headers to set to exactly this value.
    pub set: Vec<(Cow<'static, str>, String)>,
    /// Changes to the headers of the upstream's response.
    pub answer: ResponseChanges,
    /// Shares of the store that the connection holds while it is open.
    pub session: Option<OpenSession>,
}

/// Changes to the headers of the upstream's response.
#[derive(Debug, Default)]
pub struct ResponseChanges {
    /// Headers to set.
    pub set: Vec<(Cow<'static, str>, String)>,
    /// The platform's own credential that the upstream received: headers that hold it are removed.
    secret: Option<String>,
}

impl ResponseChanges {
    /// Returns whether some header may have to be removed.
    pub fn hides_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Returns whether the value of a header holds the platform's credential, as it is or with escapes.
    pub fn is_secret(&self, value: &[u8]) -> bool {
        let Some(secret) = &self.secret else { return false };
        let holds = |text: &[u8]| text.windows(secret.len()).any(|part| part == secret.as_bytes());
        holds_decoded(value, &holds)
    }
}

/// Shares of the store that an open session holds.
#[derive(Debug, Default)]
pub struct OpenSession {
    /// Leases to renew while it is open.
    pub leases: Vec<Lease>,
    /// Counter of its seconds, and the seconds that were set aside for it.
    pub seconds: Option<(CounterKey, u64)>,
}

/// Part of a request that was just judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Head,
    Body,
}

impl Obligations {
    /// Removes every header that a client may not set.
    ///
    /// # Errors
    ///
    /// Those of [`Self::strip`].
    pub(super) fn strip_reserved(headers: &Headers<'_>, host: &Profile) -> Result<Self, Denial> {
        let mut obligations = Self::default();
        obligations.strip(headers, host, is_reserved)?;
        Ok(obligations)
    }

    /// Removes every header that holds one of our credentials, and every one that an upstream could take for a header
    /// that the policy reads, for routes where no credential is verified.
    ///
    /// # Errors
    ///
    /// Those of [`Self::strip`], and [`Reason::RequestMalformed`] for two credentials where the host cannot remove them.
    pub(super) fn strip_unread(&mut self, headers: &Headers<'_>, policy: &Policy) -> Result<(), Denial> {
        self.strip(headers, policy.host, |name| policy.read_headers.is_like_any(name))?;
        if policy.forward_credential {
            return Ok(());
        }
        let mut credentials = 0_usize;
        for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
            if policy.holds_credential(value) {
                self.remove(name);
                credentials += 1;
            }
        }
        if policy.host.removes_headers || credentials < 2 {
            Ok(())
        } else {
            Err(Reason::RequestMalformed.into())
        }
    }

    /// Removes the headers with these names, which no upstream may see.
    ///
    /// # Errors
    ///
    /// [`Reason::RequestMalformed`] when there is one and the host cannot remove it.
    fn strip(
        &mut self,
        headers: &Headers<'_>,
        host: &Profile,
        is_stripped: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Denial> {
        for (name, _) in headers.iter().filter(|(name, _)| is_stripped(name)) {
            if !host.removes_headers {
                return Err(Reason::RequestMalformed.into());
            }
            self.remove(name);
        }
        Ok(())
    }

    /// Turns removals into empty values where the host cannot remove: what it removes there still reaches the upstream.
    ///
    /// # Errors
    ///
    /// [`Reason::RequestMalformed`] when a header to change occurs twice, because the second would stay as it is, and
    /// when the connection itself depends on it.
    pub(super) fn change_in_place(&mut self, headers: &Headers<'_>, host: &Profile) -> Result<(), Denial> {
        if host.removes_headers {
            return Ok(());
        }
        let occurrences = |name: &str| headers.iter().filter(|(other, _)| *other == name.as_bytes()).count();
        // The first id is as good as a new one, and changing it would leave the second.
        self.set.retain(|(name, _)| name != "x-request-id" || occurrences(name) < 2);
        for name in std::mem::take(&mut self.remove) {
            // nginx finds a name with other bytes by another hash than the one it has, and adds a second header.
            let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if NEVER_EMPTY.contains(&name.as_str()) || !is_plain || occurrences(&name) != 1 {
                return Err(Reason::RequestMalformed.into());
            }
            if !self.set.iter().any(|(set, _)| *set == name) {
                self.set.push((name.into(), String::new()));
            }
        }
        match self.set.iter().any(|(name, _)| occurrences(name) > 1) {
            true => Err(Reason::RequestMalformed.into()),
            false => Ok(()),
        }
    }

    fn strip_credentials(&mut self, headers: &Headers<'_>, locations: &[CredentialLocation]) {
        let is_location =
            |name: &[u8]| locations.iter().any(|location| location.header().map(str::as_bytes) == Some(name));
        headers.iter().filter(|(name, _)| is_location(name)).for_each(|(name, _)| self.remove(name));
    }

    fn remove(&mut self, name: &[u8]) {
        // Hosts refuse header names that are not ASCII, so a lossy copy matches nothing.
        let name = String::from_utf8_lossy(name).into_owned();
        if !self.remove.contains(&name) {
            self.remove.push(name);
        }
    }

    /// Sets a header, when there is a value for it.
    pub(super) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            if self.set.is_empty() {
                // Identity, path and session in one allocation.
                self.set.reserve(8);
            }
            self.set.push((name.into(), value.into()));
        }
    }

    /// Writes the headers of a request whose head was judged: identity, credential, canonical values, path and session.
    ///
    /// # Errors
    ///
    /// Those of [`Self::strip`].
    pub(super) fn write_head(
        &mut self,
        request: &GuardedRequest<'_>,
        matched: &mut MatchedHead<'_>,
        judged: &[JudgedValue],
    ) -> Result<(), Denial> {
        let MatchedHead { head, query, .. } = matched;
        self.identify(request);
        self.replace_credential(request, head, query)?;
        self.resolve_aliases(judged, query);
        if query.is_changed() {
            self.set(":path", Some(query.write(head.path)));
        }
        let session = request.rights.session_seconds(request.route).filter(|_| request.route.is_upgrade);
        if let Some(seconds) = session {
            self.end_after(seconds, request.policy.ends_sessions);
        }
        Ok(())
    }

    /// Identifies the principal to the upstream.
    fn identify(&mut self, request: &GuardedRequest<'_>) {
        let GuardedRequest { policy, route, rights, .. } = request;
        let (tree, party_id) = (&policy.tree, rights.party());
        self.set("x-callbound-key", Some(rights.key().id.as_str()));
        if let Some(party) = tree.party(party_id) {
            let name = if party.reach == Reach::User { "x-callbound-user" } else { "x-callbound-team" };
            self.set(name, Some(party.id.as_str()));
        }
        let parent = tree.parent_id(party_id).filter(|_| route.include_parent);
        let teams = match (tree.reachable(party_id), parent) {
            (teams, None) => teams.to_owned(),
            ("", Some(parent)) => parent.to_owned(),
            (teams, Some(parent)) => format!("{teams},{parent}"),
        };
        self.set("x-callbound-teams", Some(teams));
        self.set("x-callbound-token", rights.token().map(|token| token.jti.as_str()));
        self.set("x-callbound-scopes", Some(held_scopes(rights)));
    }

    /// Removes the client's credential and sets the platform's own where the route has one.
    fn replace_credential(
        &mut self,
        request: &GuardedRequest<'_>,
        head: &RequestHead<'_>,
        query: &mut Query<'_>,
    ) -> Result<(), Denial> {
        let GuardedRequest { policy, route, .. } = request;
        let locations = route.locations.as_deref().unwrap_or_default();
        // A credential in the query would be in the upstream's logs, so it is removed even where others are forwarded.
        locations.iter().filter_map(CredentialLocation::parameter).for_each(|name| query.remove(name));
        if !policy.forward_credential {
            self.strip_credentials(head.headers, &policy.locations);
            self.strip_credentials(head.headers, locations);
        }
        let secret = route.upstream_credential.as_ref().map(InsertedCredential::secret);
        self.answer.secret = secret.filter(|secret| !secret.is_empty()).map(str::to_owned);
        match &route.upstream_credential {
            Some(InsertedCredential { place: RequestField::Query(name), value }) => {
                query.remove(name);
                query.set(name, value);
            }
            Some(InsertedCredential { place, value }) => {
                let name = place.name();
                self.strip(head.headers, policy.host, |other| is_look_alike(other, name))?;
                if head.all(name.as_bytes()).next().is_some() {
                    self.remove(name.as_bytes());
                }
                self.set(name.to_owned(), Some(value.as_str()));
            }
            None => {}
        }
        Ok(())
    }

    /// Replaces each alias by its canonical value: the upstream may resolve aliases otherwise, and only the canonical
    /// value was judged.
    fn resolve_aliases(&mut self, judged: &[JudgedValue], query: &mut Query<'_>) {
        for JudgedValue { value, alias_at, .. } in judged {
            match alias_at {
                Some(RequestField::Query(name)) => query.set(name, value),
                Some(RequestField::Header(name)) => self.set(name.clone(), Some(value.as_str())),
                _ => {}
            }
        }
    }

    /// Forwards the fields that the route lists: the value judged in this request, else the token's.
    ///
    /// # Errors
    ///
    /// A [`Denial`] when the token's value is outside the present bounds: only judged values are forwarded.
    pub(super) fn forward_fields(
        &mut self,
        request: &GuardedRequest<'_>,
        judged: &[JudgedValue],
        stage: Stage,
    ) -> Result<(), Denial> {
        let GuardedRequest { route, rights, .. } = request;
        let is_known_now = |field: &&ForwardedField| match field {
            ForwardedField::Bound(bound) if route.reads_in_body(bound) => stage == Stage::Body,
            ForwardedField::Bound(_) | ForwardedField::Metadata => stage == Stage::Head,
        };
        for field in route.forward_fields.iter().filter(is_known_now) {
            match field {
                ForwardedField::Metadata => self.set("x-callbound-metadata", encoded_metadata(rights)),
                ForwardedField::Bound(bound) => {
                    let value = match judged.iter().find(|judged| judged.bound == *bound) {
                        Some(judged) => Some(judged.value.clone()),
                        None => token_values(rights, bound)?,
                    };
                    self.set(format!("x-callbound-{}", bound.name.replace('_', "-")), value);
                }
            }
        }
        Ok(())
    }

    /// Limits the connection: the gateway ends it, or the upstream that is sent the limit.
    fn end_after(&mut self, seconds: u64, by_gateway: bool) {
        self.set.retain(|(name, _)| name != STREAM_DEADLINE && name != SESSION_SECONDS);
        match by_gateway {
            true => self.set(STREAM_DEADLINE, Some(seconds.saturating_mul(1_000).to_string())),
            false => self.set(SESSION_SECONDS, Some(seconds.to_string())),
        }
    }

    /// Notes the shares of the store that the session holds, and limits it to the seconds it was given.
    pub(super) fn open_session(&mut self, session: OpenSession, by_gateway: bool) {
        if let Some((_, seconds)) = session.seconds {
            self.end_after(seconds, by_gateway);
        }
        if !session.leases.is_empty() || session.seconds.is_some() {
            self.session = Some(session);
        }
    }
}

/// Returns the scopes that every level holds, separated by blanks.
fn held_scopes(rights: &Rights<'_>) -> String {
    let platform = &rights.policy().platform;
    // Without implied scopes the narrowest list holds them all.
    let candidates = match platform.implied_by.as_slice() {
        [] => rights.token().map_or(&rights.key().scopes, |token| &token.scopes),
        _ => &platform.scopes,
    };
    let mut text = String::with_capacity(64);
    for scope in candidates.iter().filter(|scope| rights.has_scope(scope)) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(scope);
    }
    text
}

/// Returns the token's metadata in base64url; `None` when it has none.
fn encoded_metadata(rights: &Rights<'_>) -> Option<String> {
    let metadata = serde_json::to_vec(rights.token()?.metadata.as_ref()?).ok()?;
    Some(Base64UrlUnpadded::encode_string(&metadata))
}

/// Returns the token's canonical values of a text bound that the request has no value for, separated by commas.
fn token_values(rights: &Rights<'_>, bound: &TextBound) -> Result<Option<String>, Denial> {
    let denial = |reason| Denial::of(reason, bound.name.as_str());
    let Some(values) = rights.token_values(bound) else {
        return if rights.is_text_bounded(bound) { Err(denial(Reason::BoundUnreadable)) } else { Ok(None) };
    };
    let values: Vec<&str> = values.iter().map(|value| bound.canonical(value)).collect();
    for value in &values {
        let known = if bound.has(value) { Ok(()) } else { Err(Reason::BoundUnknown) };
        known.and_then(|()| rights.check_text(bound, value)).map_err(denial)?;
    }
    Ok(Some(values.join(",")))
}
