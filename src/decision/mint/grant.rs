//! Grants a mint request as far as the key's present rights reach.

use std::rc::Rc;

use crate::credential::Ttl;
use crate::hex::hex;
use crate::number::Number;
use crate::policy::{Form, MintRule, SizedList, TextField, TokenSource, ValueSource};
use crate::reason::Reason;

use super::super::context::DecisionContext;
use super::super::denial::Denial;
use super::super::rights::{Demands, Rights};
use super::minted::{BoundText, Minted};
use super::request::MintRequest;

/// Compares a mint request with the rights of the key.
pub(super) struct Granter<'a> {
    pub(super) rule: &'a MintRule,
    pub(super) rights: &'a Rights<'a>,
    pub(super) request: &'a MintRequest,
    pub(super) context: &'a DecisionContext<'a>,
}

impl Granter<'_> {
    /// Grants a request: everything but the signature. `range` is the lifetimes that the token's family allows.
    pub(super) fn grant(&self, range: &Ttl) -> Result<Minted, Denial> {
        let Self { rule, rights, request, context } = self;
        let scopes = self.scopes()?;
        self.check_numbers(&scopes)?;
        let bounds = self.bounds()?;
        let ttl = self.ttl(range)?;
        let (uses, total) = (request.uses.or(rule.uses.default), request.total.or(rule.total.default));
        if uses.is_some() || total.is_some() {
            self.check_countable()?;
        }
        Ok(Minted {
            token: String::new(),
            jwt: None,
            token_id: hex(&random(context)?),
            key_id: rights.key().id.clone(),
            ttl,
            issued_at: context.now,
            expires_at: context.now.saturating_add(ttl),
            scopes,
            from: request.from.clone().unwrap_or_default(),
            to: request.to.clone().unwrap_or_default(),
            session: request.session,
            uses,
            total,
            metadata: request.metadata.clone(),
            bounds,
        })
    }

    fn check_numbers(&self, scopes: &[String]) -> Result<(), Denial> {
        let Self { rule, rights, request, .. } = self;
        let demands = Demands { features: &rule.features, scopes };
        let from = |number| rights.check_from(number, &demands);
        check_list(rule.from.as_ref(), request.from.as_deref(), from)?;
        check_list(rule.to.as_ref(), request.to.as_deref(), |number| rights.check_to(number))
    }

    fn scopes(&self) -> Result<Vec<String>, Denial> {
        let denial = |reason| match &self.rule.scopes {
            Some(list) => list.field.denial(reason),
            None => Denial::of(reason, "scopes"),
        };
        let mut granted: Vec<String> = Vec::new();
        for scope in self.request.scopes.as_ref().unwrap_or(&self.rule.default_scopes) {
            let family = TokenSource::Family(Rc::clone(&self.rule.family));
            if !self.rights.policy().gives_to_tokens(&family, scope) {
                return Err(denial(Reason::MintScopeRefused));
            }
            if !self.rights.has_scope(scope) {
                return Err(denial(Reason::MintScopeNotHeld));
            }
            if !granted.contains(scope) {
                granted.push(scope.clone());
            }
        }
        Ok(granted)
    }

    fn bounds(&self) -> Result<Vec<BoundText>, Denial> {
        let mut granted = Vec::new();
        for (index, text) in self.rule.texts.iter().enumerate() {
            let bound = &text.bound;
            let (values, is_single) = match &text.source {
                ValueSource::Generated => (vec![uuid(random(self.context)?)], true),
                ValueSource::FieldRef { max, .. } => {
                    let requested = self.request.texts.iter();
                    let mut requested = requested.filter_map(|(at, values)| (*at == index).then_some(values));
                    let Some(values) = requested.next() else { continue };
                    self.check_values(text, values)?;
                    (values.clone(), max.is_none())
                }
            };
            granted.push(BoundText { name: bound.name.clone(), values, is_single });
        }
        Ok(granted)
    }

    fn check_values(&self, text: &TextField, values: &[String]) -> Result<(), Denial> {
        let ValueSource::FieldRef { field, max, .. } = &text.source else { return Ok(()) };
        for (index, value) in values.iter().enumerate() {
            self.check_value(text, value).map_err(|reason| match max {
                Some(_) => field.denial_at(reason, index),
                None => field.denial(reason),
            })?;
        }
        Ok(())
    }

    fn check_value(&self, text: &TextField, value: &str) -> Result<(), Reason> {
        let bound = &text.bound;
        let canonical = bound.canonical(value);
        if bound.form == Form::Endpoint {
            let demands = Demands { features: &self.rule.features, scopes: &[] };
            self.rights.check_endpoint(canonical, text.required_feature.as_deref(), &demands)?;
        } else if !bound.fits(value) {
            return Err(Reason::MintValue);
        } else if !bound.has(canonical) {
            return Err(Reason::BoundUnknown);
        }
        self.rights.check_text(bound, canonical)
    }

    /// Returns the lifetime, once it and the longest session are within their ranges.
    fn ttl(&self, range: &Ttl) -> Result<u64, Denial> {
        if let (Some(rule), Some(session)) = (&self.rule.session, self.request.session)
            && self.rights.session_ceiling().is_some_and(|ceiling| session > ceiling)
        {
            return Err(rule.field.denial(Reason::BoundCeiling));
        }
        let ttl = self.request.ttl.unwrap_or(range.default);
        match ((range.min..=range.max).contains(&ttl), &self.rule.ttl) {
            (true, _) => Ok(ttl),
            (false, Some(field)) => Err(field.denial(Reason::MintTtl)),
            (false, None) => Err(Reason::MintTtl.into()),
        }
    }

    /// Refuses a token with counted uses or seconds until the store has counted for a second: it could not distinguish
    /// the token from an older one whose uses it never saw.
    fn check_countable(&self) -> Result<(), Reason> {
        match self.context.epoch {
            Some(epoch) if self.context.now > epoch => Ok(()),
            Some(_) => Err(Reason::StoreUnavailable),
            None => Err(self.context.reason_without_store(Reason::StoreUnavailable)),
        }
    }
}

fn check_list(
    rule: Option<&SizedList>,
    numbers: Option<&[Number]>,
    check: impl Fn(Number) -> Result<(), Reason>,
) -> Result<(), Denial> {
    let Some(rule) = rule else { return Ok(()) };
    for (index, number) in numbers.unwrap_or_default().iter().enumerate() {
        check(*number).map_err(|reason| rule.field.denial_at(reason, index))?;
    }
    Ok(())
}

fn random(context: &DecisionContext<'_>) -> Result<[u8; 16], Reason> {
    context.random().map_err(|_| Reason::MintUnavailable)
}

/// Writes random bytes as a UUID (RFC 9562 section 5.4).
fn uuid(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let digits = hex(&bytes);
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|range| digits.get(range));
    groups.collect::<Vec<_>>().join("-")
}
