//! The gateway's Envoy files: rendering the two templates of `envoy/`, and checking a configuration of one's own.

mod check;
mod held;
mod routes;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;

use callbound::credential::RemoteJwks;
use callbound::store::redis::RedisStore;
use sha2::{Digest, Sha256};

pub use check::check_all;

/// `envoy/bootstrap.yaml`: listener, chain, routes, cluster.
const BOOTSTRAP: &str = include_str!("../../../envoy/bootstrap.yaml");
/// `envoy/filter.yaml`: the wasm filter with its policy, as Envoy reads it by ECDS.
const FILTER: &str = include_str!("../../../envoy/filter.yaml");
/// How a route to the upstream without any CORS policy is written.
const NO_CORS_ROUTE: &str =
    "              - {match: {{MATCH}}, route: {cluster: upstream, timeout: 30s{{HOST_REWRITE}}}}";

/// The flag by which callbound itself holds headers.
const HELD_BY_CALLBOUND: &str = "      # A request is held, headers and all, until its body was judged. Without this flag Envoy would never hand the
      # body over while the headers are held. Needs Envoy 1.35.
      allow_on_headers_stop_iteration: true
";
/// What stands there when the buffer filter holds them.
const HELD_BY_BUFFER: &str = "      # The policy says `held_by: buffer_filter`: the buffer filter behind this one in the chain holds the headers until
      # the body was judged. Without it, or with it before, the headers of refused requests would go on.
";
/// The filter that holds headers behind callbound.
const BUFFER_FILTER: &str = r#"          # Behind callbound: holds a request's headers until callbound has let its last byte through.
          - name: envoy.filters.http.buffer
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
              max_request_bytes: 1048576
"#;
/// The route of handshakes where the buffer filter is in the chain.
const UPGRADE_ROUTE: &str = r#"              # A handshake never ends, so the buffer filter must not wait for its end. callbound refuses an `upgrade` on
              # every route that is not for one, before anything goes on.
              - match: {prefix: /, headers: [{name: upgrade, present_match: true}]}
                route: {cluster: upstream, timeout: 30s{{HOST_REWRITE}}}
                typed_per_filter_config:
                  envoy.filters.http.buffer:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute
                    disabled: true
"#;

/// How a cluster that serves the key set of an issuer is written; the module asks it, no client reaches it.
const KEY_SET_CLUSTER: &str = r#"  - name: "{{NAME}}"
    type: STRICT_DNS
    dns_lookup_family: V4_PREFERRED
    connect_timeout: 2s
    load_assignment:
      cluster_name: "{{NAME}}"
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "{{HOST}}", port_value: {{PORT}}}}}}]}]
"#;
/// How the cluster of a store that gateways share is written; the module asks it, no client reaches it. Its connections
/// are not kept for ever: one on which an answer came too late is of no use.
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
/// Keys are believed because of where they came from: the certificate is checked, and its name.
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
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Envoy's admin page. It can stop Envoy and shows the policy: loopback only.
    pub admin: SocketAddr,
    /// Where judged requests go.
    pub upstream: Upstream<'a>,
    /// The compiled module, where Envoy finds it.
    pub module: &'a Path,
    /// The rendered filter file, where Envoy finds it; its folder is watched.
    pub filter_file: &'a Path,
    /// The policy's JSON text, embedded byte for byte.
    pub policy: &'a str,
    /// Names of the environment variables that hold the policy's secrets.
    pub env: &'a [String],
    /// Paths that mint, as the policy writes them (`{name}` stands for a segment): CORS is never enabled for them.
    pub no_cors_paths: &'a [String],
    /// Origins whose pages may call with a client token.
    pub cors_origins: &'a [String],
    /// Where the key sets of issuers are fetched from.
    pub key_sets: &'a [&'a RemoteJwks],
    /// The store that gateways share.
    pub store: Option<&'a RedisStore>,
    /// Whether the buffer filter holds headers.
    pub is_buffered: bool,
}

/// Where judged requests go.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    host: &'a str,
    port: u16,
    is_tls: bool,
}

impl<'a> Upstream<'a> {
    /// Reads `host:port`, or `https://host[:port]`: a platform somewhere else, asked by its own name over TLS.
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

    fn tls(self) -> String {
        if self.is_tls { fill(TLS, &[("HOST", inner(self.host))]) } else { String::new() }
    }
}

