//! Judges caller and destination of a call.
//!
//! A number the gateway cannot read is a number a bounded credential may not choose; a member that some other reader
//! could take for a number is refused, whoever sends it.

use crate::json::Json;
use crate::number::{Dialled, Number};
use crate::policy::{Bounds, Direction, Pointer, fold};
use crate::reason::Reason;

use super::request::Head;
use super::rights::{Demands, Rights};
use super::verdict::Denial;

/// Checks what the headers alone can tell.
pub(super) fn check_head(
    bounds: &Bounds,
    rights: &Rights<'_>,
    head: &Head<'_>,
    vocabulary: &[String],
) -> Result<(), Denial> {
    if let Some(name) = head.query_names().find(|name| is_known(vocabulary, name)) {
        return Err(Denial::of(Reason::MemberAmbiguous, shown(&name)));
    }
    if rights.is_from_bounded() && is_unreadable(&bounds.from) {
        return Err(Reason::FromUnreadable.into());
    }
    if rights.is_to_bounded() && is_unreadable(&bounds.to) {
        return Err(Reason::ToUnreadable.into());
    }
    Ok(())
}

fn is_unreadable(direction: &Direction) -> bool {
    direction.members.is_empty() || direction.screen_only
}

/// Checks caller and destination in the body.
pub(super) fn check_body(
    bounds: &Bounds,
    rights: &Rights<'_>,
    demands: &Demands<'_>,
    body: &Json<'_>,
    vocabulary: &[String],
) -> Result<(), Denial> {
    check_names(bounds, body, vocabulary)?;
    let from = read(&bounds.from, body)?;
    let to = read(&bounds.to, body)?;
    for (field, number) in &from.numbers {
        rights.check_from(*number, demands).map_err(|reason| Denial::of(reason, *field))?;
    }
    if from.is_open() && rights.is_from_bounded() {
        return Err(Reason::FromUnreadable.into());
    }
    for (field, number) in &to.numbers {
        rights.check_to(*number).map_err(|reason| Denial::of(reason, *field))?;
    }
    if to.is_open() && rights.is_to_bounded() {
        return Err(Reason::ToUnreadable.into());
    }
    Ok(())
}

/// Refuses members that carry a caller or destination elsewhere on the platform, in any spelling, beside or instead of
/// the ones this route reads.
fn check_names(bounds: &Bounds, body: &Json<'_>, vocabulary: &[String]) -> Result<(), Denial> {
    check_object(bounds, body, &[], vocabulary)?;
    let mut seen: Vec<&[String]> = Vec::new();
    for parents in bounds.pointers().map(Pointer::parents).filter(|parents| !parents.is_empty()) {
        if !seen.contains(&parents) {
            seen.push(parents);
            if let Some(object) = descend(body, parents)? {
                check_object(bounds, object, parents, vocabulary)?;
            }
        }
    }
    Ok(())
}

fn check_object(
    bounds: &Bounds,
    object: &Json<'_>,
    at: &[String],
    vocabulary: &[String],
) -> Result<(), Denial> {
    for (name, _) in object.members().unwrap_or_default() {
        let is_read = bounds.pointers().any(|pointer| names(pointer, at, name));
        if is_read {
            continue;
        }
        if is_known(vocabulary, name) {
            return Err(Denial::of(Reason::MemberAmbiguous, shown(name)));
        }
        let is_listed = |closed: &Vec<String>| closed.iter().any(|other| other == name);
        if at.is_empty() && bounds.closed.as_ref().is_some_and(|closed| !is_listed(closed)) {
            return Err(Denial::of(Reason::MemberUnknown, shown(name)));
        }
    }
    Ok(())
}

/// Whether `name` in the object at `at` is this member or an object on the way to it.
fn names(pointer: &Pointer, at: &[String], name: &str) -> bool {
    let parents = pointer.parents();
    match parents.strip_prefix(at) {
        Some([]) => pointer.name() == name,
        Some([next, ..]) => next == name,
        None => false,
    }
}

fn is_known(vocabulary: &[String], name: &str) -> bool {
    let folded = fold(name);
    vocabulary.binary_search(&folded).is_ok()
}

/// Names come from the client: kept short and printable before they go into an answer.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Follows a path of objects; one that is something else is not absent but wrong.
fn descend<'j, 'a>(body: &'j Json<'a>, path: &[String]) -> Result<Option<&'j Json<'a>>, Denial> {
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

fn look_up<'j, 'a>(body: &'j Json<'a>, pointer: &Pointer) -> Result<Option<&'j Json<'a>>, Denial> {
    Ok(descend(body, pointer.parents())?.and_then(|object| object.get(pointer.name())))
}

/// What a body says of one direction.
struct Said<'b> {
    /// The numbers, with the member each stands in.
    numbers: Vec<(&'b str, Number)>,
    /// Whether it asks the upstream to choose.
    is_chosen: bool,
}

impl Said<'_> {
    /// Whether the number that will be used is not among those that were read.
    fn is_open(&self) -> bool {
        self.numbers.is_empty() || self.is_chosen
    }
}

fn read<'b>(direction: &'b Direction, body: &Json<'_>) -> Result<Said<'b>, Denial> {
    let is_chosen = is_chosen_upstream(direction, body)?;
    let mut numbers = Vec::with_capacity(direction.members.len());
    for member in &direction.members {
        let field = member.pointer.name();
        match look_up(body, &member.pointer)? {
            None if member.optional || is_chosen => {}
            None => return Err(Denial::of(Reason::MemberMissing, field)),
            Some(value) => numbers.push((field, read_number(value, field)?)),
        }
    }
    Ok(Said { numbers, is_chosen })
}

fn is_chosen_upstream(direction: &Direction, body: &Json<'_>) -> Result<bool, Denial> {
    let mut is_chosen = false;
    for pointer in &direction.chosen_by {
        match look_up(body, pointer)? {
            None => {}
            Some(Json::String(text)) if !text.is_empty() => is_chosen = true,
            Some(_) => return Err(Denial::of(Reason::MemberType, pointer.name())),
        }
    }
    Ok(is_chosen)
}

/// Reads one number; nothing is trimmed or completed, because the upstream gets the text as it is.
pub(super) fn read_number(value: &Json<'_>, field: &str) -> Result<Number, Denial> {
    let Some(text) = value.as_str() else {
        return Err(Denial::of(Reason::MemberType, field));
    };
    match Dialled::read(text) {
        Dialled::Number(number) => Ok(number),
        Dialled::Emergency => Err(Denial::of(Reason::NumberEmergency, field)),
        Dialled::Malformed => Err(Denial::of(Reason::NumberMalformed, field)),
    }
}
