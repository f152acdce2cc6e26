//! Extraction of exactly one credential from a request.
//!
//! The locations of the route and of the section `credentials` are searched, because a gateway and an upstream that each
//! read one of two credentials may read different ones (RFC 6750 section 2: one method per request). All other headers and parameters are searched too,
//! so that a misplaced credential never reaches the upstream.

use std::borrow::Cow;

use crate::uri::{Query, QueryError, holds_decoded};

use super::location::{CredentialLocation, CredentialLocations};

/// Longest credential in bytes, at mint and at use.
pub const MAX_CREDENTIAL_BYTES: usize = 7_500;

/// Reason for taking no credential from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialError {
    /// No accepted location holds one.
    Missing,
    /// More than one, or one in a location the route does not accept.
    Multiple,
    /// Header value is not a scheme, one blank and a credential in visible ASCII.
    Malformed,
    /// Scheme other than the policy's.
    Scheme,
    /// Query that cannot be read unambiguously.
    Query,
    /// Longer than [`MAX_CREDENTIAL_BYTES`].
    TooLong,
}

/// Returns the one credential of a request.
///
/// `headers` are all pairs as the host gave them, names in lower case. A header or parameter that is present but empty
/// counts as present.
///
/// # Errors
///
/// [`CredentialError`] when there is none, more than one, or one that cannot be read.
pub fn extract<'a>(
    headers: &[(&'a [u8], &'a [u8])],
    query: &Query<'_>,
    locations: CredentialLocations<'_>,
) -> Result<Cow<'a, str>, CredentialError> {
    let (mut candidate, mut count) = (None, 0_usize);
    let mut is_misplaced = false;
    for (name, value) in headers {
        if let Some(CredentialLocation::Header { scheme, .. }) = find_header(name, locations.accepted) {
            count += 1;
            candidate = Some(Candidate::Header(scheme.as_deref(), value));
        } else {
            is_misplaced = is_misplaced || is_misplaced_header(name, value, locations);
        }
    }
    for parameter in locations.accepted.iter().filter_map(CredentialLocation::parameter) {
        if let Some(value) = query.value(parameter).map_err(query_error)? {
            count += 1;
            candidate = Some(Candidate::Parameter(value));
        }
    }
    match candidate {
        None => Err(CredentialError::Missing),
        Some(_) if count > 1 || is_misplaced || is_in_other_parameter(query, locations) => {
            Err(CredentialError::Multiple)
        }
        Some(Candidate::Header(scheme, value)) => read(scheme, value).map(Cow::Borrowed),
        Some(Candidate::Parameter(value)) => check(&value).map(|()| Cow::Owned(value)),
    }
}

/// The value of an accepted location.
enum Candidate<'p, 'a> {
    /// Scheme that must precede the credential, and the whole value.
    Header(Option<&'p str>, &'a [u8]),
    /// Value of a parameter, decoded.
    Parameter(String),
}

fn find_header<'p>(name: &[u8], locations: &'p [CredentialLocation]) -> Option<&'p CredentialLocation> {
    locations.iter().find(|location| location.header().is_some_and(|header| header.as_bytes() == name))
}

fn is_misplaced_header(name: &[u8], value: &[u8], locations: CredentialLocations<'_>) -> bool {
    // The path holds the query, whose parameters are searched one by one.
    find_header(name, locations.foreign).is_some()
        || (name != b":path" && (locations.holds_credential)(value))
}

fn query_error(error: QueryError) -> CredentialError {
    match error {
        QueryError::Ambiguous => CredentialError::Multiple,
        QueryError::Malformed => CredentialError::Query,
    }
}

fn is_in_other_parameter(query: &Query<'_>, locations: CredentialLocations<'_>) -> bool {
    let is_accepted = |written: &str| {
        let mut names = locations.accepted.iter().filter_map(CredentialLocation::parameter);
        names.any(|name| Query::is_called(written, name))
    };
    let mut texts = query.texts().zip(query.parameters());
    texts.any(|(text, written)| !is_accepted(written) && (locations.holds_credential)(text.as_bytes()))
}

