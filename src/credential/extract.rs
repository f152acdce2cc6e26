//! Finds exactly one credential in a request, or says why there is none.
//!
//! Refuses to know what the credential means. Every place the policy names is looked at, because a request with two
//! credentials is one whose reader chooses (RFC 6750 section 2: one method per request); places it does not name are
//! looked at too, so that a credential in the wrong place never rides along to the upstream.

use std::borrow::Cow;
use std::fmt;

use crate::uri::{Query, QueryError};

/// The longest credential that is read, in bytes; refused at mint as at use.
pub const MAX_CREDENTIAL_BYTES: usize = 7_500;

/// A place where a credential may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialLocation {
    /// A header.
    Header {
        /// Its name in lower case.
        name: String,
        /// The authentication scheme before the credential, matched without regard to case (RFC 9110 section 11.1).
        scheme: Option<String>,
    },
    /// A query parameter: for clients that can set nothing else, such as a browser's WebSocket.
    Query {
        /// Its name.
        name: String,
    },
}

impl CredentialLocation {
    /// The name of the header, when it is one.
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::Query { .. } => None,
        }
    }

    /// The name of the query parameter, when it is one.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Header { .. } => None,
            Self::Query { name } => Some(name),
        }
    }
}

/// Where credentials stand.
#[derive(Clone, Copy)]
pub struct CredentialLocations<'p> {
    /// Where this request's must stand.
    pub here: &'p [CredentialLocation],
    /// Where others stand; one here is one too many.
    pub elsewhere: &'p [CredentialLocation],
    /// Whether a text holds one of ours.
    pub holds_own: &'p dyn Fn(&[u8]) -> bool,
}

/// Why no credential was taken from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialError {
    /// No place named by the policy holds one.
    Missing,
    /// More than one place, or one place more than once.
    Multiple,
    /// The header's value is not a scheme, one blank and a credential in visible ASCII.
    Malformed,
    /// Another scheme than the policy's.
    Scheme,
    /// The query cannot be read.
    Query,
    /// Longer than [`MAX_CREDENTIAL_BYTES`].
    TooLong,
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no credential",
            Self::Multiple => "more than one credential",
            Self::Malformed => "the credential is malformed",
            Self::Scheme => "the authentication scheme is not supported",
            Self::Query => "the query is malformed",
            Self::TooLong => "the credential is too long",
        })
    }
}

impl std::error::Error for CredentialError {}

/// Returns the one credential of a request.
///
/// `headers` are all pairs as the host gave them, names in lower case.
///
/// # Errors
///
/// [`CredentialError`]; a header or parameter that is present but empty counts as present.
pub fn extract<'a, 'p>(
    headers: &[(&'a [u8], &'a [u8])],
    query: &Query<'_>,
    carriers: CredentialLocations<'p>,
) -> Result<Cow<'a, str>, CredentialError> {
    let named = |name: &[u8], list: &'p [CredentialLocation]| {
        list.iter().find(|carrier| carrier.header().is_some_and(|header| header.as_bytes() == name))
    };
    let (mut found, mut count, mut stray) = (None, 0_usize, false);
    for (name, value) in headers {
        if let Some(CredentialLocation::Header { scheme, .. }) = named(name, carriers.here) {
            count += 1;
            found = Some(Found::Header(scheme.as_deref(), value));
        } else {
            stray = stray
                || named(name, carriers.elsewhere).is_some()
                || (*name != b":path" && (carriers.holds_own)(value));
        }
    }
    for parameter in carriers.here.iter().filter_map(CredentialLocation::parameter) {
        if let Some(value) = query.value(parameter).map_err(query_error)? {
            count += 1;
            found = Some(Found::Parameter(value));
        }
    }
    stray = stray || is_in_query(query, carriers);
    match (found, count, stray) {
        (None, ..) => Err(CredentialError::Missing),
        (Some(Found::Header(scheme, value)), 1, false) => read(scheme, value).map(Cow::Borrowed),
        (Some(Found::Parameter(value)), 1, false) => check(&value).map(|()| Cow::Owned(value)),
        _ => Err(CredentialError::Multiple),
    }
}

enum Found<'p, 'a> {
    Header(Option<&'p str>, &'a [u8]),
    Parameter(String),
}

