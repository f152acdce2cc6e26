//! Revocation: whether what a request shows was revoked, and what a request may revoke.

use crate::json::Json;
use crate::policy::{PartyId, Policy, Reach, RevokeRule, StoreBackend};
use crate::reason::Reason;
use crate::store::{Revocation, Revocations, Subject};

use super::DecisionContext;
use super::bounds::shown;
use super::rights::Rights;
use super::verdict::Denial;

/// How a user's word is written among those of teams, whose ids cannot begin so.
const USER: char = '~';

/// Refuses a credential that was revoked before its time.
pub(super) fn check(policy: &Policy, known: &Revocations, rights: &Rights<'_>) -> Result<(), Denial> {
    let known = [&policy.store.revocations, known];
    if known.iter().all(|revocations| revocations.is_empty()) {
        return Ok(());
    }
    let reaches = |by: Option<&str>| by.is_none_or(|by| reaches(policy, by, rights));
    let covers = |subject: &Subject, issued_at: u64| {
        known.iter().any(|revocations| revocations.covers(subject, issued_at, reaches))
    };
    let key = &rights.key().id;
    if covers(&Subject::Key(key.clone()), 0) {
        return Err(Reason::KeyRevoked.into());
    }
    let Some(token) = rights.token() else { return Ok(()) };
    let mut teams = policy.tree.teams_over(rights.party()).chain(policy.tree.teams_over(rights.key().owner));
    let is_revoked = covers(&Subject::Token(token.jti.clone()), token.iat)
        || covers(&Subject::TokensOfKey(key.clone()), token.iat)
        || teams.any(|team| covers(&Subject::TokensOfTeam(team.to_owned()), token.iat));
    if is_revoked { Err(Reason::TokenRevoked.into()) } else { Ok(()) }
}

/// Whether a team's or a user's word reaches whoever acts.
fn reaches(policy: &Policy, by: &str, rights: &Rights<'_>) -> bool {
    let owner = rights.key().owner;
    match by.strip_prefix(USER) {
        Some(user) => {
            let owner = policy.tree.party(owner);
            owner.is_some_and(|party| party.reach == Reach::User && party.id == user)
        }
        None => policy.tree.team(by).is_some_and(|team| {
            policy.tree.reaches(team, owner) || policy.tree.reaches(team, rights.party())
        }),
    }
}

/// Reads what a request wants revoked, and whether it may.
pub(super) fn read(
    policy: &Policy,
    rule: RevokeRule,
    rights: &Rights<'_>,
    body: &Json<'_>,
    moment: &DecisionContext<'_>,
) -> Result<Revocation, Denial> {
    let mut subject = None;
    let mut before = None;
    for (name, value) in body.members().unwrap_or_default() {
        let denial = |reason| Denial::of(reason, shown(name));
        match (name.as_ref(), value) {
            ("before", Json::Unsigned(second)) if *second <= moment.now => before = Some(*second),
            ("before", Json::Unsigned(_) | Json::OtherNumber(_)) => return Err(denial(Reason::MemberRange)),
            (word, Json::String(id)) if Subject::of(word, "").is_some() => {
                let is_id = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
                let read =
                    Subject::of(word, id).filter(|_| is_id).ok_or_else(|| denial(Reason::MemberType))?;
                if subject.replace(read).is_some() {
                    return Err(denial(Reason::MemberAmbiguous));
                }
            }
            (word, _) if word == "before" || Subject::of(word, "").is_some() => {
                return Err(denial(Reason::MemberType));
            }
            _ => return Err(denial(Reason::MemberUnknown)),
        }
    }
    let subject = subject.ok_or_else(|| Denial::of(Reason::MemberMissing, "token"))?;
    let is_instant = matches!(subject, Subject::TokensOfKey(_) | Subject::TokensOfTeam(_));
    if before.is_some() && !is_instant {
        return Err(Denial::of(Reason::MemberUnknown, "before"));
    }
    check_reach(policy, rule, rights, &subject)?;
    let by = (!rule.reaches_everything).then(|| word_of(rights));
    Ok(Revocation { subject, by, before: before.unwrap_or(moment.now) })
}

/// What is not there and what is out of reach get one answer; of a token's id nobody can tell whose it is.
fn check_reach(
    policy: &Policy,
    rule: RevokeRule,
    rights: &Rights<'_>,
    subject: &Subject,
) -> Result<(), Denial> {
    let everything = rule.reaches_everything;
    let is_in_reach = match subject {
        Subject::Token(_) => true,
        // Whose a key is that stands outside the policy nobody here can tell.
        Subject::Key(id) | Subject::TokensOfKey(id) => match policy.keys.with_id(id) {
            Some(key) => everything || may_revoke_of(policy, rights, key.owner),
            None => everything && policy.store.directory.is_some(),
        },
        Subject::TokensOfTeam(id) => match everything {
            true => policy.tree.team(id).is_some(),
            false => policy.tree.team(id).is_some_and(|team| may_revoke_of(policy, rights, team)),
        },
    };
    let (word, _) = subject.parts();
    if is_in_reach { Ok(()) } else { Err(Denial::of(Reason::TenantDenied, word)) }
}

/// A user's word reaches only what is their own, though they may act for their teams.
fn may_revoke_of(policy: &Policy, rights: &Rights<'_>, owner: PartyId) -> bool {
    match policy.tree.party(rights.party()).map(|party| party.reach) {
        Some(Reach::User) => owner == rights.party(),
        _ => policy.tree.reaches(rights.party(), owner),
    }
}

fn word_of(rights: &Rights<'_>) -> String {
    match rights.party_claims() {
        (Some(team), _) => team.to_owned(),
        (None, user) => format!("{USER}{}", user.unwrap_or_default()),
    }
}

/// The answer to a revocation that is in force.
pub(super) fn answer(policy: &Policy) -> Vec<u8> {
    let strength = policy.store.home.strength();
    let within = match policy.store.home {
        StoreBackend::Memory => 0,
        StoreBackend::Redis(_) => policy.store.refresh + 1,
    };
    let members = vec![
        ("revoked".into(), Json::Bool(true)),
        ("strength".into(), Json::from(strength.as_str())),
        ("within_seconds".into(), Json::from(within)),
    ];
    serde_json::to_vec(&Json::Object(members)).unwrap_or_default()
}
