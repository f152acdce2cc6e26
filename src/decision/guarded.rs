//! Judges requests to routes that require a credential: the head first, then the body where the route reads it.

use std::rc::Rc;

use crate::json::Arrays;
use crate::policy::{InsertedCredential, LocalReply, RequestField};
use crate::reason::Reason;

use super::authenticate::Authenticated;
use super::charges::Charges;
use super::denial::Denial;
use super::fields::{FieldValues, JudgedValue, RequestPart, read_object};
use super::head::MatchedHead;
use super::outcome::{Effect, Record};
use super::request::{Evaluator, GuardedRequest};
use super::rights::Demands;
use super::step::{Pending, Step};
use super::upstream_headers::{Obligations, Stage};
use super::{failures, local_reply, names};

impl Evaluator<'_> {
    pub(super) fn judge_head(
        self,
        mut matched: MatchedHead<'_>,
        mut obligations: Obligations,
        record: &mut Record,
    ) -> Result<Step, Denial> {
        let route = matched.route();
        let principal = match self.check_credential(&matched, record)? {
            Authenticated::Principal(principal) => principal,
            Authenticated::NeedsDirectory(lookup) => return Ok(Step::NeedsDirectory(lookup)),
        };
        let request = self.request(route, &principal)?;
        record.team = request.rights.party_id().map(str::to_owned);
        request.check_not_revoked()?;
        request.rights.meets(&Demands::of(route))?;
        let judged = request.judge_fields(&matched)?;
        if let Some(LocalReply::Listing(rule)) = &route.local {
            return local_reply::list(&request, rule, &matched, &judged, record);
        }
        if route.reads_body() {
            matched.head.check_body_is_json(route.mint().is_some_and(|rule| rule.body_optional))?;
        }
        obligations.write_head(&request, &mut matched, &judged)?;
        obligations.forward_fields(&request, &judged, Stage::Head)?;
        obligations.change_in_place(matched.head.headers, self.policy.host)?;
        if !route.reads_body() {
            let charges = Charges::of(&request, &judged)?;
            return Ok(Step::decide(Effect::Release(obligations), record, charges));
        }
        let (route, record) = (Rc::clone(matched.found.route), std::mem::take(record));
        Ok(Step::NeedsBody(Box::new(Pending { route, principal, judged, obligations, record })))
    }

    /// Authenticates a request, after the checks that need no credential.
    fn check_credential(
        &self,
        matched: &MatchedHead<'_>,
        record: &mut Record,
    ) -> Result<Authenticated, Denial> {
        let route = matched.route();
        failures::check(route, self.context)?;
        let authenticated = self.authenticate(matched, record)?;
        match &authenticated {
            Authenticated::Principal(principal) if !principal.is_accepted_by(&route.accept) => {
                Err(Reason::CredentialNotAccepted.into())
            }
            _ => Ok(authenticated),
        }
    }

    pub(super) fn judge_body(
        self,
        pending: Pending,
        body: &[u8],
        record: &mut Record,
    ) -> Result<Step, Denial> {
        let Pending { route, principal, mut judged, mut obligations, .. } = pending;
        let route = route.as_ref();
        // Only a mint request has lists that are read.
        let mint = route.mint();
        let arrays = if mint.is_some() { Arrays::Kept } else { Arrays::Emptied };
        let body = read_object(body, arrays, mint.is_some_and(|rule| rule.body_optional))?;
        // The body may have come late: rights and revocations must hold now as well.
        let request = self.request(route, &principal)?;
        request.check_not_revoked()?;
        if route.local.is_none() {
            names::check_body(route, &body, &self.policy.vocabulary)?;
        }
        judged.extend(request.judge_body_fields(FieldValues::read(route, RequestPart::Body(&body)))?);
        let charges = Charges::of(&request, &judged)?;
        if let Some(local) = &route.local {
            return local_reply::reply(&request, local, &body, charges, record);
        }
        obligations.forward_fields(&request, &judged, Stage::Body)?;
        Ok(Step::decide(Effect::Release(obligations), record, charges))
    }
}

impl GuardedRequest<'_> {
    /// Checks the names of the parameters, reads the fields of the head, then judges them.
    fn judge_fields(&self, matched: &MatchedHead<'_>) -> Result<Vec<JudgedValue>, Denial> {
        names::check_headers(matched.head.headers, &self.policy.read_headers)?;
        names::check_query(self.route, &matched.query, &self.policy.vocabulary)?;
        let judged = self.judge_head_fields(FieldValues::read(self.route, RequestPart::Head(matched)))?;
        if let Some(InsertedCredential { place: field @ RequestField::Query(_), .. }) =
            &self.route.upstream_credential
        {
            // The parameter that the upstream credential replaces must be one to every reader, or absent.
            RequestPart::Head(matched).value(field)?;
        }
        Ok(judged)
    }
}
