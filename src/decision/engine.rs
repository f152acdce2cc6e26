//! The engine: one policy, and everything learned while it is in force.

use core::net::IpAddr;
use std::rc::Rc;

use crate::credential::{Issuer, RemoteJwks, RemoteKeys};
use crate::policy::{Accept, LocalReply, Policy, Unmatched};
use crate::reason::Reason;
use crate::store::redis::Lookup;
use crate::store::{Charge, Revocations, StoreError};

use super::answer::Answer;
use super::charges::Charges;
use super::context::DecisionContext;
use super::denial::Denial;
use super::head::{MatchedHead, RequestHead, RequestId};
use super::names::check_method_override;
use super::outcome::{Decision, Effect, Outcome, Record};
use super::request::Evaluator;
use super::settle::{PendingCharge, Settled, settle};
use super::state::EngineState;
use super::step::{Pending, Step};
use super::upstream_headers::Obligations;
use super::{directory, failures};

/// Judges requests by one policy. A new policy needs a new engine.
pub struct Engine {
    policy: Policy,
    state: EngineState,
}

impl Engine {
    /// Makes an engine.
    pub fn new(policy: Policy) -> Self {
        Self::with_key_sets(policy, &[])
    }

    /// Makes an engine that replaces another one and keeps the key sets it fetched.
    pub fn with_key_sets(policy: Policy, fetched: &[Rc<RemoteKeys>]) -> Self {
        let state = EngineState::new(&policy, fetched);
        Self { policy, state }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Judges the head of a request. `headers` are all pairs, names in lower case, pseudo-headers among them.
    pub fn begin(
        &self,
        headers: &[(&[u8], &[u8])],
        end_of_stream: bool,
        context: &DecisionContext<'_>,
    ) -> Step {
        let mut record = Record::default();
        match self.judge_head(headers, &mut record, context) {
            Ok(Step::NeedsBody(pending)) if end_of_stream => self.finish(*pending, b"", context),
            Ok(step) => step,
            Err(denial) => Step::Decided(Box::new(self.refuse(denial, record))),
        }
    }

    /// Judges a request whose body is complete.
    pub fn finish(&self, mut pending: Pending, body: &[u8], context: &DecisionContext<'_>) -> Step {
        let mut record = std::mem::take(&mut pending.record);
        match self.evaluator(context).judge_body(pending, body, &mut record) {
            Ok(step) => step,
            Err(denial) => Step::Decided(Box::new(self.refuse(denial, record))),
        }
    }

    /// Completes a decision with the store's reply to its charges.
    pub fn settle(
        &self,
        pending: PendingCharge,
        reply: Result<Settled, StoreError>,
        context: &DecisionContext<'_>,
    ) -> Decision {
        settle(&self.policy, pending, reply, context.now)
    }

    /// Refuses a request, also for a cause outside the engine: a host call that failed, a body that never came.
    pub fn refuse(&self, denial: Denial, record: Record) -> Decision {
        Decision::refusal(&self.policy, denial, record)
    }

    /// Returns the charges of a refusal for a bad credential, to be counted for the client's address.
    pub fn failure_charges(&self, decision: &Decision, peer: &dyn Fn() -> Option<IpAddr>) -> Vec<Charge> {
        failures::charges(decision, peer)
    }

    /// Caches the result of a look-up: the text of a key, or `None` when there is no such key. Returns false when the
    /// text is not a valid entry for this key, or the policy has no directory; then the key counts as unknown.
    pub fn record_lookup(&self, lookup: Lookup, text: Option<&[u8]>, now: u64) -> bool {
        let key = text.map(|text| directory::read(&self.policy, &lookup, text));
        let is_usable = key.as_ref().is_none_or(Option::is_some);
        let Some(rule) = self.policy.store.directory else { return false };
        self.state.directory.put(lookup, key.flatten(), rule, now);
        is_usable
    }

    /// Replaces the revocations by the store's present ones.
    pub fn set_revocations(&self, revocations: Rc<Revocations>) {
        if let Ok(mut known) = self.state.revocations.try_borrow_mut() {
            *known = revocations;
        }
        self.state.is_unreadable.set(false);
    }

    /// Records that the revocations cannot be read; until they are set again every credential is refused.
    pub fn set_revocations_unreadable(&self) {
        self.state.is_unreadable.set(true);
    }

    /// Records the Unix second at which the revocations were last known to be current.
    pub fn confirm_revocations(&self, now: u64) {
        self.state.confirmed_at.set(Some(now));
    }

    /// Returns the fetched key sets of issuers, for the engine that replaces this one.
    pub fn key_sets(&self) -> Vec<Rc<RemoteKeys>> {
        self.state.key_sets.iter().map(|(_, keys)| Rc::clone(keys)).collect()
    }

    /// Returns the key sets to fetch now, each with its issuer, and records `now` as the time of their fetch.
    pub fn key_sets_to_fetch(&self, now: u64) -> impl Iterator<Item = (&Rc<Issuer>, &RemoteJwks)> {
        let key_sets = self.state.key_sets.iter();
        key_sets.filter_map(move |(issuer, keys)| Some((issuer, keys.take_due(now)?)))
    }

    /// Replaces an issuer's key set by a fetched one. Returns false when the response holds none; then the former one
    /// stays.
    pub fn set_key_set(&self, issuer: &Rc<Issuer>, status: u16, body: &[u8], now: u64) -> bool {
        self.state.keys_of(issuer).is_some_and(|keys| keys.receive(status, body, now))
    }

    fn evaluator<'a>(&'a self, context: &'a DecisionContext<'a>) -> Evaluator<'a> {
        Evaluator { policy: &self.policy, state: &self.state, context }
    }

    fn judge_head(
        &self,
        headers: &[(&[u8], &[u8])],
        record: &mut Record,
        context: &DecisionContext<'_>,
    ) -> Result<Step, Denial> {
        let request_id = RequestId::of(headers, &self.policy.prefixes, context);
        record.request_id = request_id.text.clone();
        let head = RequestHead::read(headers)?;
        head.check_nominations(&self.policy)?;
        let mut obligations = Obligations::strip_reserved(headers, self.policy.host)?;
        if request_id.is_new {
            obligations.set("x-request-id", request_id.text);
        }
        let Some(found) = self.policy.routes.find(head.method, head.path) else {
            self.check_unmatched(&head)?;
            return self.pass(&head, obligations, record);
        };
        record.route = Some(Rc::clone(found.route));
        head.check_upgrade(found.route.is_upgrade)?;
        let matched = MatchedHead::new(head, found);
        check_method_override(&matched.query)?;
        if let Some(LocalReply::Document(text)) = &matched.route().local {
            let answer = Answer::document(text.clone(), record.request_id.as_deref());
            return Ok(Step::answer(answer, Outcome::Answer, record, Charges::default()));
        }
        if matched.route().accept == Accept::Public {
            return self.pass(&matched.head, obligations, record);
        }
        self.evaluator(context).judge_head(matched, obligations, record)
    }

    /// Refuses a request that no route matches, unless the policy lets such requests pass and the path is not one that
    /// an upstream could take for a guarded route's.
    fn check_unmatched(&self, head: &RequestHead<'_>) -> Result<(), Denial> {
        match self.policy.unmatched {
            Unmatched::Pass if !self.policy.routes.is_guarded(head.path) => {
                head.check_upgrade(false)?;
                check_method_override(&head.query())
            }
            Unmatched::Pass | Unmatched::Deny => Err(Reason::RouteNotFound.into()),
        }
    }

    /// Releases a request without verifying a credential.
    ///
    /// # Errors
    ///
    /// [`Reason::RouteNotFound`] for a path that an upstream could take for a guarded route's,
    /// [`Reason::CredentialMisplaced`] for a credential in the query, which would be in the upstream's logs, and
    /// [`Reason::RequestMalformed`] for a header that the host cannot hide from the upstream.
    fn pass(
        &self,
        head: &RequestHead<'_>,
        mut obligations: Obligations,
        record: &mut Record,
    ) -> Result<Step, Denial> {
        if head.method == "CONNECT" || self.policy.routes.is_lookalike(head.path) {
            return Err(Reason::RouteNotFound.into());
        }
        if !self.policy.forward_credential {
            let query = head.query();
            if query.texts().any(|text| self.policy.holds_credential(text.as_bytes())) {
                return Err(Reason::CredentialMisplaced.into());
            }
        }
        obligations.strip_unread(head.headers, &self.policy)?;
        obligations.change_in_place(head.headers, self.policy.host)?;
        Ok(Step::decide(Effect::Release(obligations), record, Charges::default()))
    }
}
