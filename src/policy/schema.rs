//! JSON Schema of the policy document (draft 2020-12), from the types that read it; for editors, never in the module.
//!
//! The schema has members, types and words. Cross-references and ranges are the compiler's.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::bounds::{BoundDocument, FieldsDocument};
use super::document::{PolicyDocument, Version};
use super::fields::FieldDocument;
use super::limits::Per;
use super::reader::{COMMENT, List, Members, Raw, SCHEMA};
use super::refusals::{ByReason, ByStatus, ReasonDocument};
use super::teams::{NumberDocument, NumberObject};
use super::template::Others;
use crate::reason::Reason;

/// Returns the schema of a policy document.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null));
    let settings = settings.with_transform(RecursiveTransform(with_comment));
    let mut schema = settings.into_generator().into_root_schema_for::<PolicyDocument>();
    schema.insert("title".into(), "callbound policy".into());
    schema.insert("$id".into(), "urn:callbound:policy:1".into());
    if let Some(Value::Object(members)) = schema.get_mut("properties") {
        members.insert(
            SCHEMA.into(),
            json!({"type": "string", "description": "Schema an editor checks the document by."}),
        );
    }
    schema.to_value()
}

/// Removes `null`: an optional member may be absent, and has a value when it is there.
fn without_null(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({"type": "null"}));
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let only = std::mem::take(only);
            members.remove("anyOf");
            members.extend(only);
        }
    }
}

/// Allows `$comment` in every object of named members.
fn with_comment(schema: &mut Schema) {
    if let Some(Value::Object(members)) = schema.get_mut("properties") {
        members.entry(COMMENT).or_insert_with(|| json!({"description": "Any text; not read."}));
    }
}

/// Returns the name of a type in the schema.
pub fn name_of(name: &str) -> String {
    name.trim_end_matches("Document").trim_end_matches("Word").to_owned()
}

/// Schema of an object while its members are added.
pub struct Object {
    description: String,
    members: Map<String, Value>,
    required: Vec<Value>,
    rest: Value,
}

impl Object {
    /// Starts an object without members.
    pub fn new(doc: &str) -> Self {
        let (members, required, rest) = (Map::new(), Vec::new(), Value::Bool(false));
        Self { description: sentence(doc), members, required, rest }
    }

    /// Adds a member.
    pub fn member(&mut self, name: &str, doc: &str, schema: Schema, is_optional: bool) {
        let name = name.strip_prefix("r#").unwrap_or(name);
        let mut schema = schema;
        schema.insert("description".into(), sentence(doc).into());
        self.members.insert(name.to_owned(), schema.to_value());
        if !is_optional {
            self.required.push(name.into());
        }
    }

    /// Allows other members.
    pub fn rest(&mut self, schema: Schema) {
        self.rest = schema.to_value();
    }

    /// Returns the schema.
    pub fn finish(self) -> Schema {
        let Self { description, members, required, rest } = self;
        let mut schema = json_schema!({
            "type": "object",
            "description": description,
            "properties": members,
            "additionalProperties": rest
        });
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        schema
    }
}

/// Joins the lines of a doc comment.
fn sentence(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the schema of a choice of words, each with its meaning.
pub fn words(doc: &str, words: &[(&str, &str)]) -> Schema {
    let choices: Vec<Value> =
        words.iter().map(|(word, doc)| json!({"const": word, "description": sentence(doc)})).collect();
    json_schema!({"description": sentence(doc), "oneOf": choices})
}

/// Value that every platform names itself: of a text bound, or a constant.
const BOUND: &str = "^\\$[A-Za-z0-9_-]+$";
const BOUND_OR_CONSTANT: &str = "^\\$([A-Za-z0-9_-]+|constants\\..+)$";

/// Returns the schema of a reply as data: a text that begins with `$` is one of these values.
pub fn template(itself: Schema, doc: &str, names: &[&str], others: Others) -> Schema {
    let names: Vec<String> = names.iter().map(|name| format!("${name}")).collect();
    let value = match others {
        Others::None => json!({"enum": names}),
        Others::Bounds => json!({"anyOf": [{"enum": names}, {"pattern": BOUND}]}),
        Others::BoundsAndConstants => json!({"anyOf": [{"enum": names}, {"pattern": BOUND_OR_CONSTANT}]}),
    };
    json_schema!({
        "description": sentence(doc),
        "if": {"type": "string", "pattern": "^\\$"},
        "then": value,
        "items": itself,
        "additionalProperties": itself
    })
}

/// Describes a type in place, wherever it is used.
macro_rules! in_place {
    ($($type:ty, $name:literal, $generator:ident => $schema:expr;)+) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )+};
}

/// One field of a request.
const FIELD: &str = "^(/|query:|header:|path:)";

in_place! {
    Raw, "Raw", _generator => true.into();
    Version, "Version", _generator => json_schema!({"const": 1});
    Per, "Per", _generator => json_schema!({"enum": Per::ALL.map(|(word, _)| word)});
    FieldDocument, "Field", _generator => json_schema!({"anyOf": [
        {"type": "string", "pattern": FIELD},
        {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Parameter of the path."},
                "query": {"type": "string", "description": "Parameter of the query."},
                "header": {"type": "string", "description": "Header, in lower case."},
                "body": {"type": "string", "description": "JSON pointer into the body."}
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false
        }
    ]});
    BoundDocument, "Bound", generator => json_schema!({"anyOf": [
        {"enum": ["any", "unreadable"]},
        generator.subschema_for::<List<FieldDocument>>(),
        generator.subschema_for::<FieldsDocument>()
    ]});
    ByReason, "ByReason", generator => {
        let reasons = Reason::ALL.iter().map(|reason| reason.as_str()).chain([COMMENT]);
        let names = json!({"enum": reasons.collect::<Vec<_>>()});
        named_members(generator.subschema_for::<ReasonDocument>(), &names)
    };
    NumberDocument, "Number", generator => json_schema!({"anyOf": [
        {"type": "string"},
        generator.subschema_for::<NumberObject>()
    ]});
}

impl<T: JsonSchema> JsonSchema for ByStatus<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ByStatus_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        named_members(generator.subschema_for::<T>(), &json!({"pattern": "^([45][0-9][0-9]|\\$comment)$"}))
    }
}

/// Returns the schema of an object whose members have names of their own.
fn named_members(member: Schema, names: &Value) -> Schema {
    json_schema!({"type": "object", "properties": {}, "propertyNames": names, "additionalProperties": member})
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})
    }
}

impl<T: JsonSchema> JsonSchema for Members<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Members_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let member = generator.subschema_for::<T>();
        json_schema!({"type": "object", "properties": {}, "additionalProperties": member})
    }
}
