//! Envoy's files: renders the two templates of `envoy/`, and checks a configuration that was written by hand.

mod chain;
mod check;
mod filters;
mod inventory;
mod module;
mod report;
mod routes;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use callbound::credential::RemoteJwks;
use callbound::store::redis::RedisStore;
use sha2::{Digest, Sha256};

pub use check::check_all;
use yaml::{fill, quoted, unquoted};

/// `envoy/bootstrap.yaml`: listener, chain, routes, cluster.
const BOOTSTRAP: &str = include_str!("../../../envoy/bootstrap.yaml");
/// `envoy/filter.yaml`: the wasm filter with its policy, which Envoy reads by ECDS.
const FILTER: &str = include_str!("../../../envoy/filter.yaml");
/// Route to the upstream without any CORS policy.
const NO_CORS_ROUTE: &str =
    "              - {match: {{MATCH}}, route: {cluster: upstream, timeout: 30s{{HOST_REWRITE}}}}";

/// Flag of the wasm filter where callbound itself holds headers.
const HELD_BY_CALLBOUND: &str = "      # Holds the headers of a request until its body was judged. Without this flag Envoy would not pass the body to
      # callbound while the headers are held. Needs Envoy 1.35.
      allow_on_headers_stop_iteration: true
";
/// Comment in place of [`HELD_BY_CALLBOUND`] where the buffer filter holds headers.
const HELD_BY_BUFFER: &str = "      # The policy has `hold_headers: buffer_filter`: the buffer filter after this one in the chain holds the headers until
      # the body was judged. Without it, or with it before, the headers of refused requests would reach the upstream.
";
/// Filter after callbound that holds headers.
const BUFFER_FILTER: &str = r#"          # After callbound: holds a request's headers until callbound has let its last byte through.
          - name: envoy.filters.http.buffer
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              max_request_bytes: 1048576
"#;
/// Route of handshakes where the buffer filter is in the chain.
const UPGRADE_ROUTE: &str = r#"              # A handshake never ends, so the buffer filter must not wait for its end. callbound refuses an `upgrade` on
              # every route that is not for one, before anything reaches the upstream.
              - match: {prefix: /, headers: [{name: upgrade, present_match: true}]}
                route: {cluster: upstream, timeout: 30s{{HOST_REWRITE}}}
                typed_per_filter_config:
                  envoy.filters.http.buffer:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute
                    disabled: true
"#;

/// Cluster that serves the key set of an issuer. Only the module sends requests to it.
const KEY_SET_CLUSTER: &str = r#"  - name: "{{NAME}}"
    type: STRICT_DNS
    dns_lookup_family: V4_PREFERRED
    connect_timeout: 2s
    load_assignment:
      cluster_name: "{{NAME}}"
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "{{HOST}}", port_value: {{PORT}}}}}}]}]
"#;
/// Cluster of a store that gateways share. Only the module sends requests to it. The number of requests of a connection
/// is limited, because one with a late answer on it is of no more use.
const STORE_CLUSTER: &str = r#"  - name: "{{NAME}}"
    type: STRICT_DNS
    dns_lookup_family: V4_PREFERRED
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_requests_per_connection: 1000}
        explicit_http_config: {http_protocol_options: {}}
    circuit_breakers: {thresholds: [{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}]}
    load_assignment:
      cluster_name: "{{NAME}}"
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "{{HOST}}", port_value: {{PORT}}}}}}]}]
"#;
/// TLS of a cluster. Certificate and name are verified, because keys are trusted for their origin.
const TLS: &str = r#"    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: "{{HOST}}"
        common_tls_context:
          validation_context:
            trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: "{{HOST}}"}}]
"#;

