//! The view of a request that decisions are made on: untrusted bytes in, canonical parts out.
//!
//! Nothing is repaired. A path that two readers could read differently, a header that must stand once and does not, a
//! body that is not plain JSON: each is refused, because the upstream may be the other reader.

use crate::credential::hex;
use crate::json::{Arrays, Fault, Json, JsonError, Limits};
use crate::reason::Reason;
use crate::uri::{Query, decode_escapes, escaped_byte};

use super::DecisionContext;
use super::verdict::Denial;

/// The beginning of every header that only we may set.
pub const OWN_HEADER_PREFIX: &str = "x-callbound-";

/// Most values of a body that are kept: a megabyte of small ones would take thirty in memory.
const MAX_BODY_VALUES: usize = 20_000;

/// Longest path with query that is read, in bytes.
const MAX_PATH_BYTES: usize = 8_192;

/// A request's head, its method and path canonical.
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The query, undecoded.
    pub query: Option<&'a str>,
    /// All pairs.
    pub headers: &'a [(&'a [u8], &'a [u8])],
}

impl<'a> Head<'a> {
    /// Reads the head.
    ///
    /// # Errors
    ///
    /// [`Reason::RequestMalformed`] and [`Reason::PathMalformed`].
    pub fn read(headers: &'a [(&'a [u8], &'a [u8])]) -> Result<Self, Denial> {
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
        // A hop that obeys `connection` would drop the headers the upstream trusts.
        let names_ours = head.all(b"connection").any(|value| {
            value
                .windows(OWN_HEADER_PREFIX.len())
                .any(|part| part.eq_ignore_ascii_case(OWN_HEADER_PREFIX.as_bytes()))
        });
        if names_ours {
            return Err(Reason::RequestMalformed.into());
        }
        Ok(Self { method, path, query, headers })
    }

    fn pseudo(&self, name: &[u8]) -> Result<&'a str, Denial> {
        let value = self.single(name).ok().flatten().ok_or(Reason::RequestMalformed)?;
        std::str::from_utf8(value).map_err(|_| Reason::RequestMalformed.into())
    }

    fn all(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers;
        headers.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value)
    }

    /// Returns a header's value; an error when it stands more than once.
    pub(super) fn single(&self, name: &[u8]) -> Result<Option<&'a [u8]>, ()> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(()),
        }
    }

    /// Refuses a parameter by which frameworks replace the method that was judged.
    pub(super) fn check_method_override(&self, query: &Query<'_>) -> Result<(), Denial> {
        if query.names().any(|name| name == "_method") {
            Err(Reason::RequestMalformed.into())
        } else {
            Ok(())
        }
    }

    /// Takes the query apart.
    pub(super) fn query(&self) -> Query<'a> {
        Query::new(self.query)
    }

    /// Refuses an upgrade where none is expected, since its bytes could not be judged, and everything else where a
    /// WebSocket handshake is (RFC 6455 section 4.2.1).
    pub(super) fn check_upgrade(&self, is_expected: bool) -> Result<(), Denial> {
        let wants = self.all(b"upgrade").next().is_some() || self.all(b":protocol").next().is_some();
        match (wants, is_expected) {
            (false, false) => Ok(()),
            (false, true) => Err(Reason::UpgradeRequired.into()),
            (true, false) => Err(Reason::UpgradeRefused.into()),
            (true, true) if self.is_websocket() => Ok(()),
            (true, true) => Err(Reason::UpgradeRefused.into()),
        }
    }

    fn is_websocket(&self) -> bool {
        let single = |name: &[u8]| self.single(name).unwrap_or(Some(b"twice"));
        let is_upgrade = single(b"upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        // Over HTTP/2 there is no `connection` header; hosts add it, or leave the extended CONNECT as it is.
        let names_upgrade = |value: &[u8]| {
            value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        };
        let is_asked = self.all(b"connection").any(names_upgrade) || self.all(b"connection").next().is_none();
        let is_version = single(b"sec-websocket-version").is_none_or(|version| version == b"13");
        let has_body = self.all(b"transfer-encoding").next().is_some()
            || single(b"content-length").is_some_and(|length| length != b"0");
        is_upgrade && is_asked && is_version && !has_body && self.all(b":protocol").next().is_none()
    }

    /// Refuses a body that could be read as something else than UTF-8 JSON.
    pub(super) fn check_body_is_json(&self, optional: bool) -> Result<(), Denial> {
        match self.single(b"content-type") {
            // What has no type may have no body either; what does is looked at as JSON all the same.
            Ok(None) if optional => {}
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

/// `application/json`, perhaps with `charset=utf-8`, and nothing else.
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

/// Visible ASCII without what a reader might take for a fragment or a separator of segments.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\'))
}

/// One spelling per path: no empty or dot segment, no path parameter, and nothing percent-encoded that means something
/// unencoded (RFC 3986 section 2.3), separates segments, or is invisible.
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
    // Overlong and broken UTF-8 is read differently by everyone who decodes it.
    !path.contains('%')
        || (path.split('%').skip(1).all(is_canonical) && std::str::from_utf8(&decode_escapes(path)).is_ok())
}

/// Reads a body that must be one JSON object; where it is optional, nothing and `null` are an empty one.
pub(super) fn read_object(body: &[u8], arrays: Arrays, optional: bool) -> Result<Json<'_>, Denial> {
    if optional && matches!(body.trim_ascii(), b"" | b"null") {
        return Ok(Json::Object(Vec::new()));
    }
    if body.is_empty() {
        return Err(Reason::BodyMissing.into());
    }
    let limits = Limits { values: MAX_BODY_VALUES, arrays, prototypes: false };
    match Json::parse_within(body, limits) {
        Ok(json) if json.members().is_some() => Ok(json),
        Err(JsonError { fault: Fault::DuplicateMember, .. }) => Err(Reason::BodyDuplicate.into()),
        Err(JsonError { fault: Fault::TooManyValues, .. }) => Err(Reason::BodyTooLarge.into()),
        Err(JsonError { fault: Fault::Prototype, .. }) => Err(Reason::MemberAmbiguous.into()),
        _ => Err(Reason::BodyMalformed.into()),
    }
}

/// What a request is called in logs, in its answer and at the upstream.
pub(super) struct RequestId {
    pub(super) text: Option<String>,
    /// Whether it was made here, because the request brought none.
    pub(super) is_new: bool,
}

impl RequestId {
    pub(super) fn of(headers: &[(&[u8], &[u8])], prefixes: &[String], moment: &DecisionContext<'_>) -> Self {
        if let Some(id) = usable_request_id(headers, prefixes) {
            return Self { text: Some(id.to_owned()), is_new: false };
        }
        let mut bytes = [0; 16];
        Self { text: moment.fill_random(&mut bytes).then(|| hex(&bytes)), is_new: true }
    }
}

/// An id fit for logs and answers: plain, and not a credential that somebody put in its place.
fn usable_request_id<'a>(headers: &[(&'a [u8], &'a [u8])], prefixes: &[String]) -> Option<&'a str> {
    let mut ids = headers.iter().filter(|(name, _)| *name == b"x-request-id");
    let (Some((_, id)), None) = (ids.next(), ids.next()) else { return None };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let id = std::str::from_utf8(id).ok()?;
    let is_credential = prefixes.iter().any(|prefix| id.starts_with(prefix.as_str()));
    ((1..=128).contains(&id.len()) && id.as_bytes().iter().all(fits) && !is_credential).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
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
    fn only_json_is_json() {
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
