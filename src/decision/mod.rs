//! One request in, one decision out.
//!
//! The order of the steps is the defence: a later one is reached only when all earlier ones held, cheap and
//! unauthenticated checks come first, and the first failure decides. Pure: no host call, no clock, no environment, no
//! log; time and randomness are arguments ([`Moment`]).

mod answer;
mod authenticate;
mod bounds;
mod mint;
mod request;
mod rights;
mod verdict;

use crate::credential::{Algorithm, HostVerify, VerificationCache, holds_credential};
use crate::json::Arrays;
use crate::policy::{Accept, Policy, Route, RouteMatch, Unmatched};
use crate::reason::Reason;

pub use answer::Answer;
pub use authenticate::Principal;
pub use mint::{MintRequest, mint};
use request::RequestId;
pub use request::{Head, OWN_HEADER_PREFIX};
pub use rights::{Demands, Rights};
pub use verdict::{Denial, Effect, Obligations, Outcome, Record, Verdict, is_reserved};

/// Bytes of verified tokens remembered per policy and worker: two to three thousand ordinary ones.
const CACHE_BYTES: usize = 4 << 20;

/// What a decision may depend on beside policy and request.
pub struct Moment<'a> {
    /// Unix seconds.
    pub now: u64,
    /// Fills a slice with random bytes; false when there are none to be had.
    pub random: &'a dyn Fn(&mut [u8]) -> bool,
    /// Verifies signatures with the host's help; [`no_host`] where there is none.
    pub host_verify: &'a HostVerify<'a>,
}

/// A host that verifies no signatures.
pub fn no_host(_: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
    None
}

/// A policy with what was learned under it. A new policy is a new engine.
pub struct Engine {
    policy: Policy,
    cache: VerificationCache,
}

/// What comes of a request's headers.
pub enum Step {
    /// The verdict.
    Decided(Box<Verdict>),
    /// The verdict needs the whole body; until then the request must be held.
    NeedsBody(Box<Pending>),
}

/// A request whose headers were judged and whose body was not. Dropping it releases nothing.
pub struct Pending {
    route: usize,
    principal: Principal,
    obligations: Obligations,
    record: Record,
}

