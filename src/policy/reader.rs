//! Typed reading of a policy document: one object knows the path and collects the problems.
//!
//! Reading never stops at a fault: a value that cannot be read is reported and replaced by a default, so that its
//! siblings are read as well. A document with a fault is never used.

use std::ops::{Deref, RangeInclusive};

use super::report::{Path, Report, Severity};
use super::suggest::{moved, nearest, renamed};
use crate::json::locate::{Step, duplicate_member, line_column};
use crate::json::{Fault, Json, JsonError};

/// A value's place in the document, with the report that its problems go to.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    above: Option<&'a Reader<'a>>,
    step: Step<'a>,
    report: &'a Report,
}

impl<'a> Reader<'a> {
    /// Starts at the document itself.
    pub(super) fn new(report: &'a Report) -> Self {
        Self { above: None, step: Step::Index(0), report }
    }

    /// Goes to a member of this object.
    pub fn member<'b>(&'b self, name: &'b str) -> Reader<'b> {
        Reader { above: Some(self), step: Step::Member(name), report: self.report }
    }

    /// Goes to an element of this list.
    pub fn element(&self, index: usize) -> Reader<'_> {
        Reader { above: Some(self), step: Step::Index(index), report: self.report }
    }

    fn path(&self) -> Path {
        let chain = std::iter::successors(Some(self), |at| at.above).filter(|at| at.above.is_some());
        let mut steps: Vec<Step<'_>> = chain.map(|at| at.step).collect();
        steps.reverse();
        Path::new(&steps)
    }

    /// Returns whether this value and everything around it could be read.
    pub(super) fn was_read(&self) -> bool {
        self.report.was_read(&self.path())
    }

    /// Returns whether an error was reported for this value or a part of it.
    pub(super) fn has_error(&self) -> bool {
        self.report.has_error(&self.path())
    }

    /// Reports a value that can be read but is not allowed.
    pub fn refuse(&self, message: impl Into<String>) {
        self.report.add(Severity::Error, self.path(), message.into(), None);
    }

    /// As [`Reader::refuse`], with the likely fix.
    pub fn refuse_with(&self, message: impl Into<String>, help: impl Into<String>) {
        self.report.add(Severity::Error, self.path(), message.into(), Some(help.into()));
    }

    /// Reports a warning: an operator should know, although the policy is valid.
    pub fn warn(&self, message: impl Into<String>) {
        self.report.add(Severity::Warning, self.path(), message.into(), None);
    }

    /// Reports a value that cannot be read; later problems of the same value are left out.
    pub fn unread(&self, message: impl Into<String>) {
        self.report.unread(self.path(), message.into(), None);
    }

    /// Reports a text that is not JSON, or has a member twice.
    pub(super) fn malformed(&self, error: &JsonError, text: &[u8]) {
        let duplicate = duplicate_member(text).filter(|_| error.fault == Fault::DuplicateMember);
        match duplicate {
            Some(duplicate) => {
                let (line, _) = line_column(text, duplicate.first.0);
                let message = format!("duplicate member, first on line {line}");
                self.report.malformed(&duplicate.path, duplicate.second, message);
            }
            None => {
                let lines = text.split_inclusive(|byte| *byte == b'\n').take(error.line.saturating_sub(1));
                let start =
                    lines.map(<[u8]>::len).sum::<usize>().saturating_add(error.column.saturating_sub(1));
                self.report.malformed("", (start, start.saturating_add(1)), "not well-formed JSON".into());
            }
        }
    }

    /// Reports a value of the wrong kind.
    pub fn expected(&self, what: &str, found: &Json<'_>) {
        self.unread(format!("expected {what}, found {}", kind_of(found)));
    }

    /// Reports a number outside its range; `unit` is a word such as `seconds`, or empty.
    pub fn check_range(&self, value: u64, range: RangeInclusive<u64>, unit: &str) {
        if !range.contains(&value) {
            let gap = if unit.is_empty() { "" } else { " " };
            self.refuse(format!("expected {} to {}{gap}{unit}, found {value}", range.start(), range.end()));
        }
    }

    /// Reports a name that is not in `names`, with the nearest of them. `section` is the path that defines such names.
    pub fn check_listed<'n>(&self, name: &str, section: &str, names: impl IntoIterator<Item = &'n str>) {
        self.check_one_of(name, (&format!("one of `{section}`"), &[section]), names);
    }

    /// As [`Reader::check_listed`], for names that several sections define.
    pub fn check_one_of<'n>(
        &self,
        name: &str,
        (what, sections): (&str, &[&str]),
        names: impl IntoIterator<Item = &'n str>,
    ) {
        let names: Vec<&str> = names.into_iter().collect();
        let is_complete = |section: &&str| {
            let steps: Vec<Step<'_>> = section.split('.').map(Step::Member).collect();
            self.report.defines_all(&Path::new(&steps))
        };
        if !names.contains(&name) && sections.iter().all(is_complete) {
            let message = format!("{} is not {what}", quoted(name));
            self.report.add(Severity::Error, self.path(), message, nearest(name, &names).map(did_you_mean));
        }
    }

    /// Reports a member, such as a bound, that is not in `names`; `fixed` are the names of the language itself.
    pub fn check_named<'n>(
        &self,
        name: &str,
        what: &str,
        names: impl IntoIterator<Item = &'n str>,
        fixed: &[&'n str],
    ) {
        let names: Vec<&str> = names.into_iter().chain(fixed.iter().copied()).collect();
        let meant = renamed(name).filter(|new| fixed.contains(new)).or_else(|| nearest(name, &names));
        let help = meant.map(did_you_mean).or_else(|| moved(name).map(str::to_owned));
        self.report.unknown_member(self.path(), format!("{} is not {what}", quoted(name)), help);
    }

    /// Reports an id that another element has.
    pub fn check_unique(&self, what: &str, id: &str, is_taken: bool) {
        if is_taken {
            self.refuse(format!("duplicate {what} {}", quoted(id)));
        }
    }
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

