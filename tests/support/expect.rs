//! Expected results of a request, and their comparison with the observed ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::corpus::{Framing, Headers, Level, Request};

/// The expectation of a case: released (`upstream`), or answered by the gateway (`status`).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Wanted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<ExpectUpstream>,
    #[serde(default, skip_serializing)]
    pub levels: Option<Vec<Level>>,
    #[serde(rename = "why", default, skip_serializing)]
    _why: Option<String>,
}

/// Headers and path that the upstream must and must not see.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ExpectUpstream {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Wanted>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
    /// Path at the upstream, if it differs from the one sent (Envoy normalises, callbound removes credentials).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// A whole header value, part of one, or (`null`) none.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Wanted {
    Exactly(String),
    Part { contains: String },
    Absent(()),
}

/// Observed result of a request.
#[derive(Clone, Default)]
pub struct Observed {
    /// Request as the upstream saw it, complete or not.
    pub upstream: Option<Seen>,
    /// Answer to the client, from gateway or upstream.
    pub answer: Option<Answer>,
    /// Decision as the operator reads it; `None`: the request was never judged.
    pub decision: Option<LoggedDecision>,
}

impl Observed {
    /// Returns true if a request that was allowed before was judged again: allowed, or refused because its uses or its
    /// limit are used up.
    pub fn is_alive(&self) -> bool {
        let reason = self.decision.as_ref().and_then(|decision| decision.0.get("reason"));
        let is_used_up = |reason: &String| matches!(reason.as_str(), "token_spent" | "limit_reached");
        self.upstream.is_some() || reason.is_some_and(is_used_up)
    }
}

/// A request as the upstream saw it.
#[derive(Clone, Default)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    pub complete: bool,
    /// WebSocket session, if the request was a handshake and the upstream accepted it.
    pub session: Option<Session>,
}

/// A WebSocket as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Session {
    pub begun: Instant,
    /// Texts that the client sent.
    pub texts: Vec<String>,
    /// Time and manner of its end: `closed 1000` by the client's close frame, else `lost: …`.
    pub ended: Option<(Instant, String)>,
}