impl Pending {
    /// What is known so far, for a refusal that is not the engine's.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Engine {
    /// Makes an engine of a policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy, cache: VerificationCache::new(CACHE_BYTES) }
    }

    /// The policy it decides by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Judges a request's headers; `headers` are all pairs, names in lower case, pseudo-headers among them.
    pub fn begin(&self, headers: &[(&[u8], &[u8])], end_of_stream: bool, moment: &Moment<'_>) -> Step {
        let mut record = Record::default();
        match self.judge_headers(headers, &mut record, moment) {
            Ok(Headers::Release(obligations)) => self.decided(Effect::Release(obligations), record),
            Ok(Headers::NeedsBody(route, principal, obligations)) => {
                let pending = Box::new(Pending { route, principal, obligations, record });
                if end_of_stream {
                    return Step::Decided(Box::new(self.finish(*pending, b"", moment)));
                }
                Step::NeedsBody(pending)
            }
            Err(denial) => Step::Decided(Box::new(self.refuse(denial, record))),
        }
    }

    /// Judges a request whose body is complete.
    pub fn finish(&self, pending: Pending, body: &[u8], moment: &Moment<'_>) -> Verdict {
        let Pending { route, principal, obligations, mut record } = pending;
        let judged = self.policy.routes.get(route).ok_or(Denial::from(Reason::RouteNotFound));
        let judged = judged.and_then(|route| self.judge_body(route, &principal, body, &mut record, moment));
        match judged {
            Ok(Some(minted)) => {
                let answer = Answer::minted(minted, record.request_id.as_deref());
                Verdict { effect: Effect::Answer(answer), record: record.with(Outcome::Mint) }
            }
            Ok(None) => Verdict { effect: Effect::Release(obligations), record },
            Err(denial) => self.refuse(denial, record),
        }
    }

    /// Words a refusal, also for a cause that is not the engine's (a host call that failed, a body that never came).
    pub fn refuse(&self, denial: Denial, record: Record) -> Verdict {
        let route = record.route.and_then(|index| self.policy.routes.get(index));
        let scopes = route.map_or(&[][..], |route| &route.scopes);
        let answer = Answer::refusal(&self.policy.refusals, &denial, scopes, record.request_id.as_deref());
        Verdict { effect: Effect::Answer(answer), record: record.refused(denial) }
    }

    fn decided(&self, effect: Effect, record: Record) -> Step {
        Step::Decided(Box::new(Verdict { effect, record }))
    }

    fn judge_headers(
        &self,
        headers: &[(&[u8], &[u8])],
        record: &mut Record,
        moment: &Moment<'_>,
    ) -> Result<Headers, Denial> {
        let request_id = RequestId::of(headers, &self.policy.prefixes, moment);
        record.request_id = request_id.text.clone();
        let head = Head::read(headers)?;
        head.check_upgrade()?;
        let mut obligations = Obligations::strip(headers);
        if request_id.is_new {
            obligations.set("x-request-id", request_id.text);
        }
        let Some(found) = self.policy.routes.find(head.method, head.path) else {
            return match self.policy.unmatched {
                Unmatched::Deny => Err(Reason::RouteNotFound.into()),
                Unmatched::Pass if self.policy.routes.is_guarded(head.path) => {
                    Err(Reason::RouteNotFound.into())
                }
                Unmatched::Pass => self.pass(&head, obligations),
            };
        };
        record.route = Some(found.index);
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
        moment: &Moment<'_>,
    ) -> Result<Headers, Denial> {
        let route = found.route;
        head.check_method_override()?;
        let principal = authenticate::authenticate(&self.policy, &self.cache, head, moment, record)?;
        if !principal.is_accepted_by(&route.accept) {
            return Err(Reason::CredentialNotAccepted.into());
        }
        let rights = Rights::of(&self.policy, &principal, moment.now)?;
        rights.check(route, found)?;
        if let Some(bounds) = &route.bounds {
            bounds::check_head(bounds, &rights, head, &self.policy.vocabulary)?;
        }
        if route.reads_body() {
            head.check_body_is_json()?;
        }
        rights.identify(route, &mut obligations);
        if !self.policy.forward_credential {
            obligations.strip_credentials(head.headers, &self.policy.carriers);
        }
        Ok(match route.reads_body() {
            true => Headers::NeedsBody(found.index, principal, obligations),
            false => Headers::Release(obligations),
        })
    }

    /// Lets a request through that nobody is asked a credential for.
    ///
    /// # Errors
    ///
    /// A path that a forgiving upstream would take for a guarded route's, and a credential of ours in the query: it
    /// would stand in every log behind us.
    fn pass(&self, head: &Head<'_>, mut obligations: Obligations) -> Result<Headers, Denial> {
        if head.method == "CONNECT" || self.policy.routes.is_lookalike(head.path) {
            return Err(Reason::RouteNotFound.into());
        }
        if !self.policy.forward_credential {
            if head.query.is_some_and(|query| holds_credential(query.as_bytes(), &self.policy.prefixes)) {
                return Err(Reason::CredentialMisplaced.into());
            }
            obligations.strip_own_credentials(head.headers, &self.policy.prefixes);
        }
        Ok(Headers::Release(obligations))
    }

    /// Judges the body; the answer is what a mint route replies.
    fn judge_body(
        &self,
        route: &Route,
        principal: &Principal,
        body: &[u8],
        record: &mut Record,
        moment: &Moment<'_>,
    ) -> Result<Option<(u16, Vec<u8>)>, Denial> {
        // Only a mint request holds lists that are read.
        let arrays = if route.mint.is_some() { Arrays::Kept } else { Arrays::Emptied };
        let body = request::read_object(body, arrays)?;
        // A body may take its time: what held at the headers must still hold now.
        let rights = Rights::of(&self.policy, principal, moment.now)?;
        if let Some(bounds) = &route.bounds {
            bounds::check_body(bounds, &rights, &Demands::of(route), &body, &self.policy.vocabulary)?;
        }
        let Some(rule) = &route.mint else { return Ok(None) };
        let asked = MintRequest::read(rule, &body)?;
        let minted = mint(&self.policy, rule, &rights, &asked, moment)?;
        record.minted = Some(minted.token_id.clone());
        Ok(Some((rule.status, minted.render(rule))))
    }
}

enum Headers {
    Release(Obligations),
    NeedsBody(usize, Principal, Obligations),
}
