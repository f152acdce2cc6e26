//! What a policy needs of its host: what a host cannot do is refused here, not half done there.

use super::super::config::{HeldBy, Host, SecretConfig, SessionsEndedBy};
use super::super::error::Problems;
use super::super::host::{Hold, Profile, SharedMemory};
use super::super::limit::{Counts, Measure};
use super::super::memory::{StoreBackend, StoreRule};
use super::super::route::{Accept, LocalReply, Route, TokenSource, Told};
use super::keyring::{NO_INLINE, is_inline_secret, load_secret};
use super::routes::CompiledRoutes;
use super::{Document, Known, Secrets};
use crate::credential::{Algorithm, Family, Issuer};
use crate::store::SESSION_CAPACITY_PREALLOCATED;

/// The sections that speak of the host.
pub(super) struct HostRule {
    pub(super) profile: &'static Profile,
    pub(super) hold: Hold,
    pub(super) entropy: Vec<u8>,
    pub(super) ends_sessions: bool,
}

/// What a policy's needs are read from.
pub(super) struct Needs<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) known: &'a Known,
    pub(super) routes: &'a CompiledRoutes,
    pub(super) store: &'a StoreRule,
}

pub(super) fn host(
    document: &Document<'_>,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> HostRule {
    let hint = "name the gateway: `envoy`, `kong` or `apisix`";
    let host: Host = document.required("host", hint, problems).unwrap_or(Host::Envoy);
    let held_by: HeldBy = document.section("held_by", problems).unwrap_or_default();
    let ended_by: SessionsEndedBy = document.section("sessions_ended_by", problems).unwrap_or_default();
    if held_by == HeldBy::BufferFilter && host != Host::Envoy {
        problems.add("held_by", "only Envoy has a buffer filter; leave it out");
    }
    let profile = host.profile();
    HostRule {
        profile,
        hold: profile.hold(held_by),
        entropy: entropy(document, profile, secrets, problems, warnings).unwrap_or_default(),
        ends_sessions: ended_by == SessionsEndedBy::Gateway,
    }
}

fn entropy(
    document: &Document<'_>,
    profile: &Profile,
    secrets: &Secrets<'_>,
    problems: &mut Problems,
    warnings: &mut Vec<String>,
) -> Option<Vec<u8>> {
    let secret: SecretConfig = document.section("entropy", problems)?;
    if profile.has_entropy {
        problems.add("entropy", "this host has randomness of its own, which is better; leave it out");
    }
    if is_inline_secret(&secret) {
        if !document.allows_inline_secrets() {
            problems.add("entropy", NO_INLINE);
        }
        warnings
            .push("entropy: it stands in the policy itself and shows in the gateway's configuration".into());
    }
    match load_secret(&secret, "*entropy", "seed", Algorithm::Hs256, secrets) {
        Ok(Some(bytes)) if bytes.len() < 32 => {
            problems.add("entropy", "expected at least 32 bytes; make a secret with `callbound gen-secret`");
            None
        }
        Ok(bytes) => bytes,
        Err(message) => {
            problems.add("entropy", message);
            None
        }
    }
}

/// Refuses what the host cannot do.
pub(super) fn check(rule: &HostRule, needs: &Needs<'_>, problems: &mut Problems) {
    check_memory(rule.profile, needs, problems);
    check_ticks(rule.profile, needs, problems);
    check_signatures(rule.profile, needs, problems);
    let has_seed = needs.document.0.get("entropy").is_some();
    if !rule.profile.has_entropy && !has_seed && names_sessions(needs) {
        problems.add(
            "entropy",
            "missing: sessions and a remote store's answers are told apart by random names, which this host cannot make",
        );
    }
    for (index, route) in needs.routes.routes.iter().enumerate() {
        let path = format!("routes[{index}]");
        if route.mint().is_some() && !rule.profile.has_entropy && !has_seed {
            problems.add(
                format!("{path}.mint"),
                "this host has no randomness fit for tokens: give `entropy`, as in `{\"env\": \"CALLBOUND_ENTROPY\"}`",
            );
        }
        let tells_body = |told: &Told| matches!(told, Told::Bound(bound) if route.reads_in_body(*bound));
        if !rule.hold.lets_headers_change() && route.identify.iter().any(tells_body) {
            problems.add(
                format!("{path}.identify"),
                "what stands in the body cannot be told in a header: here the headers are finished before the body is read",
            );
        }
        if rule.ends_sessions && !rule.profile.ends_streams && is_limited(route, needs) {
            problems.add(
                format!("{path}.upgrade"),
                "this host cannot end a connection, and sessions are limited here: let the upstream do it, and say so with `sessions_ended_by: upstream`",
            );
        }
    }
}

