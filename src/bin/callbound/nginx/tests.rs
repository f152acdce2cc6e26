//! Checks of the shipped configuration with one change each, and of a configuration in the shape of Kong's.

use callbound::policy::{Policy, Secrets, compile};

use super::check::check;
use super::facts::Given;
use super::report::Severity;

const SHIPPED: &str = include_str!("../../../../gateways/nginx/nginx.conf");
const SHIPPED_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gateways/nginx/nginx.conf");
const POLICY: &str = include_str!("../../../../gateways/nginx/policy.json");
const KONG_POLICY: &str = include_str!("../../../../gateways/kong/policy.json");
const KONG: &str = include_str!("kong-dump.txt");

fn compiled(text: &str) -> Policy {
    compile(text.as_bytes(), &Secrets::Unchecked).unwrap_or_else(|error| panic!("{error}"))
}

/// Checks a text with a policy; notes are left out.
fn found(text: &str, policy: &str) -> Vec<String> {
    let compiled = compiled(policy);
    let given = Given { policy: &compiled, text: policy };
    let found = check(SHIPPED_PATH, text, Some(&given));
    let problems = found.iter().filter(|finding| finding.severity != Severity::Note);
    problems.map(|finding| finding.to_string().replace(SHIPPED_PATH, "nginx.conf")).collect()
}

/// Checks the shipped configuration with one piece replaced.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(SHIPPED.contains(from), "nginx.conf no longer has: {from}");
    found(&SHIPPED.replacen(from, to, 1), POLICY)
}

/// Returns the line of a piece of the shipped configuration.
fn line_of(piece: &str) -> usize {
    SHIPPED.split(piece).next().unwrap().matches('\n').count() + 1
}

/// Asserts that there is exactly one finding, and that it contains these words.
#[track_caller]
fn one(found: &[String], words: &str) {
    assert!(found.len() == 1 && found[0].contains(words), "wanted one with `{words}`, found {found:#?}");
}

#[test]
fn shipped_configuration_passes_with_its_policy() {
    assert_eq!(found(SHIPPED, POLICY), [""; 0]);
    assert!(
        check(SHIPPED_PATH, SHIPPED, None).iter().all(|finding| finding.severity == Severity::Note),
        "the policy in it is used"
    );
}

const PASS: &str = "proxy_pass http://127.0.0.1:18080$upstream_uri;";
const RETRY: &str = "proxy_next_upstream off;";
const HEADERS: &str = "include callbound-headers.conf;";
const SERVER: &str = "listen 127.0.0.1:10000;";

