//! Tests that rendered files read back unchanged and pass our own check, and that the check finds every fault it knows.

use serde_yaml_ng::Value;

use super::*;

const POLICY: &str =
    "{\"version\": 1, \"note\": \"{{MODULE}} \\u00e9 \u{1F4DE} \u{85}\u{2028}\u{feff} '#: %\"}\n\t";

fn gateway() -> Gateway<'static> {
    Gateway {
        listen: "127.0.0.1:10000".parse().unwrap(),
        admin: "[::1]:9901".parse().unwrap(),
        upstream: Upstream::parse("api.example.com:8443").unwrap(),
        module: Path::new("/opt/call bound/callbound.wasm"),
        filter_file: Path::new("/run/gw/ecds/filter.yaml"),
        policy: POLICY,
        env: &[],
        no_cors_paths: &[],
        cors_origins: &[],
        credential_headers: &[],
        key_sets: &[],
        store: None,
        is_buffered: false,
    }
}

/// Returns the problems of one document.
fn check(text: &str) -> Vec<String> {
    check_all(&[text.to_owned()]).concat()
}

fn parsed(yaml: &str) -> Value {
    serde_yaml_ng::from_str(yaml).unwrap()
}

/// Returns the value at a path of member names and list indices.
fn at<'a>(root: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(root, |value, step| match step.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[step],
    })
}

const MANAGER: &str = "static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

#[test]
fn policy_is_embedded_unchanged() {
    let file = parsed(&filter(&gateway()));
    let config = at(&file, "resources/0/typed_config/config");
    assert_eq!(at(config, "configuration/value").as_str(), Some(POLICY));
    assert_eq!(at(config, "vm_config/code/local/filename").as_str(), Some("/opt/call bound/callbound.wasm"));
    assert_eq!(at(&file, "version_info").as_str().map(str::len), Some(12));
}

#[test]
fn changed_policy_changes_the_version() {
    let before = filter(&gateway());
    let after = filter(&Gateway { policy: "{}", ..gateway() });
    assert_ne!(parsed(&before)["version_info"], parsed(&after)["version_info"]);
}

#[test]
fn secret_named_twice_is_listed_once() {
    let env = ["B".to_owned(), "A".to_owned(), "B".to_owned()];
    let file = parsed(&filter(&Gateway { env: &env, ..gateway() }));
    let keys = at(&file, "resources/0/typed_config/config/vm_config/environment_variables/host_env_keys");
    assert_eq!(keys, &parsed("[A, B]"));
}

#[test]
fn addresses_are_rendered_in_their_members() {
    let file = parsed(&bootstrap(&gateway()));
    let listen = at(&file, "static_resources/listeners/0/address/socket_address");
    assert_eq!(listen, &parsed("{address: 127.0.0.1, port_value: 10000}"));
    assert_eq!(at(&file, "admin/address/socket_address"), &parsed("{address: '::1', port_value: 9901}"));
    let upstream = "static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    assert_eq!(at(&file, upstream), &parsed("{address: api.example.com, port_value: 8443}"));
    let source =
        at(&file, &format!("{MANAGER}/http_filters/1/config_discovery/config_source/path_config_source"))
            .clone();
    assert_eq!(source, parsed("{path: /run/gw/ecds/filter.yaml, watched_directory: {path: /run/gw/ecds}}"));
}

#[test]
fn mint_paths_come_first_without_cors() {
    let paths = ["/v1/client-tokens".to_owned(), "/v1/\"odd".to_owned()];
    let origins = ["https://app.example.com".to_owned()];
    let file = parsed(&bootstrap(&Gateway { no_cors_paths: &paths, cors_origins: &origins, ..gateway() }));
    let Value::Sequence(routes) =
        at(&file, &format!("{MANAGER}/route_config/virtual_hosts/0/routes")).clone()
    else {
        panic!("no routes");
    };
    let exact: Vec<_> = routes.iter().map(|route| route["match"]["path"].as_str()).collect();
    assert_eq!(exact, [Some("/v1/client-tokens"), Some("/v1/\"odd"), None]);
    assert!(routes[0].get("typed_per_filter_config").is_none());
    let cors = &routes[2]["typed_per_filter_config"]["envoy.filters.http.cors"];
    assert_eq!(cors["allow_origin_string_match"], parsed("[{exact: 'https://app.example.com'}]"));
}