/// Whether something is told apart by a random name.
fn names_sessions(needs: &Needs<'_>) -> bool {
    let counts = |measure: &Measure| matches!(measure, Measure::Sessions { .. });
    needs.store.home != StoreBackend::Memory
        || needs.routes.limits.list.iter().any(|limit| counts(&limit.measure))
        || needs.routes.routes.iter().any(|route| route.uses.reconnect.is_some())
}

/// Whether sessions opened by a route may have to end at a time.
fn is_limited(route: &Route, needs: &Needs<'_>) -> bool {
    let Accept::Credentials { tokens, .. } = &route.accept else { return false };
    let is_accepted = |family: usize| tokens.contains(&TokenSource::Family(family));
    let mut mints =
        needs.routes.routes.iter().filter_map(Route::mint).filter(|rule| is_accepted(rule.family));
    let mut families = needs.known.families.iter().enumerate().filter(|(index, _)| is_accepted(*index));
    let mut of_token = || {
        mints.any(|rule| rule.session.is_some() || rule.total.asked.is_some())
            || families.any(|(_, family)| family.total.default.is_some())
    };
    let keys = needs.known.keys.iter().map(|key| &key.ceiling);
    let mut ceilings = keys.chain(needs.known.tree.all_ceilings());
    route.is_upgrade
        && (route.session.is_some() || ceilings.any(|ceiling| ceiling.session.is_some()) || of_token())
}

/// What must be remembered needs a memory.
fn check_memory(profile: &Profile, needs: &Needs<'_>, problems: &mut Problems) {
    if profile.memory == SharedMemory::Evicted && needs.store.home == StoreBackend::Memory {
        check_sessions(needs, problems);
    }
    if profile.memory != SharedMemory::None {
        return;
    }
    const NONE: &str = "this host has no memory that its workers share";
    for limit in needs.routes.limits.list.iter().filter(|limit| limit.counts == Counts::Failures) {
        problems.add(format!("limits.{}", limit.id), format!("{NONE}: failures cannot be counted"));
    }
    if needs.store.home != StoreBackend::Memory {
        return;
    }
    for limit in needs.routes.limits.list.iter().filter(|limit| limit.counts != Counts::Failures) {
        problems.add(format!("limits.{}", limit.id), format!("{NONE}: nothing can be counted"));
    }
    for (index, route) in needs.routes.routes.iter().enumerate() {
        if route.counts_uses() {
            problems.add(format!("routes[{index}]"), format!("{NONE}: uses of tokens cannot be counted"));
        }
        if matches!(route.local, Some(LocalReply::Revoke(_))) {
            problems
                .add(format!("routes[{index}].revoke"), format!("{NONE}: nothing can be revoked by request"));
        }
    }
}

/// Of one count there is one value, which cannot grow here.
fn check_sessions(needs: &Needs<'_>, problems: &mut Problems) {
    let most = SESSION_CAPACITY_PREALLOCATED as u64;
    for limit in &needs.routes.limits.list {
        if matches!(limit.measure, Measure::Sessions { max } if max > most) {
            problems.add(
                format!("limits.{}.sessions.max", limit.id),
                format!(
                    "this host's memory counts {most} open sessions at most; more need `store.home: redis`"
                ),
            );
        }
    }
}

/// What must be done from time to time needs somebody who calls.
fn check_ticks(profile: &Profile, needs: &Needs<'_>, problems: &mut Problems) {
    if profile.has_ticks {
        return;
    }
    const NONE: &str = "this host calls the module for requests only";
    for issuer in needs.known.issuers.iter().filter(|issuer| issuer.keys.remote().is_some()) {
        problems.add(
            format!("tokens.{}.external.jwks.url", issuer.name),
            format!("{NONE}, so nothing is fetched: give the keys themselves"),
        );
    }
    if needs.store.home != StoreBackend::Memory {
        problems.add(
            "store.home",
            format!("{NONE}, so it would not learn what was revoked, nor renew what it holds"),
        );
    }
    let sessions = |measure: &Measure| matches!(measure, Measure::Sessions { .. });
    for limit in needs.routes.limits.list.iter().filter(|limit| sessions(&limit.measure)) {
        problems
            .add(format!("limits.{}", limit.id), format!("{NONE}, so it would not know when a session ends"));
    }
}

fn check_signatures(profile: &Profile, needs: &Needs<'_>, problems: &mut Problems) {
    if profile.verifies {
        return;
    }
    const NONE: &str = "this host cannot verify RS256; use EdDSA, ES256 or HS256";
    let families = needs.known.families.iter().map(|family| &family.family);
    for family in families.filter(|family| Family::needs_host(family)) {
        problems.add(format!("tokens.{}", family.name), NONE);
    }
    for issuer in needs.known.issuers.iter().filter(|issuer| Issuer::needs_host(issuer)) {
        problems.add(format!("tokens.{}.external.algorithms", issuer.name), NONE);
    }
}
