//! Checks of one location that proxies: the filter, the headers it must drop, and the body.

use super::facts::{Facts, PolicyFacts, is_kongs};
use super::locations::Location;
use super::report::{Report, Severity};
use super::syntax::Directive;

const NOT_PROXY: &str = "goes round callbound, which guards `proxy_pass` only; use `proxy_pass`";
const KONG_GRPC: &str = "goes round callbound, which guards `proxy_pass` only; Kong sends gRPC services here, so guard none of them";
const KONG_BUFFERED: &str = "goes round callbound; Kong sends requests here for plugins with a `response` handler and for `enable_buffering`, so use neither";
const NO_FILTER: &str = "no `proxy_wasm callbound` applies here, so requests are not judged; add it";
const NOT_INHERITED: &str = "replaces every `proxy_wasm` around it, and there is none of callbound here, so requests are not judged; add it";
const OTHER_FILTER: &str =
    "this filter runs with callbound and can answer first, or change a judged request; remove it";
const NOT_BUFFERED: &str = "the body is sent before it was judged; remove it";
const KONG_NOT_BUFFERED: &str = "the body is sent before it was judged; Kong sends routes with `request_buffering: false` here, so have none";
const RETRIES: &str = "a request that failed is sent again, so a call may be placed twice; set it to `off`";
const NO_RETRY_RULE: &str = "without `proxy_next_upstream off` a request that failed is sent again, so a call may be placed twice; add it";
const ISOLATION: &str =
    "parses the policy for every request and logs nothing; remove it (`none` is the default)";
const IN_ACCESS: &str = "subrequests pass without being judged; set it to `off`";

impl Report {
    /// Checks a location that proxies.
    pub(super) fn check_guard(&mut self, location: &Location, facts: &Facts) {
        let severity = facts.severity(location);
        if location.pass.name != "proxy_pass" {
            let message = if facts.is_kong { KONG_GRPC } else { NOT_PROXY };
            return self.add(severity, location.pass, message);
        }
        if !self.check_filter(location, facts) {
            return;
        }
        if let Some(policy) = &facts.policy {
            self.check_headers(location, policy, severity);
        }
        self.check_body(location, facts);
        self.check_switches(location, facts);
        self.check_request(location, facts);
    }

    /// Checks that callbound runs for a location. Kong attaches filters to requests that its own code has routed.
    fn check_filter(&mut self, location: &Location, facts: &Facts) -> bool {
        if facts.is_kong {
            let access = location.value("access_by_lua_block");
            let is_routed = access.is_some_and(|access| is_kongs(access, "Kong.access"));
            if !is_routed {
                self.add(facts.severity(location), location.directive, KONG_BUFFERED);
            }
            return is_routed;
        }
        let filters = location.effective("proxy_wasm");
        let is_guarded = filters.iter().any(|filter| facts.is_ours(filter));
        match filters.first() {
            None => self.error(location.directive, NO_FILTER),
            Some(first) if !is_guarded => self.error(first, NOT_INHERITED),
            Some(_) => filters
                .iter()
                .filter(|filter| !facts.is_ours(filter))
                .for_each(|filter| self.warn(filter, OTHER_FILTER)),
        }
        is_guarded
    }

    /// Checks that nginx drops the headers of clients' credentials, and none of the upstream's own.
    fn check_headers(&mut self, location: &Location, policy: &PolicyFacts, severity: Severity) {
        let lines = location.effective("proxy_set_header");
        let of = |name: &str| lines.iter().rfind(|line| line.arg(0).eq_ignore_ascii_case(name));
        for name in &policy.headers.dropped {
            match of(name) {
                Some(line) if line.arg(1).is_empty() => {}
                Some(line) => self.add(
                    severity,
                    line,
                    format!(
                        "a client's credential reaches the upstream; write `proxy_set_header {name} \"\"`"
                    ),
                ),
                None => self.add(severity, location.directive, not_dropped(name, severity)),
            }
        }
        for line in policy.headers.inserted.iter().filter_map(|name| of(name)) {
            if line.arg(1).is_empty() {
                self.add(
                    severity,
                    line,
                    "drops the credential that a route sends to the upstream; remove it",
                );
            }
        }
    }

    /// Checks that a body is read whole, into memory, before it is judged.
    fn check_body(&mut self, location: &Location, facts: &Facts) {
        if let Some(off) =
            location.value("proxy_request_buffering").filter(|directive| directive.arg(0) == "off")
        {
            let message = if facts.is_kong { KONG_NOT_BUFFERED } else { NOT_BUFFERED };
            self.add(facts.severity(location), off, message);
        }
        let (most, buffer) =
            (location.value("client_max_body_size"), location.value("client_body_buffer_size"));
        let size = |directive: Option<&Directive>| directive.and_then(|directive| bytes(directive.arg(0)));
        let most_size = most.map_or(Some(1 << 20), |most| size(Some(most)));
        if most_size == Some(0) || most_size.is_none() || most_size != size(buffer) {
            let message = format!(
                "`client_body_buffer_size` is {} and `client_max_body_size` is {}: callbound refuses a body that is not in memory (413); give both one size, such as 1m",
                buffer.map_or("not set", |buffer| buffer.arg(0)),
                most.map_or("not set (1m)", |most| most.arg(0)),
            );
            self.error(buffer.or(most).unwrap_or(location.directive), message);
        }
    }

    /// Checks settings that change how the filter runs, and how often a request is sent.
    fn check_switches(&mut self, location: &Location, facts: &Facts) {
        for (name, message) in
            [("proxy_wasm_isolation", ISOLATION), ("proxy_wasm_request_headers_in_access", IN_ACCESS)]
        {
            let wrong = location.value(name).filter(|directive| !["none", "off"].contains(&directive.arg(0)));
            wrong.into_iter().for_each(|directive| self.error(directive, message));
        }
        match location.value("proxy_next_upstream") {
            Some(directive) if directive.arg(0) != "off" => self.error(directive, RETRIES),
            None if !facts.is_kong => self.error(location.directive, NO_RETRY_RULE),
            _ => {} // In Kong a service's `retries` decides.
        }
    }
}

fn not_dropped(name: &str, severity: Severity) -> String {
    match severity {
        Severity::Error => format!(
            "no `proxy_set_header {name} \"\"` applies here, so the upstream gets this header of a client, emptied; include callbound-headers.conf (`callbound nginx-headers`)"
        ),
        _ => format!(
            "no `proxy_set_header {name} \"\"` applies here, so the upstream gets this header of a client, emptied: KONG_NGINX_LOCATION_INCLUDE reaches `location /` only"
        ),
    }
}

/// Reads a size such as `16k` or `1m`. `None` for other text.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let units = [("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30)];
    let unit = units.iter().find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((&lower, 1));
    number.parse::<u64>().ok()?.checked_mul(factor)
}
