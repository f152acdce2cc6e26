//! Requirements that the parts of a route, and all routes together, must meet.

use std::rc::Rc;

use super::accept::{Accept, TokenSource};
use super::api_keys::Keys;
use super::bounds::Bounds;
use super::fields::RequestField;
use super::path_templates::Match;
use super::reader::Reader;
use super::route::{ForwardedField, LocalReply, Route};
use super::route_definitions::RouteDefinitions;
use super::teams::Tree;
use super::text_bounds::TextBound;
use super::upstream_credentials::InsertedCredential;
use crate::credential::{CredentialLocation, Family};
use crate::uri::fold;

/// Checks the parts of one route against each other.
pub(super) fn check(route: &Route, matches: &[Match], definitions: &RouteDefinitions<'_>, at: &Reader<'_>) {
    let bounds = route.bounds.as_ref();
    let judges = |bounds: &Bounds| bounds.call.is_some() || !bounds.texts.is_empty();
    if route.local.is_some() && bounds.is_some_and(judges) {
        at.member("bounds").refuse("a route that the gateway answers has no bounds");
    }
    let reads_body = route.reads_body() && !at.member("bounds").has_error();
    if route.is_upgrade && (reads_body || route.local.is_some()) && !at.member("upgrade").has_error() {
        at.member("upgrade")
            .refuse("a WebSocket handshake has no body, and the gateway cannot answer it itself");
    }
    let check = FieldCheck { route, matches, definitions };
    for field in bounds.into_iter().flat_map(Bounds::places) {
        check.check(field, &at.member("bounds"));
    }
    if let Some(tenant) = &route.tenant {
        check.check(&tenant.place, &at.member("tenant"));
    }
    check_methods(route, matches, at);
    check_upstream_credential(route, &at.member("upstream_credential"));
    check_forwarded(route, &at.member("forward_fields"));
}

/// Checks the methods of a route the gateway answers: a question is a GET, a body comes by POST.
fn check_methods(route: &Route, matches: &[Match], at: &Reader<'_>) {
    let (kind, methods): (&str, &[&str]) = match &route.local {
        Some(LocalReply::Mint(rule)) if rule.body_optional => ("mint", &["POST", "GET"]),
        Some(LocalReply::Mint(_)) => ("mint", &["POST"]),
        Some(LocalReply::Introspect(_)) => ("introspect", &["POST"]),
        Some(LocalReply::Revoke(_)) => ("revoke", &["POST"]),
        Some(LocalReply::Listing(_)) => ("list", &["GET"]),
        Some(LocalReply::Document(_)) => ("jwks", &["GET"]),
        None => return,
    };
    if matches.iter().any(|(method, _)| !methods.contains(&method.as_str())) {
        at.member("match").refuse(format!("a route with `{kind}` is for {} only", methods.join(" and ")));
    }
}

/// Checks that the upstream's credential does not replace a value that was judged.
fn check_upstream_credential(route: &Route, at: &Reader<'_>) {
    let Some(InsertedCredential { place, .. }) = &route.upstream_credential else { return };
    if route.places().any(|other| other.folded() == place.folded()) {
        at.member("at").refuse("this field is judged, so the credential cannot replace it");
    }
}

/// Checks that an endpoint sent to the upstream was judged.
fn check_forwarded(route: &Route, at: &Reader<'_>) {
    let is_judged = |bound: &TextBound| {
        route.bounds.iter().flat_map(|bounds| &bounds.texts).any(|rule| *rule.bound == *bound)
    };
    for field in &route.forward_fields {
        if let ForwardedField::Bound(bound) = field
            && bound.is_endpoint()
            && !is_judged(bound)
        {
            at.refuse_with("an endpoint must be judged before it is forwarded", "name its field in `bounds`");
        }
    }
}

/// Checks of the fields of one route.
struct FieldCheck<'a> {
    route: &'a Route,
    matches: &'a [Match],
    definitions: &'a RouteDefinitions<'a>,
}

