//! Facts that the checks depend on: the policy, and whether Kong wrote the configuration.

use callbound::policy::{Policy, Secrets, compile};
use serde_json::Value;

use super::headers::CredentialHeaders;
use super::locations::Location;
use super::report::{Report, Severity};
use super::source::Configuration;
use super::syntax::Directive;

/// A compiled policy and its text.
pub struct Given<'p> {
    /// The compiled policy.
    pub policy: &'p Policy,
    /// Its text, as the module would get it.
    pub text: &'p str,
}

/// Facts about a configuration.
pub(super) struct Facts<'p> {
    /// True for the configuration of a Kong.
    pub(super) is_kong: bool,
    /// Names under which the block `wasm` loads callbound.
    pub(super) modules: Vec<String>,
    pub(super) policy: Option<PolicyFacts<'p>>,
}

/// Facts about the policy that a configuration is compared with.
pub(super) struct PolicyFacts<'p> {
    pub(super) policy: &'p Policy,
    pub(super) headers: CredentialHeaders,
}

impl<'p> Facts<'p> {
    pub(super) fn of(configuration: &Configuration, policy: Option<&'p Policy>) -> Self {
        let modules: Vec<String> = configuration
            .wasm("module")
            .filter(|module| module.arg(0) == "callbound" || module.arg(1).ends_with("callbound.wasm"))
            .map(|module| module.arg(0).to_owned())
            .collect();
        Self {
            is_kong: any(&configuration.directives, &|directive| is_kongs(directive, "Kong.access")),
            modules: if modules.is_empty() { vec!["callbound".to_owned()] } else { modules },
            policy: policy.map(|policy| PolicyFacts { policy, headers: CredentialHeaders::of(policy) }),
        }
    }

    /// Returns whether a `proxy_wasm` loads callbound.
    pub(super) fn is_ours(&self, filter: &Directive) -> bool {
        self.modules.iter().any(|name| name == filter.arg(0))
    }

    /// Returns the weight of a problem in a location: Kong has some that only certain services use.
    pub(super) fn severity(&self, location: &Location) -> Severity {
        let name = location.directive.args.last().map_or("", String::as_str);
        match self.is_kong && (name.starts_with('@') || name == "/kong_buffered_http") {
            true => Severity::Warning,
            false => Severity::Error,
        }
    }
}

/// Returns whether Lua code is a phase handler of Kong's own.
pub(super) fn is_kongs(directive: &Directive, function: &str) -> bool {
    directive.name.contains("_by_lua") && directive.lua().contains(function)
}

/// Returns whether any directive fits, at any depth.
fn any(directives: &[Directive], fits: &dyn Fn(&Directive) -> bool) -> bool {
    directives.iter().any(|directive| fits(directive) || any(directive.inner(), fits))
}

/// Finds a filter with a policy in the configuration.
pub(super) fn embedded(configuration: &Configuration) -> Option<&Directive> {
    fn find(directives: &[Directive]) -> Option<&Directive> {
        directives.iter().find_map(|directive| {
            let is_filter = directive.name == "proxy_wasm" && directive.arg(1).trim_start().starts_with('{');
            if is_filter { Some(directive) } else { find(directive.inner()) }
        })
    }
    find(&configuration.directives)
}

/// Compiles the policy in the configuration; one that is refused is a problem.
pub(super) fn compile_embedded(filter: &Directive, report: &mut Report) -> Option<Policy> {
    let compiled = compile(filter.arg(1).as_bytes(), &Secrets::Unchecked);
    if compiled.is_err() {
        report.error(
            filter,
            "the policy in it is refused, so every request would be 503; run `callbound check` on its file",
        );
    }
    compiled.ok()
}

/// Checks that the policy in the configuration is the given one.
pub(super) fn check_same(filter: &Directive, given: &Given, report: &mut Report) {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    if parse(filter.arg(1)) != parse(given.text) {
        report.error(filter, "has another policy than the given one; put it there with gateways/embed.py");
    }
}
