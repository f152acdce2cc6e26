//! Limits: what is counted, whose it is counted as, and on which routes.

use super::super::config::{CountConfig, LimitRuleConfig, Members, ShownConfig, StrengthConfig};
use super::super::error::Problems;
use super::super::limit::{Counted, Counts, Limit, Limits, Measure, Per, Shown};
use super::super::route::{Accept, LocalReply, Route};
use super::super::team::Reach;
use super::platform::check_header_name;
use super::routes::{Match, token_source};
use super::{Document, Known, check_id, quoted};
use crate::json::Json;

/// Reads the limits and tells the routes which are for them.
pub(super) fn limits(
    document: &Document<'_>,
    known: &Known,
    routes: &mut [(Route, Vec<Match>)],
    problems: &mut Problems,
) -> Limits {
    let mut read: Vec<(Limit, Option<Vec<String>>, String)> = Vec::new();
    for (path, config) in document.elements::<LimitRuleConfig>("limits", problems) {
        check_id(&config.id, &format!("{path}.id"), problems);
        if read.iter().any(|(other, ..)| other.id == config.id) {
            problems.add(format!("{path}.id"), format!("`{}` stands among the limits already", config.id));
        }
        let routes = config.routes.clone();
        if let Some(limit) = limit(config, known, &path, problems) {
            read.push((limit, routes, path));
        }
    }
    read.sort_by_key(|(limit, ..)| limit.per.iter().min().copied());
    for (index, (limit, names, path)) in read.iter().enumerate() {
        assign(index, limit, names.as_deref(), routes, path, problems);
    }
    let headers = limit_headers(document, problems);
    let list: Vec<Limit> = read.into_iter().map(|(limit, ..)| limit).collect();
    check_maxima(&list, document, known, problems);
    Limits { list, headers }
}

fn limit(config: LimitRuleConfig, known: &Known, path: &str, problems: &mut Problems) -> Option<Limit> {
    let mut per: Vec<Per> = Vec::new();
    for name in &config.per.0 {
        match Per::ALL.into_iter().find(|per| per.as_str() == name) {
            Some(one) if !per.contains(&one) => per.push(one),
            Some(_) => problems.add(format!("{path}.per"), format!("{} stands twice", quoted(name))),
            None => problems.add(
                format!("{path}.per"),
                "expected some of `platform`, `organization`, `team`, `key`, `token`, `family`, `route` and `address`",
            ),
        }
    }
    per.sort_unstable();
    if per.len() > 1 && per.contains(&Per::Platform) {
        problems.add(
            format!("{path}.per"),
            "`platform` is everything together: beside it nothing is counted apart",
        );
    }
    if config.per.0.is_empty() {
        problems.add(
            format!("{path}.per"),
            "an empty list counts nothing apart; for everything together say `platform`",
        );
    }
    let counts = match config.count {
        None | Some(CountConfig::Requests) => Counts::Requests,
        Some(CountConfig::Mints) => Counts::Mints,
        Some(CountConfig::Failures) => Counts::Failures,
    };
    let measure = measure(&config, path, problems)?;
    check_meaning(&config, &per, counts, measure, path, problems);
    let credentials = config.credentials.as_ref().map(|names| counted(names, known, path, problems));
    let strength = config.strength.unwrap_or_default().into();
    Some(Limit { id: config.id, per, counts, measure, credentials, strength })
}

