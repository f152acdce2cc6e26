//! Revocation: checks a credential against the revocations, and reads requests to revoke.

use crate::json::Json;
use crate::policy::{PartyId, Policy, Reach, RevokeRule, StoreBackend};
use crate::reason::Reason;
use crate::store::{Revocation, Revocations, Subject};

use super::denial::{Denial, printable};
use super::request::GuardedRequest;
use super::rights::Rights;

/// Prefix of a user's id among the ids of teams, which cannot begin with it.
const USER: char = '~';

/// Member of a revocation that limits it to tokens issued before a Unix second.
const BEFORE: &str = "before";

impl GuardedRequest<'_> {
    /// Refuses a credential that was revoked, and every credential while revocations are unknown.
    pub(super) fn check_not_revoked(&self) -> Result<(), Denial> {
        let current = self.state.check_revocations_current(&self.policy.store, self.context.now);
        current.map_err(|reason| self.context.reason_without_store(reason))?;
        check(&self.state.current_revocations(), &self.rights)
    }
}

/// Refuses a credential that the policy or the store revoked.
pub(super) fn check(revocations: &Revocations, rights: &Rights<'_>) -> Result<(), Denial> {
    let policy = rights.policy();
    let sources = [&policy.store.revocations, revocations];
    if sources.iter().all(|revocations| revocations.is_empty()) {
        return Ok(());
    }
    let reaches = |by: Option<&str>| by.is_none_or(|by| reaches(by, rights));
    let is_covered = |subject: &Subject, issued_at: u64| {
        sources.iter().any(|revocations| revocations.covers(subject, issued_at, reaches))
    };
    let key = &rights.key().id;
    if is_covered(&Subject::Key(key.clone()), 0) {
        return Err(Reason::KeyRevoked.into());
    }
    let Some(token) = rights.token() else { return Ok(()) };
    let mut teams = policy.tree.teams_over(rights.party()).chain(policy.tree.teams_over(rights.key().owner));
    let is_revoked = is_covered(&Subject::Token(token.jti.clone()), token.iat)
        || is_covered(&Subject::TokensOfKey(key.clone()), token.iat)
        || teams.any(|team| is_covered(&Subject::TokensOfTeam(team.to_owned()), token.iat));
    if is_revoked { Err(Reason::TokenRevoked.into()) } else { Ok(()) }
}

/// Returns whether the team or user that revoked something reaches the principal.
fn reaches(by: &str, rights: &Rights<'_>) -> bool {
    let tree = &rights.policy().tree;
    let owner = rights.key().owner;
    match by.strip_prefix(USER) {
        Some(user) => tree.party(owner).is_some_and(|party| party.reach == Reach::User && party.id == user),
        None => {
            tree.team(by).is_some_and(|team| tree.reaches(team, owner) || tree.reaches(team, rights.party()))
        }
    }
}

/// Reads the revocation that a body requests.
///
/// # Errors
///
/// A [`Denial`] naming the member that is unknown, missing, mistyped or out of the principal's reach.
pub(super) fn read(
    request: &GuardedRequest<'_>,
    rule: RevokeRule,
    body: &Json<'_>,
) -> Result<Revocation, Denial> {
    let now = request.context.now;
    let mut subject = None;
    let mut before = None;
    for (name, value) in body.members().unwrap_or_default() {
        let denial = |reason| Denial::of(reason, printable(name));
        if name == BEFORE {
            before = Some(read_instant(value, now).map_err(denial)?);
        } else if subject.replace(read_subject(name, value).map_err(denial)?).is_some() {
            return Err(denial(Reason::MemberAmbiguous));
        }
    }
    let subject = subject.ok_or_else(|| Denial::of(Reason::MemberMissing, "token"))?;
    let may_be_limited = matches!(subject, Subject::TokensOfKey(_) | Subject::TokensOfTeam(_));
    if before.is_some() && !may_be_limited {
        return Err(Denial::of(Reason::MemberUnknown, BEFORE));
    }
    check_reach(rule, &request.rights, &subject)?;
    let by = (!rule.reaches_everything).then(|| author(&request.rights));
    Ok(Revocation { subject, by, before: before.unwrap_or(now) })
}

fn read_instant(value: &Json<'_>, now: u64) -> Result<u64, Reason> {
    match value {
        Json::Unsigned(second) if *second <= now => Ok(*second),
        Json::Unsigned(_) | Json::OtherNumber(_) => Err(Reason::MemberRange),
        _ => Err(Reason::MemberType),
    }
}

fn read_subject(name: &str, value: &Json<'_>) -> Result<Subject, Reason> {
    if Subject::of(name, "").is_none() {
        return Err(Reason::MemberUnknown);
    }
    let is_id = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    value.as_str().filter(is_id).and_then(|id| Subject::of(name, id)).ok_or(Reason::MemberType)
}

/// Checks that the principal may revoke a subject; one that does not exist and one out of reach get the same reason.
fn check_reach(rule: RevokeRule, rights: &Rights<'_>, subject: &Subject) -> Result<(), Denial> {
    let policy = rights.policy();
    let may_revoke = |owner: PartyId| rule.reaches_everything || may_revoke_of(rights, owner);
    let is_in_reach = match subject {
        // The owner of a token cannot be found by the token's id.
        Subject::Token(_) => true,
        Subject::Key(id) | Subject::TokensOfKey(id) => match policy.keys.with_id(id) {
            Some(key) => may_revoke(key.owner),
            // Nor can the owner of a key that only the directory holds.
            None => rule.reaches_everything && policy.store.directory.is_some(),
        },
        Subject::TokensOfTeam(id) => policy.tree.team(id).is_some_and(may_revoke),
    };
    let (name, _) = subject.parts();
    if is_in_reach { Ok(()) } else { Err(Denial::of(Reason::TenantDenied, name)) }
}

/// Returns whether the principal may revoke keys of a party. A user may revoke only their own, though they act for
/// their teams.
fn may_revoke_of(rights: &Rights<'_>, owner: PartyId) -> bool {
    let tree = &rights.policy().tree;
    match tree.party(rights.party()).map(|party| party.reach) {
        Some(Reach::User) => owner == rights.party(),
        _ => tree.reaches(rights.party(), owner),
    }
}

/// Returns the team or user that a revocation is recorded under.
fn author(rights: &Rights<'_>) -> String {
    match rights.party_claims() {
        (Some(team), _) => team.to_owned(),
        (None, user) => format!("{USER}{}", user.unwrap_or_default()),
    }
}

/// Writes the answer to a revocation that is in force.
pub(super) fn render(policy: &Policy) -> Vec<u8> {
    let strength = policy.store.backend.strength();
    let within = match policy.store.backend {
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