/// One change each, and the finding it must give.
const CHANGES: &[(&str, &str, &str)] = &[
    ("proxy_wasm callbound '", "set $x '", "location /: no `proxy_wasm callbound` applies here"),
    (
        "events {",
        "stream { server { listen 9; proxy_pass 127.0.0.1:1; } }\nevents {",
        "bytes to an upstream that no filter judges",
    ),
    (PASS, "grpc_pass grpc://127.0.0.1:1;", "grpc_pass grpc://127.0.0.1:1: goes round callbound"),
    (PASS, "fastcgi_pass 127.0.0.1:1;", "fastcgi_pass 127.0.0.1:1: goes round callbound"),
    (PASS, "proxy_pass http://127.0.0.1:1;", "sends the client's own query"),
    ("set $upstream_uri $request_uri;", "", "no `set $upstream_uri $request_uri`"),
    (
        PASS,
        "proxy_pass http://127.0.0.1:1$upstream_uri; set $upstream_uri $request_uri;",
        "undoes what callbound changes",
    ),
    (
        PASS,
        "proxy_pass http://127.0.0.1:1$upstream_uri; if ($arg_a) { set $upstream_uri $arg_a; }",
        "undoes what callbound changes",
    ),
    (
        "set $upstream_uri $request_uri;",
        "set $upstream_uri $request_uri; set $upstream_uri $uri;",
        "undoes what callbound changes",
    ),
    (PASS, "proxy_pass http://$arg_h$upstream_uri;", "lets the client choose the server"),
    (PASS, "proxy_pass http://127.0.0.1:1/admin$upstream_uri;", "sends another request"),
    (
        RETRY,
        "proxy_next_upstream off; proxy_set_header X_Callbound-Team $http_x;",
        "tells the upstream who calls",
    ),
    (RETRY, "proxy_next_upstream off; proxy_method DELETE;", "another method"),
    (RETRY, "proxy_next_upstream off; proxy_set_body $arg_x;", "another body"),
    (RETRY, "proxy_next_upstream off; proxy_pass_request_body off;", "another body"),
    (RETRY, "proxy_next_upstream off; proxy_cache calls;", "what another got"),
    (SERVER, "listen 127.0.0.1:10000; ignore_invalid_headers off;", "pass callbound unseen"),
    ("set $callbound_decision \"\";", "", "the access log has no decision"),
    ("uninitialized_variable_warn off;", "", "set $callbound_decision: a malformed request is logged"),
    (HEADERS, "", "location /: no `proxy_set_header authorization \"\"` applies here"),
    (
        HEADERS,
        "proxy_set_header Authorization $http_authorization;",
        "proxy_set_header Authorization: a client's credential reaches the upstream",
    ),
    (RETRY, "proxy_next_upstream off; proxy_request_buffering off;", "the body is sent before it was judged"),
    (
        RETRY,
        "proxy_next_upstream error timeout;",
        "proxy_next_upstream error: a request that failed is sent again",
    ),
    (RETRY, "", "location /: without `proxy_next_upstream off`"),
    (RETRY, "proxy_next_upstream off; proxy_wasm_isolation stream;", "parses the policy for every request"),
    (RETRY, "proxy_next_upstream off; proxy_wasm_request_headers_in_access on;", "subrequests pass"),
    (RETRY, "proxy_next_upstream off; try_files $uri =404;", "try_files $uri: serves files"),
    (
        RETRY,
        "proxy_next_upstream off; if ($arg_x) { return 200; }",
        "return 200: nginx answers before callbound",
    ),
    (
        RETRY,
        "proxy_next_upstream off; access_by_lua_block { ngx.exit(200) }",
        "access_by_lua_block: Lua runs before callbound",
    ),
    (SERVER, "listen 80; rewrite ^/a /b last;", "rewrite ^/a: sends another path"),
    (SERVER, "listen 80; return 301 /x;", "return 301: nginx answers before callbound"),
    (SERVER, "listen 80; satisfy any;", "satisfy any: a request that another check accepts"),
    (SERVER, "listen 80; auth_request /auth;", "auth_request /auth: sends a subrequest"),
    (SERVER, "listen 80; mirror /copy;", "mirror /copy: sends a copy"),
    (SERVER, "listen 80; post_action /after;", "post_action /after: sends a second request"),
    (
        SERVER,
        "listen 80; error_page 401 403 =200 @open;",
        "error_page 401 403 =200 @open: sends requests that",
    ),
    ("client_body_buffer_size 1m", "client_body_buffer_size 16k", "`client_body_buffer_size` is 16k and"),
    ("client_body_buffer_size 1m;", "", "`client_body_buffer_size` is not set and"),
    ("client_max_body_size 1m", "client_max_body_size 0", "`client_max_body_size` is 0"),
    ("eviction=none", "eviction=lru", "shm_kv callbound 16m eviction=lru: may drop what callbound remembers"),
    ("shm_kv callbound", "shm_kv other", "nginx.conf: no `shm_kv callbound SIZE eviction=none`"),
    ("error_log stderr warn", "error_log stderr info", "error_log stderr info: at this level"),
    ("error_log stderr warn", "error_log stderr debug_http", "error_log stderr debug_http: at this level"),
    ("$uri $status", "$request $status", "log_format calls: `$request` can have credentials"),
    ("$uri $status", "${request_uri} $status", "`$request_uri` can have credentials"),
    ("$uri $status", "$uri?$args $status", "`$args` can have credentials"),
    ("$uri $status", "$http_authorization", "`$http_authorization` can have credentials"),
    ("/dev/stdout calls", "/dev/stdout", "access_log /dev/stdout: the format `combined` has `$request`"),
    ("/dev/stdout calls", "/dev/stdout gone", "access_log /dev/stdout gone: no `log_format gone` was seen"),
    ("access_log /dev/stdout calls;", "", "location /: no `access_log` applies here"),
    ("env CALLBOUND_MASTER;", "", "nginx.conf: no `env CALLBOUND_MASTER;`"),
    ("env CALLBOUND_MASTER;", "env CALLBOUND_MASTER=x;", "env CALLBOUND_MASTER: has the secret itself"),
    ("\"realm\": \"demo\"", "\"realm\": \"other\"", "has another policy than the given one"),
    (
        HEADERS,
        "include callbound-headers.conf; include gone.conf;",
        "include gone.conf: this file was not seen",
    ),
    ("events {", "events;", "unexpected `}`"),
];

#[test]
fn each_change_of_the_shipped_configuration_is_reported() {
    for (from, to, words) in CHANGES {
        one(&changed(from, to), words);
    }
}

