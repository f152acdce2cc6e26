//! One request in, one decision out.
//!
//! The order of the steps is the defence: a later one is reached only when all earlier ones held, cheap and
//! unauthenticated checks come first, and the first failure decides. Pure: no host call, no clock, no environment, no
//! log; time and randomness are arguments ([`DecisionContext`]).

mod answer;
mod asked;
mod authenticate;
mod bounds;
mod charges;
mod context;
mod directory;
mod introspect;
mod listing;
mod mint;
mod reading;
mod request;
mod revoke;
mod rights;
mod verdict;

use std::rc::Rc;

use crate::credential::{CredentialLocation, RemoteJwks, RemoteKeys};
use crate::json::{Arrays, Json};
use crate::policy::{
    Accept, LocalReply, Policy, Present, RequestField, Route, RouteMatch, StoreBackend, Unmatched,
};
use crate::reason::Reason;
use crate::store::Revocations;
use crate::store::remote::Lookup;
use crate::uri::Query;

pub use answer::Answer;
pub use asked::MintRequest;
pub use authenticate::Principal;
use authenticate::{EngineState, Found};
use bounds::{Judge, Judged};
use charges::Charges;
pub use charges::{PendingCharge, Settled};
pub use context::{DecisionContext, EARLIEST_NOW};
pub use mint::{BoundText, Minted, mint};
use reading::Part;
use request::RequestId;
pub use request::{Head, OWN_HEADER_PREFIX};
use rights::Stage;
pub use rights::{Demands, Rights};
pub use verdict::{Decision, Denial, Effect, Obligations, OpenSession, Outcome, Record, is_reserved};

/// Bytes of verified tokens remembered per policy and worker: two to three thousand ordinary ones.
const CACHE_BYTES: usize = 4 << 20;

/// A policy with what was learned under it. A new policy is a new engine.
pub struct Engine {
    policy: Policy,
    learned: EngineState,
}

/// What comes of a request's headers.
pub enum Step {
    /// The verdict.
    Decided(Box<Decision>),
    /// The verdict needs the whole body; until then the request must be held.
    NeedsBody(Box<Pending>),
    /// The verdict needs to know a key that is not in the policy; see [`Engine::learn`]. Then the request is judged anew.
    NeedsDirectory(Lookup),
    /// The verdict needs the store; until then the request must be held. See [`Engine::settle`].
    NeedsStore(Box<PendingCharge>),
}

/// A request whose headers were judged and whose body was not. Dropping it releases nothing.
pub struct Pending {
    route: usize,
    principal: Principal,
    judged: Vec<Judged>,
    obligations: Obligations,
    record: Record,
}

impl Pending {
    /// What is known so far, for a refusal that is not the engine's.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What must be done to the head already, because some hosts let nobody change it once the body is read. Until the
    /// verdict nobody sees it.
    pub fn take_obligations(&mut self) -> Obligations {
        std::mem::take(&mut self.obligations)
    }
}

/// What comes of judging: not yet a verdict, which needs its record.
enum Judgement {
    Release(Obligations, Charges),
    NeedsBody { route: usize, principal: Principal, judged: Vec<Judged>, obligations: Obligations },
    NeedsDirectory(Lookup),
    Answer(Answer, Outcome, Charges),
}

impl Engine {
    /// Makes an engine of a policy.
    pub fn new(policy: Policy) -> Self {
        Self::with_key_sets(policy, &[])
    }

    /// Makes an engine of a policy that takes the place of another: key sets fetched under that one still count.
    pub fn with_key_sets(policy: Policy, fetched: &[Rc<RemoteKeys>]) -> Self {
        let learned = EngineState::new(&policy, CACHE_BYTES, fetched);
        Self { policy, learned }
    }

    /// The key sets of issuers elsewhere, for the engine that takes this one's place.
    pub fn key_sets(&self) -> Vec<Rc<RemoteKeys>> {
        self.learned.remote.iter().flatten().cloned().collect()
    }

