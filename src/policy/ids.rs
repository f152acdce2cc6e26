//! Texts that go into headers, challenges and logs: ids, scopes, prefixes, header names.

use super::reader::{List, Members, Reader};

/// Checks an id: visible ASCII without separators.
pub(super) fn check_id(id: &str, at: &Reader<'_>) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(fits) {
        at.refuse("an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`");
    }
}

/// Checks the name of a scope: scopes are separated by blanks in challenges and headers (RFC 6749 section 3.3).
pub(super) fn check_scope(scope: &str, at: &Reader<'_>) {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b'*');
    if scope.is_empty() || scope.len() > 64 || !scope.bytes().all(fits) {
        at.refuse("a scope is 1 to 64 visible characters without `\" \\ , *`");
    }
}

/// Checks that every scope of a list exists on the platform.
pub(super) fn check_scopes(scopes: &List<String>, known: &[String], at: &Reader<'_>) {
    for (at, scope) in scopes.each(at) {
        if !known.contains(scope) {
            at.check_listed(scope, "platform.scopes", known.iter().map(String::as_str));
        }
    }
}

/// Checks labels, which tools and logs may show: printable texts under ids.
pub(super) fn check_labels(labels: &Members<String>, at: &Reader<'_>) {
    for (name, text) in labels.iter() {
        check_id(name, &at.member(name));
        if text.len() > 256 || text.chars().any(char::is_control) {
            at.member(name).refuse("a label is at most 256 bytes without control characters");
        }
    }
}

/// Checks what keys or tokens begin with.
pub(super) fn check_prefix(prefix: &str, at: &Reader<'_>) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if prefix.len() < 3 || prefix.len() > 32 || !prefix.bytes().all(fits) {
        at.refuse("a prefix is 3 to 32 of `A-Z a-z 0-9 - _`");
    }
}

/// Headers with another meaning to a gateway, and those that are logged or changed by one.
const UNFIT_HEADERS: &[&str] = &[
    "host",
    "cookie",
    "connection",
    "upgrade",
    "te",
    "keep-alive",
    "proxy-connection",
    "trailer",
    "transfer-encoding",
    "content-type",
    "content-length",
    "content-encoding",
    "x-request-id",
];

/// Checks the name of a header that a policy may use: none that a gateway reads or writes for itself.
pub(super) fn check_header_name(name: &str, at: &Reader<'_>) {
    if name != name.to_ascii_lowercase() || !is_token(name) {
        at.refuse("expected a header name in lower case");
    } else if name.starts_with("x-callbound-")
        || name.starts_with("x-envoy-")
        || UNFIT_HEADERS.contains(&name)
    {
        at.refuse("this header is read or written for another purpose");
    }
}

/// Returns whether a text is one word of letters, digits, `-` and `_`.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
