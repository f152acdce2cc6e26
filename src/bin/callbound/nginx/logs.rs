//! Checks that no credential gets into nginx's logs.

use std::collections::BTreeSet;

use callbound::policy::Policy;

use super::facts::Facts;
use super::locations::Location;
use super::report::Report;
use super::source::Configuration;
use super::syntax::Directive;

const TOO_DETAILED: &str =
    "at this level nginx (1.23 and later) writes a doubled `authorization` header in full; set it to `warn`";
const DEFAULT_FORMAT: &str = "no `access_log` applies here, so nginx logs `$request`, whose query can have credentials; give one with a format without it";
const COMBINED: &str =
    "the format `combined` has `$request`, whose query can have credentials; give a format without it";

const WARNS: &str = "a malformed request is logged with its first line, whose query can have credentials, because `$callbound_decision` is not set by then; add `uninitialized_variable_warn off`";
const NO_LOG_VARIABLE: &str =
    "no `set $callbound_decision \"\"` in this server, so the access log has no decision; add it";

impl Report {
    /// Checks the level of every error log of `http` and above.
    pub(super) fn check_error_logs(&mut self, directives: &[Directive]) {
        for directive in directives {
            let level = directive.args.last().map_or("", String::as_str);
            if directive.name == "error_log" && (level == "info" || level.starts_with("debug")) {
                self.error(directive, TOO_DETAILED);
            }
            if !["mail", "stream"].contains(&directive.name.as_str()) {
                self.check_error_logs(directive.inner());
            }
        }
    }

    /// Checks the formats of a location's access logs.
    pub(super) fn check_access_log(
        &mut self,
        location: &Location,
        configuration: &Configuration,
        facts: &Facts,
    ) {
        let logs = location.effective("access_log");
        if logs.is_empty() {
            self.error(location.directive, DEFAULT_FORMAT);
        }
        for log in logs.into_iter().filter(|log| log.arg(0) != "off") {
            let name = if log.args.len() > 1 { log.arg(1) } else { "combined" };
            match format(configuration, name) {
                Some(format) => self.check_format(format, facts),
                None if name == "combined" => self.error(log, COMBINED),
                None => {
                    self.warn(log, format!("no `log_format {name}` was seen, so it could not be checked"))
                }
            }
        }
    }

    /// Checks the variable that takes the decision for the access log.
    pub(super) fn check_decision_variable(&mut self, location: &Location) {
        let is_declared =
            |directive: &Directive| directive.name == "set" && directive.arg(0) == "$callbound_decision";
        match location.server.inner().iter().find(|directive| is_declared(directive)) {
            None => self.warn(location.server, NO_LOG_VARIABLE),
            Some(_) if location.is_set("uninitialized_variable_warn", "off") => {}
            Some(set) => self.warn(set, WARNS),
        }
    }

    fn check_format(&mut self, format: &Directive, facts: &Facts) {
        let secret = secret_variables(facts.policy.as_ref().map(|facts| facts.policy));
        let text = format.args.iter().skip(1).map(String::as_str).collect::<String>();
        for name in variables(&text).into_iter().filter(|name| secret.contains(name)) {
            self.error(format, format!("`${name}` can have credentials; leave it out"));
        }
    }
}

fn format<'c>(configuration: &'c Configuration, name: &str) -> Option<&'c Directive> {
    let mut formats = configuration.top("http").flat_map(Directive::inner);
    formats.find(|directive| directive.name == "log_format" && directive.arg(0) == name)
}

/// Returns the names of variables that may hold a client's credential.
fn secret_variables(policy: Option<&Policy>) -> BTreeSet<String> {
    const ALWAYS: [&str; 5] = ["args", "http_authorization", "query_string", "request", "request_uri"];
    let mut names: BTreeSet<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
    let Some(policy) = policy else { return names };
    let of_routes = policy.routes.iter().flat_map(|route| route.locations.iter().flatten());
    for location in policy.locations.iter().chain(of_routes) {
        names.extend(location.header().map(|name| format!("http_{}", name.replace('-', "_"))));
        names.extend(location.parameter().map(|name| format!("arg_{name}")));
    }
    names
}

/// Lists the variables in a text, `$name` and `${name}`.
fn variables(text: &str) -> BTreeSet<String> {
    let name = |part: &str| -> String {
        let part = part.strip_prefix('{').unwrap_or(part);
        part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    text.split('$').skip(1).map(name).collect()
}
