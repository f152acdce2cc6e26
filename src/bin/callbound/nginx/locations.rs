//! Locations that proxy, with the levels from which they inherit.

use super::syntax::Directive;

/// Directives that send a request to an upstream.
const PASSES: [&str; 6] =
    ["fastcgi_pass", "grpc_pass", "memcached_pass", "proxy_pass", "scgi_pass", "uwsgi_pass"];

/// A location, or a condition in one, that sends requests to an upstream.
pub(super) struct Location<'c> {
    /// The `location` or `if` itself.
    pub(super) directive: &'c Directive,
    /// Directive that names the upstream.
    pub(super) pass: &'c Directive,
    /// The server around it.
    pub(super) server: &'c Directive,
    /// Levels from `http` to the location; directives are inherited along them.
    levels: Vec<&'c [Directive]>,
    /// Levels whose `return` and `rewrite` run for a request here: the server and the location itself.
    pub(super) rewriting: Vec<&'c [Directive]>,
}

impl<'c> Location<'c> {
    /// Lists the locations of a configuration that proxy.
    pub(super) fn all(directives: &'c [Directive]) -> Vec<Self> {
        let mut found = Vec::new();
        for http in directives.iter().filter(|directive| directive.name == "http") {
            for server in http.inner().iter().filter(|directive| directive.name == "server") {
                let around = Around { server, levels: vec![http.inner()], location: &[] };
                around.collect(server, &mut found);
            }
        }
        found
    }

    /// Returns the directives of a name that are in force: those of the innermost level that has one.
    pub(super) fn effective(&self, name: &str) -> Vec<&'c Directive> {
        let of_level = |level: &&'c [Directive]| -> Vec<&'c Directive> {
            level.iter().filter(|directive| directive.name == name).collect()
        };
        self.levels.iter().rev().map(of_level).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Returns the directive of a name that is in force, for those that a level has once.
    pub(super) fn value(&self, name: &str) -> Option<&'c Directive> {
        self.effective(name).last().copied()
    }

    /// Returns whether the word of a flag is in force.
    pub(super) fn is_set(&self, name: &str, word: &str) -> bool {
        self.value(name).is_some_and(|directive| directive.arg(0) == word)
    }

    /// Returns the directives of the location itself.
    pub(super) fn own(&self) -> &'c [Directive] {
        self.directive.inner()
    }
}

/// Blocks around a directive.
#[derive(Clone)]
struct Around<'c> {
    server: &'c Directive,
    levels: Vec<&'c [Directive]>,
    /// Directives of the innermost location.
    location: &'c [Directive],
}

impl<'c> Around<'c> {
    fn collect(&self, block: &'c Directive, found: &mut Vec<Location<'c>>) {
        let inner = block.inner();
        let mut here = self.clone();
        here.levels.push(inner);
        if block.name == "location" {
            here.location = inner;
        }
        if let Some(pass) = inner.iter().find(|directive| PASSES.contains(&directive.name.as_str())) {
            let rewriting = vec![here.server.inner(), here.location];
            let (directive, server, levels) = (block, here.server, here.levels.clone());
            found.push(Location { directive, pass, server, levels, rewriting });
        }
        let is_level =
            |directive: &&Directive| ["if", "limit_except", "location"].contains(&directive.name.as_str());
        inner.iter().filter(is_level).for_each(|block| here.collect(block, found));
    }
}