/// One Envoy in front of one upstream, with one policy.
pub struct Gateway<'a> {
    /// Address that clients connect to.
    pub listen: SocketAddr,
    /// Address of Envoy's admin page. It can stop Envoy and shows the policy: loopback only.
    pub admin: SocketAddr,
    /// Server that allowed requests are sent to.
    pub upstream: Upstream<'a>,
    /// Path of the compiled module as Envoy sees it.
    pub module: &'a Path,
    /// Path of the rendered filter file as Envoy sees it. Envoy watches its folder.
    pub filter_file: &'a Path,
    /// Policy as JSON text, embedded byte for byte.
    pub policy: &'a str,
    /// Names of the environment variables that hold the policy's secrets.
    pub env: &'a [String],
    /// Path templates of mint routes, with `{name}` for a segment. CORS is never enabled for them.
    pub no_cors_paths: &'a [String],
    /// Origins whose pages may call with a client token.
    pub cors_origins: &'a [String],
    /// Headers that may carry a client's credential; pages may send them.
    pub credential_headers: &'a [String],
    /// Key sets of issuers, fetched by the module.
    pub key_sets: &'a [&'a RemoteJwks],
    /// Store that gateways share; `None` where each has its own memory.
    pub store: Option<&'a RedisStore>,
    /// True where the buffer filter holds headers instead of callbound.
    pub is_buffered: bool,
}

/// Server that allowed requests are sent to.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    host: &'a str,
    port: u16,
    is_tls: bool,
}

impl<'a> Upstream<'a> {
    /// Reads `host:port`, or `https://host[:port]` for a server that is reached over TLS by its own name. `None` for
    /// any other text.
    pub fn parse(text: &'a str) -> Option<Self> {
        match text.strip_prefix("https://") {
            None => split_host(text).map(|(host, port)| Self { host, port, is_tls: false }),
            Some(rest) => {
                let (host, port) = split_host(rest).unwrap_or((rest, 443));
                let is_name = !host.is_empty()
                    && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
                is_name.then_some(Self { host, port, is_tls: true })
            }
        }
    }

    fn host_rewrite(self) -> String {
        if self.is_tls { format!(", host_rewrite_literal: {}", quoted(self.host)) } else { String::new() }
    }
}

/// Renders Envoy's bootstrap for `gateway`.
pub fn bootstrap(gateway: &Gateway) -> String {
    let upstream = gateway.upstream;
    let folder = gateway.filter_file.parent().unwrap_or(Path::new("."));
    fill(
        BOOTSTRAP,
        &[
            ("PLACEHOLDERS", "placeholders".to_owned()),
            ("LISTEN_ADDRESS", gateway.listen.ip().to_string()),
            ("LISTEN_PORT", gateway.listen.port().to_string()),
            ("ADMIN_ADDRESS", gateway.admin.ip().to_string()),
            ("ADMIN_PORT", gateway.admin.port().to_string()),
            ("UPSTREAM_HOST", unquoted(upstream.host)),
            ("UPSTREAM_PORT", upstream.port.to_string()),
            (
                "UPSTREAM_TLS",
                fill(if upstream.is_tls { TLS } else { "" }, &[("HOST", unquoted(upstream.host))]),
            ),
            ("HOST_REWRITE", upstream.host_rewrite()),
            ("FILTER_FILE", unquoted(&gateway.filter_file.to_string_lossy())),
            ("FILTER_DIR", unquoted(&folder.to_string_lossy())),
            ("BUFFER_FILTER", if gateway.is_buffered { BUFFER_FILTER.to_owned() } else { String::new() }),
            ("UPGRADE_ROUTE", upgrade_route(gateway)),
            ("NO_CORS_ROUTES", no_cors_routes(gateway.no_cors_paths, upstream)),
            ("CORS_ORIGINS", cors_origins(gateway.cors_origins)),
            ("CORS_HEADERS", cors_headers(gateway.credential_headers)),
            ("KEY_SET_CLUSTERS", key_set_clusters(gateway.key_sets)),
            ("STORE_CLUSTER", gateway.store.map(store_cluster).unwrap_or_default()),
        ],
    )
}

