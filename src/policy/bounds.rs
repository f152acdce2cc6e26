//! Bounds of a route: the fields of a request that carry caller, destination and text bounds.
//!
//! One rule for all: a bounded credential may not send a value that cannot be read.

use std::rc::Rc;

use super::fields::{FieldDocument, FieldRef, RequestField};
use super::platform::Platform;
use super::reader::{FromJson, List, Reader, document};
use super::text_bounds::{TextBound, find};
use crate::json::Json;

document! {
    /// Fields of a request that carry the values of bounds: `from`, `to`, and text bounds by name.
    pub struct BoundsDocument {
        /// Fields of the caller; with `to`.
        from: Option<BoundDocument>,
        /// Fields of the destination; with `from`.
        to: Option<BoundDocument>,
        ..texts: BoundDocument,
    }
}

/// One bound on one route: a field, a list of fields, a word, or an object.
#[derive(Default)]
pub enum BoundDocument {
    /// `"any"`: the bound does not concern this route.
    #[default]
    Any,
    /// `"unreadable"`: the value cannot be read, and credentials with this bound are refused.
    Unreadable,
    /// The fields that carry the value.
    Fields(FieldsDocument),
}

document! {
    /// The fields that carry the value of one bound.
    pub struct FieldsDocument {
        /// The fields, all in the body or all outside it: `/member`, `query:name`, `header:name`, `path:name`, with a closing `?` where it may be absent.
        fields: List<FieldDocument>,
        /// Fields whose presence leaves the choice to the upstream.
        delegated_by: List<FieldDocument> = List::default(),
        /// True when other fields carry the value as well: bounded credentials are refused; default false.
        partial: bool = false,
        /// True when the token's only value counts where the request has none; default false.
        implied: bool = false,
        /// Feature that an endpoint must have.
        requires_feature: Option<String>,
    }
}

impl FromJson for BoundDocument {
    const KIND: (&'static str, &'static str) = ("a bound", "bounds");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        match json {
            Json::String(text) if text == "any" => Self::Any,
            Json::String(text) if text == "unreadable" => Self::Unreadable,
            Json::Array(items) if items.is_empty() => {
                at.unread("an empty list; `\"unreadable\"` is for a value that cannot be read, `\"any\"` for one that does not matter");
                Self::Any
            }
            Json::String(_) | Json::Array(_) => Self::Fields(FieldsDocument {
                fields: List::from_json(json, at),
                ..FieldsDocument::default()
            }),
            Json::Object(_) => Self::Fields(FieldsDocument::from_json(json, at)),
            other => {
                at.expected("a field, a list of fields, `any`, `unreadable` or an object", other);
                Self::Any
            }
        }
    }
}

/// Fields that a route reads to judge a request.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Caller and destination, on a route that places a call.
    pub call: Option<Call>,
    /// Text bounds with their fields.
    pub texts: Vec<TextRule>,
    /// Text bounds this route mentions, including those declared `any`.
    pub declared: Vec<Rc<TextBound>>,
    /// The only further members the body may have; `None` is any.
    pub closed: Option<Vec<String>>,
    /// The only further parameters the query may have; `None` is any.
    pub closed_query: Option<Vec<String>>,
}

/// Caller and destination of a call.
#[derive(Debug)]
pub struct Call {
    /// Fields of the caller.
    pub from: BoundSource,
    /// Fields of the destination.
    pub to: BoundSource,
}

/// One text bound on one route.
#[derive(Debug)]
pub struct TextRule {
    /// Bound that is judged.
    pub bound: Rc<TextBound>,
    /// Fields that carry the value.
    pub source: BoundSource,
    /// True when a token's only value counts where the request has none.
    pub implied: bool,
    /// Feature that an endpoint must have.
    pub required_feature: Option<String>,
}

/// Fields that carry one value; all of them in the body, or none.
#[derive(Debug, Default)]
pub struct BoundSource {
    /// The fields; empty means unreadable, and bounded credentials are refused.
    pub members: Vec<FieldRef>,
    /// Fields whose presence leaves the choice to the upstream.
    pub delegated_by: Vec<RequestField>,
    /// True when other fields carry the value as well: these are judged, and bounded credentials are refused.
    pub is_partial: bool,
}

impl Bounds {
    /// Returns whether a field is in the body.
    pub fn reads_body(&self) -> bool {
        self.sources().any(BoundSource::reads_body)
    }

    /// Returns the fields of caller, destination and text bounds.
    pub fn sources(&self) -> impl Iterator<Item = &BoundSource> {
        let numbers = self.call.iter().flat_map(|call| [&call.from, &call.to]);
        numbers.chain(self.texts.iter().map(|rule| &rule.source))
    }

    /// Returns every field that is read.
    pub fn places(&self) -> impl Iterator<Item = &RequestField> {
        self.sources().flat_map(BoundSource::places)
    }
}

impl BoundSource {
    fn places(&self) -> impl Iterator<Item = &RequestField> {
        self.members.iter().map(|member| &member.place).chain(&self.delegated_by)
    }