#[test]
fn mint_path_with_parameter_becomes_a_regex() {
    let exact = |path| parsed(&path_match(path));
    assert_eq!(exact("/v1/client-tokens"), parsed("{path: /v1/client-tokens}"));
    assert_eq!(exact("/v1/a.b/{id}/tokens"), parsed(r"{safe_regex: {regex: '/v1/a\.b/[^/]+/tokens'}}"));
    assert_eq!(exact("/mint/{*rest}"), parsed("{safe_regex: {regex: /mint/.+}}"));
}

#[test]
fn placeholders_are_all_filled() {
    for text in [bootstrap(&gateway()), filter(&Gateway { policy: "{}", ..gateway() })] {
        assert!(!text.contains("{{"), "{text}");
    }
}

#[test]
fn https_upstream_is_reached_over_tls_by_its_own_name() {
    let upstream = Upstream::parse("https://api.example.com").unwrap();
    let paths = ["/tokens".to_owned()];
    let file = parsed(&bootstrap(&Gateway { upstream, no_cors_paths: &paths, ..gateway() }));
    let cluster = at(&file, "static_resources/clusters/0");
    let tls = at(cluster, "transport_socket/typed_config");
    assert_eq!(at(tls, "sni").as_str(), Some("api.example.com"));
    assert!(at(tls, "common_tls_context/validation_context/trusted_ca").is_mapping());
    let routes = at(&file, MANAGER)["route_config"]["virtual_hosts"][0]["routes"].as_sequence().unwrap();
    assert!(routes.iter().all(|route| route["route"]["host_rewrite_literal"] == "api.example.com"));
    assert!(routes.len() > 1);
    for wrong in ["https://", "https://a b", "https://u@host", "ftp://host:1", "host", "https://[::1]"] {
        assert!(Upstream::parse(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn upstream_without_host_or_port_is_refused() {
    assert_eq!(split_host("api:80"), Some(("api", 80)));
    assert_eq!(split_host("[::1]:80"), Some(("::1", 80)));
    for wrong in ["", "api", ":80", "api:", "api:0", "api:70000", "::1", "a:b:80", "[::1:80"] {
        assert_eq!(split_host(wrong), None, "{wrong}");
    }
}

// --- check ---

/// Checks a text with one piece replaced.
fn replaced(text: String, from: &str, to: &str) -> Vec<String> {
    assert!(text.contains(from), "the text no longer has: {from}");
    check(&text.replacen(from, to, 1))
}

/// Checks the rendered bootstrap with one piece of text replaced.
fn changed(from: &str, to: &str) -> Vec<String> {
    replaced(bootstrap(&gateway()), from, to)
}

/// Asserts that there is exactly one problem, and that it contains these words.
#[track_caller]
fn one(found: &[String], words: &str) {
    assert!(found.len() == 1 && found[0].contains(words), "wanted one with `{words}`, found {found:#?}");
}

#[test]
fn rendered_files_pass() {
    assert_eq!(check(&bootstrap(&gateway())), [""; 0]);
    assert_eq!(check(&filter(&gateway())), [""; 0]);
}

#[test]
fn json_in_camel_case_is_read() {
    let manager = r#"{"httpFilters": [{"name": "callbound", "configDiscovery": {}}, {"name": "envoy.filters.http.router"}],
        "normalizePath": true, "pathWithEscapedSlashesAction": 2, "requestTimeout": "15s"}"#;
    assert_eq!(check(manager), [""; 0]);
    one(&check(&manager.replace("\"normalizePath\": true,", "")), "normalize_path");
}

#[test]
fn chain_without_callbound_or_in_wrong_order_is_reported() {
    let (ours, router) = ("          - name: callbound\n", "          - name: envoy.filters.http.router\n");
    let follows = "http_filters[2]: `envoy.filters.http.lua` follows callbound and can change a request after the decision";
    let table = [
        (ours, "          - name: other\n", "no callbound filter in this chain"),
        (router, &format!("          - name: envoy.filters.http.lua\n{router}"), follows),
        (router, &format!("          - name: envoy.filters.http.cors\n{router}"), "preflights and refusals"),
        (
            router,
            &format!("          - name: envoy.filters.http.buffer\n{router}"),
            "between callbound and the router",
        ),
    ];
    for (from, to, words) in table {
        one(&changed(from, to), words);
    }
    let manager =
        "normalize_path: true\npath_with_escaped_slashes_action: REJECT_REQUEST\nrequest_timeout: 1s\n";
    let swapped = format!(
        "{manager}http_filters:\n- name: envoy.filters.http.router\n- {{name: callbound, config_discovery: {{}}}}\n"
    );
    one(&check(&swapped), "the router is not the last filter");
}

#[test]
fn bypass_of_callbound_is_reported() {
    one(
        &changed("- name: callbound\n", "- name: callbound\n            disabled: true\n"),
        "requests pass without callbound",
    );
    let upgrade = "- upgrade_type: websocket\n            filters: [{name: envoy.filters.http.router}]\n";
    one(&changed("- upgrade_type: websocket\n", upgrade), "upgrade_configs[0].filters: no callbound filter");
    let route = "route: {cluster: upstream, timeout: 30s}\n                typed_per_filter_config: {callbound: {\"@type\": x, disabled: true}}\n                x:\n";
    let found = changed(
        "route: {cluster: upstream, timeout: 30s}\n                # Pages of these origins, exactly, may call with a client token. None listed: no CORS at all.\n                typed_per_filter_config:\n",
        route,
    );
    one(&found, "this route passes without callbound");
}

#[test]
fn unsafe_setting_of_the_manager_is_reported() {
    let (slashes, warming) = ("path_with_escaped_slashes_action", "apply_default_config_without_warming");
    let table = [
        ("normalize_path: true", "normalize_path: false", "normalize_path"),
        (&format!("{slashes}: REJECT_REQUEST"), "x: y", slashes),
        (&format!("{slashes}: REJECT_REQUEST"), &format!("{slashes}: KEEP_UNCHANGED"), "escaped"),
        ("request_timeout: 20s", "request_timeout: 0s", "request_timeout"),
        ("request_timeout: 20s", "x: y", "request_timeout"),
        ("{num_retries: 0}", "{num_retries: 2, retry_on: 5xx}", "retry_policy: a retry repeats"),
        ("{num_retries: 0}", "{retry_on: 5xx}", "a retry repeats"),
        (&format!("{warming}: false"), &format!("{warming}: true"), "before the policy"),
    ];
    for (from, to, words) in table {
        one(&changed(from, to), words);
    }
}

#[test]
fn unsafe_setting_of_the_module_is_reported() {
    let reload = "failure_policy: FAIL_RELOAD";
    let table = [
        ("allow_on_headers_stop_iteration: true", "x: y", "allow_on_headers_stop_iteration"),
        (reload, "failure_policy: FAIL_OPEN", "failure_policy"),
        (reload, "fail_open: true\n      failure_policy: FAIL_CLOSED", "fail_open"),
        (reload, "x: y", "warning: resources[0].typed_config.config: no `failure_policy`"),
        ("google.protobuf.StringValue", "google.protobuf.Struct", "StringValue"),
        ("configuration:", "x:", "no `configuration`"),
    ];
    for (from, to, words) in table {
        one(&replaced(filter(&gateway()), from, to), words);
    }
}

#[test]
fn filter_inside_the_listener_is_warned_about() {
    let file = parsed(&filter(&gateway()));
    let mut chain = parsed(
        "http_filters: [{name: callbound}, {name: envoy.filters.http.router}]\nnormalize_path: true\nrequest_timeout: 1s\npath_with_escaped_slashes_action: REJECT_REQUEST",
    );
    chain["http_filters"][0]["typed_config"] = at(&file, "resources/0/typed_config").clone();
    let found = check(&serde_yaml_ng::to_string(&chain).unwrap());
    one(&found, "warning: http_filters[0]: not delivered by `config_discovery`");
}

#[test]
fn text_that_is_no_envoy_configuration_is_reported() {
    ["{", "a: 1\na: 2"].iter().for_each(|text| one(&check(text), "not readable"));
    ["just: this", ""].iter().for_each(|text| one(&check(text), "no HTTP connection manager"));
}

/// Policy that leaves holding headers to the buffer filter.
const BUFFERED: &str =
    "{\"version\": 1, \"host\": \"envoy\", \"hold_headers\": \"buffer_filter\", \"routes\": []}";

fn buffered() -> Gateway<'static> {
    Gateway { policy: BUFFERED, is_buffered: true, ..gateway() }
}

/// Checks the bootstrap of one gateway, with a piece of text replaced, together with the filter of another.
fn together(chain: &Gateway, from: &str, to: &str, module: &Gateway) -> Vec<String> {
    let text = bootstrap(chain);
    assert!(from.is_empty() || text.contains(from), "the template no longer has: {from}");
    check_all(&[text.replacen(from, to, 1), filter(module)]).concat()
}

#[test]
fn buffer_filter_is_rendered_where_the_policy_relies_on_it() {
    assert_eq!(together(&buffered(), "", "", &buffered()), [""; 0]);
    let chain = parsed(&bootstrap(&buffered()));
    let filters = at(&chain, MANAGER)["http_filters"].as_sequence().unwrap().clone();
    let names: Vec<_> = filters.iter().filter_map(|filter| filter["name"].as_str()).collect();
    assert_eq!(&names[1..], ["callbound", "envoy.filters.http.buffer", "envoy.filters.http.router"]);
    assert!(!filter(&buffered()).contains("allow_on_headers"));
    assert!(!bootstrap(&gateway()).contains("filters.http.buffer"));
}

#[test]
fn chain_without_a_working_buffer_filter_is_reported() {
    one(&together(&gateway(), "", "", &buffered()), "no `envoy.filters.http.buffer` follows callbound");
    let policy = "{\"version\": 1, \"host\": \"envoy\", \"routes\": []}";
    let unbuffered = Gateway { policy, ..gateway() };
    one(&together(&buffered(), "", "", &unbuffered), "or write `hold_headers: buffer_filter` in the policy");
    let mut chain = at(&parsed(&bootstrap(&buffered())), MANAGER).clone();
    chain["http_filters"].as_sequence_mut().unwrap().swap(1, 2);
    let found = check_all(&[serde_yaml_ng::to_string(&chain).unwrap(), filter(&buffered())]).concat();
    one(&found, "the one before callbound holds nothing back");
    let buffer = "          - name: envoy.filters.http.buffer\n";
    let upgrade = "[{name: upgrade, present_match: true}]";
    let inverted = "[{name: upgrade, present_match: true, invert_match: true}]";
    let table = [
        (buffer, &*format!("{buffer}            disabled: true\n"), "disabled, so no filter holds headers"),
        (upgrade, "[{name: x, present_match: true}]", "and it is not for upgrades only"),
        (upgrade, inverted, "and it is not for upgrades only"),
    ];
    for (from, to, words) in table {
        one(&together(&buffered(), from, to, &buffered()), words);
    }
}

#[test]
fn policy_for_another_host_is_reported() {
    let policy = "{\"version\": 1, \"host\": \"kong\", \"routes\": []}";
    one(&check(&filter(&Gateway { policy, ..gateway() })), "the policy is for `kong`");
}

#[test]
fn module_named_by_a_mesh_is_recognized_by_its_policy() {
    let policy = "{\"version\": 1, \"host\": \"envoy\", \"routes\": []}";
    let text = filter(&Gateway { policy, ..gateway() }).replace("callbound", "extension-7");
    assert_eq!(check(&text), [""; 0]);
    one(
        &check(&text.replace("allow_on_headers_stop_iteration: true", "x: y")),
        "allow_on_headers_stop_iteration",
    );
}

// --- config dumps ---

/// Answers of Envoy 1.40 to `/config_dump`, for both ways to hold headers; shortened, the policies too.
const DUMPS: [&str; 2] = [include_str!("dumps/flag.json"), include_str!("dumps/buffer.json")];

/// Checks a dump with every occurrence of a piece of text replaced.
fn dumped(dump: &str, from: &str, to: &str) -> Vec<String> {
    assert!(dump.contains(from), "the dump has no: {from}");
    check(&dump.replace(from, to))
}

#[test]
fn config_dump_is_read_section_by_section() {
    let [flag, buffer] = DUMPS;
    for dump in DUMPS {
        assert_eq!(check(dump), [""; 0]);
        let found = dumped(dump, "google.protobuf.StringValue", "google.protobuf.Struct");
        assert!(found.iter().any(|problem| problem.contains("StringValue")), "{found:#?}");
    }
    let held = dumped(buffer, "\\\"buffer_filter\\\"", "\\\"callbound\\\"");
    assert!(held.len() == 2 && held[0].contains("allow_on_headers"), "{held:#?}");
    assert!(held[1].contains("move it before callbound, or write"), "{held:#?}");
    let allow = "ecds_filter.typed_config.config: `allow_on_headers_stop_iteration` is not true";
    let (host, wasm) = (r#"\"host\": \"envoy\""#, "filters.http.wasm.v3.Wasm");
    let hold_headers = format!(r#"\"hold_headers\": \"buffer_filter\", {host}"#);
    let table = [
        (flag, r#""allow_on_headers_stop_iteration": true"#, r#""x": true"#, allow),
        (buffer, r#""max_request_bytes": 1048576"#, r#""max_request_bytes": 0"#, "no `max_request_bytes`"),
        (buffer, r#""name": "upgrade""#, r#""name": "x-y""#, "and it is not for upgrades only"),
        (flag, host, &hold_headers, "no `envoy.filters.http.buffer`"),
        (flag, host, r#"\"host\": \"kong\""#, "the policy is for `kong`"),
        (flag, wasm, "filters.http.other.v3.X", "no callbound module was delivered under this name"),
        (flag, wasm, "filters.http.rbac.v3.RBAC", "the module could not be fetched"),
        (flag, "\"num_retries\": 0", "\"num_retries\": 3", "a retry repeats"),
    ];
    for (dump, from, to, words) in table {
        one(&dumped(dump, from, to), words);
    }
}

#[test]
fn config_dump_in_camel_case_is_read() {
    fn camel(value: Value) -> Value {
        match value {
            Value::Mapping(members) => {
                let named = members.into_iter().map(|(name, inside)| {
                    let member = name.as_str().filter(|name| !name.contains(['.', '@']));
                    let name = member.map(|name| Value::from(yaml::camel_case(name))).unwrap_or(name);
                    (name, camel(inside))
                });
                Value::Mapping(named.collect())
            }
            Value::Sequence(items) => Value::Sequence(items.into_iter().map(camel).collect()),
            other => other,
        }
    }
    for dump in DUMPS {
        let text = serde_json::to_string(&camel(parsed(dump))).unwrap();
        assert!(text.contains("httpFilters") && text.contains("staticListeners"));
        assert_eq!(check(&text), [""; 0]);
    }
    let [_, buffer] = DUMPS;
    let text =
        serde_json::to_string(&camel(parsed(&buffer.replace("\"max_request_bytes\"", "\"x_y\"")))).unwrap();
    one(&check(&text), "no `max_request_bytes`");
}

#[test]
fn listeners_of_other_services_in_a_config_dump_are_not_reported() {
    let [flag, _] = DUMPS;
    let mut dump = parsed(flag);
    let section = dump["configs"].as_sequence_mut().unwrap();
    section.push(parsed(
        "{dynamic_listeners: [{active_state: {listener: {http_filters: [{name: envoy.filters.http.router}],
            route_config: {virtual_hosts: [{routes: [{match: {prefix: /}, route: {cluster: x, retry_policy: {num_retries: 2}}}]}]}}}},
            {draining_state: {listener: {http_filters: [{name: callbound}, {name: envoy.filters.http.lua}]}}},
            {error_state: {failed_configuration: {http_filters: [{name: envoy.filters.http.lua}]}}}]}",
    ));
    let found = check(&serde_yaml_ng::to_string(&dump).unwrap());
    assert_eq!(found.len(), 2, "{found:#?}");
    let has = |words: &str| found.iter().any(|problem| problem.contains(words));
    assert!(has("error_state: Envoy rejected a newer configuration"), "{found:#?}");
    assert!(has("not judged (number of such chains: 1)"), "{found:#?}");
    assert!(found.iter().all(|problem| problem.starts_with("warning: ")), "{found:#?}");
    let none = "configs: [{dynamic_listeners: [{active_state: {listener: {http_filters: [{name: x}]}}}]}]";
    one(&check(none), "no callbound filter in this chain; put it right before the router");
}

/// Configuration by Envoy Gateway for a policy that leaves headers to the buffer filter: the filters are disabled in the
/// chain and enabled by routes, which are delivered on their own.
const DISABLED: &str = r#"
- name: envoy.filters.network.http_connection_manager
  typed_config:
    normalize_path: true
    path_with_escaped_slashes_action: REJECT_REQUEST
    request_timeout: 20s
    rds: {route_config_name: calls/http}
    http_filters:
    - {name: envoy.filters.http.cors}
    - name: envoy.filters.http.wasm/policy/calls/wasm/0
      disabled: true
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
        config:
          name: envoyextensionpolicy/0
          fail_open: false
          configuration:
            "@type": type.googleapis.com/google.protobuf.StringValue
            value: '{"version": 1, "host": "envoy", "hold_headers": "buffer_filter", "routes": []}'
    - name: envoy.filters.http.buffer
      disabled: true
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 1048576}
    - {name: envoy.filters.http.router}
- name: calls/http
  virtual_hosts:
  - name: calls
    routes:
    - match: {prefix: /, headers: [{name: upgrade, string_match: {safe_regex: {regex: (?i)websocket}}}]}
      route: {cluster: calls}
      typed_per_filter_config:
        envoy.filters.http.wasm/policy/calls/wasm/0: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}
    - match: {prefix: /}
      route: {cluster: calls}
      typed_per_filter_config:
        envoy.filters.http.wasm/policy/calls/wasm/0: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}
        envoy.filters.http.buffer: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, buffer: {max_request_bytes: 1048576}}
