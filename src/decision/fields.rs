//! Reads the fields of a request that its route names, before any of them is judged.
//!
//! A field has exactly one value or none; nothing is guessed. A field that cannot be read keeps its denial until its
//! turn comes, so the order of the checks decides which reason a request gets, not the order of reading.

use std::borrow::Cow;
use std::rc::Rc;

use crate::header::is_look_alike;
use crate::json::{Arrays, Fault, Json, JsonError, Limits};
use crate::number::{Dialled, Number};
use crate::policy::{BoundSource, FieldRef, Pointer, RequestField, Route, TextBound, TextRule};
use crate::reason::Reason;
use crate::uri::{QueryError, decode_escapes};

use super::denial::Denial;
use super::head::{MatchedHead, RequestHead};

/// Most values of a body that are kept: a megabyte of small values would take thirty in memory.
const MAX_BODY_VALUES: usize = 20_000;

/// Reads a body that must be one JSON object; where it is optional, an empty body and `null` are an empty object.
pub(super) fn read_object(body: &[u8], arrays: Arrays, is_optional: bool) -> Result<Json<'_>, Denial> {
    if is_optional && matches!(body.trim_ascii(), b"" | b"null") {
        return Ok(Json::Object(Vec::new()));
    }
    if body.is_empty() {
        return Err(Reason::BodyMissing.into());
    }
    let limits = Limits { values: MAX_BODY_VALUES, arrays, odd_names: false };
    match Json::parse_within(body, limits) {
        Ok(json) if json.members().is_some() => Ok(json),
        Err(JsonError { fault: Fault::DuplicateMember, .. }) => Err(Reason::BodyDuplicate.into()),
        Err(JsonError { fault: Fault::TooManyValues, .. }) => Err(Reason::BodyTooLarge.into()),
        Err(JsonError { fault: Fault::OddName, .. }) => Err(Reason::MemberAmbiguous.into()),
        _ => Err(Reason::BodyMalformed.into()),
    }
}

/// Part of a request that fields are read from. All fields of one bound are in the same part.
#[derive(Clone, Copy)]
pub(super) enum RequestPart<'r> {
    Head(&'r MatchedHead<'r>),
    Body(&'r Json<'r>),
}

/// Values of one bound.
pub(super) struct ReadValues<'r, T> {
    /// Each value with its field.
    pub(super) values: Vec<(&'r RequestField, T)>,
    /// True when the request leaves the choice to the upstream.
    pub(super) is_delegated: bool,
}

/// Values of one bound, or the denial of a field that cannot be read.
pub(super) type Reading<'r, T> = Result<ReadValues<'r, T>, Denial>;

/// A text bound of a route and its values.
pub(super) type TextReading<'r> = (&'r TextRule, Reading<'r, Cow<'r, str>>);

/// The field that names a team and its value.
pub(super) type TenantReading<'r> = (&'r FieldRef, Result<Option<Cow<'r, str>>, Denial>);

/// All fields that a route names in one part of a request.
pub(super) struct FieldValues<'r> {
    /// The team; `None` when this part does not name it.
    pub(super) tenant: Option<TenantReading<'r>>,
    /// Caller IDs; `None` when they are not in this part.
    pub(super) from: Option<Reading<'r, Number>>,
    /// Destinations; `None` when they are not in this part.
    pub(super) to: Option<Reading<'r, Number>>,
    pub(super) texts: Vec<TextReading<'r>>,
    /// The page that opens a WebSocket.
    pub(super) origin: Result<Option<&'r str>, Denial>,
}

/// A text bound with a value that is allowed.
pub(super) struct JudgedValue {
    /// Bound of the value.
    pub(super) bound: Rc<TextBound>,
    /// The canonical value.
    pub(super) value: String,
    /// The field with an alias that the upstream must not resolve by a table of its own.
    pub(super) alias_at: Option<RequestField>,
}

impl<'r> FieldValues<'r> {
    /// Reads every field that the route names in a part.
    pub(super) fn read(route: &'r Route, part: RequestPart<'r>) -> Self {
        let is_here = |in_body: bool| in_body == matches!(part, RequestPart::Body(_));
        let tenant = route.tenant.as_ref().filter(|tenant| is_here(tenant.place.is_in_body()));
        let call = route.bounds.as_ref().and_then(|bounds| bounds.call.as_ref());
        let numbers = |source: &'r BoundSource| is_here(source.reads_body()).then(|| part.numbers(source));
        let rules = route.bounds.iter().flat_map(|bounds| &bounds.texts);
        let rules = rules.filter(|rule| is_here(rule.source.reads_body()));
        Self {
            tenant: tenant.map(|tenant| (tenant, part.value(&tenant.place))),
            from: call.and_then(|call| numbers(&call.from)),
            to: call.and_then(|call| numbers(&call.to)),
            texts: rules.map(|rule| (rule, part.texts(&rule.source))).collect(),
            origin: part.origin(route),
        }
    }
}