/// Reads one JSON object; reports a text that is none.
pub(super) fn parse<'t>(text: &'t [u8], root: &Reader<'_>) -> Option<Json<'t>> {
    match Json::parse(text) {
        Ok(json) if json.members().is_some() => return Some(json),
        Ok(_) => root.unread("expected one JSON object"),
        Err(error) => root.malformed(&error, text),
    }
    None
}

/// Repeats a name in a message, unless its length makes it a possible credential.
pub(super) fn quoted(name: &str) -> String {
    if name.len() <= 32 { format!("`{name}`") } else { "this name".to_owned() }
}

fn kind_of(json: &Json<'_>) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(true) => "true",
        Json::Bool(false) => "false",
        Json::Unsigned(_) => "a number",
        Json::OtherNumber(number) if number.as_f64().is_some_and(|value| value < 0.0) => "a negative number",
        Json::OtherNumber(_) => "a number with a fraction",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// A part of the document. Its default replaces a value that cannot be read.
pub trait FromJson: Default {
    /// Name of one such value and of several, as in `("a text", "texts")`.
    const KIND: (&'static str, &'static str);
    /// Name of a list of such values, and of several lists.
    const LIST: (&'static str, &'static str) = ("a list", "lists");

    /// Reads the value and reports its faults.
    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self;

    /// Returns the value of a member that is left out; `None` when it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

impl FromJson for String {
    const KIND: (&'static str, &'static str) = ("a text", "texts");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        match json {
            Json::String(text) => text.clone().into_owned(),
            other => {
                at.expected(Self::KIND.0, other);
                Self::default()
            }
        }
    }
}

impl FromJson for bool {
    const KIND: (&'static str, &'static str) = ("true or false", "booleans");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        if let Json::Bool(value) = json {
            return *value;
        }
        at.expected(Self::KIND.0, json);
        false
    }
}