    /// Takes what was looked up: the text of a key, or that there is none. False when the text is no key of this
    /// policy; nobody is let in by it.
    pub fn learn(&self, lookup: Lookup, text: Option<&[u8]>, now: u64) -> bool {
        let key = text.map(|text| directory::read(&self.policy, &lookup, text));
        let is_good = key.as_ref().is_none_or(Option::is_some);
        let Some(rule) = self.policy.store.directory else { return false };
        self.learned.directory.learn(lookup, key.flatten(), rule, now);
        is_good
    }

    /// Takes what is revoked at present, as the store says it.
    pub fn take_revocations(&self, revocations: Rc<Revocations>) {
        if let Ok(mut known) = self.learned.revocations.try_borrow_mut() {
            *known = revocations;
        }
        self.learned.is_lost.set(false);
    }

    /// Notes that what is revoked cannot be known at present: nobody is let in by a credential.
    pub fn lose_revocations(&self) {
        self.learned.is_lost.set(true);
    }

    /// Notes that what is known of revocations was right at this Unix second.
    pub fn confirm_revocations(&self, now: u64) {
        self.learned.confirmed.set(Some(now));
    }

    fn revocations(&self) -> Rc<Revocations> {
        self.learned.revocations.try_borrow().map(|known| Rc::clone(&known)).unwrap_or_default()
    }

    fn check_revoked(&self, rights: &Rights<'_>, moment: &DecisionContext<'_>) -> Result<(), Denial> {
        let store = &self.policy.store;
        let is_stale =
            |confirmed: Option<u64>| confirmed.is_none_or(|at| moment.now.saturating_sub(at) > store.stale);
        if store.home != StoreBackend::Memory
            && store.refuses_when_stale
            && is_stale(self.learned.confirmed.get())
        {
            return Err(Reason::RevocationsStale.into());
        }
        if self.learned.is_lost.get() {
            return Err(Reason::StoreUnavailable.into());
        }
        revoke::check(&self.policy, &self.revocations(), rights)
    }

    /// The policy it decides by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The key sets to be fetched now, each with the place of its issuer; asking notes that they were asked for.
    pub fn due_key_sets(&self, now: u64) -> impl Iterator<Item = (usize, &RemoteJwks)> {
        let known = self.learned.remote.iter().enumerate();
        known.filter_map(move |(index, remote)| Some((index, remote.as_ref()?.take_due(now)?)))
    }

    /// Takes a fetched key set; false when it is none, and what was known stays.
    pub fn take_key_set(&self, issuer: usize, status: u16, body: &[u8], now: u64) -> bool {
        let remote = self.learned.remote.get(issuer).and_then(Option::as_ref);
        remote.is_some_and(|remote| remote.receive(status, body, now))
    }

    /// Judges a request's headers; `headers` are all pairs, names in lower case, pseudo-headers among them.
    pub fn begin(
        &self,
        headers: &[(&[u8], &[u8])],
        end_of_stream: bool,
        moment: &DecisionContext<'_>,
    ) -> Step {
        let mut record = Record::default();
        match self.judge_headers(headers, &mut record, moment) {
            Ok(Judgement::NeedsBody { route, principal, judged, obligations }) => {
                let pending = Box::new(Pending { route, principal, judged, obligations, record });
                if end_of_stream {
                    return self.finish(*pending, b"", moment);
                }
                Step::NeedsBody(pending)
            }
            Ok(Judgement::NeedsDirectory(lookup)) => Step::NeedsDirectory(lookup),
            judgement => self.conclude(judgement, record),
        }
    }

    /// Judges a request whose body is complete.
    pub fn finish(&self, pending: Pending, body: &[u8], moment: &DecisionContext<'_>) -> Step {
        let Pending { route, principal, judged, obligations, mut record } = pending;
        let route = self.policy.routes.get(route).ok_or(Denial::from(Reason::RouteNotFound));
        let judgement = route.and_then(|route| {
            let held = Held { route, principal: &principal, judged, obligations };
            self.judge_body(held, body, &mut record, moment)
        });
        self.conclude(judgement, record)
    }

