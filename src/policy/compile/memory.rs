//! What is remembered: the store, the limits, the uses of tokens, and what the policy itself revokes.

use core::net::Ipv6Addr;

use super::super::config::{
    CountConfig, DirectoryConfig, HomeConfig, LimitRuleConfig, Members, ReachConfig, RedisConfig,
    RevocationConfig, RevokeConfig, RouteUsesConfig, ShownConfig, StaleConfig, StoreConfig, StrengthConfig,
};
use super::super::error::Problems;
use super::super::limit::{Counted, Counts, Limit, Limits, Measure, Per, Shown, UsesRule};
use super::super::local::{Allowance, RevokeRule};
use super::super::memory::{DirectoryRule, Home, Remembers, StoreRule};
use super::super::route::{Accept, Local, Route, TokenSource};
use super::super::team::Reach;
use super::keyring::{is_inline_secret, load_secret};
use super::local::MAX_USES;
use super::platform::check_header_name;
use super::routes::{Match, token_source};
use super::{Document, Known, Secrets, check_id, quoted};
use crate::credential::{Algorithm, Issuer, Key};
use crate::json::Json;
use crate::store::remote::{Remote, Script};
use crate::store::{Revocation, Revocations, Size, Strength, Subject};

impl From<StrengthConfig> for Strength {
    fn from(config: StrengthConfig) -> Self {
        match config {
            StrengthConfig::Node => Self::Node,
            StrengthConfig::Fleet => Self::Fleet,
        }
    }
}

