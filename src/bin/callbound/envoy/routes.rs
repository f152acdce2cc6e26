//! Checks of routes: they enable and disable filters, the most specific level decides, and they may retry.

use super::filters::{is_disabled_by, is_our_name};
use super::inventory::FilterChain;
use super::report::Report;
use super::yaml::Node;

const ROUTE_NOT_HELD: &str = "the buffer filter does not hold this route, and it is not for upgrades only, so headers of refused requests would reach the upstream; enable it, or match on the header `upgrade`";

impl Report<'_> {
    /// Checks the routes of a chain with our filter, whether in the chain or delivered on their own.
    pub(super) fn check_routes(&mut self, config: &Node, chain: &FilterChain) {
        for host in config.list("virtual_hosts") {
            for route in host.list("routes") {
                self.check_route(&route, &[&route, &host, config], chain);
            }
        }
    }

    /// Checks one route. `levels` are the route and the mappings around it, the most specific first.
    fn check_route(&mut self, route: &Node, levels: &[&Node], chain: &FilterChain) {
        if ["redirect", "direct_response"].iter().any(|answer| route.get(answer).is_some()) {
            return; // Envoy answers itself.
        }
        let weighted = route.get("route").and_then(|action| action.get("weighted_clusters"));
        let clusters = weighted.map(|weighted| weighted.list("clusters")).unwrap_or_default();
        for cluster in &clusters {
            let levels: Vec<&Node> = std::iter::once(cluster).chain(levels.iter().copied()).collect();
            self.check_destination(route, &levels, chain);
        }
        if clusters.is_empty() {
            self.check_destination(route, levels, chain);
        }
    }

    fn check_destination(&mut self, route: &Node, levels: &[&Node], chain: &FilterChain) {
        if !is_enabled(levels, &chain.callbound).unwrap_or(!chain.is_disabled) {
            if chain.is_disabled && self.inventory.is_enabled(&chain.callbound) {
                self.warn(route, "callbound is not enabled here: the requests of this route are not judged");
            }
            return; // An override that disables callbound is reported by `check_overrides`.
        }
        let Some((buffer, is_disabled)) = &chain.buffer else { return };
        // A buffer filter that no route enables is reported with its chain.
        let is_held =
            is_enabled(levels, buffer).unwrap_or(!is_disabled || !self.inventory.is_enabled(buffer));
        if chain.is_buffered == Some(true) && !is_held && !is_upgrade_only(route) {
            self.error(route, ROUTE_NOT_HELD);
        }
    }

    /// Checks that nothing is retried: the call would be made again after one decision.
    pub(super) fn check_retries(&mut self, policy: &Node) {
        let number = policy.get("num_retries").map(|number| number.value);
        let number = number.and_then(|number| number.as_u64().or_else(|| number.as_str()?.parse().ok()));
        let has_conditions = policy.text("retry_on").is_some_and(|on| !on.is_empty());
        if number.map_or(has_conditions, |number| number > 0) {
            self.error(policy, "a retry repeats a call after its decision; set `num_retries: 0`");
        }
    }

    /// Checks the overrides of a route for one that disables our filter.
    pub(super) fn check_overrides(&mut self, overrides: &Node, chain: Option<&FilterChain>) {
        for (name, config) in overrides.members() {
            let is_ours = is_our_name(name) || chain.is_some_and(|chain| chain.callbound == name);
            if is_ours && is_disabled_by(&config) {
                self.error(
                    &config,
                    "this route passes without callbound; remove it, and use `pass` in the policy",
                );
            }
        }
    }
}

/// Looks up whether the routes enable or disable a filter; `None` where they do neither.
fn is_enabled(levels: &[&Node], filter: &str) -> Option<bool> {
    levels.iter().find_map(|level| {
        let overrides = level.get("typed_per_filter_config")?.members();
        overrides.iter().find(|(name, _)| *name == filter).map(|(_, config)| !is_disabled_by(config))
    })
}

/// Recognizes a route that matches only requests with an `upgrade` header, of any value.
fn is_upgrade_only(route: &Node) -> bool {
    const BY_VALUE: [&str; 6] = ["string", "exact", "safe_regex", "prefix", "suffix", "contains"];
    let headers = route.get("match").map(|matched| matched.list("headers")).unwrap_or_default();
    headers.iter().any(|header| {
        header.text("name").is_some_and(|name| name.eq_ignore_ascii_case("upgrade"))
            && !header.flag("invert_match")
            && !header.flag("treat_missing_header_as_empty")
            && (header.flag("present_match")
                || BY_VALUE.iter().any(|kind| header.get(&format!("{kind}_match")).is_some()))
    })
}
