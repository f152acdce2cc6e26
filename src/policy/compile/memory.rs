//! What is remembered and where: the store, the uses of tokens, and what the policy itself revokes.

use core::net::Ipv6Addr;

use super::super::config::{
    DirectoryConfig, HomeConfig, ReachConfig, RedisConfig, RevocationConfig, RevokeConfig, RouteUsesConfig,
    SecretConfig, StaleConfig, StoreConfig, StrengthConfig,
};
use super::super::error::Problems;
use super::super::host::{Profile, SharedMemory};
use super::super::limit::{Counts, Limits, UsesRule};
use super::super::local::RevokeRule;
use super::super::memory::{DirectoryRule, Remembers, StoreBackend, StoreRule};
use super::super::route::{Accept, LocalReply, Route, TokenSource};
use super::keyring::{NO_INLINE, is_inline_secret, load_secret};
use super::local::MAX_USES;
use super::routes::Match;
use super::{Document, Known, Secrets, check_id};
use crate::credential::{Algorithm, Issuer, Key};
use crate::store::redis::{RedisStore, Script};
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
    profile: &Profile,
    known: &Known,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> StoreRule {
    let config: StoreConfig = document.section("store", problems).unwrap_or_default();
    let home = home(&config, known, problems);
    // A memory of nginx has its whole size from the beginning.
    let default = if profile.memory == SharedMemory::Evicted { 65_536 } else { 262_144 };
    let entries = config.entries.unwrap_or(default);
    if !(65_536..=1_048_576).contains(&entries) {
        problems.add("store.entries", "expected 65536 to 1048576");
    }
    let key =
        config.secret.as_ref().and_then(|secret| seal_key(secret, document, secrets, problems, warnings));
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

fn seal_key(
    secret: &SecretConfig,
    document: &Document<'_>,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Option<Vec<u8>> {
    if is_inline_secret(secret) && !document.allows_inline_secrets() {
        problems.add("store.secret", NO_INLINE);
    }
    if is_inline_secret(secret) {
        warnings.push(
            "store: a secret stands in the policy itself and shows in the gateway's config dumps".into(),
        );
    }
    let key = load_secret(secret, "*store", "seal", Algorithm::Hs256, secrets).and_then(fit_secret);
    key.map_err(|message| problems.add("store.secret", message)).ok().flatten()
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

fn home(config: &StoreConfig, known: &Known, problems: &mut Problems) -> StoreBackend {
    match (config.home, &config.redis) {
        (HomeConfig::Local, None) => StoreBackend::Memory,
        (HomeConfig::Redis, Some(redis)) => {
            remote(redis, known, problems).map_or(StoreBackend::Memory, StoreBackend::Redis)
        }
        (HomeConfig::Local, Some(_)) => {
            problems.add("store.redis", "this is for `home: redis`");
            StoreBackend::Memory
        }
        (HomeConfig::Redis, None) => {
            problems.add(
                "store.redis",
                "missing; say where Redis is, as in `{\"url\": \"http://127.0.0.1:7379\"}`",
            );
            StoreBackend::Memory
        }
    }
}

fn remote(config: &RedisConfig, known: &Known, problems: &mut Problems) -> Option<RedisStore> {
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
    Some(RedisStore {
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
        check_revocation(&config, known, has_directory, &path, problems);
        let RevocationConfig { key, token, tokens_of_key, tokens_of_team, before } = config;
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

/// What is revoked is there, and what is revoked up to an instant says it.
fn check_revocation(
    config: &RevocationConfig,
    known: &Known,
    has_directory: bool,
    path: &str,
    problems: &mut Problems,
) {
    // With a directory a key may stand there.
    let is_gone = |id: &String| !has_directory && known.keys.with_id(id).is_none();
    for (member, id) in [("key", &config.key), ("tokens_of_key", &config.tokens_of_key)] {
        if id.as_ref().is_some_and(is_gone) {
            problems.add(
                format!("{path}.{member}"),
                "not one of api_keys; a key that is gone needs no revocation",
            );
        }
    }
    if config.tokens_of_team.as_ref().is_some_and(|id| known.tree.team(id).is_none()) {
        problems.add(format!("{path}.tokens_of_team"), "not one of teams");
    }
    let is_up_to = config.tokens_of_key.is_some() || config.tokens_of_team.is_some();
    // Milliseconds would revoke what is minted in the next centuries.
    if is_up_to && config.before.is_some_and(|before| before > 4_102_444_800) {
        problems.add(format!("{path}.before"), "expected Unix seconds before the year 2100");
    }
    if is_up_to != config.before.is_some() {
        problems.add(
            format!("{path}.before"),
            "`tokens_of_key` and `tokens_of_team` say the Unix second before which they were issued; nothing else does",
        );
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
    let counts = |route: &Route| {
        !route.limits.is_empty() || route.counts_uses() || matches!(route.local, Some(LocalReply::Revoke(_)))
    };
    let here = match store.home {
        StoreBackend::Redis(_) => limits.list.iter().any(|limit| limit.counts == Counts::Failures),
        StoreBackend::Memory => routes.into_iter().any(counts),
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
    if remembers.here && store.home == StoreBackend::Memory && !is_sealed {
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
) -> LocalReply {
    if !matches!(accept, Accept::Credentials { api_key: true, tokens } if tokens.is_empty()) {
        problems.add(path, "only API keys may revoke: `accept` must be `[\"api_key\"]`");
    }
    // Without one, every key that leaks could end all the others.
    if scopes.is_empty() {
        problems.add(path, "whoever may revoke holds a scope for it: name it in `scopes`");
    }
    LocalReply::Revoke(RevokeRule { reaches_everything: config.reach == ReachConfig::Platform })
}
