//! Replies as data: a JSON value in which a text that is exactly `$name` is replaced by a value of the request.
//!
//! A member without a value is left out, and so is an object that is left with no member. Each kind of reply has its own
//! names.

use super::reader::{Members, Raw, Reader};
use super::suggest::{nearest, renamed};
use crate::json::Json;

/// Declares a member of the document that is a template, with its names for the JSON Schema.
macro_rules! template_document {
    ($(#[doc = $doc:literal])+ $name:ident, $names:expr, $others:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub struct $name(pub $crate::json::Json<'static>);

        impl $name {
            /// Values of the template, without those that a policy names itself.
            pub const NAMES: &[&str] = $names;
        }

        impl Default for $name {
            fn default() -> Self {
                Self($crate::json::Json::Null)
            }
        }

        impl $crate::policy::reader::FromJson for $name {
            const KIND: (&'static str, &'static str) = ("a template", "templates");

            fn from_json(json: &$crate::json::Json<'_>, _: &$crate::policy::reader::Reader<'_>) -> Self {
                Self(json.clone().into_owned())
            }
        }

        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let itself = generator.subschema_for::<Self>();
                $crate::policy::schema_parts::template(itself, concat!($($doc,)+), Self::NAMES, $others)
            }
        }
    };
}

pub(super) use template_document;

/// A JSON value with placeholders.
#[derive(Debug, Clone)]
pub struct Template(Json<'static>);

impl Template {
    /// Checks that every placeholder is one of `names`, and that nothing is nested deeper than 16 levels.
    pub(super) fn compile<N: AsRef<str>>(json: Raw, names: &[N], at: &Reader<'_>) -> Option<Self> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        check(&json.0, &names, 0, at).then_some(Self(json.0))
    }

    /// Writes the template with its placeholders replaced.
    pub fn render<'a>(&'a self, value_of: &dyn Fn(&str) -> Option<Json<'a>>) -> Vec<u8> {
        serde_json::to_vec(&self.fill(value_of)).unwrap_or_default()
    }

    /// Returns the template with its placeholders replaced.
    pub fn fill<'a>(&'a self, value_of: &dyn Fn(&str) -> Option<Json<'a>>) -> Json<'a> {
        fill(&self.0, value_of).unwrap_or_else(|| Json::Object(Vec::new()))
    }
}

fn check(json: &Json<'_>, names: &[&str], depth: usize, at: &Reader<'_>) -> bool {
    if depth > 16 {
        at.refuse("nested deeper than 16 levels");
        return false;
    }
    match json {
        Json::String(text) => text.strip_prefix('$').is_none_or(|name| check_name(name, names, at)),
        Json::Array(items) => {
            let mut items = items.iter().enumerate();
            items.all(|(index, item)| check(item, names, depth + 1, &at.element(index)))
        }
        Json::Object(members) => {
            members.iter().all(|(name, value)| check(value, names, depth + 1, &at.member(name)))
        }
        _ => true,
    }
}

fn check_name(name: &str, names: &[&str], at: &Reader<'_>) -> bool {
    let is_known = names.contains(&name);
    if !is_known {
        let meant = renamed(name).filter(|new| names.contains(new)).or_else(|| nearest(name, names));
        let list = || names.iter().map(|name| format!("`${name}`")).collect::<Vec<_>>().join(", ");
        let help = meant
            .map_or_else(|| format!("expected one of {}", list()), |name| format!("did you mean `${name}`?"));
        at.refuse_with(format!("`${name}` is not a value of this reply"), help);
    }
    is_known
}

/// Replaces the constants that a reply names, as in `$constants.domain`: a deployment sets them without repeating the
/// routes.
pub(super) fn with_constants(json: Json<'static>, constants: &Members<Raw>) -> Json<'static> {
    match json {
        Json::String(text) => {
            let named = text.strip_prefix("$constants.").and_then(|name| constants.get(name));
            named.map_or(Json::String(text), |Raw(value)| value.clone())
        }
        Json::Array(items) => {
            Json::Array(items.into_iter().map(|item| with_constants(item, constants)).collect())
        }
        Json::Object(members) => Json::Object(
            members.into_iter().map(|(name, value)| (name, with_constants(value, constants))).collect(),
        ),
        other => other,
    }
}

/// Returns whether a reply names a constant.
pub(super) fn uses_constant(json: &Json<'_>, constant: &str) -> bool {
    match json {
        Json::String(text) => text.strip_prefix("$constants.") == Some(constant),
        Json::Array(items) => items.iter().any(|item| uses_constant(item, constant)),
        Json::Object(members) => members.iter().any(|(_, value)| uses_constant(value, constant)),
        _ => false,
    }
}

fn fill<'a>(json: &'a Json<'static>, value_of: &dyn Fn(&str) -> Option<Json<'a>>) -> Option<Json<'a>> {
    match json {
        Json::String(text) => match text.strip_prefix('$') {
            Some(name) => value_of(name),
            None => Some(Json::from(text.as_ref())),
        },
        Json::Array(items) => {
            Some(Json::Array(items.iter().filter_map(|item| fill(item, value_of)).collect()))
        }
        Json::Object(members) => {
            let filled = members
                .iter()
                .filter_map(|(name, value)| Some((name.as_ref().into(), fill(value, value_of)?)));
            let filled: Vec<_> = filled.collect();
            (members.is_empty() || !filled.is_empty()).then_some(Json::Object(filled))
        }
        Json::Null => Some(Json::Null),
        Json::Bool(value) => Some(Json::Bool(*value)),
        Json::Unsigned(value) => Some(Json::Unsigned(*value)),
        Json::OtherNumber(number) => Some(Json::OtherNumber(number.clone())),
    }
}
