//! Strict JSON: the texts of serde_json, minus everything two readers could read differently.
//!
//! A duplicate member is refused at any depth: RFC 8259 section 4 leaves the choice to the reader, and gateways and
//! upstreams choose differently. Strings borrow from the text where they can.

pub mod locate;
mod read;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Number;

pub use read::ReadError;

/// A JSON value whose objects hold each member once, in the order of the text.
#[derive(Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`; never the same as an absent member.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Unsigned(u64),
    /// Any other number; no decision depends on its value.
    OtherNumber(Number),
    /// A string, borrowed unless it was escaped.
    String(Cow<'a, str>),
    /// Elements of an array.
    Array(Vec<Json<'a>>),
    /// Members of an object.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Reason for refusing a text, and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// Fault that was found.
    pub fault: Fault,
    /// Line, counted from 1; for a duplicate member that of the object's end.
    pub line: usize,
    /// Column, counted from 1 in bytes.
    pub column: usize,
}

/// Faults of a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not one well-formed JSON text in UTF-8.
    Malformed,
    /// Two members of one object have one name.
    DuplicateMember,
    /// More values than [`Limits::values`].
    TooManyValues,
    /// Name that lets a JavaScript reader that merges objects change the object itself, or with a control character, at
    /// which some readers end a name.
    OddName,
}

/// Limits of one reading.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most values that are kept.
    pub values: usize,
    /// Treatment of arrays.
    pub arrays: Arrays,
    /// True when members named `__proto__`, `prototype` and `constructor`, and names with control characters, are accepted.
    pub odd_names: bool,
}

impl Limits {
    const NONE: Self = Self { values: usize::MAX, arrays: Arrays::Kept, odd_names: true };
}

/// Treatment of arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrays {
    /// Elements are kept.
    Kept,
    /// Elements are checked and dropped, for a reader that looks into no array.
    Emptied,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            Fault::Malformed => "not one well-formed JSON value",
            Fault::DuplicateMember => "a member occurs twice in one object",
            Fault::TooManyValues => "too many values",
            Fault::OddName => "a member has a name that changes objects, or a control character in it",
        };
        write!(f, "{what}, at line {} column {}", self.line, self.column)
    }
}

impl std::error::Error for JsonError {}

/// Marks of this reader's faults: an error of serde is a text.
const DUPLICATE: &str = "duplicate member";
const TOO_MANY: &str = "too many values";
const ODD_NAME: &str = "odd member name";

impl<'a> Json<'a> {
    /// Reads one JSON text.
    ///
    /// # Errors
    ///
    /// [`JsonError`] for anything but exactly one value with unique members and at most 128 levels.
    pub fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        Self::parse_within(text, Limits::NONE)
    }

    /// Reads one JSON text within limits, which bound the memory.
    ///
    /// # Errors
    ///
    /// As [`Json::parse`], and [`Fault::TooManyValues`] and [`Fault::OddName`].
    pub fn parse_within(text: &'a [u8], limits: Limits) -> Result<Self, JsonError> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let json = Seed { left: &Cell::new(limits.values), limits }.deserialize(&mut deserializer);
        json.and_then(|json| deserializer.end().map(|()| json)).map_err(|error| JsonError {
            fault: match error.to_string() {
                text if text.starts_with(DUPLICATE) => Fault::DuplicateMember,
                text if text.starts_with(TOO_MANY) => Fault::TooManyValues,
                text if text.starts_with(ODD_NAME) => Fault::OddName,
                _ => Fault::Malformed,
            },
            line: error.line(),
            column: error.column(),
        })
    }

    /// Returns the members of an object; `None` for another value.
    pub fn members(&self) -> Option<&[(Cow<'a, str>, Json<'a>)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Returns the member `name` of an object; `None` for another value.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.members()?.iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns the text of a string; `None` for another value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Copies all borrowed strings.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Unsigned(value) => Json::Unsigned(value),
            Self::OtherNumber(number) => Json::OtherNumber(number),
            Self::String(text) => Json::String(Cow::Owned(text.into_owned())),
            Self::Array(items) => Json::Array(items.into_iter().map(Json::into_owned).collect()),
            Self::Object(members) => Json::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned()))
                    .collect(),
            ),
        }
    }
}

impl From<u64> for Json<'_> {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl<'a> From<&'a str> for Json<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Cow::Borrowed(text))
    }
}

/// Writes the type of the value, never its content: values come from clients and from documents with secrets.
impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Unsigned(_) | Self::OtherNumber(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        })
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::OtherNumber(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limits = Limits::NONE;
        Seed { left: &Cell::new(limits.values), limits }.deserialize(deserializer)
    }
}

/// Reader of one value, which counts it.
#[derive(Clone, Copy)]
struct Seed<'c> {
    left: &'c Cell<usize>,
    limits: Limits,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| de::Error::custom(TOO_MANY))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(value).map_or_else(|_| Json::OtherNumber(value.into()), Json::Unsigned))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Number::from_f64(value).map(Json::OtherNumber).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        let left = self.left.get();
        while let Some(item) = seq.next_element_seed(self)? {
            match self.limits.arrays {
                Arrays::Kept => items.push(item),
                Arrays::Emptied => self.left.set(left),
            }
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            let is_prototype = matches!(name.as_ref(), "__proto__" | "prototype" | "constructor");
            if (is_prototype || name.contains(char::is_control)) && !self.limits.odd_names {
                return Err(de::Error::custom(ODD_NAME));
            }
            members.push((name, map.next_value_seed(self)?));
        }
        if has_duplicate(&members) {
            return Err(de::Error::custom(DUPLICATE));
        }
        Ok(Json::Object(members))
    }
}

/// Sorts the names, so that thousands of members cost n log n, not n².
fn has_duplicate(members: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names.iter().zip(names.iter().skip(1)).any(|(one, next)| one == next)
}

/// A string that borrows when it can; serde's own `Cow` always copies.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> Option<Fault> {
        Json::parse(text).err().map(|error| error.fault)
    }

    #[test]
    fn duplicate_member_at_any_depth_is_refused() {
        for text in [r#"{"to":"a","to":"b"}"#, r#"{"to":"a","\u0074o":"b"}"#, r#"{"x":[{"y":1,"y":1}]}"#] {
            assert_eq!(fault(text.as_bytes()), Some(Fault::DuplicateMember), "{text}");
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "{} {}", "\u{feff}{}", "{\"a\":\"\\ud800\"}", "[1,]", "NaN"] {
            assert_eq!(fault(text.as_bytes()), Some(Fault::Malformed), "{text}");
        }
        assert_eq!(fault(b"{\"a\":\"\xff\"}"), Some(Fault::Malformed));
        let deep = "[".repeat(20_000);
        assert_eq!(fault(deep.as_bytes()), Some(Fault::Malformed));
    }

    #[test]
    fn text_is_written_back_as_read() {
        let text = r#"{"b":[1,null,true],"a":{"x":"y\n"}}"#;
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
    }
}
