//! All routes together: the table of paths and methods, and what routes refer to.

use std::collections::BTreeMap;

use matchit::{InsertError, Params, Router};

use super::families::CompiledFamily;
use super::ids::check_id;
use super::platform::Platform;
use super::reader::{List, Members, Raw, Reader};
use super::route::{Accept, Route, RouteDocument, TokenSource};
use super::text_bounds::TextBound;
use super::upstream_credentials::UpstreamCredentials;
use crate::credential::{CredentialLocation, Issuer};
use crate::json::Json;
use crate::uri::{decode_escapes, fold};

/// Compiled sections that routes and limits refer to by name.
pub(super) struct Definitions<'a> {
    pub(super) platform: &'a Platform,
    pub(super) bounds: &'a [TextBound],
    pub(super) families: &'a [CompiledFamily<'a>],
    pub(super) issuers: &'a [Issuer],
    /// Names of all issuers, including those with a fault.
    pub(super) issuer_names: Vec<&'a str>,
    pub(super) locations: &'a [CredentialLocation],
    pub(super) forwards_credential: bool,
    pub(super) upstream_credentials: &'a UpstreamCredentials,
    pub(super) constants: &'a Members<Raw>,
    pub(super) refusal_groups: Vec<&'a str>,
}

impl Definitions<'_> {
    /// Finds the family or issuer of a name.
    pub(super) fn token_source(&self, name: &str) -> Option<TokenSource> {
        let family = self.families.iter().position(|family| family.family.name == name);
        let issuer = || self.issuers.iter().position(|issuer| issuer.name == name).map(TokenSource::Issuer);
        family.map(TokenSource::Family).or_else(issuer)
    }

    /// Returns the names of all families.
    pub(super) fn family_names(&self) -> impl Iterator<Item = &str> {
        self.families.iter().map(|family| family.family.name.as_str())
    }

    /// Returns every name that routes accept credentials by.
    pub(super) fn credential_names(&self) -> impl Iterator<Item = &str> {
        self.family_names().chain(self.issuer_names.iter().copied()).chain(["api_key"])
    }

    /// Returns the places of families; unknown ones are reported.
    pub(super) fn family_indices(&self, names: &List<String>, at: &Reader<'_>) -> Vec<usize> {
        let index = |(at, name): (Reader<'_>, &String)| {
            at.check_listed(name, "tokens", self.family_names());
            self.families.iter().position(|family| family.family.name == *name)
        };
        names.each(at).filter_map(index).collect()
    }

    /// Returns names with those of all text bounds.
    pub(super) fn with_bounds(&self, names: &[&str]) -> Vec<String> {
        let bounds = self.bounds.iter().map(|bound| bound.name.clone());
        names.iter().map(|name| (*name).to_owned()).chain(bounds).collect()
    }

    /// Writes the public keys of families as a JWK set (RFC 7517 section 5); a secret is never in it.
    pub(super) fn key_set(&self, names: &List<String>, at: &Reader<'_>) -> Vec<u8> {
        let mut keys: Vec<Json<'static>> = Vec::new();
        for family in self.family_indices(names, at).into_iter().filter_map(|index| self.families.get(index))
        {
            if !family.has_public_key {
                at.refuse(format!(
                    "`{}` has only secret keys: no one else can verify its tokens",
                    family.family.name
                ));
            }
            for key in family.family.public_keys().filter(|key| !keys.contains(key)).collect::<Vec<_>>() {
                if keys.iter().any(|other| other.get("kid") == key.get("kid")) {
                    at.refuse("two of these families have different keys of one `kid`: give each its own");
                }
                keys.push(key);
            }
        }
        serde_json::to_vec(&Json::Object(vec![("keys".into(), Json::Array(keys))])).unwrap_or_default()
    }
}

