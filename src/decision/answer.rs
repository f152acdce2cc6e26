//! Answers that the gateway gives itself: refusals, new tokens, listings and documents.

use std::borrow::Cow;

use crate::json::Json;
use crate::number::Number;
use crate::policy::{Policy, RefusalFormat, Route};

use super::denial::Denial;

/// A complete HTTP response.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body, JSON.
    pub body: Vec<u8>,
}

impl Answer {
    /// Words a refusal in the format of the route. Of the request it shows only a member's name and the request's id.
    pub(super) fn refusal(
        policy: &Policy,
        denial: &Denial,
        route: Option<&Route>,
        request_id: Option<&str>,
    ) -> Self {
        let scopes = route.map_or(&[][..], |route| &route.scopes);
        let refusals = &policy.refusals;
        let format = route.and_then(|route| route.format.as_deref()).unwrap_or(&refusals.default);
        let status = format.status(denial.reason);
        let mut headers = common_headers(request_id);
        if status == 401 || status == 403 {
            headers.push(("www-authenticate".into(), refusals.challenge(denial.reason, scopes)));
        }
        if status == 426 {
            // RFC 9110 section 15.5.22.
            headers.push(("upgrade".into(), "websocket".to_owned()));
        }
        if let Some(retry) = denial.retry {
            // Rounded up: a client that retries too early is refused again.
            headers.push(("retry-after".into(), retry.div_ceil(1_000).max(1).to_string()));
        }
        Self { status, headers, body: refusal_body(format, denial, request_id) }
    }

    /// Answers with JSON for this client only.
    pub(super) fn json(body: Vec<u8>, request_id: Option<&str>) -> Self {
        Self { status: 200, headers: common_headers(request_id), body }
    }

    /// Answers with a document that every client may have and cache.
    pub(super) fn document(body: Vec<u8>, request_id: Option<&str>) -> Self {
        let mut headers = common_headers(request_id);
        headers.retain(|(name, _)| name != "cache-control");
        headers.push(("cache-control".into(), "public, max-age=300".to_owned()));
        Self { status: 200, headers, body }
    }

    /// Answers a mint request; `no-store` because the body is a credential (RFC 6749 section 5.1).
    pub(super) fn minted(status: u16, body: Vec<u8>, request_id: Option<&str>) -> Self {
        Self { status, headers: common_headers(request_id), body }
    }
}

fn refusal_body(format: &RefusalFormat, denial: &Denial, request_id: Option<&str>) -> Vec<u8> {
    let message = format.message(denial.reason);
    format.envelope(format.status(denial.reason)).render(&|name| match name {
        "code" => Some(Json::from(format.code(denial.reason))),
        "message" => Some(Json::from(message)),
        "fields" => denial
            .field
            .as_ref()
            .map(|field| Json::Object(vec![(Cow::Owned(field.clone()), Json::from(message))])),
        "field" => denial.field.as_deref().map(text),
        "loc" => Some(location(denial)),
        "request_id" => request_id.map(text),
        _ => None,
    })
}

/// Writes the position of a denial's member as a list of names and indices: `["body", "models", 3]`.
fn location(denial: &Denial) -> Json<'static> {
    let mut steps = vec![text(denial.part)];
    for name in denial.field.as_deref().into_iter().flat_map(|field| field.split('.')) {
        match name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
            Some((list, index)) if let Ok(index) = index.parse::<u64>() => {
                steps.extend([text(list), Json::from(index)]);
            }
            _ => steps.push(text(name)),
        }
    }
    Json::Array(steps)
}

fn common_headers(request_id: Option<&str>) -> Vec<(Cow<'static, str>, String)> {
    let mut headers = vec![
        ("content-type".into(), "application/json".to_owned()),
        ("cache-control".into(), "no-store".to_owned()),
        ("x-content-type-options".into(), "nosniff".to_owned()),
    ];
    headers.extend(request_id.map(|id| ("x-request-id".into(), id.to_owned())));
    headers
}

pub(super) fn text(text: &str) -> Json<'static> {
    Json::String(Cow::Owned(text.to_owned()))
}

pub(super) fn texts(list: &[String]) -> Json<'static> {
    Json::Array(list.iter().map(|item| text(item)).collect())
}

pub(super) fn number_texts(list: &[Number]) -> Json<'static> {
    Json::Array(list.iter().map(|number| text(&number.to_string())).collect())
}

/// Writes Unix seconds as `2026-11-22T15:04:05Z` (RFC 3339).
pub(super) fn iso8601(seconds: u64) -> Option<Json<'static>> {
    let date = chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?;
    Some(Json::String(Cow::Owned(date.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))))
}
