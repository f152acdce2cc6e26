//! Checks the names of headers, parameters and members against those a route reads.
//!
//! A name that another reader could take for one the route reads, or for a caller or destination, is ambiguous and
//! refused, whatever the credential.

use crate::json::Json;
use crate::policy::{Pointer, ReadHeaders, RequestField, Route};
use crate::reason::Reason;
use crate::uri::{Query, fold, may_be_read_as};

use super::denial::{Denial, printable};
use super::fields::descend;

/// Returns the folded names of callers and destinations that a route must not see in other places; empty unless the
/// route places a call.
fn call_names<'p>(route: &Route, vocabulary: &'p [String]) -> &'p [String] {
    let places_call = route.bounds.as_ref().is_some_and(|bounds| bounds.call.is_some());
    if places_call { vocabulary } else { &[] }
}

/// Refuses a header that an upstream could take for one with a credential: it would read another one than was verified.
pub(super) fn check_headers(headers: &[(&[u8], &[u8])], read: &ReadHeaders) -> Result<(), Denial> {
    match headers.iter().find(|(name, _)| read.is_like_credential(name)) {
        Some((name, _)) => {
            let name = String::from_utf8_lossy(name);
            Err(Denial::of(Reason::MemberAmbiguous, printable(&name)).inside("header"))
        }
        None => Ok(()),
    }
}

/// Checks the names of a query's parameters; where the query is closed, only listed ones pass.
pub(super) fn check_query(route: &Route, query: &Query<'_>, vocabulary: &[String]) -> Result<(), Denial> {
    if query.is_empty() {
        return Ok(());
    }
    let call_names = call_names(route, vocabulary);
    let closed = route.bounds.as_ref().and_then(|bounds| bounds.closed_query.as_deref());
    // A parameter that repeats a member of the body is ambiguous as well.
    let fields =
        route.places().filter(|field| matches!(field, RequestField::Body(_) | RequestField::Query(_)));
    let folded_fields: Vec<String> = fields.map(|field| fold(field.name())).collect();
    for name in query.names().filter(|name| !reads_parameter(route, name)) {
        let is_known = |folded: &str| has_name(call_names, folded) || has_name(&folded_fields, folded);
        if name.contains(char::is_control) || may_be_read_as(&name, &is_known) {
            return Err(Denial::of(Reason::MemberAmbiguous, printable(&name)).inside("query"));
        }
        let is_listed = |closed: &[String]| closed.contains(&name);
        if !closed.is_none_or(is_listed) && !is_credential_parameter(route, &name) {
            return Err(Denial::of(Reason::MemberUnknown, printable(&name)).inside("query"));
        }
    }
    Ok(())
}

fn reads_parameter(route: &Route, name: &str) -> bool {
    route.places().any(|field| matches!(field, RequestField::Query(parameter) if parameter == name))
}

fn is_credential_parameter(route: &Route, name: &str) -> bool {
    route.locations.iter().flatten().any(|location| location.parameter() == Some(name))
}

/// Checks the names of a body's members, and of the members of each object that the route reads from.
pub(super) fn check_body(route: &Route, body: &Json<'_>, vocabulary: &[String]) -> Result<(), Denial> {
    let names = MemberNames {
        pointers: route.pointers().collect(),
        call_names: call_names(route, vocabulary),
        closed: route.bounds.as_ref().and_then(|bounds| bounds.closed.as_deref()),
    };
    names.check(body, &[])?;
    let mut checked: Vec<&[String]> = Vec::new();
    for parents in names.pointers.iter().map(|pointer| pointer.parents()) {
        for path in (1..=parents.len()).filter_map(|depth| parents.get(..depth)) {
            if checked.contains(&path) {
                continue;
            }
            checked.push(path);
            if let Some(object) = descend(body, path)? {
                names.check(object, path)?;
            }
        }
    }
    Ok(())
}

/// Refuses a parameter by which frameworks replace the method that was judged.
pub(super) fn check_method_override(query: &Query<'_>) -> Result<(), Denial> {
    match query.names().any(|name| is_method_override(&name)) {
        true => Err(Reason::RequestMalformed.into()),
        false => Ok(()),
    }
}

/// Returns whether a framework could take a name for `_method` or `_httpMethod`. PHP reads a leading `.` or `[` as `_` and
/// skips blanks before it. `method` alone is an ordinary name.
fn is_method_override(name: &str) -> bool {
    let is_blank = |c: char| matches!(c, ' ' | '+');
    let rest = name.trim_start_matches(|c| is_blank(c) || matches!(c, '_' | '.' | '['));
    let has_mark = name.strip_suffix(rest).is_some_and(|marks| !marks.chars().all(is_blank));
    has_mark && may_be_read_as(rest, &|folded| matches!(folded, "method" | "httpmethod"))
}

fn has_name(names: &[String], folded: &str) -> bool {
    names.iter().any(|name| name == folded)
}

/// Names that the members of a body are compared with.
struct MemberNames<'r> {
    /// Members that the route reads.
    pointers: Vec<&'r Pointer>,
    /// Folded names of callers and destinations, sorted.
    call_names: &'r [String],
    /// Further members the body may have; `None` = any.
    closed: Option<&'r [String]>,
}

impl MemberNames<'_> {
    /// Checks the members of the object at a path.
    fn check(&self, object: &Json<'_>, path: &[String]) -> Result<(), Denial> {
        object.members().unwrap_or_default().iter().try_for_each(|(name, _)| self.check_name(name, path))
    }

    fn check_name(&self, name: &str, path: &[String]) -> Result<(), Denial> {
        if self.pointers.iter().any(|pointer| pointer.next(path) == Some(name)) {
            return Ok(());
        }
        // An upstream might also look for the member in another object than the route does.
        let is_twin = |folded: &str| self.pointers.iter().any(|pointer| pointer.is_like(path, folded));
        if may_be_read_as(name, &|folded| is_twin(folded) || has_name(self.call_names, folded)) {
            return Err(Denial::of(Reason::MemberAmbiguous, printable(name)));
        }
        if path.is_empty() && is_method_override(name) {
            return Err(Reason::RequestMalformed.into());
        }
        let is_listed = |closed: &[String]| closed.iter().any(|listed| listed == name);
        if path.is_empty() && !self.closed.is_none_or(is_listed) {
            return Err(Denial::of(Reason::MemberUnknown, printable(name)));
        }
        Ok(())
    }
}
