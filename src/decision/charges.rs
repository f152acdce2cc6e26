//! What must be remembered of a request before it goes on, and what the store's answer means for it.
//!
//! Nothing is charged here: the charges are named when all else was judged, the narrowest first and a token's use last,
//! and whoever holds the store takes them. A [`PendingCharge`] verdict cannot be carried out before it was settled.

use core::cell::OnceCell;
use core::net::IpAddr;
use std::borrow::Cow;

use crate::credential::{TokenVerifier, VerifiedToken};
use crate::policy::{
    Counts, Limit, Measure, PartyId, Per, Policy, Reach, Route, Shown, StoreBackend, TokenSource,
};
use crate::reason::Reason;
use crate::store::{
    Charge, ChargeDenied, ChargeResult, CounterKey, KEPT_SECONDS, Remaining, Revocation, Rule, StoreError,
    Stream,
};

use super::answer::Answer;
use super::authenticate::Principal;
use super::bounds::Judged;
use super::rights::Rights;
use super::verdict::{Decision, Denial, Effect, OpenSession};
use super::{DecisionContext, Engine};

/// The bound that names a session.
const SESSION: &str = "session_id";

/// The share of what belongs to no tenant.
const NOBODYS: u32 = 0;

/// A verdict that counts only once the store has taken what it costs. Dropping it releases nothing.
pub struct PendingCharge {
    pub(super) verdict: Decision,
    pub(super) plan: Charges,
}

/// What a request costs.
#[derive(Default)]
pub(super) struct Charges {
    charges: Vec<Charge>,
    /// What each charge is for.
    purposes: Vec<Purpose>,
    /// What it revokes.
    revocation: Option<Revocation>,
    /// A use that is only asked after, and the answer when there is none left.
    question: Option<(Charge, Answer)>,
}

/// What the store says of what was due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Whether the charges were taken.
    pub taken: ChargeResult,
    /// Whether what was asked after is spent.
    pub is_spent: bool,
}

/// What a charge is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// A limit, by place in the policy.
    Limit(usize),
    /// A use of the token.
    Use,
    /// The token's seconds.
    Seconds,
}

impl PendingCharge {
    /// What the store must take, all or none.
    pub fn charges(&self) -> &[Charge] {
        &self.plan.charges
    }

    /// What is to be looked at and not charged.
    pub fn question(&self) -> Option<&Charge> {
        self.plan.question.as_ref().map(|(charge, _)| charge)
    }

    /// What must be revoked for the answer to be true.
    pub fn revocation(&self) -> Option<&Revocation> {
        self.plan.revocation.as_ref()
    }
}

impl Charges {
    pub(super) fn is_free(&self) -> bool {
        self.charges.is_empty() && self.revocation.is_none() && self.question.is_none()
    }

    /// Revokes something as well.
    pub(super) fn revoking(self, revocation: Revocation) -> Self {
        Self { revocation: Some(revocation), ..self }
    }

    /// Asks whether a token of a family has uses left; `spent` is the answer when it has not.
    pub(super) fn asking(self, policy: &Policy, token: &VerifiedToken, spent: Answer) -> Self {
        let Some(max) = token.uses else { return self };
        let rule = Rule::Uses { max, issued_at: token.iat, until: kept_until(token), stream: None };
        let charge = Charge { cell: uses_cell(policy, &[], token), share: NOBODYS, rule };
        Self { question: Some((charge, spent)), ..self }
    }

    fn add(&mut self, purpose: Purpose, charge: Charge) {
        self.purposes.push(purpose);
        self.charges.push(charge);
    }

    /// Names the charges of a request that everything else lets through.
    pub(super) fn of(
        policy: &Policy,
        route: &Route,
        principal: &Principal,
        rights: &Rights<'_>,
        judged: &[Judged],
        moment: &DecisionContext<'_>,
    ) -> Result<Self, Denial> {
        let mut plan = Self::default();
        let payer =
            ChargeBuilder { policy, route, principal, rights, judged, moment, share: OnceCell::new() };
        let mut holder = None;
        let limits = route.limits.iter().filter_map(|index| Some((*index, policy.limits.list.get(*index)?)));
        for (index, limit) in limits {
            if limit.counts != Counts::Failures && payer.is_counted(limit) {
                plan.add(Purpose::Limit(index), payer.limit(limit, &mut holder)?);
            }
        }
        plan.add_token(&payer, &mut holder)?;
        Ok(plan)
    }

