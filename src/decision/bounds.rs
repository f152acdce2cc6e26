//! Judges the values of a request against the bounds of its credential: caller, destination and text bounds.
//!
//! A bounded credential may not choose a value that the gateway cannot read.

use core::net::IpAddr;
use std::borrow::Cow;
use std::rc::Rc;

use crate::credential::is_bound_text;
use crate::number::Number;
use crate::policy::{Form, TextRule};
use crate::reason::Reason;

use super::denial::Denial;
use super::fields::{FieldValues, JudgedValue, ReadValues, Reading, TenantReading, TextReading};
use super::request::GuardedRequest;
use super::rights::Demands;

impl GuardedRequest<'_> {
    pub(super) fn judge_head_fields(&self, values: FieldValues<'_>) -> Result<Vec<JudgedValue>, Denial> {
        let FieldValues { tenant, from, to, texts, origin } = values;
        self.check_tenant(tenant)?;
        self.rights.check_unmapped_bounds(self.route)?;
        self.check_readable()?;
        self.check_call(from, to)?;
        let judged = self.judge_texts(texts)?;
        if self.route.is_upgrade {
            judged.iter().try_for_each(|judged| self.check_endpoint_client(judged, &origin))?;
        }
        Ok(judged)
    }

    pub(super) fn judge_body_fields(&self, values: FieldValues<'_>) -> Result<Vec<JudgedValue>, Denial> {
        self.check_tenant(values.tenant)?;
        self.check_call(values.from, values.to)?;
        self.judge_texts(values.texts)
    }

    fn check_tenant(&self, tenant: Option<TenantReading<'_>>) -> Result<(), Denial> {
        match tenant {
            Some((field, team)) => self.rights.check_tenant(field, team?.as_deref()),
            None => Ok(()),
        }
    }

    /// Denies a bounded credential where the gateway can never read the number.
    fn check_readable(&self) -> Result<(), Denial> {
        let Some(call) = self.route.bounds.as_ref().and_then(|bounds| bounds.call.as_ref()) else {
            return Ok(());
        };
        if self.rights.is_from_bounded() && call.from.is_unreadable() {
            return Err(Reason::FromUnreadable.into());
        }
        if self.rights.is_to_bounded() && call.to.is_unreadable() {
            return Err(Reason::ToUnreadable.into());
        }
        Ok(())
    }

    fn check_call(
        &self,
        from: Option<Reading<'_, Number>>,
        to: Option<Reading<'_, Number>>,
    ) -> Result<(), Denial> {
        // A malformed number is reported before one that is not allowed.
        let (from, to) = (from.transpose()?, to.transpose()?);
        let demands = Demands::of(self.route);
        let rights = &self.rights;
        if let Some(from) = from {
            from.check(|number| rights.check_from(number, &demands))?;
            if from.is_open() && rights.is_from_bounded() {
                return Err(Reason::FromUnreadable.into());
            }
        }
        if let Some(to) = to {
            to.check(|number| rights.check_to(number))?;
            if to.is_open() && rights.is_to_bounded() {
                return Err(Reason::ToUnreadable.into());
            }
        }
        Ok(())
    }

    fn judge_texts(&self, texts: Vec<TextReading<'_>>) -> Result<Vec<JudgedValue>, Denial> {
        let mut judged = Vec::new();
        for (rule, reading) in texts {
            self.judge_text(rule, reading, &mut judged)?;
        }
        Ok(judged)
    }

    /// Judges a text bound: each value in the request, or the one that the token implies.
    fn judge_text(
        &self,
        rule: &TextRule,
        reading: Reading<'_, Cow<'_, str>>,
        judged: &mut Vec<JudgedValue>,
    ) -> Result<(), Denial> {
        let bound = &rule.bound;
        let ReadValues { values, is_delegated } = reading?;
        let is_open = is_delegated || rule.source.is_unreadable();
        if is_open && self.rights.is_text_bounded(&rule.bound) {
            return Err(absent(rule, Reason::BoundUnreadable));
        }
        if values.is_empty() && !is_open {
            judged.extend(self.judge_absent(rule)?);
        }
        for (field, value) in values {
            let canonical = bound.canonical(&value);
            self.check_value(rule, canonical).map_err(|reason| Denial::at(reason, field))?;
            let alias_at = (canonical != value).then(|| field.clone());
            judged.push(JudgedValue { bound: Rc::clone(bound), value: canonical.to_owned(), alias_at });
        }
        Ok(())
    }

    /// Judges a text bound that the request has no value for.
    fn judge_absent(&self, rule: &TextRule) -> Result<Option<JudgedValue>, Denial> {
        let implied = rule.implied.then(|| self.rights.only_value(&rule.bound)).flatten();
        let Some(value) = implied else {
            let is_missing = rule.implied || self.rights.is_text_bounded(&rule.bound);
            return if is_missing { Err(absent(rule, Reason::BoundUnreadable)) } else { Ok(None) };
        };
        let value = rule.bound.canonical(value).to_owned();
        self.check_value(rule, &value).map_err(|reason| absent(rule, reason))?;
        Ok(Some(JudgedValue { bound: Rc::clone(&rule.bound), value, alias_at: None }))
    }

    fn check_value(&self, rule: &TextRule, canonical: &str) -> Result<(), Reason> {
        let bound = &rule.bound;
        if bound.form == Form::Endpoint {
            let demands = Demands::of(self.route);
            self.rights.check_endpoint(canonical, rule.required_feature.as_deref(), &demands)?;
        } else if !is_bound_text(canonical) || !bound.has(canonical) {
            return Err(Reason::BoundUnknown);
        }
        self.rights.check_text(bound, canonical)
    }

    /// Checks that an endpoint allows the page and the address of the client.
    fn check_endpoint_client(
        &self,
        judged: &JudgedValue,
        origin: &Result<Option<&str>, Denial>,
    ) -> Result<(), Denial> {
        let endpoint = self.policy.endpoints.get(&judged.value).filter(|_| judged.bound.is_endpoint());
        let Some(endpoint) = endpoint else { return Ok(()) };
        if let Some(origins) = &endpoint.origins {
            let origin = origin.as_ref().map_err(Denial::clone)?.unwrap_or_default();
            if !origins.iter().any(|allowed| allowed == origin) {
                return Err(Reason::EndpointOrigin.into());
            }
        }
        if let Some(networks) = &endpoint.addresses {
            let is_inside = |address: IpAddr| networks.iter().any(|network| network.contains(address));
            if !self.context.peer().is_ok_and(is_inside) {
                return Err(Reason::EndpointAddress.into());
            }
        }
        Ok(())
    }
}

impl<T> ReadValues<'_, T> {
    /// Returns whether the upstream may use another value than those that were read.
    fn is_open(&self) -> bool {
        self.values.is_empty() || self.is_delegated
    }
}

impl ReadValues<'_, Number> {
    fn check(&self, check: impl Fn(Number) -> Result<(), Reason>) -> Result<(), Denial> {
        let mut values = self.values.iter();
        values.try_for_each(|(field, number)| check(*number).map_err(|reason| Denial::at(reason, field)))
    }
}

/// Denies because of a text bound that the request has no value for, named by its first field.
fn absent(rule: &TextRule, reason: Reason) -> Denial {
    match rule.source.members.first() {
        Some(member) => Denial::at(reason, &member.place),
        None => Denial::of(reason, rule.bound.name.as_str()),
    }
}
