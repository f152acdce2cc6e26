//! `callbound check --nginx FILE`: checks that every location that proxies is guarded, and the settings it needs.
//!
//! Reads nginx's own configuration, or all of it as `nginx -T` prints it. The syntax is read as nginx reads it; directives
//! without a meaning for callbound are left to `nginx -t`.

use callbound::policy::Policy;

use super::facts::{Facts, Given, check_same, compile_embedded, embedded};
use super::locations::Location;
use super::report::{Finding, Report, Severity};
use super::source::Configuration;
use super::syntax::{Directive, SyntaxError};

const NO_POLICY: &str = "no policy was given, so headers, secrets and formats could not be compared with one; add its file to the command";
const NOT_SEEN: &str = "this file was not seen; give the output of `nginx -T`, which has all files";
const NO_LOCATION: &str = "no location with `proxy_pass` was found, so there is nothing to guard; is it the output of `nginx -T`, which has all files?";
const STREAM: &str =
    "sends bytes to an upstream that no filter judges; remove it if that is the guarded service";
const BY_CHAINS: &str =
    "Kong's configuration; which services callbound guards is in Kong's filter chains, not here";
/// Lists the findings about a configuration. Without a policy, the one in the configuration is used.
pub fn check(name: &str, text: &str, given: Option<&Given<'_>>) -> Vec<Finding> {
    let mut report = Report::default();
    match Configuration::read(name, text) {
        Ok(configuration) => check_read(&configuration, given, &mut report),
        Err(SyntaxError { place, message }) => {
            let message = format!("line {}: not readable as nginx's configuration: {message}", place.line);
            report.whole(Severity::Error, &place.file, message);
        }
    }
    report.findings
}

fn check_read(configuration: &Configuration, given: Option<&Given<'_>>, report: &mut Report) {
    let form = match configuration.dumped {
        Some(1) => "read as the output of `nginx -T`, with 1 file".to_owned(),
        Some(files) => format!("read as the output of `nginx -T`, with {files} files"),
        None => "read as one configuration file".to_owned(),
    };
    report.whole(Severity::Note, &configuration.name, form);
    let filter = embedded(configuration);
    if let (Some(filter), Some(given)) = (filter, given) {
        check_same(filter, given, report);
    }
    let own = filter.filter(|_| given.is_none()).and_then(|filter| compile_embedded(filter, report));
    let policy = given.map(|given| given.policy).or(own.as_ref());
    let facts = Facts::of(configuration, policy);
    check_policy(configuration, &facts, policy, report);
    configuration.unseen.iter().for_each(|include| report.warn(include, NOT_SEEN));
    check_locations(configuration, &facts, report);
    report.check_error_logs(&configuration.directives);
    report.check_process(configuration, &facts);
    report.note_listeners(configuration);
}

/// Checks that there is a policy to compare with, and that it is for this host.
fn check_policy(configuration: &Configuration, facts: &Facts, policy: Option<&Policy>, report: &mut Report) {
    let expected = if facts.is_kong { "kong" } else { "nginx" };
    match policy.map(|policy| policy.host.name) {
        None => report.whole(Severity::Warning, &configuration.name, NO_POLICY),
        Some(host) if host != expected => report.whole(
            Severity::Error,
            &configuration.name,
            format!("the policy is for `{host}`; write `\"host\": \"{expected}\"`"),
        ),
        Some(_) => {}
    }
    if facts.is_kong {
        report.whole(Severity::Note, &configuration.name, BY_CHAINS);
    }
}

/// Warns of `stream` servers that proxy: their bytes are no requests to any filter, and may go to the guarded service.
fn check_streams(configuration: &Configuration, report: &mut Report) {
    let named = |directives, name: &'static str| {
        let directives: &[Directive] = directives;
        directives.iter().filter(move |directive| directive.name == name)
    };
    let servers =
        named(&configuration.directives, "stream").flat_map(|stream| named(stream.inner(), "server"));
    for pass in servers.flat_map(|server| named(server.inner(), "proxy_pass")) {
        report.warn(pass, STREAM);
    }
}

fn check_locations(configuration: &Configuration, facts: &Facts, report: &mut Report) {
    let locations = Location::all(&configuration.directives);
    if locations.is_empty() {
        report.whole(Severity::Error, &configuration.name, NO_LOCATION);
    }
    check_streams(configuration, report);
    for location in &locations {
        report.check_guard(location, facts);
        report.check_detours(location, facts);
        report.check_access_log(location, configuration, facts);
        if !facts.is_kong {
            report.check_decision_variable(location);
        }
    }
}