pub(super) fn store(
    document: &Document<'_>,
    known: &Known,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> StoreRule {
    let config: StoreConfig = document.section("store", problems).unwrap_or_default();
    let home = home(&config, known, problems);
    let entries = config.entries.unwrap_or(262_144);
    if !(65_536..=1_048_576).contains(&entries) {
        problems.add("store.entries", "expected 65536 to 1048576");
    }
    let key = config.secret.as_ref().and_then(|secret| {
        if is_inline_secret(secret) && !document.allows_inline_secrets() {
            problems.add(
                "store.secret",
                "a secret in the policy needs `allow_inline_secrets: true`; better `{\"env\": NAME}`",
            );
        }
        if is_inline_secret(secret) {
            warnings.push(
                "store: a secret stands in the policy itself and shows in the gateway's config dumps".into(),
            );
        }
        load_secret(secret, "*store", "seal", Algorithm::Hs256, secrets)
            .and_then(fit_secret)
            .map_err(|message| problems.add("store.secret", message))
            .ok()
            .flatten()
    });
    let feed = config.revocations.as_ref();
    let refresh = feed.and_then(|feed| feed.refresh).unwrap_or(2);
    let stale = feed.and_then(|feed| feed.stale).unwrap_or(30);
    if !(1..=60).contains(&refresh) || stale < refresh.saturating_mul(2) || stale > 86_400 {
        problems.add(
            "store.revocations",
            "expected 1 <= refresh <= 60 and 2 * refresh <= stale <= 86400 seconds",
        );
    }
    if feed.is_some() && config.home == HomeConfig::Local {
        problems.add(
            "store.revocations",
            "in the gateway's own memory they are never stale; this is for `home: redis`",
        );
    }
    StoreRule {
        key: key.unwrap_or_default(),
        size: Size { entries: usize::try_from(entries).unwrap_or(0), is_shared: known.tree.len() > 1 },
        refresh,
        stale,
        refuses_when_stale: feed.is_none_or(|feed| feed.when_stale == StaleConfig::Refuse),
        directory: config.directory.as_ref().map(|rule| directory(rule, config.home, problems)),
        home,
        revocations: revocations(document, known, config.directory.is_some(), problems),
    }
}

/// The seal's key is as good as any key, or it is none.
fn fit_secret(bytes: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
    if let Some(bytes) = &bytes {
        Key::from_secret(Algorithm::Hs256, bytes).map_err(|error| error.to_string())?;
    }
    Ok(bytes)
}

fn directory(config: &DirectoryConfig, home: HomeConfig, problems: &mut Problems) -> DirectoryRule {
    if home == HomeConfig::Local {
        problems.add("store.directory", "keys are looked up in Redis: this is for `home: redis`");
    }
    let (fresh, unknown) = (config.fresh.unwrap_or(30), config.unknown.unwrap_or(5));
    let entries = config.entries.unwrap_or(10_000);
    if !(1..=3_600).contains(&fresh) || !(1..=300).contains(&unknown) || !(100..=1_000_000).contains(&entries)
    {
        problems.add(
            "store.directory",
            "expected fresh from 1 to 3600 seconds, unknown from 1 to 300 seconds, entries from 100 to 1000000",
        );
    }
    DirectoryRule { fresh, unknown, entries: usize::try_from(entries).unwrap_or(0) }
}

fn home(config: &StoreConfig, known: &Known, problems: &mut Problems) -> Home {
    match (config.home, &config.redis) {
        (HomeConfig::Local, None) => Home::Local,
        (HomeConfig::Redis, Some(redis)) => remote(redis, known, problems).map_or(Home::Local, Home::Redis),
        (HomeConfig::Local, Some(_)) => {
            problems.add("store.redis", "this is for `home: redis`");
            Home::Local
        }
        (HomeConfig::Redis, None) => {
            problems.add(
                "store.redis",
                "missing; say where Redis is, as in `{\"url\": \"http://127.0.0.1:7379\"}`",
            );
            Home::Local
        }
    }
}

fn remote(config: &RedisConfig, known: &Known, problems: &mut Problems) -> Option<Remote> {
    let timeout = config.timeout_ms.unwrap_or(250);
    if !(10..=5_000).contains(&timeout) {
        problems.add("store.redis.timeout_ms", "expected 10 to 5000 milliseconds");
    }
    let prefix = config.prefix.clone().unwrap_or_else(|| "callbound:".to_owned());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(fits) {
        problems.add("store.redis.prefix", "expected 1 to 64 of `A-Z a-z 0-9 - _ . :`");
    }
    let cluster = config.cluster.clone().unwrap_or_else(|| "callbound_store".to_owned());
    check_id(&cluster, "store.redis.cluster", problems);
    // What is remembered would be told to somebody else.
    let serves_keys = |issuer: &&Issuer| issuer.keys.remote().is_some_and(|remote| remote.cluster == cluster);
    if let Some(issuer) = known.issuers.iter().find(serves_keys) {
        problems
            .add("store.redis.cluster", format!("this cluster serves the keys of tokens.{}", issuer.name));
    }
    let Some(authority) = authority(&config.url) else {
        problems.add("store.redis.url", "expected where Webdis is, as in `http://127.0.0.1:7379`");
        return None;
    };
    Some(Remote {
        cluster,
        authority: authority.to_owned(),
        timeout,
        prefix,
        is_durable: config.durable,
        script: Script::default(),
    })
}

/// Host and port of a plain URL without a path.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (is_host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!host.is_empty() && host.bytes().all(fits), port)
        }
    };
    let is_port = match port.strip_prefix(':') {
        Some(port) => {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port != 0)
        }
        None => port.is_empty(),
    };
    (is_host && is_port).then_some(authority)
}

