//! Faults of a host: a lost call, evicted memory, an instance replaced in the middle of a request, a stale body, a
//! refusal that cannot be sent. No fault lets an unjudged request pass.

use callbound_mask_shifts::count_unmasked;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::core::{EARLIER, NOW};
use super::wasm::{host, module, nanoseconds};
use crate::support::corpus::{File, Level, load};
use crate::support::require::{Piece, require, root};
use crate::wasm_host::{HttpCall, Module, Outcome, Reply, Request, Vm, World, first, host_rules, pairs};

type TestResult = Result<(), String>;

/// Test that needs the module but no corpus file.
pub type HostTest = fn() -> TestResult;

/// All tests, by name.
pub const ALL: &[(&str, HostTest)] = &[
    ("empty_filter_allows_every_request", empty_filter),
    ("kong_unreadable_policy_refuses_every_request", kong_unreadable_policy),
    ("apisix_unreadable_policy_is_answered_503", apisix_unreadable_policy),
    ("envoy_unreadable_policy_is_rejected_at_load", envoy_unreadable_policy),
    ("kong_body_in_file_is_413", kong_body_in_a_file),
    ("kong_body_without_length_is_411", kong_body_without_a_length),
    ("kong_more_than_90_headers_are_431", kong_many_headers),
    ("kong_header_that_cannot_be_hidden_is_refused", kong_unhideable),
    ("kong_upgrade_over_other_protocol_is_refused", || upgrade_over_other_protocol(Level::Kong)),
    ("apisix_upgrade_over_other_protocol_is_refused", || upgrade_over_other_protocol(Level::Apisix)),
    ("apisix_more_than_99_pairs_are_431", apisix_many_headers),
    ("envoy_fewer_headers_than_announced_are_refused", hidden_headers),
    ("kong_token_from_before_a_reload_is_refused", kong_reload),
    ("kong_request_in_new_instance_is_refused", kong_new_instance),
    ("kong_ticks_in_new_instance_continue", kong_ticks_after_a_trap),
    ("kong_refusal_that_cannot_be_sent_allows_nothing", kong_answer_fails),
    ("apisix_refusal_that_cannot_be_sent_allows_nothing", apisix_answer_fails),
    ("kong_failing_host_call_allows_nothing", || host_calls_fail(Level::Kong)),
    ("apisix_failing_host_call_allows_nothing", || host_calls_fail(Level::Apisix)),
    ("buffer_failing_host_call_allows_nothing", || host_calls_fail(Level::Buffer)),
    ("kong_policy_on_nginx_waits_for_redis_only_at_first", kong_policy_on_nginx),
    ("kong_unanswered_call_allows_nothing", kong_lost_calls),
    ("kong_failed_call_is_refused", kong_bad_answers),
    ("kong_key_from_store_is_held_to_its_bounds", kong_key_from_store),
    ("kong_answer_for_earlier_instance_is_ignored", kong_answer_for_earlier_instance),
    ("kong_longest_batch_of_charges_is_answered", kong_longest_charges),
    ("kong_unanswered_feed_is_requested_again", kong_feed_without_answer),
    ("kong_clock_set_back_does_not_stop_the_feed", kong_clock_set_back),
    ("kong_uses_in_several_batches_are_each_sent_once", kong_uses_in_batches),
    ("kong_missing_zone_allows_nothing", kong_without_its_zone),
    ("kong_spent_token_after_eviction_stays_spent", kong_zone_evicts),
    ("kong_workers_mint_distinct_tokens", kong_workers_differ),
    ("kong_query_credential_is_removed", kong_query),
    ("apisix_query_credential_is_removed", apisix_query),
    ("apisix_empty_body_after_valid_one_is_refused", apisix_stale_body),
    ("apisix_missing_variables_allow_no_unread_body", apisix_variables),
    ("module_has_a_mask_for_every_shift", every_shift_is_masked),
    ("policy_for_other_host_allows_nothing_unjudged", wrong_host),
    ("buffer_filter_misplaced_leaks_only_stripped_headers", buffer_misplaced),
    ("buffer_upgrade_with_body_allows_nothing", buffer_upgrade),
    ("envoy_without_flag_leaks_nothing", flag_off),
];

/// API key of `uses.json`.
const KEY: &str = "Bearer demo_8ab97add3946f17374e13d39c3643345";

/// Loads `uses.json` for a host: `act` has a judged body, `ping` has none, tokens have one use.
fn file(level: Level) -> Result<File, String> {
    Ok(load(&root().join("tests/cases/uses.json"))?.at(level))
}

fn world(level: Level, file: &File) -> World {
    let env: Vec<(String, String)> =
        file.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    World::imitating(host(level), &env, nanoseconds(NOW - EARLIER))
}

/// Returns the policy of a file without the features this host lacks.
fn policy(level: Level, file: &File) -> Result<Value, String> {
    let mut policy: Value = serde_json::from_str(&file.policy).map_err(|error| error.to_string())?;
    if level == Level::Apisix {
        policy["tokens"]["ct"].as_object_mut().ok_or("no family")?.remove("uses");
        for route in policy["routes"].as_array_mut().ok_or("no routes")? {
            route.as_object_mut().ok_or("no route")?.remove("uses");
            if let Some(request) = route.pointer_mut("/mint/request").and_then(Value::as_object_mut) {
                request.remove("uses");
            }
        }
    }
    Ok(policy)
}