fn read<'a>(scheme: Option<&str>, value: &'a [u8]) -> Result<&'a str, CredentialError> {
    if value.len() > MAX_CREDENTIAL_BYTES + 64 {
        return Err(CredentialError::TooLong);
    }
    let text = std::str::from_utf8(value).map_err(|_| CredentialError::Malformed)?;
    if text.contains(',') {
        return Err(CredentialError::Multiple);
    }
    let credential = match scheme {
        None => text,
        Some(scheme) => {
            let (found, rest) = text.split_once(' ').unwrap_or((text, ""));
            if !found.eq_ignore_ascii_case(scheme) {
                return Err(CredentialError::Scheme);
            }
            rest
        }
    };
    check(credential)?;
    Ok(credential)
}

fn check(credential: &str) -> Result<(), CredentialError> {
    if credential.len() > MAX_CREDENTIAL_BYTES {
        return Err(CredentialError::TooLong);
    }
    if credential.is_empty() || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialError::Malformed);
    }
    Ok(())
}

/// Fewest characters after a prefix that may be a secret.
const SHORTEST_SECRET: usize = 16;

/// Splits a header's value or a parameter at every byte that no credential has, and returns the parts that are long
/// enough for one. Some servers trim tabs, and some values enclose a key in brackets.
pub fn candidates(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Most headers are shorter.
    let value = if value.len() < SHORTEST_SECRET { &[] } else { value };
    value.split(|byte| !is_of_secret(*byte)).filter(|part| part.len() >= SHORTEST_SECRET)
}

