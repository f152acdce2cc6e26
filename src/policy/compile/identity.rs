//! Teams, users and API keys: who there is.

use std::collections::{HashMap, HashSet};

use super::super::bound::TextBound;
use super::super::config::{ApiKeyConfig, NumberConfig, Switches, TeamConfig, TeamKind, UserConfig};
use super::super::error::{ConfigError, Problem, Problems};
use super::super::team::{Owner, Party, PartyId, Reach, Tree};
use super::super::{ApiKey, Ceiling, Keys, Platform, Policy};
use super::bounds::ceiling;
use super::{Document, check_id, check_known_scopes, check_scopes, quoted, section};
use crate::credential::Digest;
use crate::json::Json;
use crate::number::Number;

/// Reads who there is.
pub(super) fn parties(
    document: &Document<'_>,
    platform: &Platform,
    bounds: &[TextBound],
    problems: &mut Problems,
) -> Tree {
    let mut numbers = HashMap::new();
    let configs = read_teams(document, problems);
    let ids: Ids<'_> =
        configs.iter().enumerate().map(|(index, (_, team))| (team.id.as_str(), PartyId(index))).collect();
    let mut parties: Vec<Party> =
        configs.iter().map(|(path, config)| team(config, &ids, bounds, path, problems)).collect();
    for (index, (path, config)) in configs.iter().enumerate() {
        check_rights(&config.features, config.scopes.as_deref(), platform, path, problems);
        own_numbers(&mut numbers, &config.numbers, PartyId(index), path, problems);
        if let Some(problem) = ancestry_problem(&parties, index) {
            problems.add(format!("{path}.parent"), problem);
        }
    }
    let mut users = HashSet::new();
    for (path, config) in document.elements::<UserConfig>("users", problems) {
        let id = PartyId(parties.len());
        check_id(&config.id, &format!("{path}.id"), problems);
        check_rights(&config.features, config.scopes.as_deref(), platform, &path, problems);
        own_numbers(&mut numbers, &config.numbers, id, &path, problems);
        if !users.insert(config.id.clone()) {
            problems.add(format!("{path}.id"), format!("`{}` stands among the users already", config.id));
        }
        parties.push(user(config, &ids, &path, problems));
    }
    Tree::new(parties, numbers)
}

type Ids<'a> = HashMap<&'a str, PartyId>;

fn team(
    config: &TeamConfig,
    ids: &Ids<'_>,
    bounds: &[TextBound],
    path: &str,
    problems: &mut Problems,
) -> Party {
    Party {
        id: config.id.clone(),
        reach: match config.kind {
            TeamKind::Organization => Reach::Organization,
            TeamKind::SubEntity => Reach::SubEntity,
        },
        parent: parent_of(config, ids, path, problems),
        member_of: Vec::new(),
        features: config.features.0.clone(),
        scopes: config.scopes.clone(),
        ceiling: ceiling(&config.ceiling, bounds, &format!("{path}.ceiling"), problems),
        limits: config.limits.0.clone(),
    }
}

fn user(config: UserConfig, ids: &Ids<'_>, path: &str, problems: &mut Problems) -> Party {
    Party {
        id: config.id,
        reach: Reach::User,
        parent: None,
        member_of: memberships(&config.member_of, ids, path, problems),
        features: config.features.0,
        scopes: config.scopes,
        ceiling: Ceiling::default(),
        limits: config.limits.0,
    }
}

fn read_teams(document: &Document<'_>, problems: &mut Problems) -> Vec<(String, TeamConfig)> {
    let teams = document.elements::<TeamConfig>("teams", problems);
    let mut seen = HashSet::new();
    for (path, team) in &teams {
        check_id(&team.id, &format!("{path}.id"), problems);
        if !seen.insert(team.id.as_str()) {
            problems.add(format!("{path}.id"), format!("`{}` stands among the teams already", team.id));
        }
    }
    teams
}

fn parent_of(team: &TeamConfig, ids: &Ids<'_>, path: &str, problems: &mut Problems) -> Option<PartyId> {
    match (&team.parent, team.kind) {
        (None, TeamKind::Organization) => None,
        (None, TeamKind::SubEntity) => {
            problems.add(format!("{path}.parent"), "missing; a sub-entity stands below a team");
            None
        }
        (Some(parent), _) => {
            let found = ids.get(parent.as_str()).copied();
            if found.is_none() {
                problems.add(format!("{path}.parent"), format!("{} is not one of teams", quoted(parent)));
            }
            found
        }
    }
}

/// How many teams may stand above one; every request walks up them.
const MAX_ANCESTORS: usize = 8;

/// Walks up from a team; what is wrong with what stands above it.
fn ancestry_problem(parties: &[Party], start: usize) -> Option<&'static str> {
    let mut at = start;
    for _ in 0..=MAX_ANCESTORS {
        match parties.get(at).and_then(|party| party.parent) {
            Some(PartyId(parent)) if parent == start => return Some("a team cannot stand below itself"),
            Some(PartyId(parent)) => at = parent,
            None => return None,
        }
    }
    Some("more than 8 teams stand above this one, or they stand in a circle")
}

fn memberships(names: &[String], ids: &Ids<'_>, path: &str, problems: &mut Problems) -> Vec<PartyId> {
    let teams = names.iter().enumerate().filter_map(|(index, name)| {
        let team = ids.get(name.as_str()).copied();
        if team.is_none() {
            problems
                .add(format!("{path}.member_of[{index}]"), format!("{} is not one of teams", quoted(name)));
        }
        team
    });
    teams.collect()
}