- name: others/http
  virtual_hosts: [{routes: [{match: {prefix: /}, route: {cluster: x, retry_policy: {num_retries: 2}}}]}]
"#;

/// Checks [`DISABLED`] with one piece of text replaced, without the warnings that it always has.
fn disabled(from: &str, to: &str) -> Vec<String> {
    assert!(DISABLED.contains(from), "the chain has no: {from}");
    let always =
        ["only routes that enable", "not delivered by", "no `failure_policy`", "routes are delivered by"];
    let found = check(&DISABLED.replacen(from, to, 1));
    found.into_iter().filter(|problem| !always.iter().any(|known| problem.contains(known))).collect()
}

#[test]
fn filters_enabled_by_routes_pass_and_their_faults_are_reported() {
    assert_eq!(disabled("x", "x"), [""; 0]);
    let leaks = "headers of refused requests would reach the upstream";
    let buffer = r#"envoy.filters.http.buffer: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute, buffer: {max_request_bytes: 1048576}}"#;
    let (upgrade, router) = ("{name: upgrade, string_match", "- {name: envoy.filters.http.router}");
    let typed = "      typed_config: {";
    let table = [
        (buffer, "x: {}", "disabled, so no filter holds headers"),
        (upgrade, "{name: x-y, string_match", leaks),
        (upgrade, "{name: upgrade, invert_match: true, string_match", leaks),
        (upgrade, "{name: upgrade, treat_missing_header_as_empty: true, string_match", leaks),
        ("string_match: {safe_regex: {regex: (?i)websocket}}", "present_match: false", leaks),
        ("max_request_bytes: 1048576}\n", "max_request_bytes: 0}\n", "no `max_request_bytes`"),
        (typed, &format!("      is_optional: true\n{typed}"), "without the filter no headers are held"),
        ("\"envoy\", \"hold_headers\"", "\"apisix\", \"hold_headers\"", "the policy is for `apisix`"),
        ("fail_open: false", "failure_policy: FAIL_OPEN", "`failure_policy` is not"),
        (
            router,
            &format!("- {{name: envoy.filters.http.lua}}\n    {router}"),
            "can change a request after the decision",
        ),
    ];
    for (from, to, words) in table {
        one(&disabled(from, to), words);
    }
}

