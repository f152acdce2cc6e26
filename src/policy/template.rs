//! Answers as data: a JSON value in which a string that is exactly `$name` stands for a value of the request.
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
    pub(super) fn compile(json: Json<'static>, names: &[&str]) -> Result<Self, String> {
        check(&json, names, 0)?;
        Ok(Self(json))
    }

    /// Writes the template with its placeholders replaced; a member or element whose value is `None` is left out.
    pub fn render<'a>(&'a self, value_of: &dyn Fn(&str) -> Option<Json<'a>>) -> Vec<u8> {
        let json = fill(&self.0, value_of).unwrap_or(Json::Null);
        serde_json::to_vec(&json).unwrap_or_default()
    }
}

fn check(json: &Json<'_>, names: &[&str], depth: usize) -> Result<(), String> {
    if depth > 16 {
        return Err("nested deeper than 16 levels".into());
    }
    match json {
        Json::OtherNumber => Err("only whole numbers of 0 and above can stand in an answer".into()),
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
        Json::Object(members) => Some(Json::Object(
            members
                .iter()
                .filter_map(|(name, value)| Some((name.as_ref().into(), fill(value, value_of)?)))
                .collect(),
        )),
        Json::Null => Some(Json::Null),
        Json::Bool(value) => Some(Json::Bool(*value)),
        Json::Unsigned(value) => Some(Json::Unsigned(*value)),
        Json::OtherNumber => Some(Json::OtherNumber),
    }
}