    fn add_token(&mut self, payer: &ChargeBuilder<'_, '_>, holder: &mut Option<u64>) -> Result<(), Denial> {
        let Principal::Token { source, token, .. } = payer.principal else { return Ok(()) };
        let route = payer.route;
        let (verifier, until) = (payer.verifier(*source)?, kept_until(token));
        let (identity, issued_at) = (verifier.id_namespace().as_bytes(), verifier.earliest_issue(token));
        if let Some(max) = token.total.filter(|_| route.is_upgrade) {
            let ask = payer.rights.session(route).unwrap_or(max);
            let name: [&[u8]; 4] = [b"seconds", identity, token.kid.as_bytes(), token.jti.as_bytes()];
            let rule = Rule::Seconds { max, ask, issued_at, until };
            self.add(Purpose::Seconds, payer.charge(cell(payer.policy, &name), rule));
        }
        let max = token.uses.into_iter().chain(route.uses.max).min().filter(|_| route.uses.is_counted);
        if let Some(max) = max {
            let cell = uses_cell(payer.policy, identity, token);
            let stream = match route.uses.reconnect {
                Some(grace) => Some(Stream {
                    cell: cell.beside(&format!("{grace} {}", payer.session(token))),
                    holder: payer.holder(holder)?,
                    grace,
                }),
                None => None,
            };
            let rule = Rule::Uses { max, issued_at, until, stream };
            self.add(Purpose::Use, payer.charge(cell, rule));
        }
        Ok(())
    }
}

/// A token's identity is its key and its id, never its text, of which there may be several.
fn uses_cell(policy: &Policy, source: &[u8], token: &VerifiedToken) -> CounterKey {
    cell(policy, &[b"uses", source, token.kid.as_bytes(), token.jti.as_bytes()])
}

/// Names a cell. In memory that tenants share its place is nobody's to foresee, or one could crowd another out of theirs.
fn cell(policy: &Policy, parts: &[&[u8]]) -> CounterKey {
    let key: &[u8] = if policy.store.home == StoreBackend::Memory { &policy.store.key } else { &[] };
    CounterKey::of(&[&[key][..], parts].concat())
}

fn kept_until(token: &VerifiedToken) -> u64 {
    token.exp.saturating_add(KEPT_SECONDS)
}

/// Who pays, and for what.
struct ChargeBuilder<'a, 'r> {
    policy: &'a Policy,
    route: &'a Route,
    principal: &'a Principal,
    rights: &'a Rights<'r>,
    judged: &'a [Judged],
    moment: &'a DecisionContext<'a>,
    /// The same for all charges of a request.
    share: OnceCell<u32>,
}

impl ChargeBuilder<'_, '_> {
    fn is_counted(&self, limit: &Limit) -> bool {
        limit.credentials.as_ref().is_none_or(|counted| self.principal.is_accepted_by(counted))
    }

    fn limit(&self, limit: &Limit, holder: &mut Option<u64>) -> Result<Charge, Denial> {
        let mut parts = vec![b"limit".to_vec(), limit.id.clone().into_bytes()];
        for per in &limit.per {
            parts.push(vec![*per as u8]);
            self.name(*per, &mut parts)?;
        }
        let measure = limit.measure.with_max(self.maximum(limit));
        let rule = match counted(measure) {
            Some(rule) => rule,
            None => Rule::Sessions { max: measure.max(), holder: self.holder(holder)? },
        };
        // The same name counted in another way is another count.
        parts.push(vec![letter(&rule)]);
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        // Of what is not the payer's there are no more than the policy names.
        let share = if limit.knows_payer() { self.share() } else { NOBODYS };
        Ok(Charge { cell: cell(self.policy, &parts), share, rule })
    }