    fn conclude(&self, judgement: Result<Judgement, Denial>, record: Record) -> Step {
        let (verdict, plan) = match judgement {
            Ok(Judgement::Release(obligations, plan)) => {
                (Decision { effect: Effect::Release(obligations), record }, plan)
            }
            Ok(Judgement::Answer(answer, outcome, plan)) => {
                (Decision { effect: Effect::Answer(answer), record: record.with(outcome) }, plan)
            }
            // Law 2: a body that is still needed after the body is a request nobody judged.
            Ok(Judgement::NeedsBody { .. } | Judgement::NeedsDirectory(_)) => {
                (self.refuse(Reason::HostError.into(), record), Charges::default())
            }
            Err(denial) => (self.refuse(denial, record), Charges::default()),
        };
        match plan.is_free() {
            true => Step::Decided(Box::new(verdict)),
            false => Step::NeedsStore(Box::new(PendingCharge { verdict, plan })),
        }
    }

    /// Words a refusal, also for a cause that is not the engine's (a host call that failed, a body that never came).
    pub fn refuse(&self, denial: Denial, record: Record) -> Decision {
        // What was prepared for an answer that is not given did not happen.
        let record = Record { minted: None, revoked: None, ..record };
        let route = record.route.and_then(|index| self.policy.routes.get(index));
        let scopes = route.map_or(&[][..], |route| &route.scopes);
        let refusals = &self.policy.refusals;
        let style = refusals.style(route.map_or(0, |route| route.style));
        let answer = Answer::refusal(refusals, style, &denial, scopes, record.request_id.as_deref());
        Decision { effect: Effect::Answer(answer), record: record.refused(denial) }
    }

    fn judge_headers(
        &self,
        headers: &[(&[u8], &[u8])],
        record: &mut Record,
        moment: &DecisionContext<'_>,
    ) -> Result<Judgement, Denial> {
        let request_id = RequestId::of(headers, &self.policy.prefixes, moment);
        record.request_id = request_id.text.clone();
        let head = Head::read(headers)?;
        let mut obligations = Obligations::strip(headers);
        if request_id.is_new {
            obligations.set("x-request-id", request_id.text);
        }
        let Some(found) = self.policy.routes.find(head.method, head.path) else {
            return match self.policy.unmatched {
                Unmatched::Pass if !self.policy.routes.is_guarded(head.path) => {
                    head.check_upgrade(false)?;
                    self.pass(&head, obligations)
                }
                Unmatched::Pass | Unmatched::Deny => Err(Reason::RouteNotFound.into()),
            };
        };
        record.route = Some(found.index);
        head.check_upgrade(found.route.is_upgrade)?;
        if let Some(LocalReply::Document(text)) = &found.route.local {
            let answer = Answer::document(text.clone(), record.request_id.as_deref());
            return Ok(Judgement::Answer(answer, Outcome::Answer, Charges::default()));
        }
        if found.route.accept == Accept::Public {
            return self.pass(&head, obligations);
        }
        self.guard(&head, &found, obligations, record, moment)
    }

    /// Judges the headers of a request to a route that asks for a credential.
    fn guard(
        &self,
        head: &Head<'_>,
        found: &RouteMatch<'_, '_>,
        mut obligations: Obligations,
        record: &mut Record,
        moment: &DecisionContext<'_>,
    ) -> Result<Judgement, Denial> {
        let route = found.route;
        let query = head.query();
        head.check_method_override(&query)?;
        self.check_failures(route, moment)?;
        let asked =
            authenticate::authenticate(&self.policy, &self.learned, route, head, &query, moment, record)?;
        let principal = match asked {
            Found::Principal(principal) => principal,
            Found::Ask(lookup) => return Ok(Judgement::NeedsDirectory(lookup)),
        };
        if !principal.is_accepted_by(&route.accept) {
            return Err(Reason::CredentialNotAccepted.into());
        }
        let rights = Rights::of(&self.policy, &principal, moment.now)?;
        record.team = rights.party_id().map(str::to_owned);
        self.check_revoked(&rights, moment)?;
        rights.meets(&Demands::of(route))?;
        let part = Part::Head { head, query: &query, found };
        let judged = self.judge_part(route, &rights, head, &query, &part, moment)?;
        if let Some(LocalReply::Listing(rule)) = &route.local {
            let body = listing::list(&self.policy, rule, &rights, &part)?;
            let answer = Answer::json(body, record.request_id.as_deref());
            let plan = Charges::of(&self.policy, route, &principal, &rights, &judged, moment)?;
            return Ok(Judgement::Answer(answer, Outcome::Answer, plan));
        }
        if route.reads_body() {
            head.check_body_is_json(route.mint().is_some_and(|rule| rule.body_optional))?;
        }
        self.oblige(route, &rights, head, query, &judged, &mut obligations);
        rights.tell(route, &judged, Stage::Head, &mut obligations)?;
        if route.reads_body() {
            return Ok(Judgement::NeedsBody { route: found.index, principal, judged, obligations });
        }
        Ok(Judgement::Release(
            obligations,
            Charges::of(&self.policy, route, &principal, &rights, &judged, moment)?,
        ))
    }

