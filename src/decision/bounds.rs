//! Judges what a request asks for against what its credential is bounded in: caller, destination, and every text bound.
//!
//! A value the gateway cannot read is one a bounded credential may not choose; a member that some other reader could
//! take for a number is refused, whoever sends it.

use core::net::IpAddr;
use std::borrow::Cow;

use crate::credential::is_bound_text;
use crate::json::Json;
use crate::number::{Dialled, Number};
use crate::policy::{
    BoundSource, Bounds, Call, Form, Pointer, Policy, RequestField, Route, TextBound, TextRule,
};
use crate::reason::Reason;
use crate::uri::{Query, fold, fold_parameter};

use super::context::DecisionContext;
use super::reading::{Part, descend, header};
use super::request::Head;
use super::rights::{Demands, Rights};
use super::verdict::Denial;

/// A text bound whose value was judged.
pub(super) struct Judged {
    /// The bound's place in the policy.
    pub(super) bound: usize,
    /// The canonical value.
    pub(super) value: String,
    /// Where the client wrote an alias that the upstream must not resolve by a table of its own.
    pub(super) alias_at: Option<RequestField>,
}

/// What a request is judged by.
pub(super) struct Judge<'r> {
    pub(super) policy: &'r Policy,
    pub(super) route: &'r Route,
    pub(super) bounds: &'r Bounds,
    pub(super) rights: &'r Rights<'r>,
}

impl Judge<'_> {
    /// Judges what the head says.
    pub(super) fn check_head(
        &self,
        head: &Head<'_>,
        part: &Part<'_>,
        context: &DecisionContext<'_>,
    ) -> Result<Vec<Judged>, Denial> {
        if let Some(call) = &self.bounds.call {
            if self.rights.is_from_bounded() && call.from.is_unreadable() {
                return Err(Reason::FromUnreadable.into());
            }
            if self.rights.is_to_bounded() && call.to.is_unreadable() {
                return Err(Reason::ToUnreadable.into());
            }
        }
        let judged = self.check_part(part)?;
        if self.route.is_upgrade {
            for judged in &judged {
                self.check_endpoint_origin(judged, head, context)?;
            }
        }
        Ok(judged)
    }

    /// Judges what the body says.
    pub(super) fn check_body(&self, body: &Json<'_>) -> Result<Vec<Judged>, Denial> {
        self.check_part(&Part::Body(body))
    }

    fn check_part(&self, part: &Part<'_>) -> Result<Vec<Judged>, Denial> {
        if let Some(call) = &self.bounds.call {
            self.check_call(call, part)?;
        }
        let mut judged = Vec::new();
        for rule in self.bounds.texts.iter().filter(|rule| part.holds(&rule.direction)) {
            judged.extend(self.check_text(rule, part)?);
        }
        Ok(judged)
    }

    fn check_call(&self, call: &Call, part: &Part<'_>) -> Result<(), Denial> {
        // Both are read before either is judged: what is malformed is said before what is not allowed.
        let from = part.holds(&call.from).then(|| read_numbers(&call.from, part)).transpose()?;
        let to = part.holds(&call.to).then(|| read_numbers(&call.to, part)).transpose()?;
        let demands = Demands::of(self.route);
        if let Some(from) = from {
            let rights = self.rights;
            from.check(
                |number| rights.check_from(number, &demands),
                rights.is_from_bounded(),
                Reason::FromUnreadable,
            )?;
        }
        if let Some(to) = to {
            let rights = self.rights;
            to.check(|number| rights.check_to(number), rights.is_to_bounded(), Reason::ToUnreadable)?;
        }
        Ok(())
    }

    /// Judges one text bound: every value the request says, or the one that is implied.
    fn check_text(&self, rule: &TextRule, part: &Part<'_>) -> Result<Vec<Judged>, Denial> {
        let Some(bound) = self.policy.bounds.get(rule.bound) else {
            return Err(Reason::BoundUnreadable.into());
        };
        let Said { values, is_chosen } = read_values(&rule.direction, part)?;
        let is_open = is_chosen || rule.direction.is_unreadable();
        if is_open && self.rights.is_text_bounded(rule.bound) {
            return Err(unsaid(rule, bound, Reason::BoundUnreadable));
        }
        let mut judged = Vec::new();
        for (place, value) in values {
            let canonical = bound.canonical(&value);
            self.check_value(rule, bound, canonical).map_err(|reason| Denial::at(reason, place))?;
            let alias_at = (canonical != value).then(|| place.clone());
            judged.push(Judged { bound: rule.bound, value: canonical.to_owned(), alias_at });
        }
        if judged.is_empty() && !is_open {
            judged.extend(self.check_unsaid(rule, bound)?);
        }
        Ok(judged)
    }

    /// Judges a bound that the request does not name.
    fn check_unsaid(&self, rule: &TextRule, bound: &TextBound) -> Result<Option<Judged>, Denial> {
        let implied = rule.implied.then(|| self.rights.only_value(rule.bound)).flatten();
        let Some(value) = implied else {
            let is_missing = rule.implied || self.rights.is_text_bounded(rule.bound);
            return if is_missing { Err(unsaid(rule, bound, Reason::BoundUnreadable)) } else { Ok(None) };
        };
        let value = bound.canonical(value).to_owned();
        self.check_value(rule, bound, &value).map_err(|reason| unsaid(rule, bound, reason))?;
        Ok(Some(Judged { bound: rule.bound, value, alias_at: None }))
    }

    fn check_value(&self, rule: &TextRule, bound: &TextBound, canonical: &str) -> Result<(), Reason> {
        if bound.form == Form::Endpoint {
            self.rights.check_endpoint(canonical, rule.capable.as_deref(), &Demands::of(self.route))?;
        } else if !is_bound_text(canonical) || !bound.has(canonical) {
            return Err(Reason::BoundUnknown);
        }
        self.rights.check_text(rule.bound, canonical)
    }

    /// An endpoint is called from the pages and addresses it allows.
    fn check_endpoint_origin(
        &self,
        judged: &Judged,
        head: &Head<'_>,
        context: &DecisionContext<'_>,
    ) -> Result<(), Denial> {
        let is_endpoint =
            self.policy.bounds.get(judged.bound).is_some_and(|bound| bound.form == Form::Endpoint);
        let Some(endpoint) = self.policy.directory.get(&judged.value).filter(|_| is_endpoint) else {
            return Ok(());
        };
        if let Some(origins) = &endpoint.origins {
            let origin = header(head, "origin")?.unwrap_or_default();
            if !origins.iter().any(|allowed| allowed == origin) {
                return Err(Reason::EndpointOrigin.into());
            }
        }
        if let Some(networks) = &endpoint.addresses {
            let is_inside = |address: IpAddr| networks.iter().any(|network| network.contains(address));
            if !context.peer().is_ok_and(is_inside) {
                return Err(Reason::EndpointAddress.into());
            }
        }
        Ok(())
    }
}