    fn name(&self, per: Per, parts: &mut Vec<Vec<u8>>) -> Result<(), Denial> {
        let key = &self.rights.key().id;
        match (per, self.principal) {
            (Per::Team, _) => parts.extend(self.party_name(self.rights.party())?),
            (Per::Organization, _) => {
                parts.extend(self.party_name(self.policy.tree.top(self.rights.party()))?)
            }
            (Per::Token, Principal::Token { source, token, .. }) => {
                parts.extend([
                    self.verifier(*source)?.id_namespace().into(),
                    token.kid.clone().into_bytes(),
                    token.jti.clone().into_bytes(),
                ]);
            }
            (Per::Token | Per::Key, _) => parts.push(key.clone().into_bytes()),
            (Per::Family, Principal::Key { .. }) => parts.push(Vec::new()),
            (Per::Family, Principal::Token { source, .. }) => {
                parts.push(self.verifier(*source)?.name().into())
            }
            (Per::Route, _) => parts.push(self.route.id.clone().into_bytes()),
            (Per::Address, _) => parts.push(network(self.moment.peer()?)),
            (Per::Platform, _) => {}
        }
        Ok(())
    }

    /// A team and a user may have one id.
    fn party_name(&self, id: PartyId) -> Result<[Vec<u8>; 2], Denial> {
        let party = self.policy.tree.party(id).ok_or(Reason::TokenOwner)?;
        Ok([vec![u8::from(party.reach == Reach::User)], party.id.clone().into_bytes()])
    }

    fn maximum(&self, limit: &Limit) -> u64 {
        let own = self.rights.key().limits.iter().find_map(|(id, max)| (*id == limit.id).then_some(*max));
        let own = own.filter(|_| limit.knows_keys());
        // What all below a team share is that team's to widen, nobody's below it.
        let party = match limit.per.contains(&Per::Organization) {
            true => self.policy.tree.top(self.rights.party()),
            false => self.rights.party(),
        };
        let of_party = || self.policy.tree.maximum(party, &limit.id).filter(|_| limit.knows_teams());
        own.or_else(of_party).unwrap_or(limit.measure.max())
    }

    fn verifier(&self, source: TokenSource) -> Result<&dyn TokenVerifier, Denial> {
        self.policy.verifier(source).ok_or_else(|| Reason::TokenType.into())
    }

    fn charge(&self, cell: CounterKey, rule: Rule) -> Charge {
        Charge { cell, share: self.share(), rule }
    }

    /// Everything below one top team is one share of the memory: more teams are not more room.
    fn share(&self) -> u32 {
        *self.share.get_or_init(|| {
            let top = self.policy.tree.top(self.rights.party());
            let party = self.policy.tree.party(top).map_or("", |party| party.id.as_str());
            CounterKey::of(&[b"share", party.as_bytes()]).share()
        })
    }

    /// The session a token's stream is of: the one that was judged, else the token's own.
    fn session<'t>(&'t self, token: &'t VerifiedToken) -> &'t str {
        let bound = self.policy.bound(SESSION).map(|(index, _)| index);
        let judged = self.judged.iter().find(|judged| Some(judged.bound) == bound);
        judged
            .map(|judged| judged.value.as_str())
            .or_else(|| token.bound(SESSION)?.first().map(String::as_str))
            .unwrap_or("")
    }

    /// The new session's name, the same for everything it is counted on.
    fn holder(&self, known: &mut Option<u64>) -> Result<u64, Denial> {
        if let Some(holder) = known {
            return Ok(*holder);
        }
        Ok(*known.insert(u64::from_le_bytes(self.moment.random()?)))
    }
}

/// How requests are counted; `None` when sessions are.
fn counted(measure: Measure) -> Option<Rule> {
    match measure {
        Measure::Window { max, seconds } => Some(Rule::Window { max, seconds }),
        Measure::Rate { max, seconds, burst } => Some(Rule::Rate { max, seconds, burst }),
        Measure::Sessions { .. } => None,
    }
}

fn letter(rule: &Rule) -> u8 {
    match rule {
        Rule::Window { .. } => b'w',
        Rule::Rate { .. } => b'r',
        _ => b's',
    }
}

