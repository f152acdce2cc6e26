//! Routes: what may be asked for and what it takes.

use super::super::bound::{Form, index_of};
use super::super::config::{OneOrMany, PlaceConfig, PresentConfig, RouteConfig, VocabularyConfig};
use super::super::error::Problems;
use super::super::limit::Limits;
use super::super::place::RequestField;
use super::super::route::{ANY_METHOD, Accept, LocalReply, Present, Route, Routes, TokenSource, Told};
use super::bounds::{member, route_bounds};
use super::local::{self, MAX_SESSION};
use super::platform::{carriers, check_header_name, closure};
use super::shape::{check_routes, check_shape};
use super::{Document, Known, check_id, check_known_scopes, quoted};
use super::{limits, memory};
use crate::uri::fold;

/// The compiled routes and the names they taught.
pub(super) struct CompiledRoutes {
    pub(super) routes: Routes,
    pub(super) vocabulary: Vec<String>,
    pub(super) limits: Limits,
}

pub(super) fn routes(
    document: &Document<'_>,
    known: &Known,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> CompiledRoutes {
    let mut list = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for (path, config) in document.elements::<RouteConfig>("routes", problems) {
        check_id(&config.id, &format!("{path}.id"), problems);
        if ids.contains(&config.id) {
            problems.add(format!("{path}.id"), format!("`{}` stands among the routes already", config.id));
        }
        ids.push(config.id.clone());
        let matches = read_matches(&config.matches.0, &path, problems);
        list.push((route(config, &matches, known, &path, problems), matches));
    }
    if list.is_empty() {
        problems.add("routes", "there are none, so nothing would be let through");
    }
    check_routes(&list, known, problems, warnings);
    let vocabulary = vocabulary(document, &list, problems);
    memory::check_seconds(&list, known, problems);
    let limits = limits::limits(document, known, &mut list, problems);
    let routes = Routes::build(list).unwrap_or_else(|conflicts| {
        for (index, message) in conflicts {
            problems.add(format!("routes[{index}].match"), message);
        }
        Routes::default()
    });
    CompiledRoutes { routes, vocabulary, limits }
}

/// A method and a path template.
pub(super) type Match = (String, String);

fn vocabulary(
    document: &Document<'_>,
    routes: &[(Route, Vec<Match>)],
    problems: &mut Problems,
) -> Vec<String> {
    let config: VocabularyConfig = document.section("vocabulary", problems).unwrap_or_default();
    let calls = routes.iter().filter_map(|(route, _)| route.bounds.as_ref()?.call.as_ref());
    let members = calls.flat_map(|call| call.from.members.iter().chain(&call.to.members));
    let named = config.from.iter().chain(&config.to).map(|name| fold(name));
    let mut names: Vec<String> = members.map(|member| fold(member.place.name())).chain(named).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn read_matches(texts: &[String], path: &str, problems: &mut Problems) -> Vec<Match> {
    if texts.is_empty() {
        problems.add(format!("{path}.match"), "expected at least one `METHOD /path`");
    }
    let read = texts.iter().enumerate().filter_map(|(index, text)| {
        let split = text.split_once(' ').filter(|(method, template)| {
            let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
            let is_path = template
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b';' | b'\\'));
            is_method && is_path && is_canonical(template) && has_unique_params(template)
        });
        if split.is_none() {
            problems
                .add(format!("{path}.match[{index}]"), "expected `METHOD /path`, as in `GET /v1/calls/{id}`");
        }
        split.map(|(method, template)| (method.to_owned(), template.to_owned()))
    });
    read.collect()
}

/// A template no request path could match would be a guard that guards nothing.
fn is_canonical(template: &str) -> bool {
    template
        .strip_prefix('/')
        .is_some_and(|rest| !rest.split('/').any(|segment| matches!(segment, "." | "..")))
        && !template.contains("//")
        && !template.contains("{{")
}

/// A parameter that stands twice would be two segments under one name.
fn has_unique_params(template: &str) -> bool {
    let mut names: Vec<&str> =
        template.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() == count
}

