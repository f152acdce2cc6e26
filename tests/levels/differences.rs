//! Differences between hosts that are correct. Everything else in the corpus gives the same decision, reason and status
//! on every host, and the upstream sees the same request.

use callbound::header::is_reserved;
use serde_json::{Value, json};

use crate::support::corpus::{Framing, Level, Request};
use crate::support::expect::Expect;

/// Request that is played at a level.
pub struct PlayedRequest<'a> {
    pub level: Level,
    pub request: &'a Request,
    /// The decision needs the body, according to the core.
    pub awaits_body: bool,
    /// Headers that the policy reads.
    pub read_headers: &'a [String],
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
    change: fn(&mut Value, &Request),
    /// Returns true if the unchanged expectation is correct as well.
    accepts_unchanged: fn(&Value) -> bool,
}

/// Table of all differences, applied in this order.
pub const ALL: &[Difference] = &[
    Difference {
        levels: &[Level::Kong],
        what: "a header that a client may not set, in any spelling, is refused; 400 `request_malformed`",
        why: "a header that a filter removes still reaches the upstream (ngx_http_wasm_headers.c)",
        applies: |played, _| played.request.headers.iter().any(|(name, _)| is_reserved(name.as_bytes())),
        change: |expect, _| refuse(expect, 400, "request_malformed"),
        accepts_unchanged: is_refusal,
    },
    Difference {
        levels: &[Level::Kong],
        what: "a header that callbound would have to remove, or to change in more than one place, is refused: a look-alike \
               of a header that the policy reads, a second credential on a public route, a second header where ours goes; \
               400 `request_malformed`",
        why: "the same",
        applies: |played, expect| played.cannot_hide(expect),
        change: |expect, _| refuse(expect, 400, "request_malformed"),
        accepts_unchanged: |_| false,
    },
    Difference {
        levels: &[Level::Kong],
        what: "a `connection` header that names other headers is refused; 400 `request_malformed`",
        why: "Kong drops the named headers before the filter runs (kong/runloop/handler.lua, access.after)",
        applies: |played, _| names_other_headers(played.request),
        change: |expect, _| refuse(expect, 400, "request_malformed"),
        accepts_unchanged: is_refusal,
    },
    Difference {
        levels: &[Level::Kong],
        what: "a credential that is not forwarded leaves an empty header, unless `callbound-headers.conf` drops it",
        why: "a header can be given another value, but not be removed (ngx_http_wasm_headers.c)",
        applies: |played, expect| !hidden(expect, played.request).is_empty(),
        change: expect_empty,
        accepts_unchanged: |_| false,
    },
    Difference {
        levels: &[Level::Kong],
        what: "a judged body must announce its length; 411 `length_required`",
        why: "nginx calls no filter for an empty body, and a request with an empty body passes unjudged \
              (ngx_wasm_ops.c, \"received empty body\"): only `content-length` shows in advance whether a body follows",
        applies: |played, _| played.awaits_body && !announces_length(played.request),
        change: |expect, _| refuse(expect, 411, "length_required"),
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
    // What nginx itself answers comes last: it overrides everything before.
    Difference {
        levels: &[Level::Apisix],
        what: "a judged body over HTTP/2 must announce its length, else APISIX answers without a decision; 503",
        why: "\"http2 requests are not supported without content-length header\" (ngx_http_lua_req_body.c)",
        applies: |played, _| {
            let request = played.request;
            played.awaits_body && request.framing.is_h2() && !has_length(request)
        },
        change: |expect, _| *expect = json!({"status": 503}),
        accepts_unchanged: is_refusal,
    },
    Difference {
        levels: &[Level::Kong, Level::Apisix],
        what: "a second `authorization` is answered by nginx itself, without a decision; 400",
        why: "it is a unique header since nginx 1.23 (ngx_http_request.c)",
        applies: |played, _| count(played.request, "authorization") > 1,
        change: |expect, _| *expect = json!({"status": 400}),
        accepts_unchanged: |_| false,
    },
    Difference {
        levels: &[Level::Kong, Level::Apisix],
        what: "trailers over HTTP/2 end the connection without an answer",
        why: "nginx 1.25 takes them for an error of the protocol (ngx_http_v2.c)",
        applies: |played, _| played.request.framing == Framing::H2Trailers,
        change: |expect, _| *expect = json!({}),
        accepts_unchanged: |_| false,
    },
];

impl PlayedRequest<'_> {
    /// Returns true if the request is released elsewhere after a change that Kong cannot make.
    fn cannot_hide(&self, expect: &Value) -> bool {
        let names: Vec<&str> = self.request.headers.iter().map(|(name, _)| name.as_str()).collect();
        let is_twice = |name: &str| count(self.request, name) > 1;
        let set = expect["upstream"]["headers"].as_object().into_iter().flat_map(|headers| headers.keys());
        let absent =
            || expect["upstream"]["absent"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let is_look_alike = |name: &str| {
            let others = self.read_headers.iter().map(String::as_str);
            names.contains(&name)
                && others.filter(|other| *other != name).any(|other| fold(other) == fold(name))
        };
        let credentials = absent().filter(|name| names.contains(name) && !is_look_alike(name)).count();
        let is_changed_twice = set.map(String::as_str).chain(absent()).any(is_twice);
        is_changed_twice || credentials > 1 || absent().any(is_look_alike)
    }
}

fn fold(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase()
}

/// Headers of the request that no upstream may see, by the expectation.
fn hidden(expect: &Value, request: &Request) -> Vec<String> {
    let absent = expect["upstream"]["absent"].as_array().into_iter().flatten().filter_map(Value::as_str);
    absent.filter(|name| count(request, name) > 0).map(str::to_owned).collect()
}

fn expect_empty(expect: &mut Value, request: &Request) {
    for name in hidden(expect, request) {
        if let Some(absent) = expect["upstream"]["absent"].as_array_mut() {
            absent.retain(|other| *other != name);
        }
        expect["upstream"]["headers"][name] = json!("");
    }
}

fn names_other_headers(request: &Request) -> bool {
    let named = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let mut options = named.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    options.any(|option| {
        let option = String::from_utf8_lossy(option).trim().to_ascii_lowercase();
        !matches!(option.as_str(), "" | "keep-alive" | "close" | "upgrade" | "te")
    })
}

fn has_length(request: &Request) -> bool {
    let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
    let has_header = request.headers.iter().any(|(name, _)| is_length(name));
    has_header || (request.body.is_some() && request.framing.has_length())
}

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
            (difference.change)(&mut expect, played.request);
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

fn forward_seconds(expect: &mut Value, _: &Request) {
    let milliseconds = expect.pointer_mut(DEADLINE).map(Value::take).unwrap_or_default();
    let seconds = match milliseconds.as_str().map(|text| text.strip_suffix("000").unwrap_or(text)) {
        Some(seconds) => json!(seconds),
        None => Value::Null,
    };
    if let Some(headers) = expect.pointer_mut("/upstream/headers").and_then(Value::as_object_mut) {
        headers.insert("x-callbound-session-seconds".to_owned(), seconds);
    }
}