/// One client's address: of IPv6 the part that a provider gives to one customer (RFC 6177).
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
    }
}

/// The charge for a credential that was no good, from somebody at this address.
fn failure(limit: &Limit, address: IpAddr) -> Option<Charge> {
    let rule = counted(limit.measure)?;
    let cell = CounterKey::of(&[b"failures", limit.id.as_bytes(), &network(address)]);
    Some(Charge { cell, share: NOBODYS, rule })
}

impl Engine {
    /// What a refused request costs the address it came from.
    pub fn failures(&self, verdict: &Decision, peer: &dyn Fn() -> Option<IpAddr>) -> Vec<Charge> {
        let record = &verdict.record;
        let is_failure = record.denial.as_ref().is_some_and(|denial| denial.reason.status() == 401);
        let route = record.route.filter(|_| is_failure).and_then(|index| self.policy.routes.get(index));
        let limits = route.into_iter().flat_map(|route| self.failure_limits(route));
        limits.filter_map(|limit| failure(limit, peer()?)).collect()
    }

    fn failure_limits(&self, route: &Route) -> impl Iterator<Item = &Limit> {
        let limits = route.limits.iter().filter_map(|index| self.policy.limits.list.get(*index));
        limits.filter(|limit| limit.counts == Counts::Failures)
    }

    /// Refuses whoever failed too often at the same address, whatever they show now.
    pub(super) fn check_failures(&self, route: &Route, moment: &DecisionContext<'_>) -> Result<(), Denial> {
        for limit in self.failure_limits(route) {
            let charge = failure(limit, moment.peer()?).ok_or(Reason::HostError)?;
            if let Some(retry) = moment.failure_retry(&charge).map_err(unavailable)? {
                return Err(Denial { retry: Some(retry), ..Reason::FailuresReached.into() });
            }
        }
        Ok(())
    }

    /// Carries the store's answer into the verdict.
    pub fn settle(
        &self,
        due: PendingCharge,
        answer: Result<Settled, StoreError>,
        moment: &DecisionContext<'_>,
    ) -> Decision {
        let PendingCharge { mut verdict, mut plan } = due;
        verdict.record.strength = Some(self.policy.store.home.strength());
        match answer {
            Err(error) => self.refuse(unavailable(error), verdict.record),
            Ok(Settled { taken: ChargeResult::None { charge, refusal }, .. }) => {
                self.refused(verdict, &plan, charge, refusal, moment)
            }
            Ok(Settled { taken: ChargeResult::All(standings), is_spent })
                if standings.len() == plan.charges.len() =>
            {
                if let Some((_, answer)) = plan.question.take().filter(|_| is_spent) {
                    verdict.effect = Effect::Answer(answer);
                }
                self.released(verdict, &plan, &standings, moment)
            }
            Ok(_) => self.refuse(Reason::StoreUnavailable.into(), verdict.record),
        }
    }

    fn released(
        &self,
        mut verdict: Decision,
        plan: &Charges,
        standings: &[Remaining],
        moment: &DecisionContext<'_>,
    ) -> Decision {
        let mut session = OpenSession::default();
        let mut shown = Vec::new();
        let parts = plan.purposes.iter().zip(&plan.charges).zip(standings);
        for ((purpose, charge), standing) in parts {
            session.leases.extend(charge.lease());
            match purpose {
                // How busy everybody is together is nobody's business.
                Purpose::Limit(index)
                    if self.policy.limits.list.get(*index).is_some_and(Limit::knows_payer) =>
                {
                    shown.extend(self.meter(*index, charge, *standing));
                }
                Purpose::Limit(_) => {}
                Purpose::Use => verdict.record.remaining = Some(standing.remaining),
                Purpose::Seconds => session.seconds = Some((charge.cell, standing.remaining)),
            }
        }
        let headers = limit_headers(&self.policy.limits.headers, &shown, moment.now);
        match &mut verdict.effect {
            Effect::Release(obligations) => {
                obligations.answer.extend(headers);
                obligations.open(session, self.policy.ends_sessions);
            }
            Effect::Answer(answer) => answer.headers.extend(headers),
        }
        verdict
    }