impl FieldCheck<'_> {
    /// Checks that every `match` has the field, and that it has no other meaning.
    fn check(&self, field: &RequestField, at: &Reader<'_>) {
        match field {
            RequestField::Path(name) => {
                if !self.matches.iter().all(|(_, template)| template.contains(&format!("{{{name}}}"))) {
                    at.refuse(format!("every `match` needs the parameter `{{{name}}}`"));
                }
            }
            RequestField::Query(name) => {
                let is_same = |location: &CredentialLocation| {
                    location.parameter().is_some_and(|other| fold(other) == fold(name))
                };
                if self.route.locations.iter().flatten().any(is_same) {
                    at.refuse(format!("`query:{name}` carries the credential"));
                }
            }
            RequestField::Header(name) => {
                let is_same = |location: &CredentialLocation| location.header() == Some(name);
                let here = self.route.locations.as_deref().unwrap_or(self.definitions.locations);
                if name.starts_with("x-callbound-") || here.iter().any(is_same) {
                    at.refuse(format!("`header:{name}` has another meaning"));
                }
            }
            RequestField::Body(_) => {}
        }
    }
}

/// Checks of all routes together.
pub(super) struct RouteChecks<'a> {
    pub(super) routes: &'a [(Route, Vec<Match>)],
    pub(super) definitions: &'a RouteDefinitions<'a>,
    pub(super) keys: &'a Keys,
    pub(super) tree: &'a Tree,
}

impl RouteChecks<'_> {
    /// Checks that routes map the bounds of the credentials they accept, and that tokens with `total_seconds` can open
    /// sessions.
    pub(super) fn check(&self, root: &Reader<'_>) {
        let at = root.member("routes");
        for (index, (route, _)) in self.routes.iter().enumerate() {
            let at = at.element(index);
            self.check_unmapped_bounds(route, &at.member("bounds"));
            if route
                .mint()
                .is_some_and(|rule| rule.total.requested.is_some() && !self.opens_sessions(&rule.family))
            {
                at.member("mint").member("request").member("total_seconds").refuse(NO_SESSIONS);
            }
        }
        for family in self.definitions.families {
            if family.document.total_seconds.default.is_some() && !self.opens_sessions(&family.family) {
                let tokens = root.member("tokens");
                let family = tokens.member(&family.family.name);
                family.member("total_seconds").member("default").refuse(NO_SESSIONS);
            }
        }
        self.warn_of_ceilings(&at);
    }

    /// Refuses a route that accepts tokens with a bound it does not map: the bound would be open there.
    fn check_unmapped_bounds(&self, route: &Route, at: &Reader<'_>) {
        let Accept::Credentials { tokens, .. } = &route.accept else { return };
        for bound in self.definitions.bounds {
            let name = &bound.name;
            if !route.maps(bound) && tokens.iter().any(|source| self.carries(source, bound)) {
                at.refuse_with(
                    format!("missing `{name}`: tokens accepted here can be bounded in it"),
                    format!("name its field, or write `\"{name}\": \"any\"`"),
                );
            }
        }
    }

    /// Returns whether tokens of a source can carry a text bound.
    fn carries(&self, source: &TokenSource, bound: &TextBound) -> bool {
        match source {
            TokenSource::Family(family) => {
                let rules = self.routes.iter().filter_map(|(route, _)| route.mint());
                let mut texts =
                    rules.filter(|rule| Rc::ptr_eq(&rule.family, family)).flat_map(|rule| &rule.texts);
                texts.any(|text| *text.bound == *bound)
            }
            TokenSource::Issuer(issuer) => {
                issuer.claims.texts.iter().any(|(mapped, _)| *mapped == bound.name)
            }
        }
    }

    fn opens_sessions(&self, family: &Rc<Family>) -> bool {
        let source = TokenSource::Family(Rc::clone(family));
        let opens = |route: &Route| route.is_upgrade && route.accept.accepts_tokens_of(&source);
        self.routes.iter().any(|(route, _)| opens(route))
    }

    /// Warns of bounds of keys and teams that some route does not map.
    fn warn_of_ceilings(&self, at: &Reader<'_>) {
        for bound in self.definitions.bounds {
            let is_open =
                |route: &Route| route.accept != Accept::Public && route.local.is_none() && !route.maps(bound);
            let open = self.routes.iter().map(|(route, _)| route).filter(|route| is_open(route));
            let open: Vec<&str> = open.map(|route| route.id.as_str()).collect();
            let ceilings = self.keys.iter().map(|key| &key.ceiling).chain(self.tree.all_ceilings());
            if !open.is_empty() && ceilings.into_iter().any(|ceiling| ceiling.text(bound).is_some()) {
                let (name, open) = (&bound.name, open.join(", "));
                at.warn(format!("ceilings in `{name}` have no effect on routes that do not map it: {open}"));
            }
        }
    }
}

const NO_SESSIONS: &str = "no route with `upgrade` accepts these tokens, so there are no sessions to count";
