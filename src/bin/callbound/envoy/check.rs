//! `callbound check --envoy FILE`: checks that our filter has its place in every chain, and the settings it needs.
//!
//! Reads Envoy's own YAML or JSON (a bootstrap, a listener, an ECDS file, a single filter, a `/config_dump`) without its
//! schema: known members are found by name, in snake or camel case, and the rest is left to `envoy --mode validate`.

use serde_yaml_ng::Value;

use super::filters::{is_our_module, wasm_config};
use super::inventory::{FilterChain, Inventory, REJECTED, is_superseded};
use super::report::Report;
use super::yaml::{Node, is};

/// Lists the problems of each document of one Envoy configuration, with path and fix. Advice begins with `warning: `.
pub fn check_all(documents: &[String]) -> Vec<Vec<String>> {
    let parsed: Vec<Result<Value, _>> = documents.iter().map(|text| serde_yaml_ng::from_str(text)).collect();
    let roots: Vec<Node> = parsed.iter().flatten().map(Node::root).collect();
    let inventory = Inventory::of(&roots);
    let check = |document: &Result<Value, serde_yaml_ng::Error>| match document {
        Ok(value) => check_one(&Node::root(value), &inventory),
        Err(error) => vec![format!("not readable as one YAML or JSON document: {error}")],
    };
    parsed.iter().map(check).collect()
}

fn check_one(root: &Node, inventory: &Inventory) -> Vec<String> {
    let is_config_dump = root.get("configs").is_some();
    let is_running = is_config_dump || root.value.is_sequence();
    let report = Report { inventory, is_config_dump, is_running, problems: Vec::new() };
    let mut walk = Walk { report, others: Vec::new(), parts: 0 };
    walk.visit(root, None);
    walk.report_others();
    if walk.parts == 0 {
        walk.report.error(root, "no HTTP connection manager, no routes and no callbound filter found; give a bootstrap, a listener or the ECDS file");
    }
    walk.report.problems
}

/// Walk through one document.
struct Walk<'a> {
    report: Report<'a>,
    /// Chains without our filter.
    others: Vec<Node<'a>>,
    /// Number of connection managers, route configurations and modules of ours found.
    parts: usize,
}

impl<'a> Walk<'a> {
    /// Visits every mapping and list once, from the outside in. `around` is the chain that the node is part of.
    fn visit(&mut self, node: &Node<'a>, around: Option<&FilterChain>) {
        let own = self.report.inventory.chain_of(node);
        let chain = own.as_ref().or(around).or_else(|| self.chain_of_routes(node));
        self.check(node, chain);
        for (name, member) in node.members() {
            if !(self.report.is_config_dump && is_superseded(name, &member)) {
                self.visit(&member, chain);
            } else if is(name, REJECTED) {
                self.report.warn(&member, "Envoy rejected a newer configuration and keeps the one before");
            }
        }
        node.items().iter().for_each(|item| self.visit(item, chain));
    }

    /// Finds the chain of routes that are delivered on their own: the one that names them, or outside a config dump any.
    fn chain_of_routes(&self, routes: &Node) -> Option<&'a FilterChain> {
        routes.get("virtual_hosts")?;
        let chains = &self.report.inventory.chains;
        let named = routes
            .text("name")
            .and_then(|name| chains.iter().find(|chain| chain.route_config.as_deref() == Some(name)));
        named.or_else(|| chains.first().filter(|_| !self.report.is_running))
    }

    fn check(&mut self, node: &Node<'a>, chain: Option<&FilterChain>) {
        if let Some(filters) = node.get("http_filters").filter(|list| list.value.is_sequence()) {
            self.parts += 1;
            self.check_manager(node, filters, chain);
        }
        if let Some(config) = wasm_config(node).filter(is_our_module) {
            self.parts += 1;
            self.report.check_module(&config);
        }
        if let (Some(chain), Some(_)) = (chain, node.get("virtual_hosts")) {
            self.parts += 1;
            self.report.check_routes(node, chain);
        }
        if self.report.is_running && chain.is_none() {
            return; // Routes and retries of other services.
        }
        node.get("retry_policy").iter().for_each(|policy| self.report.check_retries(policy));
        let overrides = node.get("typed_per_filter_config");
        overrides.iter().for_each(|overrides| self.report.check_overrides(overrides, chain));
    }

    fn check_manager(&mut self, manager: &Node<'a>, filters: Node<'a>, chain: Option<&FilterChain>) {
        match chain {
            Some(chain) => self.report.check_chain(&filters, chain, false),
            None => self.others.push(filters),
        }
        if chain.is_some() || !self.report.is_running {
            self.report.check_manager(manager, chain);
        }
    }

    /// Reports chains without our filter. Each is a problem, except in a running Envoy, where other services have many.
    fn report_others(&mut self) {
        let others = std::mem::take(&mut self.others);
        if !self.report.is_running || self.report.inventory.chains.is_empty() {
            return others.iter().for_each(|filters| self.report.no_callbound(filters));
        }
        if let Some(first) = others.first() {
            let advice =
                "no callbound filter in this chain: its requests are not judged (number of such chains:";
            self.report.warn(first, &format!("{advice} {})", others.len()));
        }
    }
}