    fn refused(
        &self,
        verdict: Decision,
        plan: &Charges,
        charge: usize,
        refusal: ChargeDenied,
        moment: &DecisionContext<'_>,
    ) -> Decision {
        let purpose = plan.purposes.get(charge).copied();
        let rule = plan.charges.get(charge);
        let reason = match (purpose, refusal) {
            (_, ChargeDenied::Forgotten) => Reason::TokenForgotten,
            (Some(Purpose::Use), _) => Reason::TokenSpent,
            (Some(Purpose::Seconds), _) => Reason::SecondsSpent,
            (Some(Purpose::Limit(_)), _) if rule.is_some_and(|charge| charge.lease().is_some()) => {
                Reason::SessionsReached
            }
            (Some(Purpose::Limit(_)), _) => Reason::LimitReached,
            (None, _) => Reason::StoreUnavailable,
        };
        let mut record = verdict.record;
        if let Some(Purpose::Limit(index)) = purpose {
            record.limit = self.policy.limits.list.get(index).map(|limit| limit.id.clone());
        }
        let (Some(Purpose::Limit(index)), ChargeDenied::Spent { retry, reset }) = (purpose, refusal) else {
            return self.refuse(reason.into(), record);
        };
        let mut verdict = self.refuse(Denial { retry: Some(retry), ..reason.into() }, record);
        if let Effect::Answer(answer) = &mut verdict.effect {
            let standing = Remaining { remaining: 0, reset: reset.max(retry) };
            let shown: Vec<Meter<'_>> =
                rule.and_then(|charge| self.meter(index, charge, standing)).into_iter().collect();
            answer.headers.extend(limit_headers(&self.policy.limits.headers, &shown, moment.now));
        }
        verdict
    }

    fn meter(&self, index: usize, charge: &Charge, standing: Remaining) -> Option<Meter<'_>> {
        let (max, seconds) = match charge.rule {
            Rule::Window { max, seconds } | Rule::Rate { max, seconds, .. } => (max, seconds),
            _ => return None,
        };
        let limit = self.policy.limits.list.get(index)?;
        Some(Meter { id: &limit.id, max, seconds, standing })
    }
}

fn unavailable(error: StoreError) -> Denial {
    match error {
        StoreError::Full => Reason::StoreFull,
        StoreError::Corrupt | StoreError::Contended | StoreError::Dropped | StoreError::Unavailable => {
            Reason::StoreUnavailable
        }
    }
    .into()
}

/// What a client is told of one limit.
struct Meter<'a> {
    id: &'a str,
    max: u64,
    seconds: u64,
    standing: Remaining,
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) for all limits, and the platform's own for
/// the tightest.
fn limit_headers(
    own: &[(String, Shown)],
    meters: &[Meter<'_>],
    now: u64,
) -> Vec<(Cow<'static, str>, String)> {
    let Some(tightest) = meters.iter().min_by_key(|meter| meter.standing.remaining) else {
        return Vec::new();
    };
    let list = |one: &dyn Fn(&Meter<'_>) -> String| meters.iter().map(one).collect::<Vec<_>>().join(", ");
    let reset = |meter: &Meter<'_>| meter.standing.reset.div_ceil(1_000);
    let state =
        |meter: &Meter<'_>| format!("\"{}\";r={};t={}", meter.id, meter.standing.remaining, reset(meter));
    let policy = |meter: &Meter<'_>| format!("\"{}\";q={};w={}", meter.id, meter.max, meter.seconds);
    let mut headers: Vec<(Cow<'static, str>, String)> =
        vec![("ratelimit".into(), list(&state)), ("ratelimit-policy".into(), list(&policy))];
    headers.extend(own.iter().map(|(name, shown)| {
        let value = match shown {
            Shown::Limit => tightest.max,
            Shown::Remaining => tightest.standing.remaining,
            Shown::ResetSeconds => reset(tightest),
            Shown::ResetUnix => now.saturating_add(reset(tightest)),
            Shown::ResetUnixMilliseconds => now.saturating_add(reset(tightest)).saturating_mul(1_000),
        };
        (Cow::Owned(name.clone()), value.to_string())
    }));
    headers
}
