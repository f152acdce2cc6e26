//! Inventory of a configuration: the filters that load our module, the chains with our filter, and which filter holds
//! headers under the policy of each.
//!
//! A chain names its filters. Their policies may be in another file or section (ECDS, a config dump), and so may the
//! routes that enable and disable them.

use super::filters::{
    BUFFER, is_buffer, is_buffered, is_disabled_by, is_our_module, is_our_name, own_config, policy,
    wasm_config,
};
use super::yaml::{Node, is};

/// Section of a config dump with the configuration that Envoy has rejected.
pub(super) const REJECTED: &str = "error_state";

/// Filters and chains found in all documents of a configuration.
#[derive(Default)]
pub(super) struct Inventory {
    /// Names under which our module is delivered, each with [`FilterChain::is_buffered`] by its policy.
    modules: Vec<(String, Option<bool>)>,
    /// [`FilterChain::is_buffered`] by the policies of modules without a name.
    unnamed_modules: Vec<bool>,
    /// Names under which Istio's agent delivers a filter that denies everything, because it could not fetch the module.
    denying: Vec<String>,
    /// Names of filters that some route enables.
    enabled: Vec<String>,
    /// Chains with our filter.
    pub(super) chains: Vec<FilterChain>,
}

/// Filter chain with our filter in it.
#[derive(Clone)]
pub(super) struct FilterChain {
    /// Name of the route configuration, where routes are delivered on their own (RDS).
    pub(super) route_config: Option<String>,
    /// Name of our filter.
    pub(super) callbound: String,
    /// True where our filter judges only requests of routes that enable it.
    pub(super) is_disabled: bool,
    /// Name of the buffer filter that follows ours, and whether it holds only requests of routes that enable it.
    pub(super) buffer: Option<(String, bool)>,
    /// True where the policy leaves holding headers to the buffer filter; `None` where no policy was found.
    pub(super) is_buffered: Option<bool>,
}

impl Inventory {
    /// Collects from all documents of a configuration.
    pub(super) fn of(documents: &[Node]) -> Self {
        let mut inventory = Self::default();
        documents.iter().for_each(|document| inventory.add_modules(document));
        documents.iter().for_each(|document| inventory.add_chains(document));
        inventory
    }

    fn add_modules(&mut self, node: &Node) {
        self.add_module(node);
        if let Some(overrides) = node.get("typed_per_filter_config") {
            let enabled = overrides.members().into_iter().filter(|(_, config)| !is_disabled_by(config));
            self.enabled.extend(enabled.map(|(name, _)| name.to_owned()));
        }
        live_children(node).iter().for_each(|child| self.add_modules(child));
    }

    fn add_module(&mut self, node: &Node) {
        let hold = |config: &Node| policy(config).map(|policy| is_buffered(&policy));
        let named = node.text("name").zip(node.get("typed_config"));
        match named.as_ref().map(|(name, typed)| (*name, typed, wasm_config(typed))) {
            Some((name, _, Some(config))) if is_our_module(&config) => {
                self.modules.push((name.to_owned(), hold(&config)));
            }
            Some((name, typed, None)) if typed.message_type().ends_with("http.rbac.v3.RBAC") => {
                self.denying.push(name.to_owned());
            }
            _ => {
                let config = wasm_config(node).filter(is_our_module);
                self.unnamed_modules.extend(config.and_then(|config| hold(&config)));
            }
        }
    }

    fn add_chains(&mut self, node: &Node) {
        self.chains.extend(self.chain_of(node));
        live_children(node).iter().for_each(|child| self.add_chains(child));
    }

    /// Describes the chain of a connection manager; `None` where our filter is not in it.
    pub(super) fn chain_of(&self, manager: &Node) -> Option<FilterChain> {
        let filters = manager.list("http_filters");
        let index = self.position(&filters)?;
        let ours = filters.get(index)?;
        let buffer = filters.iter().skip(index + 1).find(|filter| is_buffer(filter));
        let name_of = |filter: &Node| filter.text("name").unwrap_or(BUFFER).to_owned();
        Some(FilterChain {
            route_config: manager.get("rds").and_then(|rds| rds.text("route_config_name")).map(str::to_owned),
            callbound: ours.text("name").unwrap_or_default().to_owned(),
            is_disabled: ours.flag("disabled"),
            buffer: buffer.map(|filter| (name_of(filter), filter.flag("disabled"))),
            is_buffered: self.is_buffered(ours),
        })
    }

    /// Finds our filter in a chain: the last of several.
    pub(super) fn position(&self, filters: &[Node]) -> Option<usize> {
        filters.iter().rposition(|filter| {
            let name = filter.text("name");
            name.is_some_and(|name| self.is_delivered(name) || is_our_name(name))
                || own_config(filter).is_some_and(|config| is_our_module(&config))
        })
    }

    /// Looks up whether our module is delivered under a name.
    pub(super) fn is_delivered(&self, name: &str) -> bool {
        self.modules.iter().any(|(known, _)| known == name)
    }

    /// Looks up whether a filter that denies everything is delivered under a name, in place of our module.
    pub(super) fn is_denying(&self, name: &str) -> bool {
        self.denying.iter().any(|known| known == name)
    }

    /// Looks up whether some route enables a filter.
    pub(super) fn is_enabled(&self, name: &str) -> bool {
        self.enabled.iter().any(|known| known == name)
    }

    /// Finds the policy of a chain's filter: its own, else that of the module with its name, else the only one there is.
    fn is_buffered(&self, filter: &Node) -> Option<bool> {
        if let Some(policy) = own_config(filter).and_then(|config| policy(&config)) {
            return Some(is_buffered(&policy));
        }
        let name = filter.text("name").unwrap_or_default();
        if let Some((_, hold)) = self.modules.iter().find(|(known, _)| known == name) {
            return *hold;
        }
        let named = self.modules.iter().filter_map(|(_, hold)| *hold);
        let mut all = named.chain(self.unnamed_modules.iter().copied());
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }
}

/// Returns members and items, without the sections of a config dump that are not in effect.
fn live_children<'a>(node: &Node<'a>) -> Vec<Node<'a>> {
    let live = node.members().into_iter().filter(|(name, member)| !is_superseded(name, member));
    live.map(|(_, member)| member).chain(node.items()).collect()
}

/// Recognizes a section of a config dump that is no longer in effect, never was, or repeats another section.
pub(super) fn is_superseded(name: &str, section: &Node) -> bool {
    let is_named =
        ["draining_state", REJECTED, "static_route_configs"].into_iter().any(|past| is(name, past));
    is_named || name == "bootstrap" && section.get("static_resources").is_some()
}