fn revocations(
    document: &Document<'_>,
    known: &Known,
    has_directory: bool,
    problems: &mut Problems,
) -> Revocations {
    let mut list = Revocations::default();
    for (path, config) in document.elements::<RevocationConfig>("revocations", problems) {
        let RevocationConfig { key, token, tokens_of_key, tokens_of_team, before } = config;
        let all_of = [&tokens_of_key, &tokens_of_team].into_iter().flatten().next().is_some();
        // With a directory a key may stand there.
        let is_gone = |id: &String| !has_directory && known.keys.with_id(id).is_none();
        for (member, id) in [("key", &key), ("tokens_of_key", &tokens_of_key)] {
            if id.as_ref().is_some_and(is_gone) {
                problems.add(
                    format!("{path}.{member}"),
                    "not one of api_keys; a key that is gone needs no revocation",
                );
            }
        }
        if tokens_of_team.as_ref().is_some_and(|id| known.tree.team(id).is_none()) {
            problems.add(format!("{path}.tokens_of_team"), "not one of teams");
        }
        // Milliseconds would revoke what is minted in the next centuries.
        if all_of && before.is_some_and(|before| before > 4_102_444_800) {
            problems.add(format!("{path}.before"), "expected Unix seconds before the year 2100");
        }
        if all_of != before.is_some() {
            problems.add(
                format!("{path}.before"),
                "`tokens_of_key` and `tokens_of_team` say the Unix second before which they were issued; nothing else does",
            );
        }
        let subjects = [
            key.map(Subject::Key),
            token.map(Subject::Token),
            tokens_of_key.map(Subject::TokensOfKey),
            tokens_of_team.map(Subject::TokensOfTeam),
        ];
        let mut subjects = subjects.into_iter().flatten().inspect(|subject| {
            let (_, id) = subject.parts();
            if !(1..=128).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
                problems.add(
                    &path,
                    "an id is 1 to 128 visible characters; a token is named by its `jti`, never by its text",
                );
            }
        });
        match (subjects.next(), subjects.next()) {
            (Some(subject), None) => {
                list.add(Revocation { subject, by: None, before: before.unwrap_or(0) });
            }
            _ => problems.add(path, "expected one of `key`, `token`, `tokens_of_key` and `tokens_of_team`"),
        }
    }
    list
}

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
        let is_exempt = is_named.is_none() && matches!(route.local, Some(Local::Revoke(_)));
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

/// What the document means by its home, be the section right or not: one mistake is one problem.
fn meant_home(document: &Document<'_>) -> Strength {
    match document.0.get("store").and_then(|store| store.get("home")) {
        None => Strength::Node,
        Some(home) if home.as_str() == Some("local") => Strength::Node,
        Some(_) => Strength::Fleet,
    }
}

/// A home that cannot reach as far as a rule needs would enforce half of it.
pub(super) fn check_strength(
    document: &Document<'_>,
    limits: &Limits,
    known: &Known,
    problems: &mut Problems,
) {
    let reaches = meant_home(document);
    let refuse = |path: String, problems: &mut Problems| {
        problems.add(path, "`fleet` needs a store that all gateways share: `store.home: redis`");
    };
    for limit in limits.list.iter().filter(|limit| limit.strength > reaches) {
        refuse(format!("limits.{}.strength", limit.id), problems);
    }
    for family in &known.families {
        for (member, strength) in [("uses", family.uses.strength), ("total_seconds", family.total.strength)] {
            if Strength::from(strength) > reaches {
                refuse(format!("tokens.{}.{member}.strength", family.family.name), problems);
            }
        }
        if family.uses.default.is_some_and(|uses| !(1..=MAX_USES).contains(&uses)) {
            problems.add(
                format!("tokens.{}.uses.default", family.family.name),
                format!("expected 1 to {MAX_USES}"),
            );
        }
        if family.total.default.is_some_and(|total| !(1..=604_800).contains(&total)) {
            problems.add(
                format!("tokens.{}.total_seconds.default", family.family.name),
                "expected 1 to 604800 seconds",
            );
        }
    }
}

/// Seconds are counted where sessions are opened; a family that opens none has none to count.
pub(super) fn check_seconds(routes: &[(Route, Vec<Match>)], known: &Known, problems: &mut Problems) {
    const NO_SESSIONS: &str =
        "no route with `upgrade` accepts these tokens, so there are no sessions to be counted";
    let opens = |family: usize| {
        let is_accepted = |accept: &Accept| match accept {
            Accept::Credentials { tokens, .. } => tokens.contains(&TokenSource::Family(family)),
            Accept::Public => false,
        };
        routes.iter().any(|(route, _)| route.is_upgrade && is_accepted(&route.accept))
    };
    for (index, family) in known.families.iter().enumerate() {
        if family.total.default.is_some() && !opens(index) {
            problems.add(format!("tokens.{}.total_seconds.default", family.family.name), NO_SESSIONS);
        }
    }
    for (index, (route, _)) in routes.iter().enumerate() {
        if route.mint().is_some_and(|rule| rule.total.asked.is_some() && !opens(rule.family)) {
            problems.add(format!("routes[{index}].mint.request.total"), NO_SESSIONS);
        }
    }
}

