//! The answers the gateway gives itself: refusals and new tokens.

use std::borrow::Cow;

use crate::json::Json;
use crate::number::Number;
use crate::policy::{RefusalFormat, Refusals};

use super::verdict::Denial;

/// A whole HTTP answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers; names in lower case.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body, JSON.
    pub body: Vec<u8>,
}

impl Answer {
    /// Words a refusal. Nothing of the request is in it but the name of a member and the request's id.
    pub(super) fn refusal(
        refusals: &Refusals,
        style: &RefusalFormat,
        denial: &Denial,
        scopes: &[String],
        request_id: Option<&str>,
    ) -> Self {
        let status = style.status(denial.reason);
        let mut answer = Self { status, headers: common_headers(request_id), body: Vec::new() };
        if status == 401 || status == 403 {
            answer.headers.push(("www-authenticate".into(), refusals.challenge(denial.reason, scopes)));
        }
        if status == 426 {
            // RFC 9110 section 15.5.22.
            answer.headers.push(("upgrade".into(), "websocket".to_owned()));
        }
        if let Some(retry) = denial.retry {
            // Whoever comes back a moment early is refused again.
            answer.headers.push(("retry-after".into(), retry.div_ceil(1_000).max(1).to_string()));
        }
        let message = style.message(denial.reason);
        answer.body = style.envelope(status).render(&|name| match name {
            "code" => Some(Json::from(style.code(denial.reason))),
            "message" => Some(Json::from(message)),
            "fields" => denial
                .field
                .as_ref()
                .map(|field| Json::Object(vec![(Cow::Owned(field.clone()), Json::from(message))])),
            "field" => denial.field.as_ref().map(|field| Json::String(Cow::Owned(field.clone()))),
            "loc" => Some(location(denial)),
            "request_id" => request_id.map(|id| Json::String(Cow::Owned(id.to_owned()))),
            _ => None,
        });
        answer
    }

    /// Answers with JSON that is for this client alone.
    pub(super) fn json(body: Vec<u8>, request_id: Option<&str>) -> Self {
        Self { status: 200, headers: common_headers(request_id), body }
    }

    /// Answers with a text that is the same for everybody until the policy changes.
    pub(super) fn document(body: Vec<u8>, request_id: Option<&str>) -> Self {
        let mut headers = common_headers(request_id);
        headers.retain(|(name, _)| name != "cache-control");
        headers.push(("cache-control".into(), "public, max-age=300".to_owned()));
        Self { status: 200, headers, body }
    }

    /// Answers a mint; `no-store` because the body is a credential (RFC 6749 section 5.1).
    pub(super) fn minted((status, body): (u16, Vec<u8>), request_id: Option<&str>) -> Self {
        Self { status, headers: common_headers(request_id), body }
    }
}

/// Where in the request the cause stands, as a list of names and places: `["body", "models", 3]`.
fn location(denial: &Denial) -> Json<'static> {
    let text = |text: &str| Json::String(Cow::Owned(text.to_owned()));
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

/// Unix seconds as `2026-11-22T15:04:05Z` (RFC 3339).
pub(super) fn iso8601(seconds: u64) -> Option<Json<'static>> {
    let seconds = i64::try_from(seconds).ok()?;
    let date = chrono::DateTime::from_timestamp(seconds, 0)?;
    Some(Json::String(Cow::Owned(date.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))))
}