#[test]
fn place_of_a_problem_is_its_file_and_line() {
    let found = changed(RETRY, "proxy_next_upstream error;");
    one(&found, &format!("nginx.conf:{}: proxy_next_upstream error: ", line_of(RETRY)));
}

#[test]
fn harmless_settings_are_silent() {
    for (from, to) in [
        (SERVER, "listen 80; error_page 502 /50x.html; location = /50x.html { root html; }"),
        (SERVER, "listen 80; location = /ping { return 200; } location /s/ { try_files $uri =404; }"),
        (RETRY, "proxy_next_upstream off; auth_request off; proxy_read_timeout 5s; access_log off;"),
        ("client_body_buffer_size 1m", "client_body_buffer_size 1024K"),
        ("events {", "stream { server { listen 9; error_log x info; } } events {"),
    ] {
        assert_eq!(changed(from, to), [""; 0], "{to}");
    }
}

#[test]
fn location_with_its_own_filter_or_headers_inherits_none() {
    let location = |lines: &str| format!("location /b {{ {lines} {PASS} }}\n        location / {{");
    let policy = r#"proxy_wasm callbound '{"host": "nginx"}';"#;
    let inherited = SHIPPED
        .replace("proxy_wasm callbound '", "proxy_next_upstream off; } proxy_wasm callbound '")
        .replace("            proxy_pass http", "location / { proxy_pass http");
    assert_eq!(found(&inherited, POLICY), [""; 0], "a filter of the server is inherited");
    one(
        &found(
            &inherited
                .replacen("location / {", &location("proxy_wasm other; include callbound-headers.conf;"), 1)
                .replacen("location / {", "location /c {", 1),
            POLICY,
        ),
        "proxy_wasm other: replaces every `proxy_wasm` around it",
    );
    let found = changed("location / {", &location(&format!("{policy} {RETRY} proxy_set_header X-Y z;")));
    assert!(
        found.iter().any(|line| line.contains("location /b: no `proxy_set_header authorization \"\"`")),
        "{found:#?}"
    );
}

#[test]
fn credential_of_the_upstream_may_not_be_dropped() {
    let inserted =
        r#""upstream_credentials": [{"id": "vendor", "secret": {"env": "CALLBOUND_MASTER"}}], "routes": ["#;
    let policy = POLICY.replace("\"routes\": [", inserted).replace(
        "\"bounds\": {\"from\"",
        "\"upstream_credential\": {\"key\": \"vendor\", \"at\": \"header:authorization\"}, \"bounds\": {\"from\"",
    );
    let text = SHIPPED.replace(POLICY.trim_end(), policy.trim_end());
    one(
        &found(&text, &policy),
        "callbound-headers.conf:4: proxy_set_header authorization: drops the credential",
    );
}

#[test]
fn configuration_without_a_policy_is_compared_with_none() {
    let text = SHIPPED.replace(&format!("'{}'", POLICY.trim_end()), "$policy");
    let found = check(SHIPPED_PATH, &text, None);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        found.iter().any(|line| line.starts_with("warning: ") && line.contains("no policy was given")),
        "{found:#?}"
    );
}

#[test]
fn text_without_a_location_is_not_ok() {
    one(&found("", POLICY)[..1], "no location with `proxy_pass` was found");
}

#[test]
fn locations_of_kong_that_go_round_the_filter_are_named() {
    let found = found(KONG, KONG_POLICY);
    let not_included = |line: usize, name: &str| {
        format!("warning: /kong/nginx-kong.conf:{line}: location {name}: no `proxy_set_header authorization")
    };
    let expected = [
        not_included(49, "@unbuffered"),
        "warning: /kong/nginx-kong.conf:52: proxy_request_buffering off: the body is sent before it was judged; Kong sends".to_owned(),
        "warning: /kong/nginx-kong.conf:60: grpc_pass $upstream_scheme://kong_upstream: goes round callbound".to_owned(),
        "warning: /kong/nginx-kong.conf:63: location = /kong_buffered_http: goes round callbound".to_owned(),
    ];
    let fits = found.iter().zip(&expected).all(|(found, expected)| found.starts_with(expected));
    assert!(fits && found.len() == expected.len(), "{found:#?}");
}

#[test]
fn kong_without_the_include_is_a_problem() {
    let text = KONG.replace("include /kong/callbound-headers.conf;", "");
    let found = found(&text, KONG_POLICY);
    let wanted =
        "/kong/nginx-kong.conf:36: location /: no `proxy_set_header authorization \"\"` applies here";
    assert!(found.iter().any(|line| line.starts_with(wanted)), "{found:#?}");
}