fn is_of_secret(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Returns whether a header's value or a parameter holds a text with one of the prefixes and a secret after it, as it is
/// or with percent-escapes.
pub fn holds_credential(value: &[u8], prefixes: &[String]) -> bool {
    let is_in = |value: &[u8]| candidates(value).any(|part| has_credential(part, prefixes));
    holds_decoded(value, &is_in)
}

/// Short words that merely begin with a prefix are no credential. One may begin after a `.` or `-`.
fn has_credential(part: &[u8], prefixes: &[String]) -> bool {
    let begins_at =
        |at: usize| at == 0 || part.get(at - 1).is_some_and(|before| matches!(before, b'.' | b'-'));
    let is_one = |at: usize, prefix: &[u8]| {
        let rest = part.get(at..).and_then(|rest| rest.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.len() >= SHORTEST_SECRET)
    };
    let last = part.len().saturating_sub(SHORTEST_SECRET);
    (0..=last)
        .filter(|at| begins_at(*at))
        .any(|at| prefixes.iter().any(|prefix| is_one(at, prefix.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(headers: &[(&str, &str)]) -> Result<String, CredentialError> {
        let accepted = [
            CredentialLocation::Header { name: "authorization".into(), scheme: Some("Bearer".into()) },
            CredentialLocation::Header { name: "x-api-key".into(), scheme: None },
        ];
        take_from(headers, &accepted, &[])
    }

    fn take_from(
        headers: &[(&str, &str)],
        accepted: &[CredentialLocation],
        foreign: &[CredentialLocation],
    ) -> Result<String, CredentialError> {
        let path = headers.iter().find_map(|(name, value)| (*name == ":path").then_some(*value));
        let query = Query::new(path.and_then(|path| path.split_once('?')).map(|(_, query)| query));
        let pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let holds_credential = &|value: &[u8]| holds_credential(value, &["rdc_".into()]);
        let locations = CredentialLocations { accepted, foreign, holds_credential };
        extract(&pairs, &query, locations).map(Cow::into_owned)
    }

    #[test]
    fn parameter_in_an_accepted_location_is_taken() {
        let accepted = [CredentialLocation::Query { name: "api_key".into() }];
        let foreign = [CredentialLocation::Header { name: "x-api-key".into(), scheme: None }];
        let take = |headers: &[(&str, &str)]| take_from(headers, &accepted, &foreign);
        assert_eq!(
            take(&[(":path", "/s?model=m&api_key=rdc%5F0123456789abcdef")]),
            Ok("rdc_0123456789abcdef".into())
        );
        assert_eq!(take(&[(":path", "/s?model=m")]), Err(CredentialError::Missing));
        assert_eq!(take(&[(":path", "/s?api_key=")]), Err(CredentialError::Malformed));
        assert_eq!(take(&[(":path", "/s?api_key=a+b")]), Err(CredentialError::Malformed));
        for path in
            ["/s?api_key=x&api_key=x", "/s?api_key=x&API_KEY=y", "/s?api_key=x&t=rdc_0123456789abcdef"]
        {
            assert_eq!(take(&[(":path", path)]), Err(CredentialError::Multiple), "{path}");
        }
        assert_eq!(take(&[(":path", "/s?api_key=x"), ("x-api-key", "")]), Err(CredentialError::Multiple));
    }

    #[test]
    fn scheme_in_any_case_is_accepted() {
        for value in ["Bearer ct_x", "bearer ct_x", "BEARER ct_x"] {
            assert_eq!(take(&[("authorization", value)]), Ok("ct_x".into()));
        }
        assert_eq!(take(&[("x-api-key", "rdc_0123456789abcdef")]), Ok("rdc_0123456789abcdef".into()));
    }

    #[test]
    fn second_credential_in_any_place_is_refused() {
        use CredentialError::Multiple;
        let one = ("authorization", "Bearer rdc_0123456789abcdef");
        for other in [
            one,
            ("authorization", ""),
            ("x-api-key", "rdc_0123456789abcdef"),
            ("x-api-key", ""),
            ("cookie", "rdc_0123456789abcdef"),
            ("x-authorization", "Bearer rdc_0123456789abcdef"),
            (":path", "/v1/calls?token=rdc_0123456789abcdef"),
            ("sec-websocket-protocol", "realtime, rdc_0123456789abcdef"),
            ("cookie", "a\trdc_0123456789abcdef"),
            ("cookie", "k=[rdc_0123456789abcdef]"),
            ("cookie", "k=rdc%5F0123456789abcdef"),
            ("x-odd", "a.rdc_0123456789abcdef"),
            ("x-odd", "rdc_0123456789abcdef\u{a0}"),
            ("x-odd", "(-rdc_0123456789abcdef\t"),
        ] {
            assert_eq!(take(&[one, other]), Err(Multiple), "{other:?}");
            assert_eq!(take(&[other, one]), Err(Multiple), "{other:?}");
        }
        assert_eq!(take(&[("authorization", "Bearer rdc_x, Bearer rdc_y")]), Err(Multiple));
    }

    #[test]
    fn malformed_credential_is_refused_with_its_cause() {
        use CredentialError::*;
        for (value, error) in [
            ("", Scheme),
            ("Bearer", Malformed),
            ("Bearer ", Malformed),
            ("Bearer  rdc_x", Malformed),
            ("Bearer rdc_x y", Malformed),
            ("Bearer\trdc_x", Scheme),
            ("Bearer rdc_\u{a0}", Malformed),
            ("Basic rdc_x", Scheme),
            ("rdc_0123456789abcdef", Scheme),
        ] {
            assert_eq!(take(&[("authorization", value)]), Err(error), "{value:?}");
        }
        let long = format!("Bearer rdc_{}", "a".repeat(50_000));
        assert_eq!(take(&[("authorization", &long)]), Err(TooLong));
        assert_eq!(take(&[("cookie", "rdc_0123456789abcdef")]), Err(Missing));
        assert_eq!(take(&[]), Err(Missing));
    }
}