/// Whether anything of a policy stands in the gateway's own memory.
pub(super) fn remembers<'r>(
    store: &StoreRule,
    limits: &Limits,
    routes: impl Iterator<Item = &'r Route>,
) -> Remembers {
    let gives = |allowance: &Allowance| allowance.asked.is_some() || allowance.default.is_some();
    let counts = |route: &Route| {
        !route.limits.is_empty()
            || route.uses.max.is_some()
            || route.mint().is_some_and(|rule| gives(&rule.uses) || gives(&rule.total))
            || matches!(route.local, Some(Local::Revoke(_)))
    };
    let here = match store.home {
        Home::Redis(_) => limits.list.iter().any(|limit| limit.counts == Counts::Failures),
        Home::Local => routes.into_iter().any(counts),
    };
    Remembers { here }
}

/// Without a secret the seal keeps accidents away, not a neighbour who means harm.
pub(super) fn check_seal(
    document: &Document<'_>,
    store: &StoreRule,
    remembers: Remembers,
    warnings: &mut Vec<String>,
) {
    // Whether there is one, not what it is: secrets are not always looked at.
    let is_sealed = document.0.get("store").and_then(|store| store.get("secret")).is_some();
    if remembers.here && store.home == Home::Local && !is_sealed {
        warnings.push(
            "store.secret: not set, so another plugin in the same VM could change what is remembered unseen"
                .into(),
        );
    }
}

pub(super) fn uses(
    config: Option<&RouteUsesConfig>,
    accept: &Accept,
    is_upgrade: bool,
    path: &str,
    problems: &mut Problems,
) -> UsesRule {
    let Some(config) = config else { return UsesRule::default() };
    if matches!(accept, Accept::Credentials { tokens, .. } if tokens.is_empty()) {
        problems.add(format!("{path}.uses"), "no tokens are accepted here, and API keys are never counted");
    }
    let rule = UsesRule {
        is_counted: config.counted.unwrap_or(true),
        max: config.max,
        reconnect: config.reconnect_seconds,
    };
    if rule.max.is_some_and(|max| !(1..=MAX_USES).contains(&max)) {
        problems.add(format!("{path}.uses.max"), format!("expected 1 to {MAX_USES}"));
    }
    if rule.reconnect.is_some_and(|seconds| !is_upgrade || !(1..=300).contains(&seconds)) {
        problems.add(
            format!("{path}.uses.reconnect_seconds"),
            "expected 1 to 300 seconds, on a route with `upgrade`",
        );
    }
    if !rule.is_counted && (rule.max.is_some() || rule.reconnect.is_some()) {
        problems.add(format!("{path}.uses"), "what is not counted has neither `max` nor `reconnect_seconds`");
    }
    rule
}

pub(super) fn revoke(
    config: RevokeConfig,
    accept: &Accept,
    scopes: &[String],
    path: &str,
    problems: &mut Problems,
) -> Local {
    if !matches!(accept, Accept::Credentials { api_key: true, tokens } if tokens.is_empty()) {
        problems.add(path, "only API keys may revoke: `accept` must be `[\"api_key\"]`");
    }
    // Without one, every key that leaks could end all the others.
    if scopes.is_empty() {
        problems.add(path, "whoever may revoke holds a scope for it: name it in `scopes`");
    }
    Local::Revoke(RevokeRule { reaches_everything: config.reach == ReachConfig::Platform })
}
