//! Finds exactly one credential among the headers, or says why there is none.
//!
//! Refuses to know what the credential means. Every place the policy names is looked at, because a request with two
//! credentials is one whose reader chooses (RFC 6750 section 2: one method per request); places it does not name are
//! looked at too, so that a credential in the wrong place never rides along to the upstream.

use std::fmt;

/// The longest credential that is read, in bytes; refused at mint as at use.
pub const MAX_CREDENTIAL_BYTES: usize = 7_500;

/// A place where a credential may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// The header's name in lower case.
    pub header: String,
    /// The authentication scheme before the credential, matched without regard to case (RFC 9110 section 11.1).
    pub scheme: Option<String>,
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
            Self::TooLong => "the credential is too long",
        })
    }
}

impl std::error::Error for CredentialError {}

/// Returns the one credential of a request.
///
/// `headers` are all pairs as the host gave them, names in lower case; `prefixes` are those of every key shape and
/// token family, by which a credential in a place of its own making is recognised.
///
/// # Errors
///
/// [`CredentialError`]; a header that is present but empty counts as present.
pub fn extract<'a>(
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    carriers: &[Carrier],
    prefixes: &[String],
) -> Result<&'a str, CredentialError> {
    let mut found = None;
    let mut count = 0_usize;
    let mut stray = false;
    for (name, value) in headers {
        match carriers.iter().find(|c| c.header.as_bytes() == name) {
            Some(carrier) => {
                count += 1;
                found = Some((carrier, value));
            }
            None => stray = stray || is_stray(name, value, prefixes),
        }
    }
    match (found, count, stray) {
        (None, ..) => Err(CredentialError::Missing),
        (Some((carrier, value)), 1, false) => read(carrier, value),
        _ => Err(CredentialError::Multiple),
    }
}

fn read<'a>(carrier: &Carrier, value: &'a [u8]) -> Result<&'a str, CredentialError> {
    if value.len() > MAX_CREDENTIAL_BYTES + 64 {
        return Err(CredentialError::TooLong);
    }
    let text = std::str::from_utf8(value).map_err(|_| CredentialError::Malformed)?;
    if text.contains(',') {
        return Err(CredentialError::Multiple);
    }
    let credential = match &carrier.scheme {
        None => text,
        Some(scheme) => {
            let (said, rest) = text.split_once(' ').unwrap_or((text, ""));
            if !said.eq_ignore_ascii_case(scheme) {
                return Err(CredentialError::Scheme);
            }
            rest
        }
    };
    if credential.len() > MAX_CREDENTIAL_BYTES {
        return Err(CredentialError::TooLong);
    }
    if credential.is_empty() || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialError::Malformed);
    }
    Ok(credential)
}

/// Recognises one of our credentials in a place the policy does not name: behind a scheme or a name, in a list, as a
/// WebSocket subprotocol, or in the query.
fn is_stray(name: &[u8], value: &[u8], prefixes: &[String]) -> bool {
    match name {
        b":path" => value
            .splitn(2, |&byte| byte == b'?')
            .nth(1)
            .is_some_and(|query| holds_credential(query, prefixes)),
        _ => holds_credential(value, prefixes),
    }
}

/// Characters behind a prefix from which on a text may be a secret.
const SHORTEST_SECRET: usize = 16;

/// The shortest prefix and the shortest secret: most headers are shorter, and need no second look.
const SHORTEST_STRAY: usize = 3 + SHORTEST_SECRET;

/// Tells whether a header's value or a query holds what is written like one of our credentials.
pub fn holds_credential(value: &[u8], prefixes: &[String]) -> bool {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b'=' | b'&' | b',' | b';' | b'"' | b'\'' | b':');
    value.len() >= SHORTEST_STRAY && value.split(is_separator).any(|part| is_credential_like(part, prefixes))
}

/// A prefix of ours, and enough behind it to be a secret: short words that begin alike are not one.
fn is_credential_like(part: &[u8], prefixes: &[String]) -> bool {
    let is_written_so = |rest: &[u8]| {
        rest.len() >= SHORTEST_SECRET
            && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    prefixes.iter().any(|prefix| part.strip_prefix(prefix.as_bytes()).is_some_and(is_written_so))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(headers: &[(&str, &str)]) -> Result<String, CredentialError> {
        let carriers = [
            Carrier { header: "authorization".into(), scheme: Some("Bearer".into()) },
            Carrier { header: "x-api-key".into(), scheme: None },
        ];
        let pairs = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        extract(pairs, &carriers, &["rdc_".into()]).map(str::to_owned)
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
