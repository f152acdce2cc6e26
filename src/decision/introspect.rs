//! Tells the state of a client token to whoever could have minted it (RFC 7662, with the members a policy names).
//!
//! A token of another team, a forged one and noise get one answer: nothing is learned by asking.

use std::rc::Rc;

use crate::credential::VerifiedToken;
use crate::json::Json;
use crate::policy::{Asked, IntrospectRule, Policy, TokenSource};
use crate::reason::Reason;
use crate::store::Revocations;

use super::DecisionContext;
use super::answer::{iso8601, number_texts, text, texts};
use super::authenticate::Principal;
use super::reading::look_up;
use super::revoke;
use super::rights::Rights;
use super::verdict::{Denial, Record};

/// What can be said of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is good now.
    Active,
    /// It was good, and has been used as often as it may.
    Used,
    /// It was good, and its time is over.
    Expired,
    /// The key it was minted from is gone, revoked or somebody else's.
    Revoked,
    /// It is none of the asker's, if it is one at all.
    Unknown,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// What is told of a token.
pub(super) struct Told {
    /// The answer.
    pub(super) body: Vec<u8>,
    /// Of a token with uses: the token, and the answer when it has none left.
    pub(super) spent: Option<(Rc<VerifiedToken>, Vec<u8>)>,
}

/// Answers an introspection.
pub(super) fn introspect(
    policy: &Policy,
    revocations: &Revocations,
    rule: &IntrospectRule,
    rights: &Rights<'_>,
    body: &Json<'_>,
    moment: &DecisionContext<'_>,
    record: &mut Record,
) -> Result<Told, Denial> {
    let refuse = |reason| Denial::of(reason, rule.member.dotted());
    let credential = look_up(body, &rule.member)?.ok_or_else(|| refuse(Reason::MemberMissing))?;
    let credential = credential.as_str().ok_or_else(|| refuse(Reason::MemberType))?;
    let known = find(policy, rule, rights, credential, moment);
    if let Some((family, token)) = known {
        record.token = Some(token.jti.clone());
        let state = state(policy, revocations, family, &token, moment.now);
        let told = |state| render(policy, rule, family, state, Some(&token));
        let spent = (state == State::Active && token.uses.is_some()).then(|| told(State::Used));
        let body = told(state);
        return Ok(Told { body, spent: spent.map(|spent| (Rc::clone(&token), spent)) });
    }
    Ok(Told { body: render(policy, rule, 0, State::Unknown, None), spent: None })
}

/// The token, when its signature holds and it is of a team the asker reaches.
fn find(
    policy: &Policy,
    rule: &IntrospectRule,
    rights: &Rights<'_>,
    credential: &str,
    moment: &DecisionContext<'_>,
) -> Option<(usize, Rc<VerifiedToken>)> {
    let (index, family) = policy.family_of(credential).filter(|(index, _)| rule.families.contains(index))?;
    let token = family.verify_without_time(credential, moment.host_verify).ok()?;
    let is_own = match (&token.team, &token.user) {
        (Some(team), None) => rights.reaches_team(team),
        (None, Some(user)) => rights.party_claims().1 == Some(user),
        _ => false,
    };
    is_own.then(|| (index, Rc::new(token)))
}

fn state(
    policy: &Policy,
    revocations: &Revocations,
    family: usize,
    token: &Rc<VerifiedToken>,
    now: u64,
) -> State {
    // Of a key outside the policy nothing is known here.
    let Some(key) = policy.keys.with_id(&token.key_id).cloned() else { return State::Revoked };
    let principal = Principal::Token { source: TokenSource::Family(family), token: Rc::clone(token), key };
    let rights = Rights::of(policy, &principal, now);
    match rights.and_then(|rights| revoke::check(policy, revocations, &rights)) {
        Ok(()) => State::Active,
        Err(Denial { reason: Reason::TokenExpired, .. }) if token.exp <= now => State::Expired,
        Err(Denial { reason: Reason::TokenExpired, .. }) => State::Unknown,
        Err(_) => State::Revoked,
    }
}

fn render(
    policy: &Policy,
    rule: &IntrospectRule,
    family: usize,
    state: State,
    token: Option<&VerifiedToken>,
) -> Vec<u8> {
    rule.body.render(&|name| match (name, token) {
        ("active", _) => Some(Json::Bool(state == State::Active)),
        ("state", _) => Some(Json::from(state.name())),
        (_, None) => None,
        ("token_id", Some(token)) => Some(text(&token.jti)),
        ("key_id", Some(token)) => Some(text(&token.key_id)),
        ("issued_at", Some(token)) => Some(Json::from(token.iat)),
        ("issued_at_iso", Some(token)) => iso8601(token.iat),
        ("expires_at", Some(token)) => Some(Json::from(token.exp)),
        ("expires_at_iso", Some(token)) => iso8601(token.exp),
        ("scopes", Some(token)) => Some(texts(&token.scopes)),
        ("session_seconds", Some(token)) => token.session.map(Json::from),
        ("uses", Some(token)) => token.uses.map(Json::from),
        ("total_seconds", Some(token)) => token.total.map(Json::from),
        ("from", Some(token)) => token.from.as_deref().map(number_texts),
        ("to", Some(token)) => token.to.as_deref().map(number_texts),
        (name, Some(token)) => token.bound(name).map(|values| match values {
            [one] if is_single(policy, family, name) => text(one),
            values => texts(values),
        }),
    })
}

/// Whether tokens of a family are minted with one value of a bound, not a list.
fn is_single(policy: &Policy, family: usize, name: &str) -> bool {
    let bound = policy.bound(name).map(|(index, _)| index);
    let rules = policy.routes.iter().filter_map(|route| route.mint()).filter(|rule| rule.family == family);
    let mut fields = rules.flat_map(|rule| &rule.texts).filter(|text| Some(text.bound) == bound);
    fields.all(|text| matches!(text.asked, Asked::Generated | Asked::FieldRef { max: None, .. }))
}
