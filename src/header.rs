//! Names of headers and trailers: one folding for all comparisons, and the names that a client may not set.
//!
//! A server that passes headers on as variables (CGI, RFC 3875 section 4.1.18) may write every byte but letters and
//! digits alike. Two names that differ only in such bytes are one name to an application behind it.

/// Prefix of the headers that only the gateway sets.
pub const OWN_PREFIX: &str = "x-callbound-";

/// Header that makes the gateway end a connection after so many milliseconds.
pub const STREAM_DEADLINE: &str = "x-envoy-upstream-stream-duration-ms";

/// Headers by which upstream frameworks replace method or path after the decision.
const METHOD_OR_PATH_OVERRIDES: &[&str] = &[
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
];

/// Returns whether a client may not set a header or trailer, in any spelling: only the gateway may, or an upstream could
/// read from it another request than the one that was judged.
pub fn is_reserved(name: &[u8]) -> bool {
    // Every reserved name begins with `x`; most of a request's do not.
    if !name.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'x')) {
        return false;
    }
    let name: Vec<u8> = name.iter().map(fold).collect();
    let is = |reserved: &str| name == reserved.as_bytes();
    name.starts_with(OWN_PREFIX.as_bytes())
        || is(STREAM_DEADLINE)
        || METHOD_OR_PATH_OVERRIDES.iter().any(|reserved| is(reserved))
}

/// Returns whether a name differs from `other` only in bytes that some upstream reads alike. `other` is in lower case.
pub fn is_look_alike(name: &[u8], other: &str) -> bool {
    name.len() == other.len()
        && name != other.as_bytes()
        && name.iter().zip(other.as_bytes()).all(|(one, two)| fold(one) == fold(two))
}

/// Returns a letter in lower case, a digit as it is, and every other byte as `-`.
fn fold(byte: &u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_name_in_every_spelling_is_reserved() {
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_alphanumeric()) {
            for name in ["x-callbound-team", "x-http-method-override", STREAM_DEADLINE] {
                let spelled = name.bytes().map(|own| if own == b'-' { byte } else { own });
                let spelled: Vec<u8> = spelled.collect();
                assert!(is_reserved(&spelled), "{}", spelled.escape_ascii());
                assert!(is_reserved(&spelled.to_ascii_uppercase()), "{}", spelled.escape_ascii());
            }
        }
    }

    #[test]
    fn other_name_is_not_reserved() {
        for name in
            ["x-callbound", "x-callboundteam", "xcallbound-team", "y-callbound-team", "x-request-id", ""]
        {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn name_itself_is_no_look_alike() {
        assert!(!is_look_alike(b"x-api-key", "x-api-key"));
        assert!(!is_look_alike(b"x-api-keys", "x-api-key"));
        for name in ["x_api_key", "X-Api-Key", "x!api-key", "x.api\u{7f}key"] {
            assert!(is_look_alike(name.as_bytes(), "x-api-key"), "{name:?}");
        }
        assert!(is_look_alike(b"sm-user", "sm_user"));
    }
}
