//! Answers as data: a JSON value in which a string that is exactly `$name` stands for a value of the request. A member
//! whose value there is none of is left out, and so is an object of which nothing is left.
//!
//! Refuses to know the names: whoever compiles a template says which there are.

use crate::json::Json;

/// A JSON value with placeholders.
#[derive(Debug)]
pub struct Template(Json<'static>);

impl Template {
    /// Checks that every placeholder is one of `names`.
    ///
    /// # Errors
    ///
    /// The first placeholder that is not, or an object or array nested deeper than 16 levels.
    pub(super) fn compile<N: AsRef<str>>(json: Json<'static>, names: &[N]) -> Result<Self, String> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        check(&json, &names, 0)?;
        Ok(Self(json))
    }

    /// Writes the template with its placeholders replaced.
    pub fn render<'a>(&'a self, value_of: &dyn Fn(&str) -> Option<Json<'a>>) -> Vec<u8> {
        serde_json::to_vec(&self.fill(value_of)).unwrap_or_default()
    }

    /// The template with its placeholders replaced.
    pub fn fill<'a>(&'a self, value_of: &dyn Fn(&str) -> Option<Json<'a>>) -> Json<'a> {
        fill(&self.0, value_of).unwrap_or_else(|| Json::Object(Vec::new()))
    }
}

fn check(json: &Json<'_>, names: &[&str], depth: usize) -> Result<(), String> {
    if depth > 16 {
        return Err("nested deeper than 16 levels".into());
    }
    match json {
        Json::String(text) => match text.strip_prefix('$') {
            Some(name) if !names.contains(&name) => {
                let known: Vec<_> = names.iter().map(|name| format!("`${name}`")).collect();
                Err(format!("`${name}` is no value of this answer; there are {}", known.join(", ")))
            }
            _ => Ok(()),
        },
        Json::Array(items) => items.iter().try_for_each(|item| check(item, names, depth + 1)),
        Json::Object(members) => members.iter().try_for_each(|(_, value)| check(value, names, depth + 1)),
        _ => Ok(()),
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
