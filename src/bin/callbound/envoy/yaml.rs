//! Envoy's YAML and JSON: members read by name, with their path, and text written so that it reads back unchanged.

use serde_yaml_ng::Value;

/// Value in a configuration together with its path.
#[derive(Clone)]
pub(super) struct Node<'a> {
    /// Path from the top, such as `static_resources.listeners[0]`; empty for the whole document.
    pub(super) path: String,
    /// Value at that path.
    pub(super) value: &'a Value,
}

impl<'a> Node<'a> {
    /// Returns the whole document.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    /// Returns a member by its name in snake or camel case, as Envoy reads both.
    pub(super) fn get(&self, snake: &str) -> Option<Self> {
        let Value::Mapping(members) = self.value else { return None };
        let (name, value) =
            members.iter().find(|(name, _)| name.as_str().is_some_and(|name| is(name, snake)))?;
        Some(self.member(name.as_str()?, value))
    }

    /// Returns a text member, by its name in snake or camel case.
    pub(super) fn text(&self, snake: &str) -> Option<&'a str> {
        self.get(snake)?.value.as_str()
    }

    /// Reads a boolean member, also one written as a string; absent is false.
    pub(super) fn flag(&self, snake: &str) -> bool {
        match self.get(snake).map(|member| member.value) {
            Some(Value::Bool(on)) => *on,
            Some(Value::String(word)) => word == "true",
            _ => false,
        }
    }

    /// Returns the members of a mapping with their names as written; no members of any other value.
    pub(super) fn members(&self) -> Vec<(&'a str, Self)> {
        let Value::Mapping(members) = self.value else { return Vec::new() };
        let named = members.iter().map(|(name, value)| (name.as_str().unwrap_or("?"), value));
        named.map(|(name, value)| (name, self.member(name, value))).collect()
    }

    /// Returns the items of a list; no items of any other value.
    pub(super) fn items(&self) -> Vec<Self> {
        let Value::Sequence(items) = self.value else { return Vec::new() };
        let item = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
        items.iter().enumerate().map(item).collect()
    }

    /// Returns the items of a list member, by its name in snake or camel case.
    pub(super) fn list(&self, snake: &str) -> Vec<Self> {
        self.get(snake).map(|list| list.items()).unwrap_or_default()
    }

    /// Returns the `@type` of a protobuf message; empty where there is none.
    pub(super) fn message_type(&self) -> &'a str {
        self.text("@type").unwrap_or_default()
    }

    /// Compares an enum's value with these names and numbers.
    pub(super) fn is_one_of(&self, known: &[(&str, u64)]) -> bool {
        let value = self.value;
        known.iter().any(|(name, number)| value.as_str() == Some(*name) || value.as_u64() == Some(*number))
    }

    fn member(&self, name: &str, value: &'a Value) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, value }
    }
}

/// Compares a member's name with one in snake case, which may be written in camel case.
pub(super) fn is(name: &str, snake: &str) -> bool {
    name == snake || name == camel_case(snake)
}

/// Converts a name in snake case, as `route_config` to `routeConfig`.
pub(super) fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

/// Writes `text` as a double-quoted scalar that reads back as exactly `text`. JSON's escapes are YAML's too; characters
/// that YAML versions treat as line breaks or as a byte order mark are escaped as well.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out
}

/// Writes `text` as [`quoted`] does, without the quotes: the templates keep theirs, to stay readable.
pub(super) fn unquoted(text: &str) -> String {
    let whole = quoted(text);
    let body = whole.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    body.unwrap_or_default().to_owned()
}

/// Fills in a template's `{{NAME}}` in one pass, so that a value that looks like a placeholder stays as it is.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, tail) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            out.push_str(value);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
