//! Where a host makes another answer right than Envoy's. All there are: everything else in the corpus is the same
//! verdict, reason and status on every host, and the upstream sees the same.

use serde_json::{Value, json};

use crate::support::corpus::{Framing, Level, Request};
use crate::support::expect::Expect;

/// A request on its way to a host, and what is to come of it elsewhere.
pub struct Asked<'a> {
    pub level: Level,
    pub request: &'a Request,
    /// Whether the verdict needs the body, by the core.
    pub awaits_body: bool,
}

/// One difference.
pub struct Difference {
    pub levels: &'static [Level],
    /// What is different.
    pub what: &'static str,
    /// Why, and where that was read.
    pub why: &'static str,
    applies: fn(&Asked<'_>, &Value) -> bool,
    /// What may come of it instead.
    change: fn(&mut Value),
    /// Whether the answer of elsewhere is right as well.
    or_as_elsewhere: fn(&Value) -> bool,
}

/// The table.
pub const ALL: &[Difference] = &[
    Difference {
        levels: &[Level::Kong],
        what: "a header that nginx knows once and stands twice is refused before anything else; 400 `request_malformed`",
        why: "nginx keeps a pointer to the first of them only, and of two one survives its removal \
              (ngx_http_wasm_headers_request.c)",
        applies: |asked, _| KNOWN_ONCE.iter().any(|name| count(asked.request, name) > 1),
        change: |expect| refuse(expect, 400, "request_malformed"),
        or_as_elsewhere: |_| false,
    },
    Difference {
        levels: &[Level::Kong],
        what: "a body that is judged must announce its length; 411 `length_required`",
        why: "nginx calls no filter for an empty body, and a request whose body is empty goes on unjudged \
              (ngx_wasm_ops.c, \"received empty body\"): only `content-length` says beforehand whether one comes",
        applies: |asked, _| asked.awaits_body && !announces_length(asked.request),
        change: |expect| refuse(expect, 411, "length_required"),
        or_as_elsewhere: is_refusal,
    },
    Difference {
        levels: &[Level::Kong, Level::Apisix],
        what: "a limited session is told to the upstream, in seconds, in `x-callbound-session-seconds`",
        why: "neither host ends an open connection: proxy_close_stream traps (ngx_proxy_wasm_host.c) or does nothing \
              (ngx_http_wasm_api.c), so these policies say `sessions_ended_by: upstream`",
        applies: |_, expect| expect.pointer(DEADLINE).is_some(),
        change: tell_seconds,
        or_as_elsewhere: |_| false,
    },
];

/// What nginx keeps a single pointer to, and refuses no second one of by itself.
const KNOWN_ONCE: &[&str] = &["content-type", "range", "referer", "upgrade", "user-agent", "x-real-ip"];

fn count(request: &Request, name: &str) -> usize {
    request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
}

/// The header by which Envoy ends a connection, as a pointer into an expectation.
const DEADLINE: &str = "/upstream/headers/x-envoy-upstream-stream-duration-ms";

/// What may come of a request at a level; the first is what must, unless it is one of several.
pub fn accepted(asked: &Asked<'_>, expect: &Expect) -> Result<Vec<Expect>, String> {
    let at_level = ALL.iter().filter(|difference| difference.levels.contains(&asked.level));
    let mut expect = serde_json::to_value(expect).map_err(|error| error.to_string())?;
    let mut others = Vec::new();
    for difference in at_level {
        if (difference.applies)(asked, &expect) {
            if (difference.or_as_elsewhere)(&expect) {
                others.push(expect.clone());
            }
            (difference.change)(&mut expect);
        }
    }
    let all = std::iter::once(expect).chain(others);
    all.map(|expect| serde_json::from_value(expect).map_err(|error| error.to_string())).collect()
}

/// Whether a body, or that there is none, can be known from the headers alone on a host that does not say.
fn announces_length(request: &Request) -> bool {
    let says = |name: &str| request.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    match &request.body {
        Some(_) => request.framing.has_length() && !says("transfer-encoding"),
        None if request.framing == Framing::Websocket || !request.framing.is_h2() => {
            !says("transfer-encoding")
        }
        None => says("content-length"),
    }
}

fn is_refusal(expect: &Value) -> bool {
    expect["status"].as_u64().is_some_and(|status| status >= 400)
}

fn refuse(expect: &mut Value, status: u16, reason: &str) {
    *expect = json!({"status": status, "reason": reason});
}

fn tell_seconds(expect: &mut Value) {
    let milliseconds = expect.pointer_mut(DEADLINE).map(Value::take).unwrap_or_default();
    let seconds = match milliseconds.as_str().map(|text| text.strip_suffix("000").unwrap_or(text)) {
        Some(seconds) => json!(seconds),
        None => Value::Null,
    };
    if let Some(headers) = expect.pointer_mut("/upstream/headers").and_then(Value::as_object_mut) {
        headers.insert("x-callbound-session-seconds".to_owned(), seconds);
    }
}