/// Envoy's bootstrap for `gateway`.
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
            ("UPSTREAM_HOST", inner(upstream.host)),
            ("UPSTREAM_PORT", upstream.port.to_string()),
            ("UPSTREAM_TLS", upstream.tls()),
            ("HOST_REWRITE", upstream.host_rewrite()),
            ("FILTER_FILE", inner(&gateway.filter_file.to_string_lossy())),
            ("FILTER_DIR", inner(&folder.to_string_lossy())),
            ("BUFFER_FILTER", if gateway.is_buffered { BUFFER_FILTER.to_owned() } else { String::new() }),
            ("UPGRADE_ROUTE", upgrade_route(gateway)),
            ("NO_CORS_ROUTES", no_cors_routes(gateway.no_cors_paths, upstream)),
            ("CORS_ORIGINS", cors_origins(gateway.cors_origins)),
            ("KEY_SET_CLUSTERS", key_set_clusters(gateway.key_sets)),
            ("STORE_CLUSTER", gateway.store.map(store_cluster).unwrap_or_default()),
        ],
    )
}

/// The ECDS file for `gateway`: a DiscoveryResponse that holds our filter and its policy.
pub fn filter(gateway: &Gateway) -> String {
    let mut env = gateway.env.to_vec();
    env.sort();
    env.dedup(); // Envoy refuses a variable named twice
    let env: Vec<String> = env.iter().map(|name| quoted(name)).collect();
    fill(
        FILTER,
        &[
            ("PLACEHOLDERS", "placeholders".to_owned()),
            ("VERSION", version(gateway.policy)),
            ("HOLD", if gateway.is_buffered { HELD_BY_BUFFER } else { HELD_BY_CALLBOUND }.to_owned()),
            ("MODULE", inner(&gateway.module.to_string_lossy())),
            ("ENV", format!("[{}]", env.join(", "))),
            ("POLICY", quoted(gateway.policy)),
        ],
    )
}

/// `host:port` in two, without the brackets of an IPv6 address; `None` if it is not that.
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

/// One pass over the template, so that a value that looks like a placeholder stays what it is.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            out.push_str(value);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `text` as a YAML double-quoted scalar that reads back as exactly `text`. JSON's escapes are YAML's too; what
/// YAML versions treat as line breaks or as a byte order mark is escaped on top.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out
}

/// What stands between the quotes of [`quoted`]: the templates keep theirs, to stay readable.
fn inner(text: &str) -> String {
    let whole = quoted(text);
    let body = whole.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    body.unwrap_or_default().to_owned()
}

/// The route of handshakes, where one is needed.
fn upgrade_route(gateway: &Gateway) -> String {
    match gateway.is_buffered {
        true => fill(UPGRADE_ROUTE, &[("HOST_REWRITE", gateway.upstream.host_rewrite())]),
        false => String::new(),
    }
}

/// The routes that stand before the one with the CORS policy, one line each.
fn no_cors_routes(paths: &[String], upstream: Upstream<'_>) -> String {
    let line = |path: &String| {
        fill(NO_CORS_ROUTE, &[("MATCH", path_match(path)), ("HOST_REWRITE", upstream.host_rewrite())])
    };
    paths.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A cluster for every place that serves a key set, each once.
fn key_set_clusters(remotes: &[&RemoteJwks]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut text = String::new();
    for remote in remotes {
        if names.contains(&remote.cluster.as_str()) {
            continue;
        }
        names.push(&remote.cluster);
        let default = if remote.scheme == "https" { 443 } else { 80 };
        let (host, port) = split_host(&remote.authority).unwrap_or((&remote.authority, default));
        let values = [("NAME", inner(&remote.cluster)), ("HOST", inner(host)), ("PORT", port.to_string())];
        text.push_str(&fill(KEY_SET_CLUSTER, &values));
        if remote.scheme == "https" {
            text.push_str(&fill(TLS, &values));
        }
    }
    text
}

/// The cluster of the store's bridge.
fn store_cluster(bridge: &RedisStore) -> String {
    let (host, port) = split_host(&bridge.authority).unwrap_or((&bridge.authority, 80));
    fill(
        STORE_CLUSTER,
        &[("NAME", inner(&bridge.cluster)), ("HOST", inner(host)), ("PORT", port.to_string())],
    )
}

/// Envoy's matcher for a path template: the path itself, or a regular expression (Envoy matches it whole).
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

/// `text` as a regular expression that matches nothing else.
fn literal(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_punctuation() && c != '_' && c != '-' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Origins as Envoy's exact string matchers.
fn cors_origins(origins: &[String]) -> String {
    let matchers: Vec<String> =
        origins.iter().map(|origin| format!("{{exact: {}}}", quoted(origin))).collect();
    format!("[{}]", matchers.join(", "))
}

/// The start of the policy's SHA-256, so that Envoy's config_dump names the policy that is live.
fn version(policy: &str) -> String {
    let digest = Sha256::digest(policy.as_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
