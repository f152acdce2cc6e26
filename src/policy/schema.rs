//! JSON Schema of the policy document (draft 2020-12), from the types that read it; for editors, never in the module.
//!
//! The schema has members, types and words. Cross-references and ranges are the compiler's.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::bounds::{BoundDocument, FieldsDocument};
use super::document::{PolicyDocument, Version};
use super::fields::FieldDocument;
use super::limits::Per;
use super::reader::{COMMENT, List, Members, Raw, SCHEMA};
use super::refusals::{ByReason, ByStatus, ReasonDocument};
use super::teams::{NumberDocument, NumberObject};
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
    if let Some(bounds) = schema.as_object_mut().and_then(|schema| schema.get_mut("$defs")?.get_mut("Bounds"))
    {
        bounds["dependentRequired"] = json!({"from": ["to"], "to": ["from"]});
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
