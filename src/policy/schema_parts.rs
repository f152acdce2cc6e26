//! Pieces of the JSON Schema that the declarations of the document are described with.

use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

/// Further names of a template, for the JSON Schema.
#[derive(Clone, Copy)]
pub enum Others {
    /// No further names.
    None,
    /// Names of text bounds.
    Bounds,
    /// Names of text bounds, and `constants.NAME`.
    BoundsAndConstants,
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