fn measure(config: &LimitRuleConfig, path: &str, problems: &mut Problems) -> Option<Measure> {
    let measure = match (config.window, config.rate, config.sessions) {
        (Some(window), None, None) => Measure::Window { max: window.max, seconds: window.seconds },
        (None, Some(rate), None) => Measure::Rate { max: rate.max, seconds: rate.seconds, burst: rate.burst },
        (None, None, Some(sessions)) => Measure::Sessions { max: sessions.max },
        _ => {
            problems.add(path, "expected one of `window`, `rate` and `sessions`");
            return None;
        }
    };
    let (member, is_fit, expected) = match measure {
        Measure::Window { max, seconds } => (
            "window",
            (1..=MOST).contains(&max) && (1..=2_678_400).contains(&seconds),
            "expected max from 1 to 1000000000 and seconds from 1 to 2678400",
        ),
        Measure::Rate { max, seconds, burst } => (
            "rate",
            (1..=1_000_000).contains(&max)
                && (1..=86_400).contains(&seconds)
                && (1..=1_000_000).contains(&burst),
            "expected max and burst from 1 to 1000000 and seconds from 1 to 86400",
        ),
        Measure::Sessions { max } => {
            ("sessions", (1..=10_000).contains(&max), "expected max from 1 to 10000")
        }
    };
    if !is_fit {
        problems.add(
            format!("{path}.{member}"),
            format!("{expected}; 0 is no limit: to let nothing through, take the scope or the route away"),
        );
    }
    Some(measure)
}

/// The most a window may let through.
const MOST: u64 = 1_000_000_000;

/// The most a limit's maximum may be.
fn most(measure: Measure) -> u64 {
    match measure {
        Measure::Window { .. } => MOST,
        Measure::Rate { .. } => 1_000_000,
        Measure::Sessions { .. } => 10_000,
    }
}

fn check_meaning(
    config: &LimitRuleConfig,
    per: &[Per],
    counts: Counts,
    measure: Measure,
    path: &str,
    problems: &mut Problems,
) {
    let is_sessions = matches!(measure, Measure::Sessions { .. });
    if is_sessions && counts != Counts::Requests {
        problems.add(
            format!("{path}.count"),
            "sessions are counted while they are open; this means nothing here",
        );
    }
    if counts == Counts::Failures {
        if per != [Per::Address] || config.credentials.is_some() {
            problems.add(path, "whoever fails is nobody yet: failures are counted `per: \"address\"` alone");
        }
        if config.strength == Some(StrengthConfig::Fleet) {
            problems.add(format!("{path}.strength"), "failures are counted by each gateway: `node`");
        }
    }
}

fn counted(names: &[String], known: &Known, path: &str, problems: &mut Problems) -> Counted {
    if names.is_empty() {
        problems.add(format!("{path}.credentials"), "an empty list is for nobody; leave it out for all");
    }
    let mut counted = Counted { api_key: false, tokens: Vec::new() };
    for (index, name) in names.iter().enumerate() {
        match token_source(name, known) {
            _ if name == "api_key" => counted.api_key = true,
            Some(source) => counted.tokens.push(source),
            None => problems.add(
                format!("{path}.credentials[{index}]"),
                format!("{} is neither `api_key` nor one of tokens", quoted(name)),
            ),
        }
    }
    counted
}

/// Notes a limit with the routes it is for; one that is for none is a mistake.
fn assign(
    index: usize,
    limit: &Limit,
    names: Option<&[String]>,
    routes: &mut [(Route, Vec<Match>)],
    path: &str,
    problems: &mut Problems,
) {
    for (at, name) in names.unwrap_or_default().iter().enumerate() {
        if !routes.iter().any(|(route, _)| route.id == *name) {
            problems.add(format!("{path}.routes[{at}]"), format!("{} is not one of routes", quoted(name)));
        }
    }
    if names.is_some_and(<[String]>::is_empty) {
        problems.add(format!("{path}.routes"), "an empty list is for no route; leave it out for all");
        return;
    }
    let is_fit = |route: &Route| {
        route.accept != Accept::Public
            && (limit.counts != Counts::Mints || route.mint().is_some())
            && (!matches!(limit.measure, Measure::Sessions { .. }) || route.is_upgrade)
            && limit.credentials.as_ref().is_none_or(|counted| is_accepted(&route.accept, counted))
    };
    let mut is_used = false;
    for (route, _) in routes.iter_mut() {
        let is_named = names.map(|names| names.contains(&route.id));
        if is_named == Some(true) && !is_fit(route) {
            problems.add(format!("{path}.routes"), format!("`{}` has nothing this limit counts", route.id));
        }
        // Whoever uses a limit up with a stolen key must not keep its owner from revoking that key.
        let is_exempt = is_named.is_none() && matches!(route.local, Some(LocalReply::Revoke(_)));
        if is_named != Some(false) && is_fit(route) && !is_exempt {
            route.limits.push(index);
            is_used = true;
        }
    }
    if !is_used {
        problems.add(path, "there is no route with anything this limit counts");
    }
}

