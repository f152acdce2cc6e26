//! Routes: what may be asked for and what it takes.

use super::super::Platform;
use super::super::config::{
    BoundsConfig, DirectionConfig, EmptyConfig, ListMemberConfig, MintConfig, MintRequestConfig, RouteConfig,
    TenantConfig, VocabularyConfig,
};
use super::super::error::Problems;
use super::super::route::{
    Accept, Bounds, Direction, Member, MintRule, Pointer, Route, Routes, SizedList, Tenant, fold,
};
use super::super::template::Template;
use super::keyring::CompiledFamily;
use super::{Document, check_id, check_known_scopes, quoted};

/// The values a mint reply may use.
const REPLY_NAMES: &[&str] =
    &["token", "ttl", "expires_at", "issued_at", "from", "to", "scopes", "token_id", "key_id"];

/// The compiled routes and the names they taught.
pub(super) struct CompiledRoutes {
    pub(super) routes: Routes,
    pub(super) vocabulary: Vec<String>,
}

pub(super) fn routes(
    document: &Document<'_>,
    families: &[CompiledFamily],
    platform: &Platform,
    problems: &mut Problems,
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
        list.push((route(config, &matches, families, platform, &path, problems), matches));
    }
    if list.is_empty() {
        problems.add("routes", "there are none, so nothing would be let through");
    }
    let vocabulary = vocabulary(document, &list, problems);
    let routes = Routes::build(list).unwrap_or_else(|conflicts| {
        for (index, message) in conflicts {
            problems.add(format!("routes[{index}].match"), message);
        }
        Routes::default()
    });
    CompiledRoutes { routes, vocabulary }
}

type Match = (String, String);

fn vocabulary(
    document: &Document<'_>,
    routes: &[(Route, Vec<Match>)],
    problems: &mut Problems,
) -> Vec<String> {
    let config: VocabularyConfig = document.section("vocabulary", problems).unwrap_or_default();
    let bounds = routes.iter().filter_map(|(route, _)| route.bounds.as_ref());
    let members = bounds.flat_map(|bounds| bounds.from.members.iter().chain(&bounds.to.members));
    let named = config.from.iter().chain(&config.to).map(|name| fold(name));
    let mut names: Vec<String> = members.map(|member| fold(member.pointer.name())).chain(named).collect();
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
    families: &[CompiledFamily],
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) -> Route {
    check_known_scopes(&config.scopes, &platform.scopes, &format!("{path}.scopes"), problems);
    let accept = accept(&config.accept, families, path, problems);
    let demands = config.feature.is_some()
        || !config.scopes.is_empty()
        || config.tenant.is_some()
        || config.bounds.is_some()
        || config.mint.is_some()
        || config.read_parent;
    if accept == Accept::Public && demands {
        problems.add(format!("{path}.accept"), "a public route verifies nobody, so it can require nothing");
    }
    if config.read_parent && matches.iter().any(|(method, _)| method != "GET" && method != "HEAD") {
        problems.add(format!("{path}.read_parent"), "only reads may see what belongs to the team above");
    }
    let mint = config.mint.and_then(|mint| mint_rule(mint, &accept, families, platform, path, problems));
    let mint = mint.map(|rule| MintRule { feature: config.feature.clone(), ..rule });
    let bounds = config.bounds.map(|bounds| bounds_of(bounds, path, problems));
    if mint.is_some() && bounds.is_some() {
        problems.add(path, "a route either mints or places a call");
    }
    Route {
        accept,
        feature: config.feature,
        scopes: config.scopes,
        tenant: config.tenant.map(|tenant| tenant_of(tenant, matches, path, problems)),
        read_parent: config.read_parent,
        bounds,
        mint,
        id: config.id,
    }
}

fn accept(names: &[String], families: &[CompiledFamily], path: &str, problems: &mut Problems) -> Accept {
    if names == ["public"] {
        return Accept::Public;
    }
    if names.is_empty() {
        problems
            .add(format!("{path}.accept"), "an empty list lets nobody in; for everybody say `[\"public\"]`");
    }
    let (mut api_key, mut accepted) = (false, Vec::new());
    for (index, name) in names.iter().enumerate() {
        match families.iter().position(|family| family.family.name == *name) {
            _ if name == "api_key" => api_key = true,
            Some(family) => accepted.push(family),
            None => problems.add(
                format!("{path}.accept[{index}]"),
                format!("{} is neither `api_key`, nor one of tokens, nor `public` alone", quoted(name)),
            ),
        }
    }
    Accept::Credentials { api_key, families: accepted }
}

fn tenant_of(config: TenantConfig, matches: &[Match], path: &str, problems: &mut Problems) -> Tenant {
    let TenantConfig::Path(name) = config;
    if !matches.iter().all(|(_, template)| template.contains(&format!("{{{name}}}"))) {
        problems
            .add(format!("{path}.tenant.path"), format!("every `match` needs the parameter `{{{name}}}`"));
    }
    Tenant::Path(name)
}

