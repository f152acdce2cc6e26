//! Problems of one document, each with its path and its fix.

use super::inventory::Inventory;
use super::yaml::Node;

/// Problems found so far in one document, and the facts that its checks depend on.
pub(super) struct Report<'k> {
    /// Filters and chains of all documents.
    pub(super) inventory: &'k Inventory,
    /// True for all of a running Envoy's `/config_dump`.
    pub(super) is_config_dump: bool,
    /// True for all or part of a running Envoy's `/config_dump`, where listeners of other services are found as well.
    pub(super) is_running: bool,
    /// Lines such as `static_resources.listeners[0]: problem; fix`; advice begins with `warning: `.
    pub(super) problems: Vec<String>,
}

impl Report<'_> {
    /// Adds a problem.
    pub(super) fn error(&mut self, node: &Node, problem: &str) {
        let path = if node.path.is_empty() { "(top)" } else { &node.path };
        self.problems.push(format!("{path}: {problem}"));
    }

    /// Adds advice, which is no error.
    pub(super) fn warn(&mut self, node: &Node, advice: &str) {
        self.problems.push(format!("warning: {}: {advice}", node.path));
    }
}