#[test]
fn most_specific_override_of_a_route_decides() {
    let ours = "envoy.filters.http.wasm/policy/calls/wasm/0: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}";
    let some = |found: Vec<String>, words: &str| {
        assert!(found.iter().any(|problem| problem.contains(words)), "{found:#?}");
    };
    // The override of a host applies to a route that has none.
    let on = "    typed_per_filter_config: {envoy.filters.http.buffer: {buffer: {max_request_bytes: 1}}}\n    routes:\n    - match: {prefix: /, headers: [{name: x-y";
    assert_eq!(disabled("    routes:\n    - match: {prefix: /, headers: [{name: upgrade", on), [""; 0]);
    // The override of a weighted cluster precedes the route's.
    let off = "typed_per_filter_config: {envoy.filters.http.buffer: {\"@type\": x, disabled: true}}";
    let from = format!(
        "route: {{cluster: calls}}\n      typed_per_filter_config:\n        {ours}\n        envoy.filters.http.buffer"
    );
    let to = from.replace(
        "cluster: calls",
        &format!("weighted_clusters: {{clusters: [{{name: a}}, {{name: b, {off}}}]}}"),
    );
    one(&disabled(&from, &to), "and it is not for upgrades only");
    // A route that does not enable callbound is a warning; one that disables it is a fault.
    some(disabled(&from, &from.replace(ours, "x: {}")), "are not judged");
    let off = ours.replace("config: {}", "disabled: true");
    some(disabled(ours, &off), "this route passes without callbound");
}

