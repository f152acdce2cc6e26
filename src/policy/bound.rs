//! Bounds: what a call-placing request says that a credential may be limited in, and where it says so.
//!
//! Caller and destination are numbers; everything else (model, endpoint, origin, and what a platform names itself) is
//! a [`TextBound`]. All are judged by the same rule: a value that cannot be read is one a bounded credential may not
//! choose. Refuses to know credentials: who is bounded is [`crate::decision`]'s.

use crate::credential::is_bound_text;

use super::place::RequestField;

/// The name of the bound whose values are the directory's endpoints.
pub const ENDPOINT: &str = "endpoint";

/// A text that credentials can be bounded in.
#[derive(Debug)]
pub struct TextBound {
    /// Its name in policies, claims and headers.
    pub name: String,
    /// What a value looks like.
    pub form: Form,
    /// The values there are, sorted; `None` = any of the form.
    pub values: Option<Vec<String>>,
    /// Other names of values: alias, canonical.
    pub aliases: Vec<(String, String)>,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 1 to 256 visible ASCII characters without a comma.
    Text,
    /// A web origin (RFC 6454 section 6.2) as browsers write it: one spelling.
    Origin,
    /// An endpoint of the directory.
    Endpoint,
}

impl TextBound {
    /// Resolves an alias; every other text is its own canonical form.
    pub fn canonical<'a>(&'a self, text: &'a str) -> &'a str {
        self.aliases.iter().find_map(|(alias, name)| (alias == text).then_some(name.as_str())).unwrap_or(text)
    }

    /// Whether a text can be a value at all.
    pub fn fits(&self, text: &str) -> bool {
        match self.form {
            Form::Origin => is_origin(text),
            Form::Text | Form::Endpoint => is_bound_text(text),
        }
    }

    /// Whether a canonical value is one of those there are.
    pub fn has(&self, canonical: &str) -> bool {
        let is_value =
            |values: &Vec<String>| values.binary_search_by(|value| value.as_str().cmp(canonical)).is_ok();
        self.values.as_ref().is_none_or(is_value)
    }
}

/// Finds the place of a bound by its name.
pub(super) fn index_of(bounds: &[TextBound], name: &str) -> Option<usize> {
    bounds.iter().position(|bound| bound.name == name)
}

/// Whether a text is an origin in the one spelling browsers send: `scheme://host[:port]` in lower case, without path,
/// closing slash, user or default port, at most 253 bytes.
pub fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => (address, Some(port.strip_prefix(':').unwrap_or("bad"))),
            None => return false,
        },
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let is_host = match rest.starts_with('[') {
        true => host.parse::<core::net::Ipv6Addr>().is_ok_and(|address| address.to_string() == host),
        false => {
            host.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
                && host.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
        }
    };
    let is_port = port.is_none_or(|port| {
        let number = port.parse::<u16>().ok();
        let default = matches!((scheme, number), ("http" | "ws", Some(80)) | ("https" | "wss", Some(443)));
        number.is_some_and(|number| number > 0 && number.to_string() == port) && !default
    });
    text.len() <= 253 && is_scheme && is_host && is_port
}

/// What a route reads to judge a request.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Caller and destination, on a route that places a call.
    pub call: Option<Call>,
    /// The text bounds this route says something of.
    pub texts: Vec<TextRule>,
    /// The text bounds the route says anything of, be it that they do not matter here.
    pub declared: Vec<usize>,
    /// When set, the only further members the body may have.
    pub closed: Option<Vec<String>>,
    /// When set, the only further parameters the query may have.
    pub closed_query: Option<Vec<String>>,
}

/// Who calls whom.
#[derive(Debug)]
pub struct Call {
    /// Who calls.
    pub from: BoundSource,
    /// Who is called.
    pub to: BoundSource,
}

/// One text bound on one route.
#[derive(Debug)]
pub struct TextRule {
    /// Its place in the policy.
    pub bound: usize,
    /// Where it stands.
    pub direction: BoundSource,
    /// Whether a token's single value counts where the request says none.
    pub implied: bool,
    /// The feature an endpoint must be capable of.
    pub capable: Option<String>,
}

impl Bounds {
    /// Whether a body is needed.
    pub fn reads_body(&self) -> bool {
        self.directions().any(BoundSource::reads_body)
    }

    /// The numbers' directions and the texts'.
    pub fn directions(&self) -> impl Iterator<Item = &BoundSource> {
        let numbers = self.call.iter().flat_map(|call| [&call.from, &call.to]);
        numbers.chain(self.texts.iter().map(|rule| &rule.direction))
    }

    /// All places this route reads.
    pub fn places(&self) -> impl Iterator<Item = &RequestField> {
        self.directions().flat_map(BoundSource::places)
    }
}

/// The places that carry one value; all of them in the body, or none.
#[derive(Debug, Default)]
pub struct BoundSource {
    /// Where it stands; none = the gateway cannot read it, and bounded credentials are refused.
    pub members: Vec<FieldRef>,
    /// Places whose presence leaves the choice to the upstream.
    pub chosen_by: Vec<RequestField>,
    /// The members are checked for what nobody may ask for, but they are not all there is: bounded credentials are
    /// refused.
    pub screen_only: bool,
}

impl BoundSource {
    fn places(&self) -> impl Iterator<Item = &RequestField> {
        self.members.iter().map(|member| &member.place).chain(&self.chosen_by)
    }

    /// Whether it is known only from the body.
    pub fn reads_body(&self) -> bool {
        self.places().any(RequestField::is_in_body)
    }

    /// Whether nothing says which value will be used.
    pub fn is_unreadable(&self) -> bool {
        self.members.is_empty() || self.screen_only
    }
}

/// One place that carries a value.
#[derive(Debug)]
pub struct FieldRef {
    /// Where it stands.
    pub place: RequestField,
    /// Whether it may be absent.
    pub optional: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_spelling() {
        for text in
            ["https://example.com", "http://localhost:3000", "https://a-b.example:8443", "http://[::1]:80800"]
        {
            assert_eq!(is_origin(text), !text.ends_with("80800"), "{text}");
        }
        for text in [
            "",
            "null",
            "*",
            "example.com",
            "https://",
            "https://Example.com",
            "HTTPS://example.com",
            "https://example.com/",
            "https://example.com:443",
            "http://example.com:80",
            "https://u@example.com",
            "https://example.com?x",
            "https://example.com#x",
            "https://example.com:",
            "https://example.com:080",
            "https://example..com",
            "https://*.example.com",
            "https://[::1",
            "https://[0:0::1]",
            "https:// example.com",
            "https://exämple.com",
        ] {
            assert!(!is_origin(text), "{text}");
        }
        assert!(is_origin("https://[::1]:8080"));
        assert!(!is_origin(&format!("https://{}.com", "a".repeat(250))));
    }
}