/// Renders the ECDS file for `gateway`: a DiscoveryResponse with our filter and its policy.
pub fn filter(gateway: &Gateway) -> String {
    let mut env = gateway.env.to_vec();
    env.sort();
    env.dedup(); // Envoy rejects a variable named twice
    let env: Vec<String> = env.iter().map(|name| quoted(name)).collect();
    fill(
        FILTER,
        &[
            ("PLACEHOLDERS", "placeholders".to_owned()),
            ("VERSION", version(gateway.policy)),
            ("HOLD", if gateway.is_buffered { HELD_BY_BUFFER } else { HELD_BY_CALLBOUND }.to_owned()),
            ("MODULE", unquoted(&gateway.module.to_string_lossy())),
            ("ENV", format!("[{}]", env.join(", "))),
            ("POLICY", quoted(gateway.policy)),
        ],
    )
}

/// Splits `host:port` and removes the brackets of an IPv6 address. `None` for any other text.
fn split_host(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!bare.is_empty()).then_some((bare, port))
}

/// Renders the route of handshakes where the buffer filter is in the chain, else nothing.
fn upgrade_route(gateway: &Gateway) -> String {
    let route = if gateway.is_buffered { UPGRADE_ROUTE } else { "" };
    fill(route, &[("HOST_REWRITE", gateway.upstream.host_rewrite())])
}

/// Renders the routes before the one with the CORS policy, one line each.
fn no_cors_routes(paths: &[String], upstream: Upstream<'_>) -> String {
    let line = |path: &String| {
        fill(NO_CORS_ROUTE, &[("MATCH", path_match(path)), ("HOST_REWRITE", upstream.host_rewrite())])
    };
    paths.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Renders a cluster for each server of a key set, each once.
fn key_set_clusters(remotes: &[&RemoteJwks]) -> String {
    let mut names = HashSet::new();
    let first = remotes.iter().filter(|remote| names.insert(&remote.cluster));
    let cluster = |remote: &&RemoteJwks| {
        let (port, tls) = if remote.scheme == "https" { (443, TLS) } else { (80, "") };
        let values = cluster_values(&remote.cluster, &remote.authority, port);
        fill(KEY_SET_CLUSTER, &values) + &fill(tls, &values)
    };
    first.map(cluster).collect()
}

/// Renders the cluster of the store's bridge.
fn store_cluster(bridge: &RedisStore) -> String {
    fill(STORE_CLUSTER, &cluster_values(&bridge.cluster, &bridge.authority, 80))
}

fn cluster_values(name: &str, authority: &str, default_port: u16) -> [(&'static str, String); 3] {
    let (host, port) = split_host(authority).unwrap_or((authority, default_port));
    [("NAME", unquoted(name)), ("HOST", unquoted(host)), ("PORT", port.to_string())]
}

/// Renders Envoy's matcher for a path template: the path itself, or a regular expression, which Envoy anchors.
fn path_match(template: &str) -> String {
    if !template.contains('{') {
        return format!("{{path: {}}}", quoted(template));
    }
    let segments: Vec<String> = template
        .split('/')
        .map(|segment| match segment.strip_prefix('{') {
            Some(name) if name.starts_with('*') => ".+".to_owned(),
            Some(_) => "[^/]+".to_owned(),
            None => literal(segment),
        })
        .collect();
    format!("{{safe_regex: {{regex: {}}}}}", quoted(&segments.join("/")))
}

/// Escapes `text` as a regular expression that matches only `text`.
fn literal(text: &str) -> String {
    let is_special = |c: char| c.is_ascii_punctuation() && c != '_' && c != '-';
    text.chars().flat_map(|c| is_special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Renders origins as Envoy's exact string matchers.
fn cors_origins(origins: &[String]) -> String {
    let matchers: Vec<String> =
        origins.iter().map(|origin| format!("{{exact: {}}}", quoted(origin))).collect();
    format!("[{}]", matchers.join(", "))
}

/// Renders the headers that pages of other origins may send.
fn cors_headers(credentials: &[String]) -> String {
    let mut names = vec!["authorization", "content-type", "idempotency-key", "x-request-id"];
    let further = credentials.iter().map(String::as_str).filter(|name| !names.contains(name));
    let further: Vec<&str> = further.collect();
    names.extend(further);
    unquoted(&names.join(", "))
}

/// Returns the start of the policy's SHA-256, so that Envoy's config_dump identifies the policy in effect.
fn version(policy: &str) -> String {
    let digest = Sha256::digest(policy.as_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