fn bounds_of(config: BoundsConfig, path: &str, problems: &mut Problems) -> Bounds {
    if config.closed.is_some() && config.from.members.is_empty() && config.to.members.is_empty() {
        problems.add(format!("{path}.bounds.closed"), "this route reads no body");
    }
    let strip = |text: &String| text.trim_end_matches('?').to_owned();
    let to: Vec<String> = config.to.members.iter().map(strip).collect();
    if config.from.members.iter().map(strip).any(|member| to.contains(&member)) {
        problems.add(format!("{path}.bounds"), "one member cannot be caller and destination");
    }
    Bounds {
        from: direction(config.from, &format!("{path}.bounds.from"), problems),
        to: direction(config.to, &format!("{path}.bounds.to"), problems),
        closed: config.closed,
    }
}

fn direction(config: DirectionConfig, path: &str, problems: &mut Problems) -> Direction {
    let mut pointer = |text: &str, path: String| {
        let pointer = Pointer::parse(text);
        if pointer.is_none() {
            problems.add(path, format!("`{text}` is not a JSON pointer, as in `/from_number`"));
        }
        pointer
    };
    let members = config.members.iter().enumerate().filter_map(|(index, text)| {
        let (text, optional) = text.strip_suffix('?').map_or((text.as_str(), false), |text| (text, true));
        Some(Member { pointer: pointer(text, format!("{path}.members[{index}]"))?, optional })
    });
    let members: Vec<_> = members.collect();
    let chosen_by = config.chosen_by.iter().enumerate();
    let chosen_by =
        chosen_by.filter_map(|(index, text)| pointer(text, format!("{path}.chosen_by[{index}]"))).collect();
    Direction { members, chosen_by, screen_only: config.screen_only }
}

fn mint_rule(
    config: MintConfig,
    accept: &Accept,
    families: &[CompiledFamily],
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) -> Option<MintRule> {
    let path = format!("{path}.mint");
    if !matches!(accept, Accept::Credentials { api_key: true, families } if families.is_empty()) {
        problems.add(&path, "only API keys may mint: `accept` must be `[\"api_key\"]`");
    }
    let Some(index) = families.iter().position(|family| family.family.name == config.family) else {
        problems.add(format!("{path}.family"), format!("`{}` is not one of tokens", config.family));
        return None;
    };
    let family = families.get(index)?;
    check_minting_family(family, platform, &path, problems);
    // 204 and 205 have no body to put the token into (RFC 9110 section 15.3).
    if !(200..300).contains(&config.reply.status) || matches!(config.reply.status, 204 | 205) {
        problems.add(format!("{path}.reply.status"), "expected a status from 200 to 299 that has a body");
    }
    check_distinct(&config.request, &path, problems);
    let body = Template::compile(config.reply.body, REPLY_NAMES)
        .map_err(|message| problems.add(format!("{path}.reply.body"), message))
        .ok()?;
    Some(MintRule {
        family: index,
        from: sized_list(config.request.from, &format!("{path}.request.from"), problems),
        to: sized_list(config.request.to, &format!("{path}.request.to"), problems),
        scopes: sized_list(config.request.scopes, &format!("{path}.request.scopes"), problems),
        ttl: config.request.ttl.map(|ttl| ttl.member),
        feature: None,
        default_scopes: family.default_scopes.clone(),
        mintable_scopes: family.mintable_scopes.clone(),
        status: config.reply.status,
        body,
    })
}

/// One member cannot ask for two things.
fn check_distinct(request: &MintRequestConfig, path: &str, problems: &mut Problems) {
    let lists = [&request.from, &request.to, &request.scopes].into_iter().flatten().map(|list| &list.member);
    let mut members: Vec<&String> = lists.chain(request.ttl.iter().map(|ttl| &ttl.member)).collect();
    let count = members.len();
    members.sort_unstable();
    members.dedup();
    if members.len() < count {
        problems.add(format!("{path}.request"), "one member cannot ask for two things");
    }
}

fn check_minting_family(family: &CompiledFamily, platform: &Platform, path: &str, problems: &mut Problems) {
    if !family.can_sign {
        problems.add(format!("{path}.family"), "no key of the keyring with `sign: true` is for this family");
    }
    let scopes = format!("tokens.{}", family.family.name);
    check_known_scopes(
        &family.default_scopes,
        &platform.scopes,
        &format!("{scopes}.default_scopes"),
        problems,
    );
    let mintable = family.mintable_scopes.as_deref().unwrap_or_default();
    check_known_scopes(mintable, &platform.scopes, &format!("{scopes}.mintable_scopes"), problems);
}

fn sized_list(config: Option<ListMemberConfig>, path: &str, problems: &mut Problems) -> Option<SizedList> {
    let config = config?;
    if config.max == 0 || config.max > 1_000 {
        problems.add(format!("{path}.max"), "expected 1 to 1000 entries");
    }
    Some(SizedList {
        member: config.member,
        required: config.required,
        max: config.max,
        empty_is_absent: config.empty == EmptyConfig::Absent,
    })
}
