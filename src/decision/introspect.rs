//! Shows the state of a client token to a principal that could have minted it (RFC 7662, with the members of a policy).
//!
//! Another team's token, a forged one and noise get the same answer, so asking reveals nothing.

use std::rc::Rc;

use crate::credential::{Family, VerifiedToken};
use crate::json::Json;
use crate::policy::{IntrospectRule, Policy, TokenSource, ValueSource};
use crate::reason::Reason;

use super::answer::{iso8601, number_texts, text, texts};
use super::denial::Denial;
use super::fields::member;
use super::outcome::Record;
use super::request::GuardedRequest;
use super::revoke;
use super::rights::{Principal, Rights};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// Active, but with no uses left.
    Used,
    Expired,
    /// Revoked, or its key is gone, revoked or moved to another owner.
    Revoked,
    /// Not a token that the principal may ask for.
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

/// Answer to an introspection.
pub(super) struct Introspection {
    pub(super) body: Vec<u8>,
    /// An active token with counted uses, and the body for the case that none are left.
    pub(super) used_up: Option<(Rc<VerifiedToken>, Vec<u8>)>,
}

struct KnownToken {
    family: Rc<Family>,
    token: Rc<VerifiedToken>,
}

/// Answers an introspection and records the id of the token.
pub(super) fn introspect(
    request: &GuardedRequest<'_>,
    rule: &IntrospectRule,
    body: &Json<'_>,
    record: &mut Record,
) -> Result<Introspection, Denial> {
    let denial = |reason| Denial::of(reason, rule.member.dotted());
    let credential = member(body, &rule.member)?.ok_or_else(|| denial(Reason::MemberMissing))?;
    let credential = credential.as_str().ok_or_else(|| denial(Reason::MemberType))?;
    let Some(known) = find(request, rule, credential) else {
        let body = render(request.policy, rule, State::Unknown, None);
        return Ok(Introspection { body, used_up: None });
    };
    record.token = Some(known.token.jti.clone());
    let state = state(request, &known);
    let body = render(request.policy, rule, state, Some(&known));
    let is_countable = state == State::Active && known.token.uses.is_some();
    let used_up = is_countable.then(|| render(request.policy, rule, State::Used, Some(&known)));
    Ok(Introspection { body, used_up: used_up.map(|used_up| (known.token, used_up)) })
}

/// Finds the token, when its signature is valid and the principal reaches its team or is its user.
fn find(request: &GuardedRequest<'_>, rule: &IntrospectRule, credential: &str) -> Option<KnownToken> {
    let family = request.policy.family_of(credential)?;
    if !rule.families.iter().any(|listed| Rc::ptr_eq(listed, family)) {
        return None;
    }
    let token = family.verify_without_time(credential, request.context.host_verify).ok()?;
    let is_own = match (&token.team, &token.user) {
        (Some(team), None) => request.rights.reaches_team(team),
        (None, Some(user)) => request.rights.party_claims().1 == Some(user),
        _ => false,
    };
    is_own.then(|| KnownToken { family: Rc::clone(family), token: Rc::new(token) })
}

fn state(request: &GuardedRequest<'_>, known: &KnownToken) -> State {
    let (policy, now, token) = (request.policy, request.context.now, &known.token);
    // Of a key that only the directory holds nothing is known here.
    let Some(key) = policy.keys.with_id(&token.key_id).cloned() else { return State::Revoked };
    let source = TokenSource::Family(Rc::clone(&known.family));
    let principal = Principal::Token { source, token: Rc::clone(token), key };
    let rights = Rights::of(policy, &principal, now);
    match rights.and_then(|rights| revoke::check(&request.state.current_revocations(), &rights)) {
        Ok(()) => State::Active,
        Err(Denial { reason: Reason::TokenExpired, .. }) if token.exp <= now => State::Expired,
        Err(Denial { reason: Reason::TokenExpired, .. }) => State::Unknown,
        Err(_) => State::Revoked,
    }
}

fn render(policy: &Policy, rule: &IntrospectRule, state: State, known: Option<&KnownToken>) -> Vec<u8> {
    rule.body.render(&|name| match (name, known) {
        ("active", _) => Some(Json::Bool(state == State::Active)),
        ("state", _) => Some(Json::from(state.name())),
        (_, None) => None,
        (name, Some(known)) => value(policy, known, name),
    })
}

/// Returns a value of an introspection's body.
fn value(policy: &Policy, known: &KnownToken, name: &str) -> Option<Json<'static>> {
    let KnownToken { family, token } = known;
    match name {
        "token_id" => Some(text(&token.jti)),
        "key_id" => Some(text(&token.key_id)),
        "issued_at" => Some(Json::from(token.iat)),
        "issued_at_iso" => iso8601(token.iat),
        "expires_at" => Some(Json::from(token.exp)),
        "expires_at_iso" => iso8601(token.exp),
        "scopes" => Some(texts(&token.scopes)),
        "session_seconds" => token.session.map(Json::from),
        "uses" => token.uses.map(Json::from),
        "total_seconds" => token.total.map(Json::from),
        "from" => token.from.as_deref().map(number_texts),
        "to" => token.to.as_deref().map(number_texts),
        name => token.bound(name).map(|values| match values {
            [one] if is_single(policy, family, name) => text(one),
            values => texts(values),
        }),
    }
}

/// Returns whether tokens of a family are minted with one value of a bound, not with a list.
fn is_single(policy: &Policy, family: &Rc<Family>, name: &str) -> bool {
    let rules =
        policy.routes.iter().filter_map(|route| route.mint()).filter(|rule| Rc::ptr_eq(&rule.family, family));
    let mut fields = rules.flat_map(|rule| &rule.texts).filter(|text| text.bound.name == name);
    fields.all(|text| matches!(text.source, ValueSource::Generated | ValueSource::FieldRef { max: None, .. }))
}