impl Session {
    /// Returns its duration, once it is over.
    pub fn lasted(&self) -> Option<Duration> {
        self.ended.as_ref().map(|(ended, _)| ended.duration_since(self.begun))
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        let values = values_of(&self.headers, name);
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Members of `decision=deny reason=to_denied route=dial …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoggedDecision(pub BTreeMap<String, String>);

impl LoggedDecision {
    pub fn parse(text: &str) -> Self {
        let fields = text.split(' ').filter_map(|field| field.split_once('='));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl Expect {
    /// Returns true if the request must reach the upstream.
    pub fn is_release(&self) -> bool {
        self.upstream.is_some()
    }

    /// Compares with the observed result; the error lists every difference in full.
    pub fn check(&self, sent: &Request, observed: &Observed) -> Result<(), String> {
        let mut wrong = Vec::new();
        match (&self.upstream, &observed.upstream) {
            (Some(wanted), Some(seen)) => check_upstream(wanted, sent, seen, &mut wrong),
            (Some(_), None) => wrong.push("the upstream saw nothing".to_owned()),
            (None, Some(_)) => wrong.push("THE UPSTREAM SAW A REQUEST".to_owned()),
            (None, None) => {}
        }
        self.check_decision(observed.decision.as_ref(), &mut wrong);
        if let Some(answer) = &observed.answer {
            self.check_answer(answer, &mut wrong);
        } else if self.status.is_some() {
            wrong.push("there was no answer".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(self.report(&wrong, sent, observed)) }
    }

    fn check_decision(&self, decision: Option<&LoggedDecision>, wrong: &mut Vec<String>) {
        let outcome = decision.and_then(|decision| decision.get("decision"));
        let reason = decision.and_then(|decision| decision.get("reason"));
        if self.upstream.is_some() && outcome != Some("allow") {
            wrong.push(format!("decision: expected allow, got {outcome:?}"));
        }
        if let Some(wanted) = &self.reason
            && (outcome, reason) != (Some("deny"), Some(wanted))
        {
            wrong.push(format!("reason: expected {wanted}, got {reason:?} of decision {outcome:?}"));
        }
        let is_good = self.status.is_some_and(|status| status < 400);
        if is_good && self.reason.is_none() && outcome == Some("deny") {
            wrong.push(format!("it was refused: {reason:?}"));
        }
    }

    fn check_answer(&self, answer: &Answer, wrong: &mut Vec<String>) {
        if let Some(status) = self.status
            && status != answer.status
        {
            wrong.push(format!("status: expected {status}, got {}", answer.status));
        }
        if let Some(body) = &self.body {
            let at = subset(body, &answer.json());
            wrong.extend(at.map(|at| format!("body: differs at `{at}`")));
        }
        check_headers("answer", &self.headers, &answer.headers, wrong);
    }

    fn report(&self, wrong: &[String], sent: &Request, observed: &Observed) -> String {
        let mut text = String::new();
        wrong.iter().for_each(|line| _ = writeln!(text, "  ✗ {line}"));
        let expected = serde_json::to_string_pretty(self).unwrap_or_default();
        _ = writeln!(text, "expected: {expected}");
        _ = writeln!(text, "sent: {} {} ({:?})", sent.method, sent.path, sent.framing);
        write_message(&mut text, &sent.headers, sent.body.as_deref().unwrap_or_default());
        match &observed.answer {
            Some(answer) => {
                _ = writeln!(text, "answer: {}", answer.status);
                write_message(&mut text, &answer.headers, &answer.body);
            }
            None => text.push_str("answer: none\n"),
        }
        match &observed.upstream {
            Some(seen) => {
                let end = if seen.complete { "complete" } else { "incomplete" };
                _ = writeln!(text, "upstream: {} {} ({end})", seen.method, seen.path);
                write_message(&mut text, &seen.headers, &seen.body);
            }
            None => text.push_str("upstream: saw nothing\n"),
        }
        _ = write!(text, "decision: {:?}", observed.decision.as_ref().map(|decision| &decision.0));
        text
    }
}

fn check_upstream(wanted: &ExpectUpstream, sent: &Request, seen: &Seen, wrong: &mut Vec<String>) {
    let sent_body = sent.body.as_deref().unwrap_or_default();
    if seen.body != sent_body {
        wrong.push(format!(
            "the body was changed: {} bytes sent, {} arrived",
            sent_body.len(),
            seen.body.len()
        ));
    }
    // Bytes after a handshake belong to the socket.
    if !seen.complete && sent.framing != Framing::Websocket {
        wrong.push("the upstream's request has no end".to_owned());
    }
    let path = wanted.path.as_ref().unwrap_or(&sent.path);
    if seen.method != sent.method || seen.path != *path {
        wrong.push(format!("the upstream was asked for {} {}", seen.method, seen.path));
    }
    let mut headers = wanted.headers.clone();
    if seen.session.is_some() {
        // A real Envoy removes this header; the duration of sockets is tested in `tests/stories`.
        headers.remove("x-envoy-upstream-stream-duration-ms");
    }
    check_headers("upstream", &headers, &seen.headers, wrong);
    for name in &wanted.absent {
        for (place, pairs) in [("headers", &seen.headers), ("trailers", &seen.trailers)] {
            if !values_of(pairs, name).is_empty() {
                wrong.push(format!("upstream {place}: `{name}` must not be there"));
            }
        }
    }
}

fn check_headers(whose: &str, wanted: &BTreeMap<String, Wanted>, got: &Headers, wrong: &mut Vec<String>) {
    for (name, wanted) in wanted {
        let values = values_of(got, name);
        let holds = match wanted {
            Wanted::Exactly(value) => values == [value.as_str()],
            Wanted::Part { contains } => values.iter().any(|value| value.contains(contains.as_str())),
            Wanted::Absent(()) => values.is_empty(),
        };
        if !holds {
            wrong.push(format!("{whose} header `{name}`: expected {wanted:?}, got {values:?}"));
        }
    }
}

fn values_of(pairs: &Headers, name: &str) -> Vec<String> {
    let found = pairs.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Finds the first place where `part` is not contained in `whole`; arrays must be equal.
fn subset(part: &Value, whole: &Value) -> Option<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().find_map(|(name, value)| {
            let below = subset(value, whole.get(name).unwrap_or(&Value::Null))?;
            Some(format!("/{name}{below}"))
        }),
        _ => (part != whole).then(String::new),
    }
}

fn write_message(text: &mut String, headers: &Headers, body: &[u8]) {
    for (name, value) in headers {
        _ = writeln!(text, "    {name}: {}", short(value));
    }
    if !body.is_empty() {
        _ = writeln!(text, "    {}", short(body));
    }
}

fn short(bytes: &[u8]) -> String {
    let shown = bytes.get(..1000).unwrap_or(bytes).escape_ascii().to_string();
    let more = bytes.len().saturating_sub(1000);
    if more > 0 { format!("{shown}… and {more} bytes more") } else { shown }
}
