//! Fields of a request that carry a value: members of the body, query parameters, headers, path parameters.
//!
//! Knows how a policy writes a field. Reading one from a request belongs to [`crate::decision`].

use super::reader::{FromJson, Reader};
use crate::json::Json;
use crate::uri::fold;

/// A field as a policy writes it: `/pointer`, `query:name`, `header:name` or `path:name`, or the same as an object with
/// one member, `{"path": "id"}`. A closing `?` marks a field that may be absent.
#[derive(Debug, Default)]
pub struct FieldDocument(pub String);

impl FromJson for FieldDocument {
    const KIND: (&'static str, &'static str) = ("a field", "fields");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        match json {
            Json::String(text) => Self(text.clone().into_owned()),
            Json::Object(members) => match members.as_slice() {
                [(kind, Json::String(name))] if kind == "body" => Self(name.clone().into_owned()),
                [(kind, Json::String(name))] => Self(format!("{kind}:{name}")),
                _ => {
                    at.unread("expected one of `path`, `query`, `header` and `body`, with a name");
                    Self::default()
                }
            },
            other => {
                at.expected("a field, as in `/to_number` or `query:team`", other);
                Self::default()
            }
        }
    }
}

impl FieldDocument {
    /// Compiles a field that may be marked as optional.
    pub(super) fn compile(&self, at: &Reader<'_>) -> Option<FieldRef> {
        let (text, optional) = self.0.strip_suffix('?').map_or((self.0.as_str(), false), |text| (text, true));
        Some(FieldRef { place: compile(text, at)?, optional })
    }

    /// Compiles a field that is never required.
    pub(super) fn compile_plain(&self, at: &Reader<'_>) -> Option<RequestField> {
        compile(&self.0, at)
    }
}

fn compile(text: &str, at: &Reader<'_>) -> Option<RequestField> {
    let field = RequestField::parse(text);
    if field.is_none() && (text.starts_with('/') || !text.contains(':')) {
        at.refuse(format!("`{text}` is not a JSON pointer, as in `/from_number`"));
    } else if field.is_none() {
        at.refuse_with(
            format!("`{text}` is not a field"),
            "expected `/member`, `query:name`, `header:name` or `path:name`",
        );
    }
    field
}

/// A field and whether it may be absent.
#[derive(Debug)]
pub struct FieldRef {
    /// Field that carries the value.
    pub place: RequestField,
    /// True when it may be absent.
    pub optional: bool,
}

/// One field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestField {
    /// A member of the body.
    Body(Pointer),
    /// A query parameter.
    Query(String),
    /// A header, its name in lower case.
    Header(String),
    /// A parameter of the path template.
    Path(String),
}

impl RequestField {
    /// Reads `/pointer`, `query:name`, `header:name` or `path:name`; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Pointer::parse(text).map(Self::Body);
        }
        let (kind, name) = text.split_once(':')?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        match kind {
            _ if !is_name => None,
            "query" if fold(name).is_empty() => None,
            "query" => Some(Self::Query(name.to_owned())),
            "header" => {
                let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
                name.bytes().all(fits).then(|| Self::Header(name.to_owned()))
            }
            "path" => Some(Self::Path(name.to_owned())),
            _ => None,
        }
    }

    /// Returns whether the field is in the body.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Body(_))
    }

    /// Returns the part of the request it is in, as replies name it.
    pub fn part(&self) -> &'static str {
        match self {
            Self::Body(_) => "body",
            Self::Query(_) => "query",
            Self::Header(_) => "header",
            Self::Path(_) => "path",
        }
    }

    /// Returns part and folded name. Fields that a lenient parser would confuse fold alike.
    pub fn folded(&self) -> (&'static str, String) {
        let folded = match self {
            Self::Body(pointer) => pointer.folded.join("/"),
            Self::Query(name) | Self::Header(name) => fold(name),
            Self::Path(name) => name.clone(),
        };
        (self.part(), folded)
    }

    /// Returns the name of the parameter, header or member.
    pub fn name(&self) -> &str {
        match self {
            Self::Body(pointer) => pointer.name(),
            Self::Query(name) | Self::Header(name) | Self::Path(name) => name,
        }
    }
}

/// A JSON pointer (RFC 6901) to a member of nested objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    names: Vec<String>,
    /// Names folded in advance, since every member of every body is compared with them.
    folded: Vec<String>,
}

impl Pointer {
    fn new(names: Vec<String>) -> Self {
        let folded = names.iter().map(|name| fold(name)).collect();
        Self { names, folded }
    }

    /// Reads a pointer to a member; `None` unless it begins with `/` and names a member.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let names: Vec<String> =
            rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        let has_bad_escape = rest.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
        // An index would point into an array, and arrays are never read.
        let has_index = names.iter().any(|token| token.bytes().all(|byte| byte.is_ascii_digit()));
        (!has_bad_escape && !has_index && names.iter().all(|token| !token.is_empty()))
            .then(|| Self::new(names))
    }

    /// Reads a member's name, or a pointer when it begins with `/`.
    pub fn of_member(text: &str) -> Option<Self> {
        match text {
            "" => None,
            text if text.starts_with('/') => Self::parse(text),
            name => Some(Self::new(vec![name.to_owned()])),
        }
    }

    /// Returns all names of the pointer, the member's own last.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the names of the objects around the member.
    pub fn parents(&self) -> &[String] {
        self.names.split_last().map_or(&[], |(_, parents)| parents)
    }

    /// Returns the member's own name.
    pub fn name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    /// Returns the next name below the object at `at`; `None` when the pointer does not lead through that object.
    pub fn next(&self, at: &[String]) -> Option<&str> {
        self.names.strip_prefix(at)?.first().map(String::as_str)
    }

    /// Returns whether a parser that folds names could confuse a name in the object at `at` with the pointer's next one
    /// there, or with the member's own, which may be in any object.
    pub fn is_like(&self, at: &[String], folded: &str) -> bool {
        let next = || self.next(at).and_then(|_| self.folded.get(at.len()));
        self.folded.last().is_some_and(|own| own == folded) || next().is_some_and(|next| next == folded)
    }

    /// Returns the names joined by dots, as replies and logs show them.
    pub fn dotted(&self) -> String {
        self.names.join(".")
    }
}
