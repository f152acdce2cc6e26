//! Reads the value that stands at a place of a request: exactly one, or none; never a guess.

use std::borrow::Cow;

use crate::json::Json;
use crate::policy::{BoundSource, Pointer, RequestField, RouteMatch};
use crate::reason::Reason;
use crate::uri::{Query, QueryError, decode_escapes};

use super::request::Head;
use super::verdict::{Denial, is_like};

/// The parts of a request that values are read from. The places of one bound stand all in the body or all in the head,
/// so each is read when its part is there.
pub(super) enum Part<'r> {
    /// Path, query and headers.
    Head {
        /// The head.
        head: &'r Head<'r>,
        /// Its query.
        query: &'r Query<'r>,
        /// Its path parameters.
        found: &'r RouteMatch<'r, 'r>,
    },
    /// The body.
    Body(&'r Json<'r>),
}

impl<'r> Part<'r> {
    /// Whether a direction is to be read here.
    pub(super) fn holds(&self, direction: &BoundSource) -> bool {
        direction.reads_body() == matches!(self, Self::Body(_))
    }

    /// Reads a place.
    pub(super) fn read(&self, place: &RequestField) -> Result<Option<Cow<'r, str>>, Denial> {
        match (self, place) {
            (Self::Body(body), RequestField::Body(pointer)) => match look_up(body, pointer)? {
                None => Ok(None),
                Some(Json::String(text)) => Ok(Some(Cow::Borrowed(text))),
                Some(_) => Err(Denial::of(Reason::MemberType, pointer.dotted())),
            },
            (Self::Head { head, .. }, RequestField::Header(name)) => {
                Ok(header(head, name)?.map(Cow::Borrowed))
            }
            (Self::Head { query, .. }, RequestField::Query(name)) => match query.value(name) {
                Ok(value) => Ok(value.map(Cow::Owned)),
                Err(QueryError::Ambiguous) => Err(Denial::at(Reason::MemberAmbiguous, place)),
                Err(QueryError::Malformed) => Err(Denial::at(Reason::RequestMalformed, place)),
            },
            (Self::Head { found, .. }, RequestField::Path(name)) => {
                let text = found.param(name).map(|text| String::from_utf8(decode_escapes(text)));
                let text = text.transpose().map_err(|_| Denial::from(Reason::PathMalformed))?;
                Ok(text.map(Cow::Owned))
            }
            // A place of the other part: the compiler keeps the places of one bound together.
            _ => Ok(None),
        }
    }
}

/// Reads a header that holds one value. Some hosts join two headers of one name with a comma, so a comma may be two.
pub(super) fn header<'a>(head: &Head<'a>, name: &str) -> Result<Option<&'a str>, Denial> {
    let refuse = |reason| Denial::of(reason, name).inside("header");
    if head.headers.iter().any(|(other, _)| *other != name.as_bytes() && is_like(other, name.as_bytes())) {
        return Err(refuse(Reason::MemberAmbiguous));
    }
    let value = head.single(name.as_bytes()).map_err(|()| refuse(Reason::MemberAmbiguous))?;
    let text = value.map(std::str::from_utf8).transpose().map_err(|_| refuse(Reason::RequestMalformed))?;
    match text {
        Some(text) if text.contains(',') => Err(refuse(Reason::MemberAmbiguous)),
        text => Ok(text),
    }
}

/// Follows a path of objects; one that is something else is not absent but wrong.
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

/// Finds the member a pointer names.
pub(super) fn look_up<'j, 'a>(body: &'j Json<'a>, pointer: &Pointer) -> Result<Option<&'j Json<'a>>, Denial> {
    Ok(descend(body, pointer.parents())?.and_then(|object| object.get(pointer.name())))
}
