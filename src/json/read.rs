//! Typed reading of a [`Json`] value through serde, stricter than serde_json's own: an array is never read as an object
//! nor `null` as an absent member, and an error holds the path of a value, never its content.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::Json;

/// Mismatch between a value and the expected type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// Path to the value, from the innermost step outwards.
    reversed: Vec<Step>,
    /// Expected type, without the value that was found: it may be a secret in the wrong place.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
}

impl ReadError {
    /// Returns the path of the value below `root`, as in `routes[3].bounds.to`.
    pub fn path_below(&self, root: &str) -> String {
        let mut path = root.to_owned();
        for step in self.reversed.iter().rev() {
            match step {
                Step::Element(index) => path.push_str(&format!("[{index}]")),
                Step::Member(name) if path.is_empty() => path.push_str(name),
                Step::Member(name) => {
                    path.push('.');
                    path.push_str(name);
                }
            }
        }
        path
    }

    fn within(mut self, step: Step) -> Self {
        self.reversed.push(step);
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { reversed: Vec::new(), message: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) | Unexpected::Char(_) => "a string",
            Unexpected::Unit | Unexpected::Option => "null",
            Unexpected::Seq => "an array",
            Unexpected::Map => "an object",
            _ => "another value",
        };
        Self::custom(format_args!("expected {expected}, found {found}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        let names: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
        Self::custom(format_args!("expected one of {}", names.join(", ")))
    }
}

impl Json<'_> {
    /// Reads a value of a type.
    ///
    /// # Errors
    ///
    /// [`ReadError`] with the path of the first mismatch.
    pub fn read<'j, T: Deserialize<'j>>(&'j self) -> Result<T, ReadError> {
        T::deserialize(Reader(self))
    }
}

struct Reader<'j>(&'j Json<'j>);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Unsigned(value) => visitor.visit_u64(*value),
            Json::OtherNumber(number) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => visitor.visit_borrowed_str(text),
            Json::Array(items) => visitor.visit_seq(Elements { items: items.iter(), index: 0 }),
            Json::Object(members) => visitor.visit_map(Members { members: members.iter(), value: None }),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Object(members) => visitor.visit_map(Members { members: members.iter(), value: None }),
            other => Err(ReadError::invalid_type(unexpected(other), &"an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::String(name) => visitor.visit_enum(Variant { name, value: None }),
            Json::Object(members) => match members.as_slice() {
                [(name, value)] => visitor.visit_enum(Variant { name, value: Some(value) }),
                _ => Err(ReadError::unknown_variant("", names)),
            },
            _ => Err(ReadError::unknown_variant("", names)),
        }
    }

    /// A present member has a value: `null` is not absence.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier
    }
}

fn unexpected<'j>(json: &Json<'_>) -> Unexpected<'j> {
    match json {
        Json::Null => Unexpected::Unit,
        Json::Bool(value) => Unexpected::Bool(*value),
        Json::Unsigned(_) | Json::OtherNumber(_) => Unexpected::Unsigned(0),
        Json::String(_) => Unexpected::Str(""),
        Json::Array(_) => Unexpected::Seq,
        Json::Object(_) => Unexpected::Map,
    }
}

struct Elements<'j> {
    items: std::slice::Iter<'j, Json<'j>>,
    index: usize,
}

impl<'j> SeqAccess<'j> for Elements<'j> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'j>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Reader(item)).map(Some).map_err(|error| error.within(Step::Element(index)))
    }
}

struct Members<'j> {
    members: std::slice::Iter<'j, (std::borrow::Cow<'j, str>, Json<'j>)>,
    value: Option<(&'j str, &'j Json<'j>)>,
}

impl<'j> MapAccess<'j> for Members<'j> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'j>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
        self.value = Some((name, value));
        let name: StrDeserializer<'_, ReadError> = name.as_ref().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'j>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (name, value) = self.value.take().ok_or_else(|| ReadError::custom("a value without a name"))?;
        seed.deserialize(Reader(value)).map_err(|error| error.within(Step::Member(name.to_owned())))
    }
}

/// A variant by its name alone, or as the one member of an object.
struct Variant<'j> {
    name: &'j str,
    value: Option<&'j Json<'j>>,
}

impl<'j> EnumAccess<'j> for Variant<'j> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'j>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let name: StrDeserializer<'_, ReadError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'j> VariantAccess<'j> for Variant<'j> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(ReadError::custom("expected a name, found an object")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'j>>(self, seed: T) -> Result<T::Value, ReadError> {
        let name = self.name;
        let value =
            self.value.ok_or_else(|| ReadError::custom(format_args!("expected {{\"{name}\": …}}")))?;
        seed.deserialize(Reader(value)).map_err(|error| error.within(Step::Member(name.to_owned())))
    }

    fn tuple_variant<V: Visitor<'j>>(self, _: usize, _: V) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("no such variant"))
    }

    fn struct_variant<V: Visitor<'j>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("no such variant"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Outer {
        list: Vec<Inner>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Inner {
        a: u64,
        b: Option<Vec<String>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    #[expect(dead_code, reason = "only read by serde")]
    enum Kind {
        Plain,
        Env(String),
    }

    #[test]
    fn mismatch_is_reported_with_path_and_expected_type_only() {
        for (text, path, message) in [
            (r#"{"list": [{"a": 1}, {"a": "hunter2"}]}"#, "p.list[1].a", "expected u64, found a string"),
            (r#"{"list": [{"a": 1, "x": 2}]}"#, "p.list[0]", "unknown field `x`, expected `a` or `b`"),
            (r#"{"list": [{}]}"#, "p.list[0]", "missing field `a`"),
            (r#"{"list": [[1, ["x"]]]}"#, "p.list[0]", "expected an object, found an array"),
            (r#"{"list": [{"a": 1.0}]}"#, "p.list[0].a", "expected u64, found a number"),
            (r#"{"list": {}}"#, "p.list", "expected a sequence, found an object"),
            (r#"{"list": [], "kind": "hunter2"}"#, "p.kind", "expected one of `plain`, `env`"),
            (r#"{"list": [{"a": 1, "b": null}]}"#, "p.list[0].b", "expected a sequence, found null"),
            (r#"{"list": [], "kind": {"env": 1}}"#, "p.kind.env", "expected a string, found a number"),
        ] {
            let json = Json::parse(text.as_bytes()).unwrap();
            let error = json.read::<Outer>().unwrap_err();
            assert_eq!((error.path_below("p").as_str(), error.message.as_str()), (path, message), "{text}");
        }
    }
}