fn route(
    config: RouteConfig,
    matches: &[Match],
    known: &Known,
    path: &str,
    problems: &mut Problems,
) -> Route {
    check_known_scopes(&config.scopes, &known.platform.scopes, &format!("{path}.scopes"), problems);
    let accept = accept(&config.accept, known, path, problems);
    if accept == Accept::Public && demands_something(&config) {
        problems.add(format!("{path}.accept"), "a public route verifies nobody, so it can require nothing");
    }
    if accept != Accept::Public && matches.iter().any(|(method, _)| method == ANY_METHOD) {
        problems.add(format!("{path}.match"), "`ANY` is for public routes; name the methods");
    }
    if config.read_parent && matches.iter().any(|(method, _)| method != "GET" && method != "HEAD") {
        problems.add(format!("{path}.read_parent"), "only reads may see what belongs to the team above");
    }
    if config.upgrade.is_some() && matches.iter().any(|(method, _)| method != "GET") {
        problems.add(format!("{path}.upgrade"), "a WebSocket handshake is a GET (RFC 6455 section 4.1)");
    }
    if config
        .session_seconds
        .is_some_and(|seconds| seconds == 0 || seconds > MAX_SESSION || config.upgrade.is_none())
    {
        problems.add(
            format!("{path}.session_seconds"),
            format!("expected 1 to {MAX_SESSION} seconds, on a route with `upgrade`"),
        );
    }
    let features = features(config.feature.as_ref(), known);
    let bounds = config.bounds.clone().map(|bounds| {
        route_bounds(bounds, &known.bounds, &known.platform, &format!("{path}.bounds"), problems)
    });
    let local = local(&config, &accept, &features, known, path, problems);
    let tenant = config.tenant.as_ref();
    let tenant = tenant.and_then(|PlaceConfig(text)| member(text, &format!("{path}.tenant"), problems));
    let route = Route {
        carriers: config
            .credential_from
            .as_ref()
            .map(|list| carriers(list, &format!("{path}.credential_from"), problems)),
        is_upgrade: config.upgrade.is_some(),
        identify: told(&config.identify, known, path, problems),
        present: config.present.as_ref().and_then(|present| self::present(present, known, path, problems)),
        style: style(config.refusals.as_deref(), known, path, problems),
        session: config.session_seconds,
        read_parent: config.read_parent,
        scopes: config.scopes,
        id: config.id,
        uses: memory::uses(config.uses.as_ref(), &accept, config.upgrade.is_some(), path, problems),
        accept,
        features,
        tenant,
        bounds,
        local,
        limits: Vec::new(),
    };
    check_shape(&route, matches, known, path, problems);
    route
}

fn demands_something(config: &RouteConfig) -> bool {
    config.feature.is_some()
        || !config.scopes.is_empty()
        || config.tenant.is_some()
        || config.bounds.is_some()
        || config.mint.is_some()
        || config.introspect.is_some()
        || config.directory.is_some()
        || config.revoke.is_some()
        || config.uses.is_some()
        || config.read_parent
        || config.present.is_some()
        || config.credential_from.is_some()
        || config.upgrade.is_some()
        || !config.identify.is_empty()
}

fn accept(names: &[String], known: &Known, path: &str, problems: &mut Problems) -> Accept {
    if names == ["public"] {
        return Accept::Public;
    }
    if names.is_empty() {
        problems
            .add(format!("{path}.accept"), "an empty list lets nobody in; for everybody say `[\"public\"]`");
    }
    let (mut api_key, mut tokens) = (false, Vec::new());
    for (index, name) in names.iter().enumerate() {
        match token_source(name, known) {
            _ if name == "api_key" => api_key = true,
            Some(source) => tokens.push(source),
            None => problems.add(
                format!("{path}.accept[{index}]"),
                format!("{} is neither `api_key`, nor one of tokens, nor `public` alone", quoted(name)),
            ),
        }
    }
    Accept::Credentials { api_key, tokens }
}

/// Whose tokens a name stands for.
pub(super) fn token_source(name: &str, known: &Known) -> Option<TokenSource> {
    let family =
        known.families.iter().position(|family| family.family.name == *name).map(TokenSource::Family);
    family.or_else(|| known.issuers.iter().position(|issuer| issuer.name == *name).map(TokenSource::Issuer))
}