    /// Judges what the head says against the bounds of whoever says it.
    fn judge_part(
        &self,
        route: &Route,
        rights: &Rights<'_>,
        head: &Head<'_>,
        query: &Query<'_>,
        part: &Part<'_>,
        moment: &DecisionContext<'_>,
    ) -> Result<Vec<Judged>, Denial> {
        bounds::check_query_names(route, query, &self.policy.vocabulary)?;
        rights.check_tenant(route, part)?;
        rights.check_unmapped_bounds(route)?;
        let judged = match &route.bounds {
            Some(bounds) => self.judge(route, bounds, rights).check_head(head, part, moment)?,
            None => Vec::new(),
        };
        if let Some(Present { place: place @ RequestField::Query(_), .. }) = &route.present {
            // What it takes the place of must be one parameter to every reader, or none.
            part.read(place)?;
        }
        Ok(judged)
    }

    /// What must be done to a request whose head was judged before it may go on.
    fn oblige(
        &self,
        route: &Route,
        rights: &Rights<'_>,
        head: &Head<'_>,
        mut query: Query<'_>,
        judged: &[Judged],
        obligations: &mut Obligations,
    ) {
        rights.identify(route, obligations);
        self.replace_credential(route, head, &mut query, obligations);
        say_canonical(judged, &mut query, obligations);
        if query.is_changed() {
            obligations.set(":path", Some(query.write(head.path)));
        }
        if let Some(seconds) = rights.session(route).filter(|_| route.is_upgrade) {
            obligations.end_after(seconds, self.policy.ends_sessions);
        }
    }

