//! Routes that the gateway answers itself: mint, introspection, revocation and listing.

use crate::json::Json;
use crate::policy::{ListingRule, LocalReply, MintRule};
use crate::reason::Reason;

use super::answer::Answer;
use super::charges::Charges;
use super::denial::Denial;
use super::fields::{JudgedValue, RequestPart};
use super::head::MatchedHead;
use super::introspect::{Introspection, introspect};
use super::mint::{MintRequest, mint};
use super::outcome::{Outcome, Record};
use super::request::GuardedRequest;
use super::step::Step;
use super::{listing, revoke};

/// Answers a request by its body.
pub(super) fn reply(
    request: &GuardedRequest<'_>,
    local: &LocalReply,
    body: &Json<'_>,
    charges: Charges,
    record: &mut Record,
) -> Result<Step, Denial> {
    match local {
        LocalReply::Mint(rule) => {
            let answer = mint_answer(request, rule, body, record)?;
            Ok(Step::answer(answer, Outcome::Mint, record, charges))
        }
        LocalReply::Introspect(rule) => {
            let Introspection { body, used_up } = introspect(request, rule, body, record)?;
            let answer = |body| Answer::json(body, record.request_id.as_deref());
            let charges = match used_up {
                Some((token, body)) => charges.with_question(request.policy, &token, answer(body)),
                None => charges,
            };
            Ok(Step::answer(answer(body), Outcome::Answer, record, charges))
        }
        LocalReply::Revoke(rule) => {
            let revocation = revoke::read(request, *rule, body)?;
            record.revoked = Some(revocation.name().replace(' ', ":"));
            let answer = Answer::json(revoke::render(request.policy), record.request_id.as_deref());
            Ok(Step::answer(answer, Outcome::Answer, record, charges.with_revocation(revocation)))
        }
        LocalReply::Listing(_) | LocalReply::Document(_) => Err(Reason::RouteNotFound.into()),
    }
}

fn mint_answer(
    request: &GuardedRequest<'_>,
    rule: &MintRule,
    body: &Json<'_>,
    record: &mut Record,
) -> Result<Answer, Denial> {
    let mint_request = MintRequest::read(rule, body)?;
    let minted = mint(rule, &request.rights, &mint_request, request.context)?;
    record.minted = Some(minted.token_id.clone());
    Ok(Answer::minted(rule.status, minted.render(rule), record.request_id.as_deref()))
}

/// Answers a request with a page of the directory.
pub(super) fn list(
    request: &GuardedRequest<'_>,
    rule: &ListingRule,
    matched: &MatchedHead<'_>,
    judged: &[JudgedValue],
    record: &mut Record,
) -> Result<Step, Denial> {
    let body = listing::list(rule, &request.rights, RequestPart::Head(matched))?;
    let answer = Answer::json(body, record.request_id.as_deref());
    let charges = Charges::of(request, judged)?;
    Ok(Step::answer(answer, Outcome::Answer, record, charges))
}