impl<'r> RequestPart<'r> {
    /// Reads the value of a field; `None` when it is absent or in the other part.
    pub(super) fn value(self, field: &RequestField) -> Result<Option<Cow<'r, str>>, Denial> {
        match (self, field) {
            (Self::Body(body), RequestField::Body(pointer)) => match member(body, pointer)? {
                None => Ok(None),
                Some(Json::String(text)) => Ok(Some(Cow::Borrowed(text))),
                Some(_) => Err(Denial::of(Reason::MemberType, pointer.dotted())),
            },
            (Self::Head(matched), RequestField::Header(name)) => {
                Ok(header(&matched.head, name)?.map(Cow::Borrowed))
            }
            (Self::Head(matched), RequestField::Query(name)) => match matched.query.value(name) {
                Ok(value) => Ok(value.map(Cow::Owned)),
                Err(QueryError::Ambiguous) => Err(Denial::at(Reason::MemberAmbiguous, field)),
                Err(QueryError::Malformed) => Err(Denial::at(Reason::RequestMalformed, field)),
            },
            (Self::Head(matched), RequestField::Path(name)) => {
                let text = matched.found.param(name).map(|text| String::from_utf8(decode_escapes(text)));
                let text = text.transpose().map_err(|_| Denial::from(Reason::PathMalformed))?;
                Ok(text.map(Cow::Owned))
            }
            _ => Ok(None),
        }
    }

    fn texts(self, source: &'r BoundSource) -> Reading<'r, Cow<'r, str>> {
        let mut is_delegated = false;
        for field in &source.delegated_by {
            match self.value(field)? {
                None => {}
                Some(text) if text.is_empty() => return Err(Denial::at(Reason::MemberType, field)),
                Some(_) => is_delegated = true,
            }
        }
        let mut values = Vec::with_capacity(source.members.len());
        for member in &source.members {
            match self.value(&member.place)? {
                None if member.optional || is_delegated => {}
                None => return Err(Denial::at(Reason::MemberMissing, &member.place)),
                Some(value) => values.push((&member.place, value)),
            }
        }
        Ok(ReadValues { values, is_delegated })
    }

    fn numbers(self, source: &'r BoundSource) -> Reading<'r, Number> {
        let ReadValues { values, is_delegated } = self.texts(source)?;
        let numbers = values.into_iter().map(|(field, text)| match read_number(&text) {
            Ok(number) => Ok((field, number)),
            Err(reason) => Err(Denial::at(reason, field)),
        });
        Ok(ReadValues { values: numbers.collect::<Result<_, _>>()?, is_delegated })
    }

    fn origin(self, route: &Route) -> Result<Option<&'r str>, Denial> {
        match self {
            Self::Head(matched) if route.is_upgrade => header(&matched.head, "origin"),
            _ => Ok(None),
        }
    }
}

/// Reads a header with one value. Some hosts join two headers of one name by a comma, so a comma is ambiguous.
fn header<'a>(head: &RequestHead<'a>, name: &str) -> Result<Option<&'a str>, Denial> {
    let denial = |reason| Denial::of(reason, name).inside("header");
    if head.headers.iter().any(|(other, _)| is_look_alike(other, name)) {
        return Err(denial(Reason::MemberAmbiguous));
    }
    let value = head.single(name.as_bytes()).map_err(|_| denial(Reason::MemberAmbiguous))?;
    let text = value.map(std::str::from_utf8).transpose().map_err(|_| denial(Reason::RequestMalformed))?;
    match text {
        Some(text) if text.contains(',') => Err(denial(Reason::MemberAmbiguous)),
        text => Ok(text),
    }
}

/// Follows a path of objects; `None` when one is absent.
///
/// # Errors
///
/// [`Reason::MemberType`] when a member of the path is not an object.
pub(super) fn descend<'j, 'a>(body: &'j Json<'a>, path: &[String]) -> Result<Option<&'j Json<'a>>, Denial> {
    let mut at = body;
    for name in path {
        match at.get(name) {
            None => return Ok(None),
            Some(object) if object.members().is_some() => at = object,
            Some(_) => return Err(Denial::of(Reason::MemberType, name.as_str())),
        }
    }
    Ok(Some(at))
}

/// Finds the member of a body that a pointer names.
pub(super) fn member<'j, 'a>(body: &'j Json<'a>, pointer: &Pointer) -> Result<Option<&'j Json<'a>>, Denial> {
    Ok(descend(body, pointer.parents())?.and_then(|object| object.get(pointer.name())))
}

/// Reads a phone number. Nothing is trimmed or completed, because the upstream gets the text as it is.
pub(super) fn read_number(text: &str) -> Result<Number, Reason> {
    match Dialled::read(text) {
        Dialled::Number(number) => Ok(number),
        Dialled::Emergency => Err(Reason::NumberEmergency),
        Dialled::Malformed => Err(Reason::NumberMalformed),
    }
}