    /// Returns whether the value comes from the body.
    pub fn reads_body(&self) -> bool {
        self.places().any(RequestField::is_in_body)
    }

    /// Returns whether the value that the upstream will use cannot be read.
    pub fn is_unreadable(&self) -> bool {
        self.members.is_empty() || self.is_partial
    }
}

impl BoundsDocument {
    pub(super) fn compile(&self, texts: &[Rc<TextBound>], platform: &Platform, at: &Reader<'_>) -> Bounds {
        let mut bounds = Bounds { call: self.call(at), ..Bounds::default() };
        for (name, document) in self.texts.iter() {
            let at = at.member(name);
            match find(texts, name) {
                Some(bound) => {
                    bounds.declared.push(Rc::clone(bound));
                    bounds.texts.extend(document.text_rule(bound, platform, &at));
                }
                None => {
                    let names = texts.iter().map(|bound| bound.name.as_str());
                    at.check_named(name, "one of `platform.bounds`", names, &["from", "to"]);
                }
            }
        }
        check_fields(&bounds, at);
        bounds
    }

    fn call(&self, at: &Reader<'_>) -> Option<Call> {
        let number = |document: &Option<BoundDocument>, name| {
            document.as_ref().map(|document| document.number_source(&at.member(name)))
        };
        match (number(&self.from, "from"), number(&self.to, "to")) {
            (Some(from), Some(to)) => Some(Call { from, to }),
            (None, None) => None,
            (from, _) => {
                let missing = if from.is_none() { "from" } else { "to" };
                at.refuse_with(
                    format!("missing `{missing}`: a call has a caller and a destination"),
                    format!("name its field, or write `\"{missing}\": \"unreadable\"`"),
                );
                None
            }
        }
    }
}

impl BoundDocument {
    fn number_source(&self, at: &Reader<'_>) -> BoundSource {
        match self {
            Self::Any => {
                at.refuse_with(
                    "`any` is for text bounds",
                    "a number that cannot be read is `\"unreadable\"`",
                );
                BoundSource::default()
            }
            Self::Unreadable => BoundSource::default(),
            Self::Fields(document) => {
                if document.implied || document.requires_feature.is_some() {
                    at.refuse("`implied` and `requires_feature` are for text bounds");
                }
                document.source(at)
            }
        }
    }

    /// Compiles the fields of a text bound; `None` for `any`.
    fn text_rule(&self, bound: &Rc<TextBound>, platform: &Platform, at: &Reader<'_>) -> Option<TextRule> {
        let document = match self {
            Self::Any => return None,
            Self::Unreadable => {
                let source = BoundSource::default();
                return Some(TextRule {
                    bound: Rc::clone(bound),
                    source,
                    implied: false,
                    required_feature: None,
                });
            }
            Self::Fields(document) => document,
        };
        check_required_feature(document.requires_feature.as_deref(), bound, platform, at);
        if document.implied && document.fields.iter().any(|field| !field.0.ends_with('?')) {
            at.member("implied").refuse_with(
                "a value that the request must carry is not implied",
                "mark each field as optional with a closing `?`",
            );
        }
        let (bound, source) = (Rc::clone(bound), document.source(at));
        let required_feature = document.requires_feature.clone();
        Some(TextRule { bound, source, implied: document.implied, required_feature })
    }
}

impl FieldsDocument {
    fn source(&self, at: &Reader<'_>) -> BoundSource {
        let (fields_at, delegated_at) = (at.member("fields"), at.member("delegated_by"));
        let source = BoundSource {
            members: self.fields.each(&fields_at).filter_map(|(at, field)| field.compile(&at)).collect(),
            delegated_by: self
                .delegated_by
                .each(&delegated_at)
                .filter_map(|(at, f)| f.compile_plain(&at))
                .collect(),
            is_partial: self.partial,
        };
        let fields = || source.members.iter().map(|member| &member.place).chain(&source.delegated_by);
        let in_body = fields().filter(|field| field.is_in_body()).count();
        if in_body > 0 && in_body < fields().count() {
            at.refuse("the fields of one bound are either all in the body or all outside it");
        }
        source
    }
}

/// Checks that a feature required of endpoints exists: no endpoint has a misspelt one.
pub(super) fn check_required_feature(
    feature: Option<&str>,
    bound: &TextBound,
    platform: &Platform,
    at: &Reader<'_>,
) {
    let Some(feature) = feature else { return };
    let at = at.member("requires_feature");
    match bound.is_endpoint() {
        true => at.check_listed(feature, "platform.features", platform.feature_names()),
        false => at.refuse("only endpoints have features"),
    }
}

/// Checks that no field carries two values, or one value twice.
fn check_fields(bounds: &Bounds, at: &Reader<'_>) {
    let fields: Vec<(&str, String)> = bounds.places().map(RequestField::folded).collect();
    if fields.iter().enumerate().any(|(index, field)| fields.iter().take(index).any(|other| other == field)) {
        at.refuse("two bounds name the same field, or one names it twice");
    }
}