impl FromJson for u64 {
    const KIND: (&'static str, &'static str) = ("a whole number", "whole numbers");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        if let Json::Unsigned(value) = json {
            return *value;
        }
        let name_of = |at: &Reader<'_>| match at.step {
            Step::Member(name) => unit_of(name),
            Step::Index(_) => None,
        };
        let unit = name_of(at).or_else(|| at.above.and_then(name_of));
        let expected =
            unit.map_or_else(|| Self::KIND.0.to_owned(), |unit| format!("a whole number of {unit}"));
        at.expected(&expected, json);
        0
    }
}

/// Every number with a unit has it in its name.
fn unit_of(name: &str) -> Option<&'static str> {
    let is_in = |unit: &str| name == unit || name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
    match name {
        _ if is_in("seconds") => Some("seconds"),
        _ if is_in("ms") => Some("milliseconds"),
        _ if is_in("bytes") => Some("bytes"),
        _ => None,
    }
}

impl<T: FromJson> FromJson for Option<T> {
    const KIND: (&'static str, &'static str) = T::KIND;

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        Some(T::from_json(json, at))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromJson> FromJson for Box<T> {
    const KIND: (&'static str, &'static str) = T::KIND;

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        Self::new(T::from_json(json, at))
    }
}

/// A value read once its meaning is known, or never.
#[derive(Debug, Clone)]
pub struct Raw(pub Json<'static>);

impl Default for Raw {
    fn default() -> Self {
        Self(Json::Null)
    }
}

impl FromJson for Raw {
    const KIND: (&'static str, &'static str) = ("a value", "values");

    fn from_json(json: &Json<'_>, _: &Reader<'_>) -> Self {
        Self(json.clone().into_owned())
    }
}

/// One value, or a list of at least one: an empty list is refused everywhere, since absence already has a meaning.
#[derive(Debug, Clone)]
pub struct List<T> {
    items: Vec<T>,
    /// True when the value was written without a list around it.
    is_single: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), is_single: false }
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T: FromJson> FromJson for List<T> {
    const KIND: (&'static str, &'static str) = T::LIST;
    const LIST: (&'static str, &'static str) = ("a list", "lists");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        match json {
            Json::Array(items) if items.is_empty() => {
                at.unread("expected at least one entry, found an empty list");
                Self::default()
            }
            Json::Array(items) => {
                let read = |(index, item)| T::from_json(item, &at.element(index));
                Self { items: items.iter().enumerate().map(read).collect(), is_single: false }
            }
            Json::Object(_) => Self { items: vec![T::from_json(json, at)], is_single: true },
            other if T::KIND.1 == "objects" => {
                at.expected("a list of objects", other);
                Self::default()
            }
            single => Self { items: vec![T::from_json(single, at)], is_single: true },
        }
    }
}

impl<T> List<T> {
    /// Returns the elements with their places.
    pub fn each<'l>(&'l self, at: &'l Reader<'l>) -> impl Iterator<Item = (Reader<'l>, &'l T)> {
        let place = |index| if self.is_single { *at } else { at.element(index) };
        self.items.iter().enumerate().map(move |(index, item)| (place(index), item))
    }
}

/// The members of an object whose names are the author's, in the order of the text. `$comment` is left out.
#[derive(Debug, Clone)]
pub struct Members<T>(pub Vec<(String, T)>);

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Members<T> {
    type Target = [(String, T)];

    fn deref(&self) -> &[(String, T)] {
        &self.0
    }
}

impl<T: FromJson> FromJson for Members<T> {
    const KIND: (&'static str, &'static str) = ("an object", "objects");

