//! What the parts of a route must have in common, and what routes must say of bounds.

use super::super::bound::{Bounds, Form};
use super::super::error::Problems;
use super::super::place::RequestField;
use super::super::route::{Accept, LocalReply, Present, Route, TokenSource, Told};
use super::Known;
use super::routes::Match;
use crate::credential::CredentialLocation;
use crate::uri::fold;

/// Checks what only all routes together show.
pub(super) fn check_routes(
    routes: &[(Route, Vec<Match>)],
    known: &Known,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) {
    for (index, (route, _)) in routes.iter().enumerate() {
        check_unmapped_bounds(route, routes, known, &format!("routes[{index}].bounds"), problems);
    }
    for (index, bound) in known.bounds.iter().enumerate() {
        let is_open = |route: &Route| {
            route.accept != Accept::Public && route.local.is_none() && !route.speaks_of(index)
        };
        let open = routes.iter().map(|(route, _)| route).filter(|route| is_open(route));
        let open: Vec<&str> = open.map(|route| route.id.as_str()).collect();
        if known.has_ceiling_in(index) && !open.is_empty() {
            let (name, open) = (&bound.name, open.join(", "));
            warnings
                .push(format!("ceilings in `{name}` bind nothing on routes that say nothing of it: {open}"));
        }
    }
}

/// A route that accepts tokens bound in a text must say where that text stands: left out, it would be open.
fn check_unmapped_bounds(
    route: &Route,
    routes: &[(Route, Vec<Match>)],
    known: &Known,
    path: &str,
    problems: &mut Problems,
) {
    let Accept::Credentials { tokens, .. } = &route.accept else { return };
    let is_carried = |index: usize, name: &str| {
        tokens.iter().any(|source| match *source {
            TokenSource::Family(family) => {
                let rules =
                    routes.iter().filter_map(|(route, _)| route.mint()).filter(|rule| rule.family == family);
                rules.flat_map(|rule| &rule.texts).any(|text| text.bound == index)
            }
            TokenSource::Issuer(issuer) => known
                .issuers
                .get(issuer)
                .is_some_and(|issuer| issuer.claims.texts.iter().any(|(mapped, _)| mapped == name)),
        })
    };
    for (index, bound) in known.bounds.iter().enumerate() {
        if is_carried(index, &bound.name) && !route.speaks_of(index) {
            let name = &bound.name;
            problems.add(
                path,
                format!("missing `{name}`: tokens accepted here can be bound in it; say where it stands, or `\"{name}\": \"any\"`"),
            );
        }
    }
}

/// What a route's parts must have in common.
pub(super) fn check_shape(
    route: &Route,
    matches: &[Match],
    known: &Known,
    path: &str,
    problems: &mut Problems,
) {
    let bounds = route.bounds.as_ref();
    let judges = |bounds: &Bounds| bounds.call.is_some() || !bounds.texts.is_empty();
    if route.local.is_some() && bounds.is_some_and(judges) {
        problems.add(path, "a route either mints or places a call");
    }
    if route.is_upgrade && (route.reads_body() || route.local.is_some()) {
        problems.add(path, "a WebSocket handshake has no body, and the gateway cannot answer it itself");
    }
    if route.carriers.as_ref().is_some_and(Vec::is_empty) {
        problems.add(format!("{path}.credential_from"), "name at least one place");
    }
    for place in bounds.into_iter().flat_map(Bounds::places) {
        check_place(place, route, matches, known, &format!("{path}.bounds"), problems);
    }
    if let Some(tenant) = &route.tenant {
        check_place(&tenant.place, route, matches, known, &format!("{path}.tenant"), problems);
    }
    check_methods(route, matches, path, problems);
    check_present(route, path, problems);
    check_told(route, known, path, problems);
}

/// What the gateway answers itself is asked for as its kind is: a question by GET, a body by POST.
fn check_methods(route: &Route, matches: &[Match], path: &str, problems: &mut Problems) {
    let (kind, methods): (&str, &[&str]) = match &route.local {
        Some(LocalReply::Mint(rule)) if rule.body_optional => ("mint", &["POST", "GET"]),
        Some(LocalReply::Mint(_)) => ("mint", &["POST"]),
        Some(LocalReply::Introspect(_)) => ("introspect", &["POST"]),
        Some(LocalReply::Revoke(_)) => ("revoke", &["POST"]),
        Some(LocalReply::Listing(_)) => ("directory", &["GET"]),
        Some(LocalReply::Document(_)) => ("jwks", &["GET"]),
        None => return,
    };
    if matches.iter().any(|(method, _)| !methods.contains(&method.as_str())) {
        problems
            .add(format!("{path}.match"), format!("`{kind}` is answered to {} only", methods.join(" and ")));
    }
}

/// The upstream's credential must not take the place of something that was judged.
fn check_present(route: &Route, path: &str, problems: &mut Problems) {
    let Some(Present { place, .. }) = &route.present else { return };
    if route.places().any(|other| other.folded() == place.folded()) {
        problems.add(format!("{path}.present.at"), "this place says something else, which was judged");
    }
}

/// What the upstream is told of an endpoint was judged.
fn check_told(route: &Route, known: &Known, path: &str, problems: &mut Problems) {
    let is_judged =
        |bound: usize| route.bounds.iter().flat_map(|bounds| &bounds.texts).any(|rule| rule.bound == bound);
    for told in &route.identify {
        if let Told::Bound(bound) = told
            && known.bounds.get(*bound).is_some_and(|bound| bound.form == Form::Endpoint)
            && !is_judged(*bound)
        {
            problems.add(
                format!("{path}.identify"),
                "an endpoint that is told must be judged: say in `bounds` where it stands",
            );
        }
    }
}

/// A place must be one that every `match` has, and that means nothing else.
fn check_place(
    place: &RequestField,
    route: &Route,
    matches: &[Match],
    known: &Known,
    path: &str,
    problems: &mut Problems,
) {
    match place {
        RequestField::Path(name) => {
            if !matches.iter().all(|(_, template)| template.contains(&format!("{{{name}}}"))) {
                problems.add(path, format!("every `match` needs the parameter `{{{name}}}`"));
            }
        }
        RequestField::Query(name) => {
            let mut carriers = route.carriers.iter().flatten();
            if carriers.any(|carrier| carrier.parameter().is_some_and(|other| fold(other) == fold(name))) {
                problems.add(path, format!("`query:{name}` is where the credential stands"));
            }
        }
        RequestField::Header(name) => {
            let is_carrier = |carrier: &CredentialLocation| carrier.header() == Some(name);
            let here = route.carriers.as_deref().unwrap_or(known.carriers());
            if name.starts_with("x-callbound-") || here.iter().any(is_carrier) {
                problems.add(path, format!("`header:{name}` means something else already"));
            }
        }
        RequestField::Body(_) => {}
    }
}
