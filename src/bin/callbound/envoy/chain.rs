//! Checks of a connection manager: the order of its filters, how ours is delivered, and the settings it needs.

use serde_yaml_ng::Value;

use super::filters::{is_buffer, is_our_module, is_router, wasm_config};
use super::inventory::FilterChain;
use super::report::Report;
use super::yaml::Node;

const NO_CALLBOUND: &str = "no callbound filter in this chain; put it right before the router";
const BUFFER_MISSING: &str = "the policy has `hold_headers: buffer_filter`, but no `envoy.filters.http.buffer` follows callbound: headers of refused requests would reach the upstream; put it between callbound and the router";
const BUFFER_BEFORE: &str = "the policy has `hold_headers: buffer_filter`, but no `envoy.filters.http.buffer` follows callbound: headers of refused requests would reach the upstream; the one before callbound holds nothing back, so move it between callbound and the router";
const BUFFER_UNWANTED: &str = "the buffer filter is between callbound and the router; move it before callbound, or write `hold_headers: buffer_filter` in the policy";
const BUFFER_UNKNOWN: &str = "the buffer filter is between callbound and the router, which is right only if the policy has `hold_headers: buffer_filter`; give the file with the policy as well";
const BUFFER_ON_UPGRADE: &str = "the buffer filter waits for the end of a handshake, which never comes; remove it from the chain of upgrades";
const BUFFER_DISABLED: &str = "disabled, so no filter holds headers; remove it, or let every route enable it";
const NO_BUFFER_LIMIT: &str = "no `max_request_bytes`; set it to the listener's buffer limit (1048576)";
const NOT_NORMALIZED: &str = "`normalize_path` is not true: `/a/../b` and `/b` are two paths; set it";
const ROUTES_BY_RDS: &str = "routes are delivered by `rds`: give that file as well, for its retries";
const WITHOUT_WARMING: &str =
    "`apply_default_config_without_warming` serves requests before the policy is delivered; set it to false";
const NOT_BY_ECDS: &str = "not delivered by `config_discovery` (ECDS): open connections keep the old policy; see envoy/bootstrap.yaml";
const DENIES_EVERYTHING: &str = "a filter that denies everything was delivered under this name, because the module could not be fetched; see the log of the proxy's agent";
const NOT_DELIVERED: &str = "no callbound module was delivered under this name, so its listener serves nothing; see `extension_config_discovery` in Envoy's stats, and its log";
const ESCAPED_SLASHES: &str = "`path_with_escaped_slashes_action` lets every upstream decide what %2F and %5C mean; set it to REJECT_REQUEST";

/// Filters that change requests after the decision: they may not follow ours.
const REWRITERS: &str = "wasm lua golang dynamic_modules ext_proc ext_authz header_mutation header_to_metadata \
    json_to_metadata grpc_json_transcoder grpc_http1_bridge grpc_http1_reverse_bridge transform credential_injector \
    aws_request_signing decompressor dynamic_forward_proxy composite";