    fn from_json(json: &Json<'_>, at: &Reader<'_>) -> Self {
        let Some(members) = json.members() else {
            at.expected(Self::KIND.0, json);
            return Self::default();
        };
        let members = members.iter().filter(|(name, _)| name != COMMENT);
        Self(members.map(|(name, value)| (name.to_string(), T::from_json(value, &at.member(name)))).collect())
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl<T> Members<T> {
    /// Returns the member with this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// Annotation that any object may have; never read.
pub(super) const COMMENT: &str = "$comment";

/// Annotation of the document itself: the JSON Schema an editor checks it by.
pub(super) const SCHEMA: &str = "$schema";

/// An object of the document whose members are being read.
pub struct Object<'j, 'a> {
    members: &'j [(std::borrow::Cow<'j, str>, Json<'j>)],
    at: &'a Reader<'a>,
    names: &'static [&'static str],
    /// Members that a misspelt one was probably meant to be: they are not missing.
    meant: Vec<&'static str>,
}

impl<'j, 'a> Object<'j, 'a> {
    /// Opens an object and reports members that are not among `names`, unless it `is_open` to others.
    pub fn open(
        json: &'j Json<'j>,
        at: &'a Reader<'a>,
        names: &'static [&'static str],
        is_open: bool,
    ) -> Option<Self> {
        let Some(members) = json.members() else {
            at.expected("an object", json);
            return None;
        };
        let mut object = Self { members, at, names, meant: Vec::new() };
        // Where the author's names are allowed, only the old names of fixed members are checked.
        for (name, value) in members {
            if !is_open || object.is_renamed(name) {
                object.check_member(name, value);
            }
        }
        Some(object)
    }

    fn check_member(&mut self, name: &str, value: &Json<'_>) {
        if name == SCHEMA && self.at.above.is_none() {
            String::from_json(value, &self.at.member(name));
            return;
        }
        if name == COMMENT || self.is_named(name) {
            return;
        }
        let names: Vec<&'static str> = self.names.iter().map(|name| plain(name)).collect();
        let meant = renamed(name).filter(|new| names.contains(new)).or_else(|| nearest(name, &names));
        let is_given = |name: &str| self.members.iter().any(|(given, _)| given == name);
        if let Some(meant) = meant.filter(|meant| !is_given(meant)) {
            // The member is given under a wrong name: nothing follows from its absence.
            self.meant.push(meant);
            self.at.report.hide(self.at.member(meant).path());
        }
        let help = match (meant, moved(name)) {
            (Some(meant), _) => did_you_mean(meant),
            (None, Some(moved)) => moved.to_owned(),
            (None, None) => format!("expected one of `{}`", names.join("`, `")),
        };
        let message = match name.len() {
            ..=32 => format!("unknown member `{name}`"),
            _ => "unknown member".to_owned(),
        };
        let at = self.at.member(name);
        at.report.unknown_member(at.path(), message, Some(help));
    }

    /// Returns whether a name is the old one of a member this object has.
    fn is_renamed(&self, name: &str) -> bool {
        renamed(name).is_some_and(|new| self.is_named(new)) && !self.is_named(name)
    }

    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|known| plain(known) == name)
    }

    /// Reads one member; `default` is its value when it is left out.
    pub fn read<T: FromJson>(&self, name: &'static str, default: Option<T>) -> T {
        let name = plain(name);
        let found = self.members.iter().find(|(known, _)| known == name);
        if let Some((_, value)) = found {
            return T::from_json(value, &self.at.member(name));
        }
        default.or_else(T::absent).unwrap_or_else(|| {
            if !self.meant.contains(&name) {
                let at = self.at.member(name);
                let kind = T::KIND.0.trim_end_matches([',', ' ']);
                at.report.unread(at.path(), format!("missing member `{name}`: {kind}"), None);
            }
            T::default()
        })
    }

    /// Reads the members whose names are the author's.
    pub fn read_rest<T: FromJson>(&self) -> Members<T> {
        let is_rest = |name: &str| name != COMMENT && !self.is_named(name) && !self.is_renamed(name);
        let rest = self.members.iter().filter(|(name, _)| is_rest(name));
        Members(
            rest.map(|(name, value)| (name.to_string(), T::from_json(value, &self.at.member(name))))
                .collect(),
        )
    }
}

