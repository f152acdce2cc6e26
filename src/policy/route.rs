//! Routes: a method and a path template with what they require.
//!
//! Knows paths and what a route asks for. Refuses to know who is asking and what the body says.

use std::collections::BTreeMap;

use matchit::{Params, Router};

use super::template::Template;

/// The credentials a route accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Anyone, with or without a credential; nothing is verified.
    Public,
    /// The kinds listed.
    Credentials {
        /// API keys.
        api_key: bool,
        /// Tokens of these families, by place in the policy.
        families: Vec<usize>,
    },
}

/// One route.
pub struct Route {
    /// What logs and metrics call it.
    pub id: String,
    /// Who is let in at all.
    pub accept: Accept,
    /// The feature that must be on.
    pub feature: Option<String>,
    /// The scopes that must all be held.
    pub scopes: Vec<String>,
    /// The part of the request that names a team.
    pub tenant: Option<Tenant>,
    /// Whether reads here may also see what is registered with the team above.
    pub read_parent: bool,
    /// What is judged of a call.
    pub bounds: Option<Bounds>,
    /// How this route mints, when it does.
    pub mint: Option<MintRule>,
}

impl Route {
    /// Tells whether the body must be read before the verdict.
    pub fn reads_body(&self) -> bool {
        self.mint.is_some() || self.bounds.as_ref().is_some_and(Bounds::reads_body)
    }
}

/// The part of a request that names a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenant {
    /// The path parameter of this name.
    Path(String),
}

/// What a call-placing route reads to judge caller and destination.
#[derive(Debug)]
pub struct Bounds {
    /// Who calls.
    pub from: Direction,
    /// Who is called.
    pub to: Direction,
    /// When set, the only further members the body may have.
    pub closed: Option<Vec<String>>,
}

impl Bounds {
    fn reads_body(&self) -> bool {
        !self.from.members.is_empty() || !self.to.members.is_empty()
    }

    /// All pointers this route reads.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.from.pointers().chain(self.to.pointers())
    }
}

/// The members that carry one direction.
#[derive(Debug)]
pub struct Direction {
    /// Where the numbers stand; none = the gateway cannot read them, and bounded credentials are refused.
    pub members: Vec<Member>,
    /// Members whose presence leaves the choice of the number to the upstream.
    pub chosen_by: Vec<Pointer>,
    /// The members are checked for what nobody may call, but they are not all there is: bounded credentials are
    /// refused.
    pub screen_only: bool,
}

impl Direction {
    fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.members.iter().map(|member| &member.pointer).chain(&self.chosen_by)
    }
}

/// One member that carries a number.
#[derive(Debug)]
pub struct Member {
    /// Where it stands.
    pub pointer: Pointer,
    /// Whether it may be absent.
    pub optional: bool,
}

/// A JSON pointer (RFC 6901) to a member of nested objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer to a member; `None` unless it begins with `/` and names a member.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let tokens: Vec<String> =
            rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        let has_bad_escape = rest.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
        // An index would point into an array, and arrays are never read.
        let has_index = tokens.iter().any(|token| token.bytes().all(|byte| byte.is_ascii_digit()));
        (!has_bad_escape && !has_index && tokens.iter().all(|token| !token.is_empty()))
            .then_some(Self(tokens))
    }

    /// The names of the objects on the way.
    pub fn parents(&self) -> &[String] {
        self.0.split_last().map_or(&[], |(_, parents)| parents)
    }

    /// The name of the member itself.
    pub fn name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

/// How a route mints.
pub struct MintRule {
    /// The family of the new token.
    pub family: usize,
    /// The member that asks for caller IDs.
    pub from: Option<SizedList>,
    /// The member that asks for destinations.
    pub to: Option<SizedList>,
    /// The member that asks for scopes.
    pub scopes: Option<SizedList>,
    /// The member that asks for a lifetime in seconds.
    pub ttl: Option<String>,
    /// The feature that must be on for the owner of every caller ID, as for the route itself.
    pub feature: Option<String>,
    /// What is given when no scopes are asked for.
    pub default_scopes: Vec<String>,
    /// The only scopes a token may carry; `None` = any its key holds, except those that mint.
    pub mintable_scopes: Option<Vec<String>>,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub body: Template,
}

/// A member of a mint request that holds a list.
#[derive(Debug)]
pub struct SizedList {
    /// Its name.
    pub member: String,
    /// Whether it must be there.
    pub required: bool,
    /// The most entries it may have.
    pub max: usize,
    /// Whether an empty list is the same as no list; refused otherwise.
    pub empty_is_absent: bool,
}

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
                if route.mint.is_some() {
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
        let index = found.value.iter().find_map(|(known, index)| (known == method).then_some(*index))?;
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

/// Decodes percent-escapes (RFC 3986 section 2.1), leaving what is none as it is.
pub fn decode_escapes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let byte = escaped_byte(after);
        bytes.push(byte.unwrap_or(b'%'));
        rest = byte.and_then(|_| after.get(2..)).unwrap_or(after);
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Reads the two hex digits behind a `%`.
pub fn escaped_byte(after: &str) -> Option<u8> {
    let hex = after.get(..2).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(hex, 16).ok()
}

/// Folds a member's name the way a forgiving reader might: without case, and without anything but ASCII letters and
/// digits (`To_Number`, `to-number`, `toNumber` and `to[]number` are one name). Case folding maps two characters from
/// outside ASCII into it (Unicode CaseFolding: long s and the Kelvin sign).
pub fn fold(name: &str) -> String {
    name.chars()
        .filter_map(|c| match c {
            'ſ' => Some('s'),
            '\u{212a}' => Some('k'),
            _ => c.is_ascii_alphanumeric().then_some(c.to_ascii_lowercase()),
        })
        .collect()
}