#[test]
fn chain_of_upgrades_needs_callbound_and_no_buffer() {
    let upgrade = |filters: &str| {
        let to = format!(
            "- upgrade_type: websocket\n            filters: [{filters}{{name: envoy.filters.http.router}}]\n"
        );
        together(&buffered(), "- upgrade_type: websocket\n", &to, &buffered())
    };
    assert_eq!(upgrade("{name: callbound, config_discovery: {}}, "), [""; 0]);
    one(&upgrade(""), "upgrade_configs[0].filters: no callbound filter");
    let buffer = "{name: callbound, config_discovery: {}}, {name: envoy.filters.http.buffer}, ";
    one(&upgrade(buffer), "waits for the end of a handshake");
}

#[test]
fn buffer_filter_enabled_by_routes_holds_their_headers() {
    let mut chain = at(&parsed(&bootstrap(&buffered())), MANAGER).clone();
    chain["http_filters"][1] = parsed("{name: callbound, disabled: true, config_discovery: {}}");
    chain["http_filters"][2]["disabled"] = Value::from(true);
    let on = "callbound: {'@type': x/envoy.config.route.v3.FilterConfig, config: {}}";
    let held = "envoy.filters.http.buffer: {'@type': x/BufferPerRoute, buffer: {max_request_bytes: 9}}";
    let problems = |overrides: &str| {
        let mut chain = chain.clone();
        let routes = parsed(&format!("[{{match: {{prefix: /}}, typed_per_filter_config: {{{overrides}}}}}]"));
        chain["route_config"]["virtual_hosts"][0]["routes"] = routes;
        let texts = [serde_yaml_ng::to_string(&chain).unwrap(), filter(&buffered())];
        let found = check_all(&texts).concat();
        found.into_iter().filter(|problem| !problem.starts_with("warning: ")).collect::<Vec<_>>()
    };
    assert_eq!(problems(&format!("{on}, {held}")), [""; 0]);
    one(&problems(on), "disabled, so no filter holds headers");
}
