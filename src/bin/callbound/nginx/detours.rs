//! Directives by which a request goes round the filter, or gets an answer before it.

use super::facts::{Facts, is_kongs};
use super::locations::Location;
use super::report::Report;
use super::syntax::Directive;

const RETURNS: &str = "nginx answers before callbound; move it to a location that does not proxy";
const REWRITES: &str = "sends another path than the one that was judged, or to another location; remove it";
const TRIES_FILES: &str =
    "serves files, or sends the request to another location, before callbound; remove it";
const SATISFIES_ANY: &str =
    "a request that another check accepts is released although callbound refuses it; set it to `all`";
const ASKS: &str = "sends a subrequest, which no filter judges, with the client's headers; remove it";
const MIRRORS: &str = "sends a copy of the request, with the client's credentials, unjudged; remove it";
const POSTS: &str = "sends a second request, which no filter judges; remove it";
const LUA: &str = "Lua runs before callbound: it can answer, or change a request that is judged as it was";

/// Inherited directives that start a second request; their word `off` is harmless.
const SUBREQUESTS: [(&str, &str); 3] = [("auth_request", ASKS), ("mirror", MIRRORS), ("post_action", POSTS)];
/// Inherited Lua handlers of the phases before the filter.
const HANDLERS: [&str; 6] = [
    "server_rewrite_by_lua_block",
    "server_rewrite_by_lua_file",
    "rewrite_by_lua_block",
    "rewrite_by_lua_file",
    "access_by_lua_block",
    "access_by_lua_file",
];

impl Report {
    /// Checks that nothing leads round the filter of a location.
    pub(super) fn check_detours(&mut self, location: &Location, facts: &Facts) {
        let severity = facts.severity(location);
        for level in &location.rewriting {
            for (directive, message) in rewriting(level) {
                self.add(severity, directive, message);
            }
        }
        for files in location.own().iter().filter(|directive| directive.name == "try_files") {
            self.add(severity, files, TRIES_FILES);
        }
        if let Some(any) = location.value("satisfy").filter(|_| location.is_set("satisfy", "any")) {
            self.add(severity, any, SATISFIES_ANY);
        }
        for (name, message) in SUBREQUESTS {
            for directive in location.effective(name).iter().filter(|directive| directive.arg(0) != "off") {
                self.add(severity, directive, message);
            }
        }
        for page in location.effective("error_page").iter().filter(|page| !is_answer(page, location)) {
            self.add(severity, page, sends_refused(page));
        }
        for lua in HANDLERS.iter().filter_map(|name| location.value(name)) {
            if !is_kongs(lua, "Kong.") && lua.lua().trim() != ";" {
                self.warn(lua, LUA);
            }
        }
    }
}

/// Lists the `return` and `rewrite` of a level, also those under a condition.
fn rewriting(level: &[Directive]) -> Vec<(&Directive, &'static str)> {
    let found = level.iter().flat_map(|directive| match directive.name.as_str() {
        "return" => vec![(directive, RETURNS)],
        "rewrite" => vec![(directive, REWRITES)],
        "if" => rewriting(directive.inner()),
        _ => Vec::new(),
    });
    found.collect()
}

/// Returns whether an error page is an answer of nginx's own: its target is one location that proxies nothing.
fn is_answer(page: &Directive, location: &Location) -> bool {
    let target = page.args.last().map_or("", String::as_str);
    let is_target =
        |other: &&Directive| other.name == "location" && other.arg(0) == "=" && other.arg(1) == target;
    let found = location.server.inner().iter().find(is_target);
    let goes_on = |directive: &Directive| {
        directive.name.ends_with("_pass")
            || ["rewrite", "try_files", "error_page", "if"].contains(&directive.name.as_str())
    };
    found.is_some_and(|found| !found.inner().iter().any(goes_on))
}

fn sends_refused(page: &Directive) -> String {
    let target = page.args.last().map_or("", String::as_str);
    format!(
        "sends requests that callbound refused to `{target}`; remove it, or let it name a `location = {target}` that proxies nothing"
    )
}
