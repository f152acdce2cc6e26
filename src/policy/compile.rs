//! From the document to a [`Policy`]: one pass, every problem collected, nothing half-applied.
//!
//! Refuses to know where the text and the secrets come from: both are arguments.

mod identity;
mod keyring;
mod path;
mod platform;
mod routes;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::config::{Document, Host, UnmatchedConfig};
use super::error::{ConfigError, Problem, Problems};
use super::{Policy, Unmatched};
use crate::number::Number;

/// How the compiler comes to the secrets a policy refers to.
pub enum Secrets<'a> {
    /// Looks an environment variable up.
    Lookup(&'a dyn Fn(&str) -> Option<String>),
    /// Leaves them out: the policy is checked but can neither mint nor verify with them.
    Unchecked,
}

/// Compiles a policy document.
///
/// # Errors
///
/// [`ConfigError`] with everything that is wrong, in the order of the sections.
pub fn compile(text: &[u8], secrets: &Secrets<'_>) -> Result<Policy, ConfigError> {
    let document: Document<'_> = serde_json::from_slice(text).map_err(|error| document_error(&error))?;
    let mut problems = Problems::default();
    if document.version != 1 {
        problems.add("version", "expected 1");
    }
    let mut warnings = Vec::new();
    let host: Option<Host> = optional(document.host, "host", &mut problems);
    if host.is_none() {
        problems.add("host", "missing; name the gateway: `envoy`");
    }
    let platform = platform::platform(&document, &mut problems);
    let credentials = platform::credentials(&document, &mut problems);
    let families = keyring::families(&document, secrets, &mut problems, &mut warnings);
    let mut parties = identity::parties(&document, &platform, &mut problems);
    let keys = identity::api_keys(&document, &parties, &platform, &mut problems);
    let routes = routes::routes(&document, &families, &platform, &mut problems);
    let refusals = platform::refusals(&document, &mut problems);
    let prefixes = platform::prefixes(&credentials, &families, &mut problems);
    let hold_seconds = platform::hold_seconds(&document, &mut problems);
    let unmatched = optional(document.unmatched, "unmatched", &mut problems);
    if keys.by_digest.is_empty() {
        warnings.push("api_keys: there are none, so every protected route refuses everybody".into());
    }
    problems.into_result()?;
    let missing =
        || ConfigError { problems: vec![Problem { path: String::new(), message: "incomplete".into() }] };
    let (credentials, refusals) = (credentials.ok_or_else(missing)?, refusals.ok_or_else(missing)?);
    Ok(Policy {
        carriers: credentials.carriers,
        prefixes,
        key_shapes: credentials.shapes,
        forward_credential: credentials.forward,
        families: families.into_iter().map(|family| family.family).collect(),
        keys: keys.by_digest,
        key_ids: keys.by_id,
        tree: parties.take_tree(),
        platform,
        vocabulary: routes.vocabulary,
        routes: routes.routes,
        unmatched: match unmatched {
            Some(UnmatchedConfig::Pass) => Unmatched::Pass,
            Some(UnmatchedConfig::Deny) | None => Unmatched::Deny,
        },
        refusals,
        hold_seconds,
        warnings,
    })
}

/// Says where a text stops being a document; serde_json's own words name members and positions, never values of ours:
/// at this level every value is still unread text.
fn document_error(error: &serde_json::Error) -> ConfigError {
    let message = match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        _ => format!("not JSON at line {} column {}", error.line(), error.column()),
    };
    ConfigError { problems: vec![Problem { path: String::new(), message }] }
}

/// Reads one section; a problem is noted under its full path.
fn section<'de, T: Deserialize<'de>>(raw: &'de RawValue, path: &str, problems: &mut Problems) -> Option<T> {
    match serde_json::from_str(raw.get()) {
        Ok(value) => Some(value),
        Err(error) => {
            note(&error, raw.get(), path, problems);
            None
        }
    }
}

fn note(error: &serde_json::Error, text: &str, path: &str, problems: &mut Problems) {
    let inner = path::path_at(text, error.line(), error.column());
    let dot = if inner.is_empty() || inner.starts_with('[') { "" } else { "." };
    problems.add(format!("{path}{dot}{inner}"), value_free(error));
}

fn optional<'de, T: Deserialize<'de>>(
    raw: Option<&'de RawValue>,
    path: &str,
    problems: &mut Problems,
) -> Option<T> {
    section(raw?, path, problems)
}

/// Cuts the value out of serde's words (``invalid type: string "hunter2", expected u64``): it may be a secret that
/// stands in the wrong place.
fn value_free(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some(rest) = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: ")) {
        let kind = rest.split([' ', ',']).next().unwrap_or("value");
        let expected = rest.rsplit_once(", expected ").map_or("another value", |(_, expected)| expected);
        return format!("expected {expected}, found {kind}");
    }
    text.to_owned()
}

/// Reads a list of numbers into sorted order; an empty list is an error, since absence already means "any".
fn number_list(list: Option<&Vec<String>>, path: &str, problems: &mut Problems) -> Option<Vec<Number>> {
    let list = list?;
    if list.is_empty() {
        problems.add(
            path,
            "an empty list allows nothing; leave it out to allow whatever the next wider level does",
        );
    }
    let mut numbers = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match Number::parse(text) {
            Some(number) if number.is_emergency() => {
                problems.add(format!("{path}[{index}]"), "an emergency number can never be allowed");
            }
            Some(number) => numbers.push(number),
            None => problems.add(format!("{path}[{index}]"), "not a number in E.164, as in `+15551234567`"),
        }
    }
    numbers.sort_unstable();
    Some(numbers)
}

/// Ids go into headers and logs: visible ASCII without separators.
fn check_id(id: &str, path: &str, problems: &mut Problems) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(fits) {
        problems.add(path, "an id is 1 to 64 of `A-Z a-z 0-9 - _ . : @`");
    }
}

/// Scopes stand in challenges and headers, separated by blanks (RFC 6749 section 3.3).
fn check_scope(scope: &str, path: &str, problems: &mut Problems) {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b'*');
    if scope.is_empty() || scope.len() > 64 || !scope.bytes().all(fits) {
        problems.add(path, "a scope is 1 to 64 visible characters without `\" \\ , *`");
    }
}

/// Checks that every scope of a list exists on the platform.
fn check_known_scopes(scopes: &[String], known: &[String], path: &str, problems: &mut Problems) {
    for (index, scope) in scopes.iter().enumerate() {
        if !known.contains(scope) {
            problems.add(format!("{path}[{index}]"), format!("`{scope}` is not one of platform.scopes"));
        }
    }
}
