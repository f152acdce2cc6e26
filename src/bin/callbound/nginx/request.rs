//! Checks that nginx sends the request that callbound judged: its path and query, method, body and headers.

use callbound::header::OWN_PREFIX;

use super::facts::Facts;
use super::locations::Location;
use super::report::Report;
use super::syntax::Directive;

const CLIENTS_QUERY: &str =
    "sends the client's own query, with its credentials; end the address with `$upstream_uri`";
const OTHER_ADDRESS: &str = "sends another request than the one that was judged, or lets the client choose the server; write one address and `$upstream_uri`, as in `http://127.0.0.1:8080$upstream_uri`";
const NO_UPSTREAM_URI: &str = "no `set $upstream_uri $request_uri` in this server: callbound takes credentials out of the query there; add it";
const OTHER_UPSTREAM_URI: &str = "undoes what callbound changes in this variable, or sends another path; `set $upstream_uri $request_uri;` stands once, in the server itself";
const OWN_HEADER: &str = "replaces a header by which callbound tells the upstream who calls; remove it";
const INVALID_NAMES: &str =
    "headers with such names pass callbound unseen or cannot be emptied; remove it (`on` is the default)";
const OTHER_METHOD: &str = "sends another method than the one that was judged; remove it";
const OTHER_BODY: &str = "sends another body than the one that was judged; remove it";
const CACHED: &str = "answers one caller with what another got, without callbound; remove it";

/// Inherited directives that change the request or answer in its place; their word `off` is harmless.
const CHANGES: [(&str, &str); 3] =
    [("proxy_method", OTHER_METHOD), ("proxy_set_body", OTHER_BODY), ("proxy_cache", CACHED)];

impl Report {
    pub(super) fn check_request(&mut self, location: &Location, facts: &Facts) {
        if location.is_set("ignore_invalid_headers", "off") {
            location
                .value("ignore_invalid_headers")
                .into_iter()
                .for_each(|off| self.error(off, INVALID_NAMES));
        }
        for line in location.effective("proxy_set_header").iter().filter(|line| is_own(line.arg(0))) {
            self.error(line, OWN_HEADER);
        }
        for (name, message) in CHANGES {
            location
                .value(name)
                .filter(|change| change.arg(0) != "off")
                .into_iter()
                .for_each(|change| self.error(change, message));
        }
        if location.is_set("proxy_pass_request_body", "off") {
            location.value("proxy_pass_request_body").into_iter().for_each(|off| self.error(off, OTHER_BODY));
        }
        if !facts.is_kong {
            self.check_address(location);
            self.check_upstream_uri(location.server);
        }
    }

    /// Checks that the address is fixed and followed by the path and query that callbound has changed.
    fn check_address(&mut self, location: &Location) {
        let address = location.pass.arg(0);
        let server =
            address.strip_suffix("$upstream_uri").or_else(|| address.strip_suffix("${upstream_uri}"));
        let host = server.map(|server| server.split_once("://").map_or("", |(_, host)| host));
        match host {
            None => self.error(location.pass, CLIENTS_QUERY),
            Some(host) if host.is_empty() || host.contains(['$', '/']) => {
                self.error(location.pass, OTHER_ADDRESS)
            }
            Some(_) => {}
        }
    }

    fn check_upstream_uri(&mut self, server: &Directive) {
        let mut all = Vec::new();
        collect_sets(server, &mut all);
        let (right, wrong): (Vec<&Directive>, Vec<&Directive>) = all.into_iter().partition(|set| {
            set.arg(1) == "$request_uri" && server.inner().iter().any(|own| std::ptr::eq(own, *set))
        });
        if right.is_empty() {
            self.error(server, NO_UPSTREAM_URI);
        }
        wrong
            .into_iter()
            .chain(right.into_iter().skip(1))
            .for_each(|set| self.error(set, OTHER_UPSTREAM_URI));
    }
}

/// Collects what sets `$upstream_uri`, at any depth.
fn collect_sets<'c>(block: &'c Directive, found: &mut Vec<&'c Directive>) {
    for directive in block.inner() {
        if directive.name == "set" && matches!(directive.arg(0), "$upstream_uri" | "${upstream_uri}") {
            found.push(directive);
        }
        collect_sets(directive, found);
    }
}

fn is_own(name: &str) -> bool {
    let folded = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
    folded.starts_with(OWN_PREFIX)
}
