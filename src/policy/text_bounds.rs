//! Text bounds: named texts that credentials can be bounded in, such as a model or an origin.

use std::rc::Rc;

use super::ids::check_id;
use super::reader::{List, Members, Reader, document, words};
use crate::credential::is_bound_text;
use crate::uri::fold;

document! {
    /// One text that credentials can be bounded in.
    pub struct TextBoundDocument {
        /// Form of a value; default `text`.
        form: FormWord = FormWord::Text,
        /// The only values there are; absent: any of the form.
        values: Option<List<String>>,
        /// Other names of values; both sides of a comparison are resolved.
        aliases: Members<String>,
    }
}

words! {
    /// Form of a text bound's values.
    pub enum FormWord {
        /// Visible ASCII without a comma.
        Text = "text",
        /// `scheme://host[:port]` as browsers write it.
        Origin = "origin",
    }
}

/// Name of the bound whose values are the endpoints of the policy.
pub const ENDPOINT: &str = "endpoint";

/// A text that credentials can be bounded in.
#[derive(Debug)]
pub struct TextBound {
    /// Name in policies, claims and headers.
    pub name: String,
    /// Form of a value.
    pub form: Form,
    /// Every value, sorted; `None` is any of the form.
    pub values: Option<Vec<String>>,
    /// Other names of values: alias, canonical.
    pub aliases: Vec<(String, String)>,
}

/// Form of a text bound's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 1 to 256 visible ASCII characters without a comma.
    Text,
    /// A web origin (RFC 6454 section 6.2) as browsers write it: one spelling.
    Origin,
    /// An endpoint of the policy.
    Endpoint,
}

impl TextBound {
    /// Resolves an alias; every other text is its own canonical form.
    pub fn canonical<'a>(&'a self, text: &'a str) -> &'a str {
        self.aliases.iter().find_map(|(alias, name)| (alias == text).then_some(name.as_str())).unwrap_or(text)
    }

    /// Returns whether a text can be a value at all.
    pub fn fits(&self, text: &str) -> bool {
        match self.form {
            Form::Origin => is_origin(text),
            Form::Text | Form::Endpoint => is_bound_text(text),
        }
    }

    /// Returns whether a canonical value exists.
    pub fn has(&self, canonical: &str) -> bool {
        let is_value =
            |values: &Vec<String>| values.binary_search_by(|value| value.as_str().cmp(canonical)).is_ok();
        self.values.as_ref().is_none_or(is_value)
    }

    /// Returns whether the bound's values are endpoints.
    pub fn is_endpoint(&self) -> bool {
        self.form == Form::Endpoint
    }

    /// Reads a list of values into canonical, sorted order.
    pub(super) fn read_values(&self, list: &List<String>, at: &Reader<'_>) -> Vec<String> {
        for (at, value) in list.each(at) {
            let is_alias = self.aliases.iter().any(|(alias, _)| alias == value);
            if !self.fits(value) || !(is_alias || self.has(self.canonical(value))) {
                let names = self.values.iter().flatten().map(String::as_str);
                at.check_listed(value, &self.name, names);
            }
        }
        let mut values: Vec<String> = list.iter().map(|value| self.canonical(value).to_owned()).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

/// A policy has one bound of each name.
impl PartialEq for TextBound {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TextBound {}

/// Finds a bound.
pub(super) fn find<'b>(bounds: &'b [Rc<TextBound>], name: &str) -> Option<&'b Rc<TextBound>> {
    bounds.iter().find(|bound| bound.name == name)
}

/// Names with another meaning where bounds are named, or where the upstream is sent them.
const RESERVED: &[&str] = &[
    "key",
    "team",
    "teams",
    "user",
    "token",
    "from",
    "to",
    "session",
    "session_seconds",
    "total",
    "total_seconds",
    "uses",
    "ttl",
    "ttl_seconds",
    "scopes",
    "metadata",
    "body",
    "body_required",
    "closed",
    "closed_query",
    ENDPOINT,
];

/// Compiles the bounds; `endpoints` are the ids of the policy's endpoints, `None` when they are no bound.
pub(super) fn compile(
    documents: &Members<TextBoundDocument>,
    endpoints: Option<Vec<String>>,
    at: &Reader<'_>,
) -> Vec<Rc<TextBound>> {
    let mut bounds: Vec<Rc<TextBound>> = Vec::new();
    for (name, document) in documents.iter() {
        let at = at.member(name);
        check_id(name, &at);
        // The upstream receives each bound in a header of its own: two names must not make the same header.
        let is_header = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        let is_alike = |other: &str| fold(other) == fold(name);
        if !is_header
            || RESERVED.iter().any(|reserved| is_alike(reserved))
            || bounds.iter().any(|other| is_alike(&other.name))
        {
            at.refuse(
                "not a possible name of a bound: lower-case letters, digits, `-` and `_`, no word of the policy language, no two alike",
            );
        }
        bounds.push(Rc::new(document.compile(name, &at)));
    }
    bounds.extend(endpoints.map(|mut ids| {
        ids.sort_unstable();
        let (name, values) = (ENDPOINT.to_owned(), Some(ids));
        Rc::new(TextBound { name, form: Form::Endpoint, values, aliases: Vec::new() })
    }));
    bounds
}

impl TextBoundDocument {
    fn compile(&self, name: &str, at: &Reader<'_>) -> TextBound {
        let form = match self.form {
            FormWord::Text => Form::Text,
            FormWord::Origin => Form::Origin,
        };
        let aliases = self.aliases.0.clone();
        let mut bound = TextBound { name: name.to_owned(), form, values: None, aliases };
        let values_at = at.member("values");
        for (at, value) in self.values.iter().flat_map(|list| list.each(&values_at)) {
            if !bound.fits(value) || bound.canonical(value) != value {
                at.refuse("not a possible value of this bound");
            }
        }
        // Aliases and ceilings are not compared with values that have a fault.
        bound.values = self.values.as_ref().filter(|_| !values_at.has_error()).map(|values| {
            let mut values = values.to_vec();
            values.sort_unstable();
            values
        });
        for (alias, value) in &bound.aliases {
            if !bound.fits(alias)
                || bound.canonical(value) != value
                || !bound.fits(value)
                || !bound.has(value)
            {
                at.member("aliases")
                    .member(alias)
                    .refuse("an alias is another name of one of the bound's values, and of no other alias");
            }
        }
        bound
    }
}

/// Returns whether a text is an origin in the one spelling browsers send: `scheme://host[:port]` in lower case, without path,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_in_another_spelling_is_refused() {
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
