//! Charges of a request: the counters it must pay before it may be released.
//!
//! Nothing is counted here. The charges are named once everything else has allowed the request, in the policy's order
//! of limits (narrowest first) and a token's use last; the adapter takes them from the store.

use core::cell::{Cell, OnceCell};
use core::net::IpAddr;
use std::rc::Rc;

use crate::credential::VerifiedToken;
use crate::policy::{Counts, Limit, Measure, PartyId, Per, Policy, Reach, StoreBackend};
use crate::reason::Reason;
use crate::store::{Charge, CounterKey, KEPT_SECONDS, Lease, Revocation, Rule};

use super::answer::Answer;
use super::denial::Denial;
use super::fields::JudgedValue;
use super::request::GuardedRequest;

/// Name of the text bound that identifies a session.
const SESSION_ID: &str = "session_id";

/// Share of the store's memory for counters that belong to no tenant.
pub(super) const NO_TENANT: u32 = 0;

/// Charges of one request.
#[derive(Default)]
pub(super) struct Charges {
    /// Counters to charge, all or none.
    pub(super) list: Vec<Charge>,
    /// Purpose of each charge, in the same order.
    pub(super) purposes: Vec<Purpose>,
    /// Revocation to record.
    pub(super) revocation: Option<Revocation>,
    /// Uses of a token to look at without charging them, and the answer when there are none left.
    pub(super) question: Option<(Charge, Answer)>,
}

/// Purpose of a charge.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A limit of the policy.
    Limit(Rc<Limit>),
    /// A use of the token.
    Use,
    /// The token's seconds.
    Seconds,
}

impl Charges {
    /// Names the charges of a request that everything else allows.
    pub(super) fn of(request: &GuardedRequest<'_>, judged: &[JudgedValue]) -> Result<Self, Denial> {
        let mut charges = Self::default();
        let builder = ChargeBuilder { request, judged, share: OnceCell::new(), holder: Cell::new(None) };
        for limit in &request.route.limits {
            if limit.counts != Counts::Failures && builder.is_counted(limit) {
                charges.push(Purpose::Limit(Rc::clone(limit)), builder.limit(limit)?);
            }
        }
        if let Some((source, token)) = request.rights.sourced_token() {
            let verifier = source.verifier();
            let (namespace, issued_at) = (verifier.id_namespace().as_bytes(), verifier.earliest_issue(token));
            let account = TokenAccount { token, namespace, issued_at };
            if let Some(charge) = builder.seconds(&account) {
                charges.push(Purpose::Seconds, charge);
            }
            if let Some(charge) = builder.uses(&account)? {
                charges.push(Purpose::Use, charge);
            }
        }
        Ok(charges)
    }

    fn push(&mut self, purpose: Purpose, charge: Charge) {
        self.purposes.push(purpose);
        self.list.push(charge);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.revocation.is_none() && self.question.is_none()
    }

    pub(super) fn with_revocation(self, revocation: Revocation) -> Self {
        Self { revocation: Some(revocation), ..self }
    }

    /// Asks whether a token minted here has uses left; `used_up` is the answer when it has none.
    pub(super) fn with_question(self, policy: &Policy, token: &VerifiedToken, used_up: Answer) -> Self {
        let Some(max) = token.uses else { return self };
        let rule = Rule::Uses { max, issued_at: token.iat, until: kept_until(token), stream: None };
        let charge = Charge { key: uses_key(policy, &[], token), share: NO_TENANT, rule };
        Self { question: Some((charge, used_up)), ..self }
    }
}

/// Returns the counter of a token's uses. A token is identified by key id and `jti`, because its text may have several
/// spellings.
fn uses_key(policy: &Policy, identity: &[u8], token: &VerifiedToken) -> CounterKey {
    counter_key(policy, &[b"uses", identity, token.kid.as_bytes(), token.jti.as_bytes()])
}

/// Returns the counter with a name. In memory that tenants share, a secret makes its position unpredictable, so that no
/// tenant can crowd out another's counters.
fn counter_key(policy: &Policy, parts: &[&[u8]]) -> CounterKey {
    let key: &[u8] = if policy.store.backend == StoreBackend::Memory { &policy.store.key } else { &[] };
    CounterKey::of(&[&[key][..], parts].concat())
}

fn kept_until(token: &VerifiedToken) -> u64 {
    token.exp.saturating_add(KEPT_SECONDS)
}

/// A token whose uses and seconds are counted.
struct TokenAccount<'a> {
    token: &'a VerifiedToken,
    /// Namespace of its id.
    namespace: &'a [u8],
    /// Earliest Unix second at which it can have been issued.
    issued_at: u64,
}

/// Builds the charges of one request.
struct ChargeBuilder<'a, 'r> {
    request: &'a GuardedRequest<'r>,
    judged: &'a [JudgedValue],
    /// Share of the store's memory, the same for all charges.
    share: OnceCell<u32>,
    /// Name of the new session, the same for all charges.
    holder: Cell<Option<u64>>,
}

impl ChargeBuilder<'_, '_> {
    fn is_counted(&self, limit: &Limit) -> bool {
        limit.credentials.as_ref().is_none_or(|counted| self.request.rights.is_accepted_by(counted))
    }

    fn limit(&self, limit: &Limit) -> Result<Charge, Denial> {
        let mut parts = vec![b"limit".to_vec(), limit.id.clone().into_bytes()];
        for per in &limit.per {
            parts.push(vec![*per as u8]);
            self.push_name(*per, &mut parts)?;
        }
        let measure = limit.measure.with_max(self.maximum(limit));
        let rule = match request_rule(measure) {
            Some(rule) => rule,
            None => Rule::Sessions { max: measure.max(), holder: self.holder()? },
        };
        // One name under two measures is two counters.
        parts.push(vec![letter(&rule)]);
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        // Counters that tenants share have a fixed number, so they need no share of the memory.
        let share = if limit.is_per_tenant_or_address() { self.share() } else { NO_TENANT };
        Ok(Charge { key: counter_key(self.request.policy, &parts), share, rule })
    }

