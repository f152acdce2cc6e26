//! Issuers elsewhere: whose tokens are accepted and what their claims mean.

use super::super::bound::{TextBound, index_of};
use super::super::config::{ExternalConfig, IssuerConfig, JwksConfig};
use super::super::error::Problems;
use super::super::place::Pointer;
use super::super::{Keys, Platform, Reach, Tree};
use super::keyring::check_family_name;
use super::{Document, check_known_scopes, quoted, section};
use crate::credential::{
    Algorithm, ClaimPath, ClaimRules, Clock, Issuer, Jwk, Key, KeySet, KeySource, RemoteJwks,
};
use crate::json::Json;

pub(super) fn issuers(
    document: &Document<'_>,
    bounds: &[TextBound],
    platform: &Platform,
    tree: &Tree,
    keys: &Keys,
    problems: &mut Problems,
) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    let tokens = document.0.get("tokens").and_then(Json::members).unwrap_or_default();
    for (name, raw) in tokens.iter().filter(|(_, raw)| raw.get("external").is_some()) {
        let path = format!("tokens.{name}");
        check_family_name(name, &path, problems);
        let Some(config) = section::<IssuerConfig>(raw, &path, problems) else { continue };
        check(&config, platform, tree, keys, &path, problems);
        if issuers.iter().any(|other| other.issuer == config.issuer) {
            problems
                .add(format!("{path}.issuer"), "another family has this issuer: a token would be two things");
        }
        let source = key_source(document, &config.external, &format!("{path}.external.jwks"), problems);
        let claims = claim_rules(&config, bounds, platform, &path, problems);
        let (Some(keys), Some(claims)) = (source, claims) else { continue };
        issuers.push(Issuer {
            name: name.clone().into_owned(),
            issuer: config.issuer,
            audience: config.audience,
            key_id: config.external.key,
            algorithms: config.external.algorithms,
            types: config.external.typ,
            max_ttl: config.ttl.max,
            clock: Clock { leeway: config.clock.leeway, ahead: config.clock.ahead },
            keys,
            claims,
        });
    }
    issuers
}

fn check(
    config: &IssuerConfig,
    platform: &Platform,
    tree: &Tree,
    keys: &Keys,
    path: &str,
    problems: &mut Problems,
) {
    super::keyring::check_clock(&config.clock, path, problems);
    if !(1..=86_400).contains(&config.ttl.max) {
        problems.add(format!("{path}.ttl.max"), "expected 1 to 86400 seconds");
    }
    if config.issuer.is_empty() || config.audience.is_empty() {
        problems.add(path, "`issuer` and `audience` cannot be empty");
    }
    let maps_team = config.external.claims.0.iter().any(|(name, _)| name == "team");
    match keys.with_id(&config.external.key) {
        None => {
            let message = format!("{} is not one of api_keys", quoted(&config.external.key));
            problems.add(format!("{path}.external.key"), message);
        }
        // What bounds a user is written for the user: a team of theirs would know nothing of it.
        Some(key) if maps_team && tree.party(key.owner).is_some_and(|party| party.reach == Reach::User) => {
            problems.add(
                format!("{path}.external.claims.team"),
                "the key belongs to a user, who acts for nobody else",
            );
        }
        Some(_) => {}
    }
    let algorithms = &config.external.algorithms;
    if algorithms.is_empty() || algorithms.contains(&Algorithm::Hs256) {
        problems.add(format!("{path}.external.algorithms"), "expected some of `EdDSA`, `ES256` and `RS256`");
    }
    if config.external.typ.as_ref().is_some_and(Vec::is_empty) {
        problems
            .add(format!("{path}.external.typ"), "an empty list allows no token; leave it out to allow any");
    }
    check_known_scopes(&config.default_scopes, &platform.scopes, &format!("{path}.default_scopes"), problems);
}

fn key_source(
    document: &Document<'_>,
    config: &ExternalConfig,
    path: &str,
    problems: &mut Problems,
) -> Option<KeySource> {
    match (&config.jwks.keys, &config.jwks.url) {
        (Some(keys), None) => inline_keys(keys, &config.algorithms, path, problems).map(KeySource::Inline),
        (None, Some(url)) => {
            let by_address = document.profile().is_some_and(|profile| profile.calls_addresses);
            remote(url, &config.jwks, by_address, path, problems).map(KeySource::Remote)
        }
        _ => {
            problems.add(path, "expected one of `keys` and `url`");
            None
        }
    }
}