fn own_numbers(
    all: &mut HashMap<Number, Owner>,
    own: &[NumberConfig],
    party: PartyId,
    path: &str,
    problems: &mut Problems,
) {
    for (index, config) in own.iter().enumerate() {
        let path = format!("{path}.numbers[{index}]");
        match Number::parse(&config.e164) {
            None => problems.add(path, "not a number in E.164, as in `+15551234567`"),
            Some(number) if number.is_emergency() => {
                problems.add(path, "an emergency number cannot be owned")
            }
            Some(number) => {
                if all.insert(number, Owner { party, active: config.active }).is_some() {
                    problems.add(path, "this number is owned already");
                }
            }
        }
    }
}

/// What a party switches or lists must exist: a misspelt `webrct: false` would switch nothing off.
fn check_rights(
    features: &Switches,
    scopes: Option<&[String]>,
    platform: &Platform,
    path: &str,
    problems: &mut Problems,
) {
    for (name, _) in features.0.iter().filter(|(name, _)| !platform.knows_feature(name)) {
        problems.add(format!("{path}.features.{name}"), "not one of platform.features");
    }
    check_scopes(scopes, &platform.scopes, &format!("{path}.scopes"), problems);
}

pub(super) fn api_keys(
    document: &Document<'_>,
    tree: &Tree,
    platform: &Platform,
    bounds: &[TextBound],
    problems: &mut Problems,
) -> Keys {
    let mut keys = Keys::default();
    let known = KnownParties { tree, platform, bounds };
    for (path, config) in document.elements::<ApiKeyConfig>("api_keys", problems) {
        let digest = config.sha256.as_deref().map(read_digest);
        if digest == Some(None) || (digest.is_none() && !document.names_as_issuers_key(&config.id)) {
            problems.add(
                format!("{path}.sha256"),
                "expected the 64 lower-case hex digits of `callbound hash-key`, never the key itself",
            );
        }
        let Some(key) = api_key(config, &known, &path, problems) else { continue };
        let id = key.id.clone();
        match keys.add(key, digest.flatten()) {
            Ok(()) => {}
            Err("id") => problems.add(format!("{path}.id"), format!("`{id}` stands among the keys already")),
            Err(member) => problems.add(format!("{path}.{member}"), "this key stands among the keys already"),
        }
    }
    keys
}

/// What a key refers to by name.
struct KnownParties<'a> {
    tree: &'a Tree,
    platform: &'a Platform,
    bounds: &'a [TextBound],
}

fn api_key(
    config: ApiKeyConfig,
    known: &KnownParties<'_>,
    path: &str,
    problems: &mut Problems,
) -> Option<ApiKey> {
    check_id(&config.id, &format!("{path}.id"), problems);
    check_known_scopes(&config.scopes, &known.platform.scopes, &format!("{path}.scopes"), problems);
    // Milliseconds would be a key that never expires.
    if config.expires_at.is_some_and(|at| at > 4_102_444_800) {
        problems.add(format!("{path}.expires_at"), "expected Unix seconds before the year 2100");
    }
    let owner = owner_of(&config, known.tree, path, problems);
    let ceiling = ceiling(&config.ceiling, known.bounds, &format!("{path}.ceiling"), problems);
    Some(ApiKey {
        id: config.id,
        owner: owner?,
        scopes: config.scopes,
        ceiling,
        expires_at: config.expires_at,
        revoked: config.revoked,
        limits: config.limits.0,
    })
}

/// Reads an API key that stands outside the policy, written as one in it; with its digest.
///
/// # Errors
///
/// [`ConfigError`] when it could not stand in the policy.
pub fn read_key(policy: &Policy, text: &[u8]) -> Result<(ApiKey, Digest), ConfigError> {
    let mut problems = Problems::default();
    let json = Json::parse(text).map_err(|error| ConfigError {
        problems: vec![Problem { path: String::new(), message: error.to_string() }],
    })?;
    let known = KnownParties { tree: &policy.tree, platform: &policy.platform, bounds: &policy.bounds };
    let config: Option<ApiKeyConfig> = section(&json, "key", &mut problems);
    let digest = config.as_ref().and_then(|config| read_digest(config.sha256.as_deref()?));
    let key = config.and_then(|config| api_key(config, &known, "key", &mut problems));
    for (name, _) in key.iter().flat_map(|key| &key.limits) {
        if !policy.limits.list.iter().any(|limit| limit.id == *name && limit.knows_keys()) {
            problems
                .add(format!("key.limits.{name}"), "not one of the limits that are counted apart for keys");
        }
    }
    if digest.is_none() {
        problems.add("key.sha256", "expected the 64 lower-case hex digits of `callbound hash-key`");
    }
    problems.into_result()?;
    let missing =
        || ConfigError { problems: vec![Problem { path: "key".into(), message: "incomplete".into() }] };
    key.zip(digest).ok_or_else(missing)
}

fn owner_of(config: &ApiKeyConfig, tree: &Tree, path: &str, problems: &mut Problems) -> Option<PartyId> {
    let (found, member, id) = match (&config.team, &config.user) {
        (Some(team), None) => (tree.team(team), "team", team),
        (None, Some(user)) => (tree.user(user), "user", user),
        _ => {
            problems.add(path, "a key belongs to exactly one `team` or `user`");
            return None;
        }
    };
    if found.is_none() {
        problems.add(format!("{path}.{member}"), format!("{} is not one of {member}s", quoted(id)));
    }
    found
}

fn read_digest(hex: &str) -> Option<Digest> {
    if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut digest = Digest::default();
    for (slot, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