/// Whether a route lets any of these credentials in.
fn is_accepted(accept: &Accept, counted: &Counted) -> bool {
    match accept {
        Accept::Public => false,
        Accept::Credentials { api_key, tokens } => {
            (*api_key && counted.api_key) || tokens.iter().any(|source| counted.tokens.contains(source))
        }
    }
}

fn limit_headers(document: &Document<'_>, problems: &mut Problems) -> Vec<(String, Shown)> {
    let headers: Members<ShownConfig> = document.section("limit_headers", problems).unwrap_or_default();
    for (name, _) in &headers.0 {
        let path = format!("limit_headers.{name}");
        check_header_name(name, &path, problems);
        // It takes the place of the upstream's own.
        if !(name.starts_with("x-") || name.starts_with("ratelimit-"))
            || name == "ratelimit-policy"
            || name.starts_with("x-callbound")
            || name == "x-content-type-options"
            || name == "x-request-id"
            || name.starts_with("x-envoy-")
        {
            problems.add(path, "expected a header of its own, as in `x-ratelimit-limit`");
        }
    }
    let shown = |shown| match shown {
        ShownConfig::Limit => Shown::Limit,
        ShownConfig::Remaining => Shown::Remaining,
        ShownConfig::ResetSeconds => Shown::ResetSeconds,
        ShownConfig::ResetUnix => Shown::ResetUnix,
        ShownConfig::ResetUnixMs => Shown::ResetUnixMilliseconds,
    };
    headers.0.into_iter().map(|(name, config)| (name, shown(config))).collect()
}

/// The maxima that teams, users and keys have of their own.
fn check_maxima(limits: &[Limit], document: &Document<'_>, known: &Known, problems: &mut Problems) {
    for party in known.tree.parties() {
        let section = if party.reach == Reach::User { "users" } else { "teams" };
        for (name, max) in &party.limits {
            let path = format!("{section}.{}.limits.{name}", party.id);
            if let Some(limit) = limit_called(name, limits, document, &path, problems) {
                check_maximum(limit, limit.knows_teams(), *max, &path, problems);
                // Everything below the top is one count, and one number.
                if limit.per.contains(&Per::Organization) && party.parent.is_some() {
                    problems.add(path, "per `organization` only the number of the team at the top counts");
                }
            }
        }
    }
    for key in known.keys.iter() {
        for (name, max) in &key.limits {
            let path = format!("api_keys.{}.limits.{name}", key.id);
            if let Some(limit) = limit_called(name, limits, document, &path, problems) {
                check_maximum(limit, limit.knows_keys(), *max, &path, problems);
            }
        }
    }
}

/// Finds a limit; of one that is there and wrong nothing more is said.
fn limit_called<'l>(
    name: &str,
    limits: &'l [Limit],
    document: &Document<'_>,
    path: &str,
    problems: &mut Problems,
) -> Option<&'l Limit> {
    let found = limits.iter().find(|limit| limit.id == name);
    let is_called = |json: &Json<'_>| json.get("id").and_then(Json::as_str) == Some(name);
    if found.is_none() && !document.array("limits").iter().any(is_called) {
        problems.add(path, "not one of limits");
    }
    found
}

fn check_maximum(limit: &Limit, is_apart: bool, max: u64, path: &str, problems: &mut Problems) {
    let most = most(limit.measure);
    if !is_apart {
        problems.add(path, "this limit is not counted apart for it");
    } else if !(1..=most).contains(&max) {
        problems.add(path, format!("expected 1 to {most}; 0 is no limit"));
    }
}