    fn judge<'r>(
        &'r self,
        route: &'r Route,
        bounds: &'r crate::policy::Bounds,
        rights: &'r Rights<'r>,
    ) -> Judge<'r> {
        Judge { policy: &self.policy, route, bounds, rights }
    }

    /// Takes the client's credential away, and puts the platform's own in its place where the route says so.
    fn replace_credential(
        &self,
        route: &Route,
        head: &Head<'_>,
        query: &mut Query<'_>,
        obligations: &mut Obligations,
    ) {
        let own = route.carriers.as_deref().unwrap_or_default();
        // A credential in the query stands in logs behind us, whatever else is forwarded.
        own.iter().filter_map(CredentialLocation::parameter).for_each(|name| query.remove(name));
        if !self.policy.forward_credential {
            obligations.strip_credentials(head.headers, &self.policy.carriers);
            obligations.strip_credentials(head.headers, own);
        }
        match &route.present {
            Some(Present { place: RequestField::Query(name), value }) => {
                query.remove(name);
                query.set(name, value);
            }
            Some(Present { place, value }) => {
                obligations.remove_twins(head.headers, place.name());
                obligations.set(place.name().to_owned(), Some(value.as_str()));
            }
            None => {}
        }
    }

    /// Lets a request through that nobody is asked a credential for.
    ///
    /// # Errors
    ///
    /// A path that a forgiving upstream would take for a guarded route's, and a credential of ours in the query: it
    /// would stand in every log behind us.
    fn pass(&self, head: &Head<'_>, mut obligations: Obligations) -> Result<Judgement, Denial> {
        if head.method == "CONNECT" || self.policy.routes.is_lookalike(head.path) {
            return Err(Reason::RouteNotFound.into());
        }
        if !self.policy.forward_credential {
            let query = head.query();
            if query.texts().any(|text| self.policy.holds_credential(text.as_bytes())) {
                return Err(Reason::CredentialMisplaced.into());
            }
            obligations.strip_own_credentials(head.headers, &self.policy);
        }
        Ok(Judgement::Release(obligations, Charges::default()))
    }

    /// Judges the body.
    fn judge_body(
        &self,
        held: Held<'_>,
        body: &[u8],
        record: &mut Record,
        moment: &DecisionContext<'_>,
    ) -> Result<Judgement, Denial> {
        let Held { route, principal, mut judged, mut obligations } = held;
        // Only a mint request holds lists that are read.
        let mint = route.mint();
        let arrays = if mint.is_some() { Arrays::Kept } else { Arrays::Emptied };
        let body = request::read_object(body, arrays, mint.is_some_and(|rule| rule.body_optional))?;
        // A body may take its time: what held at the headers must still hold now.
        let rights = Rights::of(&self.policy, principal, moment.now)?;
        self.check_revoked(&rights, moment)?;
        if route.local.is_none() {
            bounds::check_names(route, &body, &self.policy.vocabulary)?;
        }
        rights.check_tenant(route, &Part::Body(&body))?;
        if let Some(bounds) = &route.bounds {
            judged.extend(self.judge(route, bounds, &rights).check_body(&body)?);
        }
        let plan = Charges::of(&self.policy, route, principal, &rights, &judged, moment)?;
        if let Some(local) = &route.local {
            return self.answer(local, &rights, &body, plan, record, moment);
        }
        rights.tell(route, &judged, Stage::Body, &mut obligations)?;
        Ok(Judgement::Release(obligations, plan))
    }

    /// Answers a request whose body says what is asked of the gateway itself.
    fn answer(
        &self,
        local: &LocalReply,
        rights: &Rights<'_>,
        body: &Json<'_>,
        plan: Charges,
        record: &mut Record,
        moment: &DecisionContext<'_>,
    ) -> Result<Judgement, Denial> {
        match local {
            LocalReply::Mint(rule) => {
                let asked = MintRequest::read(rule, body)?;
                let minted = mint::mint(&self.policy, rule, rights, &asked, moment)?;
                record.minted = Some(minted.token_id.clone());
                let answer = Answer::minted((rule.status, minted.render(rule)), record.request_id.as_deref());
                Ok(Judgement::Answer(answer, Outcome::Mint, plan))
            }
            LocalReply::Introspect(rule) => {
                let known = self.revocations();
                let told = introspect::introspect(&self.policy, &known, rule, rights, body, moment, record)?;
                let answer = |body| Answer::json(body, record.request_id.as_deref());
                let plan = match told.spent {
                    Some((token, spent)) => plan.asking(&self.policy, &token, answer(spent)),
                    None => plan,
                };
                Ok(Judgement::Answer(answer(told.body), Outcome::Answer, plan))
            }
            LocalReply::Revoke(rule) => {
                let revocation = revoke::read(&self.policy, *rule, rights, body, moment)?;
                record.revoked = Some(revocation.name().replace(' ', ":"));
                let answer = Answer::json(revoke::answer(&self.policy), record.request_id.as_deref());
                Ok(Judgement::Answer(answer, Outcome::Answer, plan.revoking(revocation)))
            }
            LocalReply::Listing(_) | LocalReply::Document(_) => Err(Reason::RouteNotFound.into()),
        }
    }
}

/// What is held of a request until its body was judged.
struct Held<'a> {
    route: &'a Route,
    principal: &'a Principal,
    judged: Vec<Judged>,
    obligations: Obligations,
}

/// Says values under their own names where the client used an alias: the upstream's table of aliases may be another,
/// and what was judged is what must be asked for.
fn say_canonical(judged: &[Judged], query: &mut Query<'_>, obligations: &mut Obligations) {
    for Judged { value, alias_at, .. } in judged {
        match alias_at {
            Some(RequestField::Query(name)) => query.set(name, value),
            Some(RequestField::Header(name)) => obligations.set(name.clone(), Some(value.as_str())),
            _ => {}
        }
    }
}