impl Report<'_> {
    /// Reports a chain without our filter.
    pub(super) fn no_callbound(&mut self, list: &Node) {
        self.error(list, NO_CALLBOUND);
    }

    /// Checks the order of one chain; that of an upgrade may not hold anything.
    pub(super) fn check_chain(&mut self, list: &Node, chain: &FilterChain, is_upgrade: bool) {
        let filters = list.items();
        if filters.last().is_some_and(|last| !is_router(last)) {
            self.error(list, "the router is not the last filter; put it last");
        }
        let Some(position) = self.inventory.position(&filters) else { return self.no_callbound(list) };
        let (before, rest) = filters.split_at(position);
        let Some((ours, after)) = rest.split_first() else { return };
        self.check_our_filter(ours);
        for filter in after.iter().filter(|filter| !is_router(filter) && !is_buffer(filter)) {
            self.error(filter, &misplaced(filter));
        }
        match after.iter().find(|filter| is_buffer(filter)) {
            Some(buffer) if is_upgrade => self.error(buffer, BUFFER_ON_UPGRADE),
            Some(buffer) => self.check_buffer(buffer, chain),
            None if chain.is_buffered == Some(true) && !is_upgrade => {
                self.error(list, if before.iter().any(is_buffer) { BUFFER_BEFORE } else { BUFFER_MISSING });
            }
            None => {}
        }
    }

    /// Checks a buffer filter after ours: the policy relies on it, or it must not be there.
    fn check_buffer(&mut self, buffer: &Node, chain: &FilterChain) {
        match chain.is_buffered {
            Some(true) => self.check_buffer_holds(buffer),
            Some(false) => self.error(buffer, BUFFER_UNWANTED),
            None => self.warn(buffer, BUFFER_UNKNOWN),
        }
    }

    fn check_buffer_holds(&mut self, buffer: &Node) {
        let limit = buffer.get("typed_config").and_then(|typed| typed.get("max_request_bytes"));
        if limit.is_none_or(|limit| limit.value.as_u64().is_none_or(|bytes| bytes == 0)) {
            self.error(buffer, NO_BUFFER_LIMIT);
        }
        if buffer.flag("disabled") && !self.inventory.is_enabled(buffer.text("name").unwrap_or_default()) {
            self.error(buffer, BUFFER_DISABLED);
        }
        if let Some(optional) = buffer.get("is_optional").filter(|_| buffer.flag("is_optional")) {
            self.error(&optional, "without the filter no headers are held; remove it");
        }
    }

    fn check_our_filter(&mut self, ours: &Node) {
        let name = ours.text("name").unwrap_or_default();
        for switch in ["disabled", "is_optional"] {
            let Some(member) = ours.get(switch).filter(|_| ours.flag(switch)) else { continue };
            if switch == "disabled" && self.inventory.is_enabled(name) {
                self.warn(&member, "only routes that enable callbound are judged");
            } else {
                self.error(&member, "requests pass without callbound; remove it");
            }
        }
        if !self.inventory.is_delivered(name) && ours.get("typed_config").is_none() {
            if self.inventory.is_denying(name) {
                self.error(ours, DENIES_EVERYTHING);
            } else if self.is_config_dump {
                self.error(ours, NOT_DELIVERED);
            }
        }
        match ours.get("config_discovery") {
            Some(discovery) => self.check_discovery(&discovery),
            None => self.warn(ours, NOT_BY_ECDS),
        }
    }

    fn check_discovery(&mut self, discovery: &Node) {
        let is_ours = |typed: &Node| wasm_config(typed).is_some_and(|config| is_our_module(&config));
        if let Some(default) = discovery.get("default_config").filter(|typed| !is_ours(typed)) {
            self.error(&default, "serves requests before the policy is delivered; remove it");
        }
        if discovery.flag("apply_default_config_without_warming") {
            self.error(discovery, WITHOUT_WARMING);
        }
    }

    /// Checks the settings of the connection manager around a chain.
    pub(super) fn check_manager(&mut self, manager: &Node, chain: Option<&FilterChain>) {
        let safe = [("REJECT_REQUEST", 2), ("UNESCAPE_AND_REDIRECT", 3), ("UNESCAPE_AND_FORWARD", 4)];
        if !manager.flag("normalize_path") {
            self.error(manager, NOT_NORMALIZED);
        }
        if !manager.get("path_with_escaped_slashes_action").is_some_and(|action| action.is_one_of(&safe)) {
            self.error(manager, ESCAPED_SLASHES);
        }
        let timeout = manager.text("request_timeout").unwrap_or("0s");
        if timeout.trim_end_matches('s').parse().is_ok_and(|seconds: f64| seconds <= 0.0) {
            self.error(manager, "no `request_timeout`: a request may be held for ever; set it (15s)");
        }
        let rds = manager.get("rds");
        if rds.is_some_and(|rds| !self.is_config_dump || rds.text("route_config_name").is_none()) {
            self.warn(manager, ROUTES_BY_RDS);
        }
        chain.into_iter().for_each(|chain| self.check_upgrades(manager, chain));
    }

    /// Checks the chains of upgrades: one without our filter bypasses it.
    fn check_upgrades(&mut self, manager: &Node, chain: &FilterChain) {
        let upgrades = manager.list("upgrade_configs");
        for list in upgrades.iter().filter_map(|upgrade| upgrade.get("filters")) {
            if matches!(list.value, Value::Sequence(filters) if !filters.is_empty()) {
                self.check_chain(&list, chain, true);
            }
        }
    }
}

/// Describes why a filter may not be between ours and the router.
fn misplaced(filter: &Node) -> String {
    let name = filter.text("name").unwrap_or_default();
    let kind = name.rsplit('.').next().unwrap_or_default();
    let typed = filter.get("typed_config");
    let message = typed.as_ref().map(Node::message_type).unwrap_or_default();
    let is = |known: &str| kind == known || message.contains(&format!(".http.{known}."));
    if is("cors") {
        return format!(
            "`{name}` follows callbound: preflights and refusals get no CORS headers; move it before"
        );
    }
    if REWRITERS.split(' ').any(is) {
        return format!(
            "`{name}` follows callbound and can change a request after the decision; move it before"
        );
    }
    format!("`{name}` is between callbound and the router; move it before callbound")
}