fn inline_keys(keys: &[Jwk], allowed: &[Algorithm], path: &str, problems: &mut Problems) -> Option<KeySet> {
    let mut set = KeySet::default();
    for (index, jwk) in keys.iter().enumerate() {
        let path = format!("{path}.keys[{index}]");
        let algorithm = jwk.algorithm().filter(|algorithm| allowed.contains(algorithm));
        match (&jwk.kid, algorithm.map(|algorithm| Key::from_jwk(algorithm, jwk))) {
            (None, _) => problems.add(path, "missing `kid`"),
            (_, None) => problems.add(path, "not a key of one of `algorithms`"),
            (_, Some(Err(error))) => problems.add(path, error.to_string()),
            (Some(kid), Some(Ok(key))) => {
                if !set.add(kid, key) {
                    problems.add(path, "this `kid` stands here already");
                }
            }
        }
    }
    if keys.is_empty() {
        problems.add(format!("{path}.keys"), "an empty list verifies no token");
    }
    Some(set)
}

fn remote(
    url: &str,
    config: &JwksConfig,
    by_address: bool,
    path: &str,
    problems: &mut Problems,
) -> Option<RemoteJwks> {
    let is_plain =
        url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'#' | b'@'));
    let parts = url.split_once("://").filter(|(scheme, _)| is_plain && matches!(*scheme, "http" | "https"));
    let parts = parts.and_then(|(scheme, rest)| Some((scheme, rest.split_once('/')?)));
    let Some((scheme, (authority, rest))) = parts.filter(|(_, (authority, _))| !authority.is_empty()) else {
        problems.add(format!("{path}.url"), "expected a URL with a path, as in `https://idp.example/keys`");
        return None;
    };
    let Some(cluster) = config.cluster.as_deref().or(by_address.then_some("")) else {
        problems.add(format!("{path}.cluster"), "missing; name the gateway's cluster that serves the URL");
        return None;
    };
    let remote = RemoteJwks {
        cluster: cluster.to_owned(),
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path: format!("/{rest}"),
        refresh: config.refresh.unwrap_or(300),
        stale: config.stale.unwrap_or(3_600),
        cooldown: config.cooldown.unwrap_or(30),
    };
    if remote.cooldown == 0
        || remote.refresh < remote.cooldown
        || remote.stale < remote.refresh
        || remote.stale > 604_800
    {
        problems.add(path, "expected 1 <= cooldown <= refresh <= stale <= 604800 seconds");
    }
    Some(remote)
}

fn claim_rules(
    config: &IssuerConfig,
    bounds: &[TextBound],
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) -> Option<ClaimRules> {
    let mut rules = ClaimRules { default_scopes: config.default_scopes.clone(), ..ClaimRules::default() };
    for (name, text) in &config.external.claims.0 {
        let path = format!("{path}.external.claims.{name}");
        let (text, optional) = text.strip_suffix('?').map_or((text.as_str(), false), |text| (text, true));
        let Some(pointer) = Pointer::parse(text) else {
            problems.add(path, "expected a JSON pointer into the claims, as in `/scope` or `/org/id?`");
            continue;
        };
        let claim = ClaimPath { names: pointer.names().to_vec(), optional };
        match name.as_str() {
            "team" => rules.team = Some(claim),
            "scopes" => rules.scopes = Some(claim),
            "from" => rules.from = Some(claim),
            "to" => rules.to = Some(claim),
            _ if index_of(bounds, name).is_some() => rules.texts.push((name.clone(), claim)),
            _ => problems
                .add(path, "neither `team`, `scopes`, `from` nor `to`, and not one of platform.bounds"),
        }
    }
    if let Some(renamed) = &config.external.scopes {
        for (theirs, ours) in &renamed.0 {
            check_known_scopes(ours, &platform.scopes, &format!("{path}.external.scopes.{theirs}"), problems);
        }
        if rules.scopes.is_none() {
            problems.add(
                format!("{path}.external.scopes"),
                "without `claims.scopes` there is nothing to translate",
            );
        }
        rules.renamed = Some(renamed.0.clone());
    }
    Some(rules)
}