/// Refuses parameters that some reader could take for a caller or destination, or for what is read elsewhere in the
/// request, and those that a closed query lacks.
pub(super) fn check_query_names(
    route: &Route,
    query: &Query<'_>,
    vocabulary: &[String],
) -> Result<(), Denial> {
    if query.is_empty() {
        return Ok(());
    }
    let bounds = route.bounds.as_ref();
    let places_a_call = bounds.is_some_and(|bounds| bounds.call.is_some());
    let closed = bounds.and_then(|bounds| bounds.closed_query.as_deref());
    // What is read stands once and under its own name; what the body says is not said here again.
    let named =
        route.places().filter(|place| matches!(place, RequestField::Body(_) | RequestField::Query(_)));
    let read: Vec<String> = named.map(|place| fold(place.name())).collect();
    let is_read =
        |name: &str| route.places().any(|place| matches!(place, RequestField::Query(read) if read == name));
    let is_carrier =
        |name: &str| route.carriers.iter().flatten().any(|carrier| carrier.parameter() == Some(name));
    for name in query.names().filter(|name| !is_read(name)) {
        let folded = fold_parameter(&name);
        let is_known = places_a_call && vocabulary.binary_search(&folded).is_ok();
        if is_known || read.contains(&folded) {
            return Err(Denial::of(Reason::MemberAmbiguous, shown(&name)).inside("query"));
        }
        if !is_carrier(&name) && closed.is_some_and(|closed| !closed.contains(&name)) {
            return Err(Denial::of(Reason::MemberUnknown, shown(&name)).inside("query"));
        }
    }
    Ok(())
}

/// Refuses members that carry a caller or destination elsewhere on the platform, in any spelling, beside or instead of
/// the ones this route reads; and other spellings of those it reads, or of the objects on the way to them.
pub(super) fn check_names(route: &Route, body: &Json<'_>, vocabulary: &[String]) -> Result<(), Denial> {
    let places_a_call = route.bounds.as_ref().is_some_and(|bounds| bounds.call.is_some());
    let names = Names {
        pointers: route.pointers().collect(),
        vocabulary: if places_a_call { vocabulary } else { &[] },
        closed: route.bounds.as_ref().and_then(|bounds| bounds.closed.as_deref()),
    };
    names.check(body, &[])?;
    let mut seen: Vec<&[String]> = Vec::new();
    for parents in names.pointers.iter().map(|pointer| pointer.parents()) {
        // Each object on the way is one that another could stand beside.
        for at in (1..=parents.len()).filter_map(|depth| parents.get(..depth)) {
            if seen.contains(&at) {
                continue;
            }
            seen.push(at);
            if let Some(object) = descend(body, at)? {
                names.check(object, at)?;
            }
        }
    }
    Ok(())
}