/// Strips the mark of a name that is a Rust keyword as well.
fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// Declares an object of the document: its type, how it is read, and its JSON Schema.
///
/// A member with `= value` may be left out; so may one whose type has a value for that ([`FromJson::absent`]).
/// `..name: Type` takes every other member.
macro_rules! document {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $member_doc:literal])+ $member:ident: $type:ty $(= $default:expr)?, )*
            $( ..$rest:ident: $rest_type:ty, )?
        }
    ) => {
        $(#[doc = $doc])*
        pub struct $name {
            $( $(#[doc = $member_doc])+ pub $member: $type, )*
            $(
                /// Members whose names the policy's author chooses.
                pub $rest: $crate::policy::reader::Members<$rest_type>,
            )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $member: $crate::policy::reader::default_or!($($default)?), )*
                    $( $rest: $crate::policy::reader::Members::<$rest_type>::default(), )?
                }
            }
        }

        impl $crate::policy::reader::FromJson for $name {
            const KIND: (&'static str, &'static str) = ("an object", "objects");

            fn from_json(json: &$crate::json::Json<'_>, at: &$crate::policy::reader::Reader<'_>) -> Self {
                const NAMES: &[&str] = &[$(stringify!($member)),*];
                const IS_OPEN: bool = false $(|| !stringify!($rest).is_empty())?;
                let Some(object) = $crate::policy::reader::Object::open(json, at, NAMES, IS_OPEN) else {
                    return Self::default();
                };
                Self {
                    $( $member: object.read(stringify!($member), $crate::policy::reader::some_or_none!($($default)?)), )*
                    $( $rest: object.read_rest::<$rest_type>(), )?
                }
            }
        }

        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $crate::policy::schema_parts::name_of(stringify!($name)).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                use $crate::policy::reader::FromJson;
                #[allow(unused_mut)]
                let mut object = $crate::policy::schema_parts::Object::new(concat!($($doc,)*));
                $(
                    let is_optional = false $(|| { let _: $type = $default; true })? || <$type as FromJson>::absent().is_some();
                    object.member(
                        stringify!($member),
                        concat!($($member_doc,)+),
                        generator.subschema_for::<$type>(),
                        is_optional,
                    );
                )*
                $( object.rest(generator.subschema_for::<$rest_type>()); )?
                object.finish()
            }
        }
    };
}

macro_rules! default_or {
    () => {
        Default::default()
    };
    ($value:expr) => {
        $value
    };
}

macro_rules! some_or_none {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

/// Declares a choice of words. The first is the default.
macro_rules! words {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $( $(#[doc = $word_doc:literal])+ $variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $word_doc])+ $variant, )+ }

        impl $name {
            /// Every word of the language, in its order.
            pub const ALL: &[(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl Default for $name {
            fn default() -> Self {
                let [first, ..] = [$(Self::$variant),+];
                first
            }
        }

        impl $crate::policy::reader::FromJson for $name {
            const KIND: (&'static str, &'static str) =
                (concat!("one of " $(, "`", $word, "`, ")+), "words");

            fn from_json(json: &$crate::json::Json<'_>, at: &$crate::policy::reader::Reader<'_>) -> Self {
                $crate::policy::reader::read_word(json, at, Self::ALL)
            }
        }

        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $crate::policy::schema_parts::name_of(stringify!($name)).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::policy::schema_parts::words(concat!($($doc,)*), &[$(($word, concat!($($word_doc,)+))),+])
            }
        }
    };
}

/// Reads one of several words.
pub fn read_word<T: Copy + Default>(json: &Json<'_>, at: &Reader<'_>, words: &[(&'static str, T)]) -> T {
    let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
    let found = json.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    if let Some((_, value)) = found {
        return *value;
    }
    let meant = json.as_str().and_then(|text| nearest(text, &names));
    let message = match names.as_slice() {
        [only] => format!("expected `{only}`"),
        names => format!("expected one of `{}`", names.join("`, `")),
    };
    at.report.unread(at.path(), message, meant.map(did_you_mean));
    T::default()
}

pub(super) use {default_or, document, some_or_none, words};
