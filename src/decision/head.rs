//! Head of a request: method, path, query and headers, with the checks that need no credential.
//!
//! Nothing is repaired. A path with two readings, a header that must be single and is not: each is refused, because the
//! upstream may read it the other way.

use crate::header::OWN_PREFIX;
use crate::hex::hex;
use crate::policy::{Policy, Route, RouteMatch};
use crate::reason::Reason;
use crate::uri::{Query, decode_escapes, escaped_byte};

use super::context::DecisionContext;
use super::denial::Denial;

/// Longest path with query that is read, in bytes.
const MAX_PATH_BYTES: usize = 8_192;

/// Head of a request, with method and path in their only spelling.
#[derive(Clone, Copy)]
pub(super) struct RequestHead<'a> {
    pub(super) method: &'a str,
    /// The path without its query.
    pub(super) path: &'a str,
    /// The query as it was sent.
    pub(super) query: Option<&'a str>,
    /// All pairs, names in lower case, pseudo-headers among them.
    pub(super) headers: &'a [(&'a [u8], &'a [u8])],
}

/// Head of a request on its route.
pub(super) struct MatchedHead<'a> {
    pub(super) head: RequestHead<'a>,
    pub(super) query: Query<'a>,
    pub(super) found: RouteMatch<'a, 'a>,
}

impl<'a> MatchedHead<'a> {
    pub(super) fn new(head: RequestHead<'a>, found: RouteMatch<'a, 'a>) -> Self {
        Self { query: head.query(), head, found }
    }

    pub(super) fn route(&self) -> &'a Route {
        self.found.route
    }
}

impl<'a> RequestHead<'a> {
    /// Reads the head.
    ///
    /// # Errors
    ///
    /// [`Reason::RequestMalformed`] and [`Reason::PathMalformed`].
    pub(super) fn read(headers: &'a [(&'a [u8], &'a [u8])]) -> Result<Self, Denial> {
        let head = Self { method: "", path: "", query: None, headers };
        let method = head.pseudo(b":method")?;
        let target = head.pseudo(b":path")?;
        if target.len() > MAX_PATH_BYTES {
            return Err(Reason::PathMalformed.into());
        }
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        if !is_canonical(path) || query.is_some_and(|query| !is_plain(query)) {
            return Err(Reason::PathMalformed.into());
        }
        if head.all(b"connection").any(mentions_own_header) {
            return Err(Reason::RequestMalformed.into());
        }
        Ok(Self { method, path, query, headers })
    }

    fn pseudo(&self, name: &[u8]) -> Result<&'a str, Denial> {
        let value = self.single(name).ok().flatten().ok_or(Reason::RequestMalformed)?;
        std::str::from_utf8(value).map_err(|_| Reason::RequestMalformed.into())
    }

    pub(super) fn all(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers;
        headers.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value)
    }

    /// Returns the value of a header.
    ///
    /// # Errors
    ///
    /// [`DuplicateHeader`] when the request has it more than once.
    pub(super) fn single(&self, name: &[u8]) -> Result<Option<&'a [u8]>, DuplicateHeader> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(DuplicateHeader),
        }
    }

    /// Refuses a `connection` header that names a header which the policy reads (RFC 9110 section 7.6.1): it could be
    /// dropped after the judgement. Where the host drops named headers before the module runs, none may be named.
    pub(super) fn check_nominations(&self, policy: &Policy) -> Result<(), Denial> {
        let is_accepted = |option: &[u8]| {
            let known = [&b""[..], b"keep-alive", b"close", b"upgrade", b"te"];
            let option = option.trim_ascii().to_ascii_lowercase();
            let (host, read) = (policy.host, &policy.read_headers);
            known.contains(&option.as_slice())
                || host.removes_headers && !read.contains(&option) && !read.is_like_any(&option)
        };
        let mut options = self.all(b"connection").flat_map(|value| value.split(|byte| *byte == b','));
        if options.all(is_accepted) { Ok(()) } else { Err(Reason::RequestMalformed.into()) }
    }

    /// Takes the query apart.
    pub(super) fn query(&self) -> Query<'a> {
        Query::new(self.query)
    }

    /// Refuses an upgrade on an ordinary route, because its bytes could not be judged, and anything but a WebSocket
    /// handshake (RFC 6455 section 4.2.1) on a route for upgrades.
    pub(super) fn check_upgrade(&self, is_expected: bool) -> Result<(), Denial> {
        let is_requested = self.all(b"upgrade").next().is_some() || self.all(b":protocol").next().is_some();
        match (is_requested, is_expected) {
            (false, false) => Ok(()),
            (false, true) => Err(Reason::UpgradeRequired.into()),
            (true, false) => Err(Reason::UpgradeRefused.into()),
            (true, true) if self.is_websocket() => Ok(()),
            (true, true) => Err(Reason::UpgradeRefused.into()),
        }
    }

    fn is_websocket(&self) -> bool {
        let single = |name: &[u8]| self.single(name).unwrap_or(Some(b"duplicate"));
        let is_upgrade = single(b"upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        // Over HTTP/2 there is no `connection` header; hosts add it, or leave the extended CONNECT as it is.
        let has_token = |value: &[u8]| {
            value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        };
        let is_hop = self.all(b"connection").any(has_token) || self.all(b"connection").next().is_none();
        let is_version = single(b"sec-websocket-version").is_none_or(|version| version == b"13");
        let has_body = self.all(b"transfer-encoding").next().is_some()
            || single(b"content-length").is_some_and(|length| length != b"0");
        is_upgrade && is_hop && is_version && !has_body && self.all(b":protocol").next().is_none()
    }

    /// Refuses a body that an upstream could read as something else than UTF-8 JSON. A missing content type passes when
    /// the body may be missing too; a body that comes without one is read as JSON all the same.
    pub(super) fn check_body_is_json(&self, is_optional: bool) -> Result<(), Denial> {
        match self.single(b"content-type") {
            Ok(None) if is_optional => {}
            Ok(Some(content_type)) if is_json_type(content_type) => {}
            _ => return Err(Reason::BodyType.into()),
        }
        match self.single(b"content-encoding") {
            Ok(None) => Ok(()),
            Ok(Some(coding)) if coding.eq_ignore_ascii_case(b"identity") => Ok(()),
            _ => Err(Reason::BodyEncoding.into()),
        }
    }
}