/// The names a body may and may not have.
struct Names<'r> {
    pointers: Vec<&'r Pointer>,
    vocabulary: &'r [String],
    closed: Option<&'r [String]>,
}

impl Names<'_> {
    /// Checks the members of the object at a path.
    fn check(&self, object: &Json<'_>, at: &[String]) -> Result<(), Denial> {
        let is_expected = |name: &str| self.pointers.iter().any(|pointer| pointer.next(at) == Some(name));
        for (name, _) in object.members().unwrap_or_default() {
            if is_expected(name) {
                continue;
            }
            let folded = fold(name);
            // What is read in one object may not stand in another either: an upstream might look there.
            let is_twin = |pointer: &&Pointer| pointer.is_like(at, &folded);
            if self.pointers.iter().any(is_twin) || self.vocabulary.binary_search(&folded).is_ok() {
                return Err(Denial::of(Reason::MemberAmbiguous, shown(name)));
            }
            let is_listed = |closed: &[String]| closed.iter().any(|other| other == name);
            if at.is_empty() && !self.closed.is_none_or(is_listed) {
                return Err(Denial::of(Reason::MemberUnknown, shown(name)));
            }
        }
        Ok(())
    }
}

/// A refusal that concerns a text the request does not say: named by where it would stand.
fn unsaid(rule: &TextRule, bound: &TextBound, reason: Reason) -> Denial {
    match rule.direction.members.first() {
        Some(member) => Denial::at(reason, &member.place),
        None => Denial::of(reason, bound.name.as_str()),
    }
}

/// Names come from the client: kept short and printable before they go into an answer.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// What a request says of one bound.
struct Said<'b, T> {
    /// The values, with the place each stands at.
    values: Vec<(&'b RequestField, T)>,
    /// Whether it asks the upstream to choose.
    is_chosen: bool,
}

impl Said<'_, Number> {
    /// Judges the numbers; a bounded credential may not leave the choice to the upstream.
    fn check(
        &self,
        check: impl Fn(Number) -> Result<(), Reason>,
        is_bounded: bool,
        unreadable: Reason,
    ) -> Result<(), Denial> {
        for (place, number) in &self.values {
            check(*number).map_err(|reason| Denial::at(reason, place))?;
        }
        let is_open = self.values.is_empty() || self.is_chosen;
        if is_open && is_bounded { Err(unreadable.into()) } else { Ok(()) }
    }
}

fn read_values<'b, 'r>(
    direction: &'b BoundSource,
    part: &Part<'r>,
) -> Result<Said<'b, Cow<'r, str>>, Denial> {
    let mut is_chosen = false;
    for place in &direction.chosen_by {
        match part.read(place)? {
            None => {}
            Some(text) if text.is_empty() => return Err(Denial::at(Reason::MemberType, place)),
            Some(_) => is_chosen = true,
        }
    }
    let mut values = Vec::with_capacity(direction.members.len());
    for member in &direction.members {
        match part.read(&member.place)? {
            None if member.optional || is_chosen => {}
            None => return Err(Denial::at(Reason::MemberMissing, &member.place)),
            Some(value) => values.push((&member.place, value)),
        }
    }
    Ok(Said { values, is_chosen })
}

fn read_numbers<'b>(direction: &'b BoundSource, part: &Part<'_>) -> Result<Said<'b, Number>, Denial> {
    let Said { values, is_chosen } = read_values(direction, part)?;
    let numbers = values
        .into_iter()
        .map(|(place, text)| Ok((place, read_number(&text).map_err(|reason| Denial::at(reason, place))?)));
    Ok(Said { values: numbers.collect::<Result<_, Denial>>()?, is_chosen })
}

/// Reads one number; nothing is trimmed or completed, because the upstream gets the text as it is.
pub(super) fn read_number(text: &str) -> Result<Number, Reason> {
    match Dialled::read(text) {
        Dialled::Number(number) => Ok(number),
        Dialled::Emergency => Err(Reason::NumberEmergency),
        Dialled::Malformed => Err(Reason::NumberMalformed),
    }
}
