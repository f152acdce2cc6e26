//! Routes: a method and a path template with what they require.
//!
//! Knows paths and what a route asks for. Refuses to know who is asking and what the body says.

use std::collections::BTreeMap;

use matchit::{Params, Router};

use crate::credential::CredentialLocation;
use crate::uri::decode_escapes;

use super::bound::{Bounds, FieldRef};
use super::limit::UsesRule;
use super::local::{IntrospectRule, ListingRule, MintRule, RevokeRule};
use super::place::{Pointer, RequestField};

/// The credentials a route accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Anyone, with or without a credential; nothing is verified.
    Public,
    /// The kinds listed.
    Credentials {
        /// API keys.
        api_key: bool,
        /// Tokens of these sources.
        tokens: Vec<TokenSource>,
    },
}

/// Who makes a kind of token, by place in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// A family minted here.
    Family(usize),
    /// Somebody else.
    Issuer(usize),
}

/// One route.
pub struct Route {
    /// What logs and metrics call it.
    pub id: String,
    /// Who is let in at all.
    pub accept: Accept,
    /// Where its credential stands, when not where all others do.
    pub carriers: Option<Vec<CredentialLocation>>,
    /// Whether it is a WebSocket handshake.
    pub is_upgrade: bool,
    /// The features that must be on, with those they require.
    pub features: Vec<String>,
    /// The scopes that must all be held.
    pub scopes: Vec<String>,
    /// The part of the request that names a team.
    pub tenant: Option<FieldRef>,
    /// Whether reads here may also see what is registered with the team above.
    pub read_parent: bool,
    /// What is judged of a call.
    pub bounds: Option<Bounds>,
    /// The longest session opened here, in seconds.
    pub session: Option<u64>,
    /// What the upstream is told beside who is asking.
    pub identify: Vec<Told>,
    /// The credential the upstream gets instead of the client's.
    pub present: Option<Present>,
    /// What the gateway answers itself.
    pub local: Option<LocalReply>,
    /// What using a token here takes.
    pub uses: UsesRule,
    /// The limits that are for it, by place in the policy.
    pub limits: Vec<usize>,
    /// How refusals are worded here, by place among the styles.
    pub style: usize,
}

impl Route {
    /// Tells whether the body must be read before the verdict.
    pub fn reads_body(&self) -> bool {
        matches!(self.local, Some(LocalReply::Mint(_) | LocalReply::Introspect(_) | LocalReply::Revoke(_)))
            || self.tenant.as_ref().is_some_and(|tenant| tenant.place.is_in_body())
            || self.bounds.as_ref().is_some_and(Bounds::reads_body)
    }

    /// Whether the value of a text bound is known only from the body.
    pub fn reads_in_body(&self, bound: usize) -> bool {
        let mut rules = self.bounds.iter().flat_map(|bounds| &bounds.texts);
        rules.any(|rule| rule.bound == bound && rule.direction.reads_body())
    }

    /// Whether it says anything of a text bound.
    pub fn speaks_of(&self, bound: usize) -> bool {
        self.bounds.as_ref().is_some_and(|bounds| bounds.declared.contains(&bound))
    }

    /// All places this route reads to judge a request.
    pub fn places(&self) -> impl Iterator<Item = &RequestField> {
        let tenant = self.tenant.iter().map(|member| &member.place);
        self.bounds.iter().flat_map(Bounds::places).chain(tenant)
    }

    /// All members of the body among them.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.places().filter_map(|place| match place {
            RequestField::Body(pointer) => Some(pointer),
            _ => None,
        })
    }

    /// Whether it hands out tokens that can be used up, or counts how often one was used.
    pub fn counts_uses(&self) -> bool {
        self.uses.max.is_some() || self.mint().is_some_and(MintRule::gives_counted)
    }

    /// How it mints, when it does.
    pub fn mint(&self) -> Option<&MintRule> {
        match &self.local {
            Some(LocalReply::Mint(rule)) => Some(rule),
            _ => None,
        }
    }
}

/// Something the upstream is told about what was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The value of a text bound.
    Bound(usize),
    /// The token's metadata.
    Metadata,
}

/// A credential of the platform's own that is presented to the upstream. Deliberately without `Debug`.
pub struct Present {
    /// Where: the query or a header.
    pub place: RequestField,
    /// The whole value.
    pub value: String,
}

/// A route the gateway answers itself.
pub enum LocalReply {
    /// With a new token.
    Mint(Box<MintRule>),
    /// With the state of a token.
    Introspect(IntrospectRule),
    /// By revoking what the body names.
    Revoke(RevokeRule),
    /// With what the directory holds.
    Listing(Box<ListingRule>),
    /// With a text that never changes: a key set.
    Document(Vec<u8>),
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
                    problems.push((index, format!("`{method} {template}` stands under a route already")));
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
                problems.push((first, format!("`{template}`: {error}")));
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
