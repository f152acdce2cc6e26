//! Names of headers and trailers that a client may not set.

/// Prefix of the headers that only the gateway sets.
pub(super) const OWN_HEADER_PREFIX: &str = "x-callbound-";

/// Header that makes the gateway end a connection after so many milliseconds.
pub(super) const STREAM_DEADLINE: &str = "x-envoy-upstream-stream-duration-ms";

/// Returns whether a client may not set a header or trailer: only the gateway may, or an upstream could read from it
/// another request than the one that was judged. Covers spellings with `_` or `.` for `-`.
pub fn is_reserved(name: &[u8]) -> bool {
    // Every reserved name begins with `x`; most of a request's do not.
    if !name.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'x')) {
        return false;
    }
    let name: Vec<u8> = name.iter().map(fold).collect();
    name.starts_with(OWN_HEADER_PREFIX.as_bytes())
        || name == STREAM_DEADLINE.as_bytes()
        || is_method_or_path_override(&name)
}

/// Returns whether an upstream that takes `_` or `.` for `-` reads two header names as one.
pub(super) fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().map(fold).eq(other.iter().map(fold))
}

fn fold(byte: &u8) -> u8 {
    if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() }
}

/// Headers by which upstream frameworks replace method or path after the decision.
fn is_method_or_path_override(name: &[u8]) -> bool {
    matches!(
        name,
        b"x-http-method-override"
            | b"x-http-method"
            | b"x-method-override"
            | b"x-original-method"
            | b"x-original-url"
            | b"x-original-uri"
            | b"x-rewrite-url"
            | b"x-forwarded-uri"
            | b"x-forwarded-path"
    )
}