    /// Adds the name of the team, token, route or address that a limit counts separately.
    fn push_name(&self, per: Per, parts: &mut Vec<Vec<u8>>) -> Result<(), Denial> {
        let GuardedRequest { policy, route, rights, context, .. } = self.request;
        match (per, rights.sourced_token()) {
            (Per::Team, _) => parts.extend(self.party_name(rights.party())?),
            (Per::Organization, _) => parts.extend(self.party_name(policy.tree.top(rights.party()))?),
            (Per::Token, Some((source, token))) => {
                let (kid, jti) = (token.kid.clone().into_bytes(), token.jti.clone().into_bytes());
                parts.extend([source.verifier().id_namespace().into(), kid, jti]);
            }
            (Per::Token | Per::Key, _) => parts.push(rights.key().id.clone().into_bytes()),
            (Per::Family, None) => parts.push(Vec::new()),
            (Per::Family, Some((source, _))) => parts.push(source.verifier().name().into()),
            (Per::Route, _) => parts.push(route.id.clone().into_bytes()),
            (Per::Address, _) => parts.push(network(context.peer()?)),
            (Per::Platform, _) => {}
        }
        Ok(())
    }

    /// Returns the name of a party; a team and a user may have the same id.
    fn party_name(&self, id: PartyId) -> Result<[Vec<u8>; 2], Denial> {
        let party = self.request.policy.tree.party(id).ok_or(Reason::TokenOwner)?;
        Ok([vec![u8::from(party.reach == Reach::User)], party.id.clone().into_bytes()])
    }

    /// Returns the maximum of a limit: the key's own, else its team's, else the policy's.
    fn maximum(&self, limit: &Limit) -> u64 {
        let GuardedRequest { policy, rights, .. } = self.request;
        let own = rights.key().limits.iter().find_map(|(id, max)| (*id == limit.id).then_some(*max));
        let own = own.filter(|_| limit.is_per_key());
        // A counter that an organization shares is the top team's to widen.
        let party = match limit.per.contains(&Per::Organization) {
            true => policy.tree.top(rights.party()),
            false => rights.party(),
        };
        let of_party = || policy.tree.maximum(party, &limit.id).filter(|_| limit.is_per_team());
        own.or_else(of_party).unwrap_or(limit.measure.max())
    }

    /// Charges the seconds of a session against those the token may use in total.
    fn seconds(&self, account: &TokenAccount<'_>) -> Option<Charge> {
        let GuardedRequest { policy, route, rights, .. } = self.request;
        let TokenAccount { token, namespace, issued_at } = account;
        let max = token.total.filter(|_| route.is_upgrade)?;
        let ask = rights.session_seconds(route).unwrap_or(max);
        let name: [&[u8]; 4] = [b"seconds", namespace, token.kid.as_bytes(), token.jti.as_bytes()];
        let rule = Rule::Seconds { max, ask, issued_at: *issued_at, until: kept_until(token) };
        Some(Charge { key: counter_key(policy, &name), share: self.share(), rule })
    }

    /// Charges a use of the token.
    fn uses(&self, account: &TokenAccount<'_>) -> Result<Option<Charge>, Denial> {
        let TokenAccount { token, namespace, issued_at } = account;
        let rule = &self.request.route.uses;
        let max = token.uses.into_iter().chain(rule.max).min().filter(|_| rule.is_counted);
        let Some(max) = max else { return Ok(None) };
        let key = uses_key(self.request.policy, namespace, token);
        let stream = match rule.reconnect {
            Some(grace) => {
                let key = key.stream(&format!("{grace} {}", self.session_id(token)));
                Some(Lease { key, holder: self.holder()?, grace })
            }
            None => None,
        };
        let rule = Rule::Uses { max, issued_at: *issued_at, until: kept_until(token), stream };
        Ok(Some(Charge { key, share: self.share(), rule }))
    }

    /// Returns the share of the top team: a team below it gets no memory of its own.
    fn share(&self) -> u32 {
        let GuardedRequest { policy, rights, .. } = self.request;
        *self.share.get_or_init(|| {
            let top =
                policy.tree.party(policy.tree.top(rights.party())).map_or("", |party| party.id.as_str());
            CounterKey::of(&[b"share", top.as_bytes()]).share()
        })
    }

    /// Returns the session that a token's stream belongs to: the one judged in this request, else the token's own.
    fn session_id<'t>(&'t self, token: &'t VerifiedToken) -> &'t str {
        let judged = self.judged.iter().find(|judged| judged.bound.name == SESSION_ID);
        judged
            .map(|judged| judged.value.as_str())
            .or_else(|| token.bound(SESSION_ID)?.first().map(String::as_str))
            .unwrap_or("")
    }

    fn holder(&self) -> Result<u64, Denial> {
        if let Some(holder) = self.holder.get() {
            return Ok(holder);
        }
        let holder = u64::from_le_bytes(self.request.context.random()?);
        self.holder.set(Some(holder));
        Ok(holder)
    }
}

/// Returns the rule that counts requests; `None` for a measure of sessions.
pub(super) fn request_rule(measure: Measure) -> Option<Rule> {
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

/// Returns the address of a client; of IPv6 the part that a provider gives to one customer (RFC 6177).
pub(super) fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
    }
}