fn query_error(error: QueryError) -> CredentialError {
    match error {
        QueryError::Ambiguous => CredentialError::Multiple,
        QueryError::Malformed => CredentialError::Query,
    }
}

/// Whether a parameter that carries no credential here holds one of ours.
fn is_in_query(query: &Query<'_>, carriers: CredentialLocations<'_>) -> bool {
    let is_read = |part: &str| {
        carriers
            .here
            .iter()
            .filter_map(CredentialLocation::parameter)
            .any(|name| Query::is_called(part, name))
    };
    let mut texts = query.texts().zip(query.parameters());
    texts.any(|(text, written)| !is_read(written) && (carriers.holds_own)(text.as_bytes()))
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
            let (said, rest) = text.split_once(' ').unwrap_or((text, ""));
            if !said.eq_ignore_ascii_case(scheme) {
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

/// Characters behind a prefix from which on a text may be a secret.
const SHORTEST_SECRET: usize = 16;

/// The parts of a header's value or a parameter that could be a credential.
pub fn candidates(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_separator = |byte: &u8| {
        matches!(byte, b' ' | b'=' | b'&' | b',' | b';' | b'"' | b'\'' | b':' | b'/' | b'?' | b'#')
    };
    // Most headers are shorter, and need no second look.
    let value = if value.len() < SHORTEST_SECRET { &[] } else { value };
    value.split(is_separator).filter(|part| part.len() >= SHORTEST_SECRET)
}

/// Tells whether a header's value or a parameter holds what is written like one of our credentials.
pub fn holds_credential(value: &[u8], prefixes: &[String]) -> bool {
    candidates(value).any(|part| is_credential_like(part, prefixes))
}

/// A prefix of ours, and enough behind it to be a secret: short words that begin alike are not one.
fn is_credential_like(part: &[u8], prefixes: &[String]) -> bool {
    let matches_prefix = |rest: &[u8]| {
        rest.len() >= SHORTEST_SECRET
            && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    prefixes.iter().any(|prefix| part.strip_prefix(prefix.as_bytes()).is_some_and(matches_prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(headers: &[(&str, &str)]) -> Result<String, CredentialError> {
        let carriers = [
            CredentialLocation::Header { name: "authorization".into(), scheme: Some("Bearer".into()) },
            CredentialLocation::Header { name: "x-api-key".into(), scheme: None },
        ];
        take_from(headers, &carriers, &[])
    }

    fn take_from(
        headers: &[(&str, &str)],
        here: &[CredentialLocation],
        elsewhere: &[CredentialLocation],
    ) -> Result<String, CredentialError> {
        let path = headers.iter().find_map(|(name, value)| (*name == ":path").then_some(*value));
        let query = Query::new(path.and_then(|path| path.split_once('?')).map(|(_, query)| query));
        let pairs: Vec<(&[u8], &[u8])> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        extract(
            &pairs,
            &query,
            CredentialLocations {
                here,
                elsewhere,
                holds_own: &|value| holds_credential(value, &["rdc_".into()]),
            },
        )
        .map(Cow::into_owned)
    }

    #[test]
    fn takes_the_one_of_the_query_where_it_may_stand_there() {
        let here = [CredentialLocation::Query { name: "api_key".into() }];
        let elsewhere = [CredentialLocation::Header { name: "x-api-key".into(), scheme: None }];
        let take = |headers: &[(&str, &str)]| take_from(headers, &here, &elsewhere);
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
    fn takes_the_one_credential_whatever_the_case_of_its_scheme() {
        for value in ["Bearer ct_x", "bearer ct_x", "BEARER ct_x"] {
            assert_eq!(take(&[("authorization", value)]), Ok("ct_x".into()));
        }
        assert_eq!(take(&[("x-api-key", "rdc_0123456789abcdef")]), Ok("rdc_0123456789abcdef".into()));
    }

    #[test]
    fn two_of_anything_is_refused() {
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
        ] {
            assert_eq!(take(&[one, other]), Err(Multiple), "{other:?}");
            assert_eq!(take(&[other, one]), Err(Multiple), "{other:?}");
        }
        assert_eq!(take(&[("authorization", "Bearer rdc_x, Bearer rdc_y")]), Err(Multiple));
    }

    #[test]
    fn says_what_is_wrong_with_a_single_one() {
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