/// A header that must be single occurs more than once.
pub(super) struct DuplicateHeader;

/// Returns whether a `connection` header names one of the gateway's own: a hop that obeys it would drop headers that
/// the upstream trusts.
fn mentions_own_header(value: &[u8]) -> bool {
    let mut windows = value.windows(OWN_PREFIX.len());
    windows.any(|part| part.eq_ignore_ascii_case(OWN_PREFIX.as_bytes()))
}

/// Id of a request.
pub(super) struct RequestId {
    /// `None` when the request has no usable id and none could be made.
    pub(super) text: Option<String>,
    pub(super) is_new: bool,
}

impl RequestId {
    /// Takes the request's own id when it is usable, else makes one.
    pub(super) fn of(
        headers: &[(&[u8], &[u8])],
        credential_prefixes: &[String],
        context: &DecisionContext<'_>,
    ) -> Self {
        if let Some(id) = usable_id(headers, credential_prefixes) {
            return Self { text: Some(id.to_owned()), is_new: false };
        }
        let mut bytes = [0; 16];
        Self { text: context.fill_random(&mut bytes).then(|| hex(&bytes)), is_new: true }
    }
}

/// Returns an id that is fit for logs and answers: plain, short and not a credential.
fn usable_id<'a>(headers: &[(&'a [u8], &'a [u8])], credential_prefixes: &[String]) -> Option<&'a str> {
    let mut ids = headers.iter().filter(|(name, _)| *name == b"x-request-id");
    let (Some((_, id)), None) = (ids.next(), ids.next()) else { return None };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let id = std::str::from_utf8(id).ok()?;
    let is_credential = credential_prefixes.iter().any(|prefix| id.starts_with(prefix.as_str()));
    ((1..=128).contains(&id.len()) && id.as_bytes().iter().all(fits) && !is_credential).then_some(id)
}

/// Returns whether a content type is `application/json`, with at most `charset=utf-8`.
fn is_json_type(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let mut parts = text.split(';');
    let kind = parts.next().unwrap_or_default().trim_matches(' ');
    let charset = parts.next().map(|part| part.trim_matches(' '));
    let is_utf8 = charset.is_none_or(|part| {
        part.eq_ignore_ascii_case("charset=utf-8") || part.eq_ignore_ascii_case("charset=\"utf-8\"")
    });
    kind.eq_ignore_ascii_case("application/json") && is_utf8 && parts.next().is_none()
}

/// Returns whether a text is visible ASCII without `#`, which begins a fragment, and `\`, which some readers take for `/`.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'))
}

/// Returns whether a path has one spelling only: no empty or dot segment, no path parameter, and no escape of a byte
/// that is unreserved (RFC 3986 section 2.3), a separator or invisible.
fn is_canonical(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        // An empty last segment is a trailing slash: another path, not a malformed one.
        let is_empty = segment.is_empty() && segments.peek().is_some();
        if is_empty || segment == "." || segment == ".." {
            return false;
        }
    }
    is_plain(path) && !path.contains(';') && has_canonical_escapes(path)
}

fn has_canonical_escapes(path: &str) -> bool {
    let is_canonical = |after: &str| {
        escaped_byte(after).is_some_and(|byte| {
            let is_unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
            byte > b' '
                && byte != 0x7f
                && !is_unreserved
                && !matches!(byte, b'/' | b'\\' | b'%' | b';' | b'?' | b'#')
        })
    };
    // Readers disagree about overlong and broken UTF-8.
    !path.contains('%')
        || (path.split('%').skip(1).all(is_canonical) && std::str::from_utf8(&decode_escapes(path)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_with_two_spellings_is_not_canonical() {
        for path in ["/v1/calls", "/v1/calls/", "/v1/calls/a:b@c", "/v1/calls/a%3Ab", "/v1/x/%C3%A9"] {
            assert!(is_canonical(path), "{path}");
        }
        for path in [
            "",
            "v1",
            "*",
            "//v1/calls",
            "/v1//calls",
            "/v1/./calls",
            "/v1/../calls",
            "/v1/%2e%2e/calls",
            "/v1%2fcalls",
            "/v1%5Ccalls",
            "/v1\\calls",
            "/v1/calls;x",
            "/v1/calls%3bx",
            "/v1/calls%00",
            "/v1/calls%20",
            "/v1/%63alls",
            "/v1/calls%",
            "/v1/calls%2",
            "/v1/calls%zz",
            "/v1/calls#x",
            "/v1/calls%252e",
            "/v1/%c0%af",
            "/v1/%ff",
            "/v1/cälls",
            "/v1/ca lls",
            "/..",
            "/v1/calls/.",
            "/v1/calls%+1",
        ] {
            assert!(!is_canonical(path), "{path}");
        }
    }

    #[test]
    fn content_type_other_than_json_is_refused() {
        for value in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json_type(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "application/json, text/plain",
            "application/vnd.api+json",
            "application/json; charset=utf-16",
            "application/json;charset=utf-8;x=y",
            "application/json\t",
            "application/jsonp",
            "application/json;",
        ] {
            assert!(!is_json_type(value.as_bytes()), "{value}");
        }
    }
}