fn start_in(world: World, policy: &Value) -> Result<Vm, String> {
    module()?.start_in(world, policy.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// Starts a gateway with that policy; its first request was long ago.
fn gateway(level: Level) -> Result<Vm, String> {
    let file = file(level)?;
    let mut vm = start_in(world(level, &file), &policy(level, &file)?)?;
    vm.exchange(&ping());
    vm.set_now(nanoseconds(NOW));
    Ok(vm)
}

fn ping() -> Request {
    Request::new("GET", "/v1/ping").header("authorization", KEY)
}

/// Request inside the bounds.
fn act() -> Request {
    Request::new("POST", "/v1/act").header("authorization", KEY).json(r#"{"line":"l-1"}"#)
}

/// Request outside the bounds.
fn act_outside() -> Request {
    Request::new("POST", "/v1/act").header("authorization", KEY).json(r#"{"line":"l-9"}"#)
}

fn is_released(what: &str, outcome: &Outcome) -> TestResult {
    match (&outcome.upstream, &outcome.trapped) {
        (Some(upstream), None) if upstream.complete => Ok(()),
        _ => Err(format!("{what}: not released: {outcome:?}")),
    }
}

/// Fails unless the module itself refused the request for this reason and nothing reached the upstream.
fn is_refused(what: &str, outcome: &Outcome, status: u32, reason: &str) -> TestResult {
    let texts: Vec<String> = outcome.properties.keys().filter_map(|path| outcome.property(path)).collect();
    let has_reason = reason.is_empty() || texts.iter().any(|text| text.contains(&format!("reason={reason}")));
    match (&outcome.upstream, outcome.status()) {
        (None, Some(got)) if got == status && has_reason && outcome.trapped.is_none() => Ok(()),
        _ => Err(format!("{what}: not refused with {status} {reason}: {outcome:?}")),
    }
}

/// Fails unless the module trapped, the host answered with this status and nothing reached the upstream.
fn has_failed(what: &str, outcome: &Outcome, status: u32) -> TestResult {
    match (&outcome.upstream, outcome.failed, &outcome.trapped) {
        (None, Some(got), Some(_)) if got == status => Ok(()),
        _ => Err(format!("{what}: no {status} of the host: {outcome:?}")),
    }
}

fn is_not_forwarded(what: &str, outcome: &Outcome) -> TestResult {
    match &outcome.upstream {
        None => Ok(()),
        Some(_) => Err(format!("{what}: the upstream saw it: {outcome:?}")),
    }
}

/// Checks the host itself: without a filter that refuses, every request passes on every host, with its body.
fn empty_filter() -> TestResult {
    let module = Module::load(root().join("benches/empty-filter.wat"))?;
    for level in [Level::Wasm, Level::Buffer, Level::Kong, Level::Apisix] {
        let world = World::imitating(host(level), &[], nanoseconds(NOW));
        let mut vm = module.start_in(world, b"").map_err(|error| error.to_string())?;
        for request in [act_outside(), ping(), Request::new("GET", "/nowhere")] {
            let outcome = vm.exchange(&request);
            is_released(&format!("{level:?}"), &outcome)?;
            let upstream = outcome.upstream.unwrap_or_default();
            let body = request.chunks.concat();
            if upstream.body != body || upstream.header(":path") != first(&request.headers, ":path") {
                return Err(format!("{level:?}: the upstream saw {upstream:?}"));
            }
        }
    }
    Ok(())
}

/// Returns texts that are not a valid policy.
fn unreadable(level: Level) -> Result<Vec<Vec<u8>>, String> {
    let mut broken = policy(level, &file(level)?)?;
    broken["routes"][0]["accept"] = json!(["unknown"]);
    let texts: [&[u8]; 5] = [b"", b"{", b"[]", b"{\"version\":1}", b"\xff\xfe"];
    Ok(texts.into_iter().map(<[u8]>::to_vec).chain([broken.to_string().into_bytes()]).collect())
}

fn kong_unreadable_policy() -> TestResult {
    let file = file(Level::Kong)?;
    for text in unreadable(Level::Kong)? {
        let what = String::from_utf8_lossy(&text).chars().take(40).collect::<String>();
        // A worker that does not start would let requests pass: kong/init.lua.
        let mut vm = module()?
            .start_in(world(Level::Kong, &file), &text)
            .map_err(|error| format!("{what}: {error}"))?;
        is_refused(&what, &vm.exchange(&ping()), 503, "")?;
        is_refused(&what, &vm.exchange(&act()), 503, "")?;
        is_refused(&what, &vm.exchange(&Request::new("GET", "/v1/open")), 503, "")?;
    }
    Ok(())
}

fn apisix_unreadable_policy() -> TestResult {
    let file = file(Level::Apisix)?;
    for text in unreadable(Level::Apisix)? {
        // If the module refuses the policy, APISIX answers 503 itself; if it accepts it, the module does.
        if let Ok(mut vm) = module()?.start_in(world(Level::Apisix, &file), &text) {
            is_refused("an unreadable policy", &vm.exchange(&ping()), 503, "")?;
            is_refused("an unreadable policy", &vm.exchange(&act()), 503, "")?;
        }
    }
    Ok(())
}

fn envoy_unreadable_policy() -> TestResult {
    let file = file(Level::Wasm)?;
    for text in unreadable(Level::Wasm)? {
        if module()?.start_in(world(Level::Wasm, &file), &text).is_ok() {
            return Err(format!("Envoy would replace a good policy by {text:?}"));
        }
    }
    Ok(())
}

/// By default `client_body_buffer_size` is smaller than `client_max_body_size`.
fn kong_body_in_a_file() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    vm.world().memory_limit = 8 * 1024;
    is_released("a body in memory", &vm.exchange(&act()))?;
    let long = format!(r#"{{"line":"l-1","note":"{}"}}"#, "a".repeat(8 * 1024));
    let request = Request::new("POST", "/v1/act").header("authorization", KEY).json(long);
    is_refused("a body in a file", &vm.exchange(&request), 413, "body_too_large")
}

fn kong_body_without_a_length() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    let open = || {
        Request::new("POST", "/v1/act")
            .header("authorization", KEY)
            .header("content-type", "application/json")
    };
    let chunked = || open().header("transfer-encoding", "chunked");
    is_refused("chunked", &vm.exchange(&chunked().chunk(r#"{"line":"l-9"}"#)), 411, "length_required")?;
    is_refused("chunked and empty", &vm.exchange(&chunked().chunk("")), 411, "length_required")?;
    let mut h2 = open().chunk(r#"{"line":"l-9"}"#);
    h2.protocol = "HTTP/2.0";
    is_refused("HTTP/2 without a length", &vm.exchange(&h2), 411, "length_required")?;
    let mut h2 = open().chunk("");
    h2.protocol = "HTTP/2.0";
    is_refused("HTTP/2 with an empty frame", &vm.exchange(&h2), 411, "length_required")?;
    for length in ["+14", "1 4", "14, 14", "0x0e", "99999999999999999999"] {
        let odd = open().header("content-length", length).chunk(r#"{"line":"l-9"}"#);
        is_refused(length, &vm.exchange(&odd), 411, "length_required")?;
    }
    // With length 0 there is no body, and that is judged.
    let empty = open().header("content-length", "0");
    is_not_forwarded("no body where one is judged", &vm.exchange(&empty))?;
    is_not_forwarded("no body and no length", &vm.exchange(&open()))
}

fn kong_many_headers() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    // `host` and `authorization` are two of them.
    let with =
        |count: usize| (0..count - 2).fold(ping(), |request, at| request.header(format!("x-{at}"), "1"));
    is_released("90 headers", &vm.exchange(&with(90)))?;
    for count in [91, 95, 96, 97, 98, 100, 101, 500] {
        is_refused(&format!("{count} headers"), &vm.exchange(&with(count)), 431, "headers_too_many")?;
    }
    // A client's own callbound header is seen wherever it is in the list.
    let hidden = with(89).header("x-callbound-key", "client");
    is_refused("the last of 90", &vm.exchange(&hidden), 400, "request_malformed")
}

/// What would need a removal is refused, on public routes too.
fn kong_unhideable() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    let public = || Request::new("GET", "/v1/open");
    let open = vm.exchange(&public().header("authorization", KEY).header("connection", "Keep-Alive, TE"));
    is_released("one credential", &open)?;
    let seen = open.upstream.unwrap_or_default();
    if seen.headers.iter().any(|(name, value)| name == b"authorization" && !value.is_empty()) {
        return Err(format!("the upstream saw {seen:?}"));
    }
    let twice = |request: Request| request.header("x-request-id", "a").header("x-request-id", "b");
    is_released("an id twice", &vm.exchange(&twice(public())))?;
    is_released("an id twice on a guarded route", &vm.exchange(&twice(ping())))?;
    let key = KEY.trim_start_matches("Bearer ");
    let refused = [
        ("a key under a name with a dot", public().header("x.foo", key)),
        ("a key under a name with an underscore", public().header("x_foo", key)),
        ("a key in two headers", public().header("authorization", KEY).header("cookie", format!("k={key}"))),
        ("a key in the second cookie", public().header("cookie", "a=b").header("cookie", format!("k={key}"))),
        ("a key as subprotocol", public().header("sec-websocket-protocol", key)),
        ("a key in a name that is no text", public().header(b"x-\xff", key)),
        ("another header nominated", ping().header("connection", "close, x-callbound-team")),
        ("our header in capitals", public().header("X_CALLBOUND_TEAM", "rival")),
        ("an empty header of ours", ping().header("x-callbound-team", "")),
    ];
    for (what, request) in refused {
        is_refused(what, &vm.exchange(&request), 400, "request_malformed")?;
    }
    Ok(())
}

/// nginx would switch protocols for a header that has no meaning outside HTTP/1.1.
fn upgrade_over_other_protocol(level: Level) -> TestResult {
    let mut vm = gateway(level)?;
    let upgrade = |protocol| Request {
        protocol,
        unfinished: true,
        ..ping().header("connection", "Upgrade").header("upgrade", "websocket")
    };
    for protocol in ["HTTP/2.0", "HTTP/1.0", ""] {
        is_refused(protocol, &vm.exchange(&upgrade(protocol)), 400, "upgrade_refused")?;
        let mut live = upgrade(protocol);
        live.headers.retain(|(name, _)| name != b":path" && name != b"authorization");
        let live =
            live.header(":path", format!("/v1/live?token={}&line=l-1", KEY.trim_start_matches("Bearer ")));
        is_refused(protocol, &vm.exchange(&live), 400, "upgrade_refused")?;
    }
    Ok(())
}

/// APISIX hands over a hundred headers and reports none; what is behind them reaches the upstream unseen.
fn apisix_many_headers() -> TestResult {
    let mut vm = gateway(Level::Apisix)?;
    // `host`, `authorization` and three pseudo-headers are shown as well.
    let with = |count: usize| (0..count).fold(ping(), |request, at| request.header(format!("x-{at}"), "1"));
    is_released("99 pairs", &vm.exchange(&with(94)))?;
    for count in [95, 96, 98, 100, 500] {
        let hidden = with(count).header("x-callbound-key", "client");
        is_refused(&format!("{count} headers"), &vm.exchange(&hidden), 431, "headers_too_many")?;
    }
    Ok(())
}

/// A host that announces more headers than it shows could hide a judged one.
fn hidden_headers() -> TestResult {
    let file = file(Level::Wasm)?;
    let mut short = world(Level::Wasm, &file);
    short.host = &host_rules::SHORT;
    let mut vm = start_in(short, &policy(Level::Wasm, &file)?)?;
    is_released("all are shown", &vm.exchange(&ping().header("x-1", "1")))?;
    let more = ping().header("x-1", "1").header("x-callbound-team", "rival");
    is_refused("one is hidden", &vm.exchange(&more), 503, "host_error")
}

/// Memory is empty after a reload of nginx: uses stay spent, because tokens from before it are refused.
fn kong_reload() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    let token = minted(&mut vm)?;
    let once = Request::new("GET", "/v1/ping").header("authorization", format!("Bearer {token}"));
    is_released("its one use", &vm.exchange(&once))?;
    vm.set_now(nanoseconds(NOW + 1));
    let text = policy(Level::Kong, &file(Level::Kong)?)?.to_string();
    let mut reloaded = vm.reload(text.as_bytes()).map_err(|error| error.to_string())?;
    is_refused("after a reload", &reloaded.exchange(&once), 401, "token_forgotten")?;
    is_released("an API key", &reloaded.exchange(&ping()))
}

/// After a trap in one request, the requests in flight meet an instance that has never seen them.
fn kong_new_instance() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    let waiting = vm.begin(&act());
    let outside = vm.begin(&act_outside());
    vm.fail("proxy_send_local_response", 10)?;
    has_failed("the one that traps", &vm.exchange(&act_outside()), 500)?;
    vm.heal();
    for (stream, body) in [(waiting, r#"{"line":"l-1"}"#), (outside, r#"{"line":"l-9"}"#)] {
        vm.body(stream, body.as_bytes(), true);
        is_refused("one that waited for its body", &vm.finish(stream), 503, "")?;
    }
    is_released("one after that", &vm.exchange(&act()))?;
    is_refused("and another", &vm.exchange(&act_outside()), 403, "")
}

fn kong_ticks_after_a_trap() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    vm.tick();
    vm.fail("proxy_send_local_response", 10)?;
    vm.exchange(&act_outside());
    vm.heal();
    is_released("the next request", &vm.exchange(&ping()))?;
    let before = vm.trapped().map(str::to_owned);
    vm.tick();
    match vm.trapped().map(str::to_owned) == before {
        true => is_released("after a tick", &vm.exchange(&ping())),
        false => Err(format!("a tick trapped: {:?}", vm.trapped())),
    }
}

fn kong_answer_fails() -> TestResult {
    answer_fails(Level::Kong, 500)
}

fn apisix_answer_fails() -> TestResult {
    answer_fails(Level::Apisix, 503)
}

/// A refusal that the host cannot send must not become a release.
fn answer_fails(level: Level, status: u32) -> TestResult {
    let requests = [Request::new("GET", "/v1/ping"), Request::new("GET", "/nowhere"), act_outside()];
    for request in requests {
        let mut vm = gateway(level)?;
        vm.fail("proxy_send_local_response", 2)?;
        has_failed("a refusal without an answer", &vm.exchange(&request), status)?;
    }
    Ok(())
}

/// Lets each host function fail in turn, for a request that must not pass and one that may.
fn host_calls_fail(level: Level) -> TestResult {
    const CALLS: [&str; 9] = [
        "proxy_get_header_map_pairs",
        "proxy_get_buffer_bytes",
        "proxy_get_property",
        "proxy_set_property",
        "proxy_remove_header_map_value",
        "proxy_replace_header_map_value",
        "proxy_get_shared_data",
        "proxy_set_shared_data",
        "clock_time_get",
    ];
    for call in CALLS {
        for status in [2, 10] {
            let mut vm = gateway(level)?;
            vm.fail(call, status)?;
            let what = format!("{call} returns {status}");
            for request in [act_outside(), Request::new("GET", "/v1/ping"), Request::new("GET", "/v1/browse")]
            {
                let outcome = vm.exchange(&request);
                is_not_forwarded(&what, &outcome)?;
                if outcome.held {
                    return Err(format!("{what}: it is still held: {outcome:?}"));
                }
            }
            let outcome = vm.exchange(&act());
            let stripped = outcome.upstream.as_ref().is_none_or(|upstream| {
                let credential = upstream.header("authorization").unwrap_or_default();
                credential.is_empty() && upstream.header("x-callbound-key").is_some()
            });
            if !stripped {
                return Err(format!(
                    "{what}: released with its credential, or without its name: {outcome:?}"
                ));
            }
        }
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------------
// Calls
// -------------------------------------------------------------------------------------------------

/// Starts a gateway whose store is remote and holds API keys.
fn remote(level: Level) -> Result<Vm, String> {
    let file = file(level)?;
    remote_in(world(level, &file), &policy(level, &file)?)
}

fn remote_in(world: World, policy: &Value) -> Result<Vm, String> {
    let mut policy = policy.clone();
    let redis = json!({"url": "http://127.0.0.1:7379", "timeout_ms": 500});
    policy["store"] =
        json!({"backend": "redis", "redis": redis, "directory": {"fresh_seconds": 60, "unknown_seconds": 1}});
    let mut vm = start_in(world, &policy)?;
    vm.set_now(nanoseconds(NOW));
    answer_revocations(&mut vm)?;
    Ok(vm)
}

/// Answers the query for revocations, sent at each tick, with an empty list.
fn answer_revocations(vm: &mut Vm) -> TestResult {
    vm.tick();
    let call = the_call(vm)?;
    vm.answer_call(call.token, Some(&store_answer(&call, &json!([1, {}]))?));
    Ok(())
}

/// Store entry of a key that is not in the policy.
fn entry() -> Value {
    let digest = digest(STORED_KEY.trim_start_matches("Bearer "));
    let key = json!({"id": "stored", "sha256": digest, "team": "acme", "scopes": ["use"]});
    json!(key.to_string())
}

fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> TestResult {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}

/// API key that is only in the store.
const STORED_KEY: &str = "Bearer demo_00000000000000000000000000000001";

fn asks(request: Request) -> Request {
    let mut request = request;
    request.headers.retain(|(name, _)| name != b"authorization");
    request.header("authorization", STORED_KEY)
}

/// Requests for the revocations that wait for an answer, oldest first.
fn feeds(vm: &Vm) -> Vec<HttpCall> {
    let is_feed = |call: &HttpCall| String::from_utf8_lossy(&call.body).contains("/F/");
    vm.http_calls().into_iter().filter(is_feed).collect()
}

/// A request without an answer delays the next by no more than a second, and its late answer changes nothing.
fn kong_feed_without_answer() -> TestResult {
    let mut vm = remote(Level::Kong)?;
    vm.set_now(nanoseconds(NOW + 2));
    vm.tick();
    vm.tick();
    same("requests when one is due", feeds(&vm).len(), 1)?;
    vm.set_now(nanoseconds(NOW + 3));
    vm.tick();
    let calls = feeds(&vm);
    let [lost, next] = calls.as_slice() else { return Err(format!("not asked again: {calls:?}")) };
    let revoked = json!([2, {"key backend *": (NOW + 1).to_string()}]);
    vm.answer_call(next.token, Some(&store_answer(next, &revoked)?));
    is_refused("a revoked key", &vm.exchange(&ping()), 401, "key_revoked")?;
    vm.answer_call(lost.token, Some(&store_answer(lost, &json!([1, {}]))?));
    is_refused("after the late answer", &vm.exchange(&ping()), 401, "key_revoked")
}

fn kong_clock_set_back() -> TestResult {
    let mut vm = remote(Level::Kong)?;
    vm.set_now(nanoseconds(NOW - 3_600));
    is_refused("revocations from the future", &vm.exchange(&ping()), 503, "revocations_stale")?;
    answer_revocations(&mut vm)?;
    is_released("after the next answer", &vm.exchange(&ping()))
}

/// Uses of more keys than a request holds go out in several, in turn, each key once.
fn kong_uses_in_batches() -> TestResult {
    const KEYS: usize = 150;
    let file = file(Level::Kong)?;
    let mut policy = policy(Level::Kong, &file)?;
    policy["store"] = json!({"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}});
    let id = |number: usize| format!("{number:064}");
    let key = |number: usize| format!("demo_{number:032x}");
    let entry = |number: usize| json!({"id": id(number), "sha256": digest(&key(number)), "team": "acme", "scopes": ["use"]});
    policy["api_keys"] = (0..KEYS).map(entry).collect();
    let mut vm = start_in(world(Level::Kong, &file), &policy)?;
    vm.set_now(nanoseconds(NOW));
    answer_revocations(&mut vm)?;
    for number in 0..KEYS {
        let credential = format!("Bearer {}", key(number));
        let request = Request::new("GET", "/v1/ping").header("authorization", credential);
        is_released("a request", &vm.exchange(&request))?;
    }
    vm.set_now(nanoseconds(NOW + 2));
    let mut sent = String::new();
    for batch in 0.. {
        vm.tick();
        let calls = vm.http_calls();
        let Some(call) = calls.iter().find(|call| call.body.windows(3).any(|word| word == b"/K/")) else {
            break;
        };
        same("a batch is short", call.bytes() <= 3_072 && batch < KEYS, true)?;
        let text = String::from_utf8_lossy(&call.body).into_owned();
        let answers = vec![json!(1); text.matches("/K/").count()];
        vm.answer_call(call.token, Some(&batch_answer(call, &answers)?));
        sent += &text;
    }
    let times = |number: usize| sent.matches(&format!("/K/{}/1/", id(number))).count();
    same("batches that held each key once", (0..KEYS).all(|number| times(number) == 1), true)
}

/// As many limits as the policy may have: the host's bridge answers their call, and one more limit is refused at load.
fn kong_longest_charges() -> TestResult {
    let file = file(Level::Kong)?;
    let with = |limits: usize| -> Result<Vm, String> {
        let mut policy = policy(Level::Kong, &file)?;
        policy["store"] = json!({"backend": "redis", "redis": {"url": "http://127.0.0.1:7379"}});
        let window = json!({"max": 1_000_000_000, "seconds": 2_678_400});
        policy["limits"] = (0..limits)
            .map(|number| json!({"id": format!("l{number}"), "per": "key", "routes": ["ping"], "window": window}))
            .collect();
        start_in(world(Level::Kong, &file), &policy)
    };
    let mut vm = with(56)?;
    vm.set_now(nanoseconds(NOW));
    answer_revocations(&mut vm)?;
    let stream = vm.begin(&ping());
    let call = the_call(&vm)?;
    same("a long call", (2_600..=3_072).contains(&call.bytes()), true)?;
    vm.answer_call(call.token, Some(&batch_answer(&call, &vec![json!([8, 1_000]); 56])?));
    is_released("56 limits", &vm.finish(stream))?;
    // A policy that this host refuses lets nothing pass.
    is_not_forwarded("more limits than a call holds", &with(90)?.exchange(&ping()))
}

fn the_call(vm: &Vm) -> Result<HttpCall, String> {
    vm.http_calls().last().cloned().ok_or_else(|| "no call was made".to_owned())
}

fn answer(body: impl Into<Vec<u8>>) -> Reply {
    Reply {
        status: 200,
        headers: pairs([("content-type", "application/json")]),
        body: body.into(),
        ..Reply::default()
    }
}

/// Builds the store's answer to a call with one question.
fn store_answer(call: &HttpCall, found: &Value) -> Result<Reply, String> {
    batch_answer(call, std::slice::from_ref(found))
}

/// Builds the store's answer to a call.
fn batch_answer(call: &HttpCall, answers: &[Value]) -> Result<Reply, String> {
    let text = String::from_utf8_lossy(&call.body).into_owned();
    let is_nonce = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let nonce = text.rsplit('/').find(is_nonce).ok_or("no nonce")?;
    let inner = json!({"nonce": nonce, "epoch": NOW - EARLIER, "answers": answers}).to_string();
    Ok(answer(json!({"FCALL": inner}).to_string()))
}

/// nginx without Kong goes on with a later request of a connection although the filter waits for its call. A policy for
/// Kong waits there with the first request only.
fn kong_policy_on_nginx() -> TestResult {
    let file = file(Level::Kong)?;
    let mut nginx = world(Level::Kong, &file);
    nginx.host = &host_rules::NGINX;
    let mut vm = remote_in(nginx, &policy(Level::Kong, &file)?)?;
    for request in [asks(ping()), asks(act())] {
        let later = Request { is_later: true, ..request };
        is_refused("a key that only Redis knows", &vm.exchange(&later), 503, "")?;
    }
    is_released("a key of the policy", &vm.exchange(&Request { is_later: true, ..ping() }))?;
    let first = vm.begin(&asks(ping()));
    let call = the_call(&vm)?;
    is_not_forwarded("the first request of a connection", &vm.look(first))?;
    vm.answer_call(call.token, Some(&store_answer(&call, &json!(false))?));
    is_refused("an unknown key of the first", &vm.finish(first), 401, "")
}

fn kong_lost_calls() -> TestResult {
    let mut vm = remote(Level::Kong)?;
    for request in [asks(ping()), asks(act())] {
        let stream = vm.begin(&request);
        let call = the_call(&vm)?;
        is_not_forwarded("while the call is pending", &vm.look(stream))?;
        vm.lose_call(call.token);
        for chunk in &request.chunks {
            vm.body(stream, chunk, true);
        }
        is_not_forwarded("a call without an answer", &vm.finish(stream))?;
    }
    Ok(())
}

fn kong_bad_answers() -> TestResult {
    let bad: [Option<Reply>; 5] = [
        None,
        Some(answer("")),
        Some(answer("{}")),
        Some(answer(r#"{"FCALL":"{}"}"#)),
        Some(Reply { status: 500, ..Reply::default() }),
    ];
    for bad in bad {
        for request in [asks(ping()), asks(act())] {
            let mut vm = remote(Level::Kong)?;
            let stream = vm.begin(&request);
            let call = the_call(&vm)?;
            vm.answer_call(call.token, bad.as_ref());
            for chunk in &request.chunks {
                vm.body(stream, chunk, true);
            }
            is_refused(&format!("answered {bad:?}"), &vm.finish(stream), 503, "store_unavailable")?;
        }
    }
    Ok(())
}

fn kong_key_from_store() -> TestResult {
    let mut vm = remote(Level::Kong)?;
    let stream = vm.begin(&asks(ping()));
    let call = the_call(&vm)?;
    vm.answer_call(call.token, Some(&store_answer(&call, &json!(false))?));
    is_refused("an unknown key", &vm.finish(stream), 401, "key_unknown")?;

    let mut vm = remote(Level::Kong)?;
    for (line, is_inside) in [("l-1", true), ("l-9", false)] {
        let body = format!(r#"{{"line":"{line}"}}"#);
        let request = Request::new("POST", "/v1/act").header("authorization", STORED_KEY).json(&body);
        let stream = vm.begin(&request);
        if let Ok(call) = the_call(&vm) {
            vm.answer_call(call.token, Some(&store_answer(&call, &entry())?));
        }
        // The host resumes automatically after the answer, although the body is not judged yet.
        is_not_forwarded("before its body", &vm.look(stream))?;
        vm.body(stream, body.as_bytes(), true);
        match is_inside {
            true => is_released("a key that is in the store", &vm.finish(stream))?,
            false => is_refused("outside its bounds", &vm.finish(stream), 403, "")?,
        }
    }
    Ok(())
}

fn kong_answer_for_earlier_instance() -> TestResult {
    let mut vm = remote(Level::Kong)?;
    let stream = vm.begin(&asks(ping()));
    let call = the_call(&vm)?;
    vm.fail("proxy_send_local_response", 10)?;
    has_failed("another request traps", &vm.exchange(&Request::new("GET", "/v1/ping")), 500)?;
    vm.heal();
    vm.answer_call(call.token, Some(&store_answer(&call, &entry())?));
    is_not_forwarded("an answer without a waiting request", &vm.finish(stream))?;
    // The new instance refuses requests until it has received the revocations.
    is_refused("too early", &vm.exchange(&ping()), 503, "revocations_stale")?;
    answer_revocations(&mut vm)?;
    is_released("the next request", &vm.exchange(&ping()))
}

// -------------------------------------------------------------------------------------------------
// Memory, randomness, paths
// -------------------------------------------------------------------------------------------------

fn kong_without_its_zone() -> TestResult {
    let file = file(Level::Kong)?;
    let mut world = world(Level::Kong, &file);
    world.zones.clear();
    let mut vm = start_in(world, &policy(Level::Kong, &file)?)?;
    for request in [ping(), act(), Request::new("GET", "/v1/ping")] {
        is_not_forwarded("without a zone", &vm.exchange(&request))?;
    }
    Ok(())
}

fn minted(vm: &mut Vm) -> Result<String, String> {
    let outcome = vm.exchange(&Request::new("POST", "/v1/tokens").header("authorization", KEY).json("{}"));
    let reply = outcome.reply.as_ref().filter(|reply| reply.status == 200);
    let body: Value = reply.and_then(|reply| serde_json::from_slice(&reply.body).ok()).unwrap_or_default();
    let token = body["token"].as_str().map(str::to_owned);
    token.ok_or_else(|| format!("no token: {outcome:?}"))
}

/// A spent token stays spent, whatever an evicting zone has dropped since.
fn kong_zone_evicts() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    let token = minted(&mut vm)?;
    let once = Request::new("GET", "/v1/ping").header("authorization", format!("Bearer {token}"));
    is_released("its one use", &vm.exchange(&once))?;
    is_refused("its second", &vm.exchange(&once), 401, "token_spent")?;
    let keys = vm.world().shared.keys();
    let all = keys.len();
    for key in keys {
        vm.world().shared.evict(|other| other == key);
        is_not_forwarded(&String::from_utf8_lossy(&key), &vm.exchange(&once))?;
    }
    vm.world().shared.evict(|_| true);
    is_not_forwarded("when all was dropped", &vm.exchange(&once))?;
    let file = file(Level::Kong)?;
    let mut second = world(Level::Kong, &file);
    second.shared = vm.world().shared.clone();
    second.now_ns = nanoseconds(NOW + 1);
    let mut second = start_in(second, &policy(Level::Kong, &file)?)?;
    is_not_forwarded("at a worker that begins then", &second.exchange(&once))?;
    vm.set_now(nanoseconds(NOW + 2));
    is_not_forwarded("and later at the first", &vm.exchange(&once))?;
    // Values are written at their full length once, so they never need more room.
    let mut busy = gateway(Level::Kong)?;
    let (before, grown) = (busy.world().shared.keys().len(), busy.world().shared.times_grown());
    for _ in 0..200 {
        let token = minted(&mut busy)?;
        busy.exchange(&Request::new("GET", "/v1/ping").header("authorization", format!("Bearer {token}")));
    }
    let shared = &busy.world().shared;
    match (shared.keys().len() - before, shared.times_grown() - grown) {
        (0, 0) if all > 0 => Ok(()),
        grown => Err(format!("of {all} values (new, longer): {grown:?}")),
    }
}

/// The host's random bytes are predictable; secret, clock and a counter make the tokens distinct.
fn kong_workers_differ() -> TestResult {
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let mut vm = gateway(Level::Kong)?;
        tokens.push(minted(&mut vm)?);
        tokens.push(minted(&mut vm)?);
    }
    let ids: std::collections::BTreeSet<&String> = tokens.iter().collect();
    if ids.len() == tokens.len() { Ok(()) } else { Err(format!("one id twice: {tokens:?}")) }
}

fn live(vm: &mut Vm) -> Result<String, String> {
    let token = minted(vm)?;
    let mut request = Request::new("GET", &format!("/v1/live?x=1%202&token={token}&line=l-1"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket");
    request.unfinished = true;
    let outcome = vm.exchange(&request);
    is_released("a session", &outcome)?;
    let upstream = outcome.upstream.unwrap_or_default();
    Ok(String::from_utf8_lossy(upstream.header(":path").unwrap_or_default()).into_owned())
}

fn without_its_credential(path: &str) -> TestResult {
    if path == "/v1/live?x=1%202&line=l-1" { Ok(()) } else { Err(format!("the upstream received {path}")) }
}

fn kong_query() -> TestResult {
    let mut vm = gateway(Level::Kong)?;
    without_its_credential(&live(&mut vm)?)?;
    // Kong defines this variable itself and sends it to the upstream.
    vm.world().variables.insert("upstream_uri".to_owned(), Vec::new());
    without_its_credential(&live(&mut vm)?)
}

fn apisix_query() -> TestResult {
    let mut vm = gateway(Level::Apisix)?;
    without_its_credential(&live(&mut vm)?)?;
    // As the plug-in proxy-rewrite leaves it.
    let rewritten = b"/v1/live?x=1%202&token=secret&line=l-1".to_vec();
    vm.world().variables.insert("upstream_uri".to_owned(), rewritten);
    without_its_credential(&live(&mut vm)?)
}

fn apisix_stale_body() -> TestResult {
    let mut vm = gateway(Level::Apisix)?;
    is_released("inside the bounds", &vm.exchange(&act()))?;
    let empty = Request::new("POST", "/v1/act")
        .header("authorization", KEY)
        .header("content-type", "application/json")
        .header("content-length", "0");
    let outcome = vm.exchange(&empty);
    is_not_forwarded("an empty body after a good one", &outcome)?;
    match outcome.status() {
        Some(400..=499) => Ok(()),
        _ => Err(format!("an empty body: {outcome:?}")),
    }
}

fn apisix_variables() -> TestResult {
    let mut vm = gateway(Level::Apisix)?;
    vm.world().variables.remove("callbound");
    is_released("without a variable for the log", &vm.exchange(&act()))?;
    is_refused("outside the bounds", &vm.exchange(&act_outside()), 403, "")?;
    vm.world().variables.remove("wasm_process_req_body");
    for request in [act(), act_outside()] {
        is_not_forwarded("where the body cannot be requested", &vm.exchange(&request))?;
    }
    Ok(())
}

/// Without its masks the module is compiled wrongly by APISIX's engine (CVE-2023-26489).
fn every_shift_is_masked() -> TestResult {
    let path = require(Piece::Module).map_err(|_| "no module")?;
    let module = std::fs::read(path).map_err(|error| error.to_string())?;
    match count_unmasked(&module).map_err(|error| error.to_string())? {
        0 => Ok(()),
        count => {
            Err(format!("{count} shifts without a mask, expected none: build with scripts/build-wasm.sh"))
        }
    }
}

/// A policy for one host on another: it may be refused or hang, but allows nothing it should not.
fn wrong_host() -> TestResult {
    let pairs = [
        (Level::Wasm, Level::Kong),
        (Level::Wasm, Level::Apisix),
        (Level::Kong, Level::Wasm),
        (Level::Kong, Level::Apisix),
        (Level::Apisix, Level::Wasm),
        (Level::Apisix, Level::Kong),
    ];
    for (meant, level) in pairs {
        let file = file(meant)?;
        let Ok(mut vm) = start_in(world(level, &file), &policy(Level::Apisix, &file)?) else { continue };
        let chunked = Request::new("POST", "/v1/act")
            .header("authorization", KEY)
            .header("content-type", "application/json")
            .header("transfer-encoding", "chunked")
            .chunk("");
        let requests =
            [act_outside(), chunked, Request::new("GET", "/v1/ping"), Request::new("GET", "/v1/%62rowse")];
        for request in requests {
            is_not_forwarded(&format!("{level:?}: {:?}", request.headers.get(1)), &vm.exchange(&request))?;
        }
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------------
// Envoy without the flag
// -------------------------------------------------------------------------------------------------

fn buffer_misplaced() -> TestResult {
    let file = file(Level::Buffer)?;
    let mut misplaced = world(Level::Buffer, &file);
    misplaced.host = &host_rules::MISPLACED;
    let mut vm = start_in(misplaced, &policy(Level::Buffer, &file)?)?;
    let outcome = vm.exchange(&act_outside());
    let upstream = outcome.upstream.clone().ok_or("this arrangement is known to let headers out")?;
    let is_bare =
        upstream.header("authorization").is_none() && upstream.body.is_empty() && !upstream.complete;
    if is_bare { Ok(()) } else { Err(format!("more than stripped headers left: {outcome:?}")) }
}

/// Requests with `upgrade` take a route without the buffer filter: callbound has to refuse them where a body is judged.
fn buffer_upgrade() -> TestResult {
    let mut vm = gateway(Level::Buffer)?;
    let upgrading = |request: Request| request.header("connection", "Upgrade").header("upgrade", "websocket");
    is_not_forwarded("a body outside the bounds", &vm.exchange(&upgrading(act_outside())))?;
    for value in ["h2c", "websocket", "", " ", "TLS/1.0, h2c"] {
        is_not_forwarded("no connection header", &vm.exchange(&act_outside().header("upgrade", value)))?;
    }
    let mut endless = upgrading(Request::new("POST", "/v1/act").header("authorization", KEY));
    endless.unfinished = true;
    is_not_forwarded("an upgrade where a body is judged", &vm.exchange(&endless))
}

fn flag_off() -> TestResult {
    let mut vm = gateway(Level::Wasm)?;
    for request in [act(), act_outside()] {
        is_not_forwarded("without the flag", &vm.exchange(&request.without_stop_iteration_flag()))?;
    }
    Ok(())
}