/// The features a route asks for, with all that those require.
fn features(config: Option<&OneOrMany>, known: &Known) -> Vec<String> {
    let mut features: Vec<String> = Vec::new();
    for name in
        config.iter().flat_map(|list| &list.0).flat_map(|name| closure(name, &known.platform.requires))
    {
        if !features.contains(&name) {
            features.push(name);
        }
    }
    features
}

fn told(names: &[String], known: &Known, path: &str, problems: &mut Problems) -> Vec<Told> {
    let told = names.iter().enumerate().filter_map(|(index, name)| {
        if name == "metadata" {
            return Some(Told::Metadata);
        }
        let bound = index_of(&known.bounds, name);
        if bound.is_none() {
            problems
                .add(format!("{path}.identify[{index}]"), "neither `metadata` nor one of platform.bounds");
        }
        bound.map(Told::Bound)
    });
    told.collect()
}

fn present(config: &PresentConfig, known: &Known, path: &str, problems: &mut Problems) -> Option<Present> {
    let path = format!("{path}.present");
    if known.forwards_credential() {
        problems.add(&path, "with `credentials.forward` the upstream would get two credentials");
    }
    let place = RequestField::parse(&config.at)
        .filter(|place| matches!(place, RequestField::Query(_) | RequestField::Header(_)));
    if place.is_none() {
        problems.add(format!("{path}.at"), "expected `query:name` or `header:name`");
    }
    if config.scheme.is_some() && !matches!(place, Some(RequestField::Header(_))) {
        problems.add(format!("{path}.scheme"), "a scheme stands in a header");
    }
    if let Some(RequestField::Header(name)) = &place {
        check_header_name(name, &format!("{path}.at"), problems);
    }
    let Some((_, key)) = known.upstream_keys.iter().find(|(id, _)| *id == config.key) else {
        problems.add(format!("{path}.key"), format!("{} is not one of upstream_keys", quoted(&config.key)));
        return None;
    };
    // Without secrets a policy is checked, not used.
    let key = key.as_deref().unwrap_or_default();
    let value = config.scheme.as_ref().map_or_else(|| key.to_owned(), |scheme| format!("{scheme} {key}"));
    Some(Present { place: place?, value })
}

fn style(name: Option<&str>, known: &Known, path: &str, problems: &mut Problems) -> usize {
    let Some(name) = name else { return 0 };
    let index = known.styles.iter().position(|style| style == name);
    if index.is_none() {
        problems.add(format!("{path}.refusals"), format!("{} is not one of refusals.groups", quoted(name)));
    }
    index.map_or(0, |index| index + 1)
}

/// What the gateway answers itself on a route, if anything.
fn local(
    config: &RouteConfig,
    accept: &Accept,
    features: &[String],
    known: &Known,
    path: &str,
    problems: &mut Problems,
) -> Option<LocalReply> {
    let mut found = Vec::new();
    if let Some(mint) = &config.mint {
        let path = format!("{path}.mint");
        found.push(
            local::mint(mint.clone(), accept, features, known, &path, problems)
                .map(Box::new)
                .map(LocalReply::Mint),
        );
    }
    if let Some(introspect) = &config.introspect {
        let path = format!("{path}.introspect");
        found.push(local::introspect(introspect.clone(), known, &path, problems).map(LocalReply::Introspect));
    }
    if let Some(listing) = &config.directory {
        let path = format!("{path}.directory");
        if !known.bounds.iter().any(|bound| bound.form == Form::Endpoint) {
            problems.add(&path, "there is no section `endpoints`");
        }
        found.push(local::listing(listing.clone(), &path, problems).map(Box::new).map(LocalReply::Listing));
    }
    if let Some(revoke) = config.revoke {
        found.push(Some(memory::revoke(revoke, accept, &config.scopes, &format!("{path}.revoke"), problems)));
    }
    if let Some(families) = &config.jwks {
        let path = format!("{path}.jwks");
        if *accept != Accept::Public {
            problems.add(&path, "public keys are for everybody: `accept` must be `[\"public\"]`");
        }
        found.push(Some(LocalReply::Document(local::key_set(families, known, &path, problems))));
    }
    if found.len() > 1 {
        problems.add(path, "expected at most one of `mint`, `introspect`, `directory`, `revoke` and `jwks`");
    }
    found.into_iter().next().flatten()
}
