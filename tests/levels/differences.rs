//! Differences between hosts that are correct. Everything else in the corpus gives the same decision, reason and status
//! on every host, and the upstream sees the same request.

use serde_json::{Value, json};

use crate::support::corpus::{Framing, Level, Request};
use crate::support::expect::Expect;

/// Request that is played at a level.
pub struct PlayedRequest<'a> {
    pub level: Level,
    pub request: &'a Request,
    /// The decision needs the body, according to the core.
    pub awaits_body: bool,
}

/// Rule by which the answer of a host differs.
pub struct Difference {
    pub levels: &'static [Level],
    /// Observable difference, as `docs/conformance.md` prints it.
    pub what: &'static str,
    /// Reason, and the place in the host's source.
    pub why: &'static str,
    applies: fn(&PlayedRequest<'_>, &Value) -> bool,
    /// Turns the expectation into the one for this host.
    change: fn(&mut Value),
    /// Returns true if the unchanged expectation is correct as well.
    accepts_unchanged: fn(&Value) -> bool,
}

/// Table of all differences.
pub const ALL: &[Difference] = &[
    Difference {
        levels: &[Level::Kong],
        what: "a header of which nginx keeps one pointer and that comes twice is refused before anything else; 400 `request_malformed`",
        why: "nginx keeps a pointer to the first one only, and the second one survives a removal \
              (ngx_http_wasm_headers_request.c)",
        applies: |played, _| KNOWN_ONCE.iter().any(|name| count(played.request, name) > 1),
        change: |expect| refuse(expect, 400, "request_malformed"),
        accepts_unchanged: |_| false,
    },
    Difference {
        levels: &[Level::Kong],
        what: "a judged body must announce its length; 411 `length_required`",
        why: "nginx calls no filter for an empty body, and a request with an empty body passes unjudged \
              (ngx_wasm_ops.c, \"received empty body\"): only `content-length` shows in advance whether a body follows",
        applies: |played, _| played.awaits_body && !announces_length(played.request),
        change: |expect| refuse(expect, 411, "length_required"),
        accepts_unchanged: is_refusal,
    },
    Difference {
        levels: &[Level::Kong, Level::Apisix],
        what: "the limit of a session is forwarded to the upstream, in seconds, in `x-callbound-session-seconds`",
        why: "neither host ends an open connection: proxy_close_stream traps (ngx_proxy_wasm_host.c) or does nothing \
              (ngx_http_wasm_api.c), so these policies say `sessions_ended_by: upstream`",
        applies: |_, expect| expect.pointer(DEADLINE).is_some(),
        change: forward_seconds,
        accepts_unchanged: |_| false,
    },
];

/// Headers for which nginx keeps one pointer and accepts a second one.
const KNOWN_ONCE: &[&str] = &["content-type", "range", "referer", "upgrade", "user-agent", "x-real-ip"];

fn count(request: &Request, name: &str) -> usize {
    request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
}

/// Pointer, in an expectation, to the header by which Envoy ends a connection.
const DEADLINE: &str = "/upstream/headers/x-envoy-upstream-stream-duration-ms";

/// Returns the expectations that are correct at a level; the first is the usual one.
pub fn accepted(played: &PlayedRequest<'_>, expect: &Expect) -> Result<Vec<Expect>, String> {
    let at_level = ALL.iter().filter(|difference| difference.levels.contains(&played.level));
    let mut expect = serde_json::to_value(expect).map_err(|error| error.to_string())?;
    let mut others = Vec::new();
    for difference in at_level {
        if (difference.applies)(played, &expect) {
            if (difference.accepts_unchanged)(&expect) {
                others.push(expect.clone());
            }
            (difference.change)(&mut expect);
        }
    }
    let all = std::iter::once(expect).chain(others);
    all.map(|expect| serde_json::from_value(expect).map_err(|error| error.to_string())).collect()
}

/// Returns true if the headers alone show whether a body follows, on a host that does not report it.
fn announces_length(request: &Request) -> bool {
    let has = |name: &str| request.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    match &request.body {
        Some(_) => request.framing.has_length() && !has("transfer-encoding"),
        None if request.framing == Framing::Websocket || !request.framing.is_h2() => {
            !has("transfer-encoding")
        }
        None => has("content-length"),
    }
}

fn is_refusal(expect: &Value) -> bool {
    expect["status"].as_u64().is_some_and(|status| status >= 400)
}

fn refuse(expect: &mut Value, status: u16, reason: &str) {
    *expect = json!({"status": status, "reason": reason});
}

fn forward_seconds(expect: &mut Value) {
    let milliseconds = expect.pointer_mut(DEADLINE).map(Value::take).unwrap_or_default();
    let seconds = match milliseconds.as_str().map(|text| text.strip_suffix("000").unwrap_or(text)) {
        Some(seconds) => json!(seconds),
        None => Value::Null,
    };
    if let Some(headers) = expect.pointer_mut("/upstream/headers").and_then(Value::as_object_mut) {
        headers.insert("x-callbound-session-seconds".to_owned(), seconds);
    }
}