/// Compiles the routes with the methods and paths they are for.
pub(super) fn compile(
    documents: &List<RouteDocument>,
    definitions: &Definitions<'_>,
    at: &Reader<'_>,
) -> Vec<(Route, Vec<Match>)> {
    let mut list: Vec<(Route, Vec<Match>)> = Vec::new();
    for (at, document) in documents.each(at) {
        check_id(&document.id, &at.member("id"));
        let is_taken = list.iter().any(|(other, _)| other.id == document.id);
        at.member("id").check_unique("route id", &document.id, is_taken);
        list.push(document.compile(definitions, &at));
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

/// A method and a path template.
pub(super) type Match = (String, String);

/// Reads `METHOD /path` texts.
pub(super) fn read_matches(texts: &List<String>, at: &Reader<'_>) -> Vec<Match> {
    let read = |(at, text): (Reader<'_>, &String)| {
        let split = text.split_once(' ').filter(|(method, template)| {
            let fits =
                |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b';' | b'\\');
            let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
            is_method && template.bytes().all(fits) && is_canonical(template) && has_unique_params(template)
        });
        if split.is_none() {
            at.refuse("expected `METHOD /path`, as in `GET /v1/calls/{id}`");
        }
        split.map(|(method, template)| (method.to_owned(), template.to_owned()))
    };
    texts.each(at).filter_map(read).collect()
}

/// Returns whether a request path can match: a template without one would guard nothing.
fn is_canonical(template: &str) -> bool {
    template
        .strip_prefix('/')
        .is_some_and(|rest| !rest.split('/').any(|segment| matches!(segment, "." | "..")))
        && !template.contains("//")
        && !template.contains("{{")
}

/// Returns whether every parameter has a name of its own.
fn has_unique_params(template: &str) -> bool {
    let mut names: Vec<&str> =
        template.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() == count
}

/// How a policy writes "every method that has no route of its own".
pub const ANY_METHOD: &str = "ANY";

/// The methods of a template, each with the place of its route.
type Methods = Vec<(String, usize)>;

/// All routes, by path and method.
#[derive(Default)]
pub struct Routes {
    list: Vec<Route>,
    table: Router<Methods>,
    mint_templates: Vec<String>,
    /// The templates of routes that ask for a credential, folded.
    guarded: Router<Methods>,
}

/// The route of a request, with its path parameters.
pub struct RouteMatch<'r, 'p> {
    /// The route.
    pub route: &'r Route,
    /// Its place among the routes.
    pub index: usize,
    params: Params<'r, 'p>,
}

impl RouteMatch<'_, '_> {
    /// Returns a path parameter, as it stands in the path.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)
    }
}

impl Routes {
    /// Builds the table from routes and the `(method, template)` pairs they stand under.
    ///
    /// # Errors
    ///
    /// Every template that cannot stand beside the others: the place of its route, and why.
    pub(super) fn build(routes: Vec<(Route, Vec<(String, String)>)>) -> Result<Self, Vec<(usize, String)>> {
        let mut by_template: BTreeMap<String, Methods> = BTreeMap::new();
        let mut problems = Vec::new();
        let mut list = Vec::with_capacity(routes.len());
        let mut mint_templates = Vec::new();
        for (index, (route, matches)) in routes.into_iter().enumerate() {
            for (method, template) in matches {
                if route.mint().is_some() {
                    mint_templates.push(template.clone());
                }
                let methods = by_template.entry(template.clone()).or_default();
                if methods.iter().any(|(other, _)| *other == method) {
                    problems.push((index, format!("another route has `{method} {template}`")));
                }
                methods.push((method, index));
            }
            list.push(route);
        }
        let mut table = Router::new();
        let mut guarded = Router::new();
        let is_guarded =
            |index: &usize| list.get(*index).is_some_and(|route: &Route| route.accept != Accept::Public);
        for (template, methods) in by_template {
            if methods.iter().any(|(_, index)| is_guarded(index)) {
                // Two templates that fold alike are one guard.
                let _ = guarded.insert(fold_path(&template), Methods::new());
            }
            let first = methods.first().map_or(0, |(_, index)| *index);
            if let Err(error) = table.insert(template.clone(), methods) {
                let other = match error {
                    InsertError::Conflict { with } => format!("conflicts with `{with}`"),
                    other => other.to_string().to_lowercase(),
                };
                problems.push((first, format!("`{template}` {other}")));
            }
        }
        if problems.is_empty() { Ok(Self { list, table, mint_templates, guarded }) } else { Err(problems) }
    }

    /// Finds the route of a method and a path without its query.
    pub fn find<'r, 'p>(&'r self, method: &str, path: &'p str) -> Option<RouteMatch<'r, 'p>> {
        let found = self.table.at(path).ok()?;
        let index_of =
            |name: &str| found.value.iter().find_map(|(known, index)| (known == name).then_some(*index));
        let index = index_of(method).or_else(|| index_of(ANY_METHOD))?;
        Some(RouteMatch { route: self.list.get(index)?, index, params: found.params })
    }

    /// Whether a path is, or is taken by a forgiving reader for, one of a route that asks for a credential.
    pub fn is_guarded(&self, path: &str) -> bool {
        self.guarded.at(&fold_path(path)).is_ok()
    }

    /// Whether a path only looks like one of a route that asks for a credential.
    pub fn is_lookalike(&self, path: &str) -> bool {
        let folded = fold_path(path);
        folded != path && self.guarded.at(&folded).is_ok()
    }

    /// All routes, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.list.iter()
    }

    /// The templates of all routes that mint.
    pub fn mint_templates(&self) -> impl Iterator<Item = &str> {
        self.mint_templates.iter().map(String::as_str)
    }

    /// One route.
    pub fn get(&self, index: usize) -> Option<&Route> {
        self.list.get(index)
    }
}

/// Folds a path the way a forgiving upstream might: without case, closing slash and escapes.
fn fold_path(path: &str) -> String {
    let folded = String::from_utf8_lossy(&decode_escapes(path)).to_ascii_lowercase();
    match folded.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}
