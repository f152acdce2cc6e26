//! The answers the gateway gives itself: refusals and new tokens.

use std::borrow::Cow;

use crate::json::Json;
use crate::policy::Refusals;

use super::verdict::Denial;

/// A whole HTTP answer.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers; names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body, JSON.
    pub body: Vec<u8>,
}

impl Answer {
    /// Words a refusal. Nothing of the request is in it but the name of a member and the request's id.
    pub(super) fn refusal(
        refusals: &Refusals,
        denial: &Denial,
        scopes: &[String],
        request_id: Option<&str>,
    ) -> Self {
        let status = refusals.status(denial.reason);
        let mut answer = Self { status, headers: common_headers(request_id), body: Vec::new() };
        if status == 401 || status == 403 {
            answer.headers.push(("www-authenticate", refusals.challenge(denial.reason, scopes)));
        }
        let message = refusals.message(denial.reason);
        answer.body = refusals.envelope.render(&|name| match name {
            "code" => Some(Json::from(refusals.code(denial.reason))),
            "message" => Some(Json::from(message)),
            "fields" => denial
                .field
                .as_ref()
                .map(|field| Json::Object(vec![(Cow::Owned(field.clone()), Json::from(message))])),
            "request_id" => request_id.map(|id| Json::String(Cow::Owned(id.to_owned()))),
            _ => None,
        });
        answer
    }

    /// Answers a mint; `no-store` because the body is a credential (RFC 6749 section 5.1).
    pub(super) fn minted((status, body): (u16, Vec<u8>), request_id: Option<&str>) -> Self {
        Self { status, headers: common_headers(request_id), body }
    }
}

fn common_headers(request_id: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ];
    headers.extend(request_id.map(|id| ("x-request-id", id.to_owned())));
    headers
}
