//! All routes together: the table of paths and methods, and what routes refer to.

use std::collections::BTreeMap;
use std::rc::Rc;

use matchit::{InsertError, Params, Router};

use super::accept::Accept;
use super::ids::check_id;
use super::path_templates::{ANY_METHOD, Match};
use super::reader::{List, Reader};
use super::route::{Route, RouteDocument};
use super::route_checks::check;
use super::route_definitions::RouteDefinitions;
use crate::uri::{decode_escapes, fold};

/// Compiles the routes with the methods and paths they are for.
pub(super) fn compile(
    documents: &List<RouteDocument>,
    definitions: &RouteDefinitions<'_>,
    at: &Reader<'_>,
) -> Vec<(Route, Vec<Match>)> {
    let mut list: Vec<(Route, Vec<Match>)> = Vec::new();
    for (at, document) in documents.each(at) {
        check_id(&document.id, &at.member("id"));
        let is_taken = list.iter().any(|(other, _)| other.id == document.id);
        at.member("id").check_unique("route id", &document.id, is_taken);
        let (route, matches) = document.compile(definitions, &at);
        check(&route, &matches, definitions, &at);
        list.push((route, matches));
    }
    list
}

/// Returns the folded names of callers and destinations: those that routes read, and those of `vocabulary`.
pub(super) fn vocabulary<'n>(
    routes: &[(Route, Vec<Match>)],
    further: impl Iterator<Item = &'n String>,
) -> Vec<String> {
    let calls = routes.iter().filter_map(|(route, _)| route.bounds.as_ref()?.call.as_ref());
    let members = calls.flat_map(|call| call.from.members.iter().chain(&call.to.members));
    let further = further.map(|name| fold(name));
    let mut names: Vec<String> = members.map(|member| fold(member.place.name())).chain(further).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Methods of a template, each with its route.
type Methods = Vec<(String, Rc<Route>)>;

/// All routes, by path and method.
#[derive(Default)]
pub struct Routes {
    list: Vec<Rc<Route>>,
    table: Router<Methods>,
    mint_templates: Vec<String>,
    /// Scopes of the routes that mint.
    mint_scopes: Vec<String>,
    /// Folded templates of the routes that require a credential, without methods. One type for both tables keeps the
    /// module 15 KiB smaller.
    guarded: Router<Methods>,
}

/// The route of a request, with its path parameters.
pub struct RouteMatch<'r, 'p> {
    /// The matching route.
    pub route: &'r Rc<Route>,
    params: Params<'r, 'p>,
}

impl RouteMatch<'_, '_> {
    /// Returns a path parameter as the path has it, not decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }
}

impl Routes {
    /// Builds the table from routes and their `(method, template)` pairs.
    ///
    /// # Errors
    ///
    /// Every template that conflicts with another: the place of its route, and the message.
    pub(super) fn build(routes: Vec<(Route, Vec<(String, String)>)>) -> Result<Self, Vec<(usize, String)>> {
        // With the place of the first route, for messages.
        let mut by_template: BTreeMap<String, (usize, Methods)> = BTreeMap::new();
        let mut problems = Vec::new();
        let mut list = Vec::with_capacity(routes.len());
        let mut mint_templates = Vec::new();
        for (index, (route, matches)) in routes.into_iter().enumerate() {
            let route = Rc::new(route);
            for (method, template) in matches {
                if route.mint().is_some() {
                    mint_templates.push(template.clone());
                }
                let (_, methods) =
                    by_template.entry(template.clone()).or_insert_with(|| (index, Methods::new()));
                if methods.iter().any(|(other, _)| *other == method) {
                    problems.push((index, format!("another route has `{method} {template}`")));
                }
                methods.push((method, Rc::clone(&route)));
            }
            list.push(route);
        }
        let mut table = Router::new();
        let mut guarded = Router::new();
        for (template, (first, methods)) in by_template {
            if methods.iter().any(|(_, route)| route.accept != Accept::Public) {
                // Two templates that fold alike are one guard.
                let _ = guarded.insert(fold_path(&template), Methods::new());
            }
            if let Err(error) = table.insert(template.clone(), methods) {
                let other = match error {
                    InsertError::Conflict { with } => format!("conflicts with `{with}`"),
                    other => other.to_string().to_lowercase(),
                };
                problems.push((first, format!("`{template}` {other}")));
            }
        }
        let mint_scopes =
            list.iter().filter(|route| route.mint().is_some()).flat_map(|route| route.scopes.clone());
        let mint_scopes = mint_scopes.collect();
        let routes = Self { list, table, mint_templates, mint_scopes, guarded };
        if problems.is_empty() { Ok(routes) } else { Err(problems) }
    }

    /// Finds the route of a method and a path without its query.
    pub fn find<'r, 'p>(&'r self, method: &str, path: &'p str) -> Option<RouteMatch<'r, 'p>> {
        let found = self.table.at(path).ok()?;
        let of_method =
            |name: &str| found.value.iter().find_map(|(known, route)| (known == name).then_some(route));
        let route = of_method(method).or_else(|| of_method(ANY_METHOD))?;
        Some(RouteMatch { route, params: found.params })
    }

    /// Returns whether a lenient upstream could take a path for one of a route that requires a credential.
    pub fn is_guarded(&self, path: &str) -> bool {
        self.guarded.at(&fold_path(path)).is_ok()
    }

    /// Returns whether a path differs from that of a route with a credential only in spelling.
    pub fn is_lookalike(&self, path: &str) -> bool {
        let folded = fold_path(path);
        folded != path && self.guarded.at(&folded).is_ok()
    }

    /// Returns all routes, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.list.iter().map(Rc::as_ref)
    }

    /// Returns the scopes of all routes that mint.
    pub fn mint_scopes(&self) -> &[String] {
        &self.mint_scopes
    }

    /// Returns the templates of all routes that mint.
    pub fn mint_templates(&self) -> impl Iterator<Item = &str> {
        self.mint_templates.iter().map(String::as_str)
    }
}

/// Folds a path as a lenient upstream might: without case, closing slash and escapes.
fn fold_path(path: &str) -> String {
    let folded = String::from_utf8_lossy(&decode_escapes(path)).to_ascii_lowercase();
    match folded.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}
