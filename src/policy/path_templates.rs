//! `METHOD /path` texts of a route.

use super::reader::{List, Reader};

/// Word for every method that has no route of its own.
pub const ANY_METHOD: &str = "ANY";

/// A method and a path template.
pub(super) type Match = (String, String);

/// Reads `METHOD /path` texts.
pub(super) fn read_matches(texts: &List<String>, at: &Reader<'_>) -> Vec<Match> {
    let read = |(at, text): (Reader<'_>, &String)| {
        let split = text.split_once(' ').filter(|(method, template)| {
            let fits =
                |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b';' | b'\\');
            let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
            is_method && template.bytes().all(fits) && is_canonical(template) && has_unique_params(template)
        });
        if split.is_none() {
            at.refuse("expected `METHOD /path`, as in `GET /v1/calls/{id}`");
        }
        split.map(|(method, template)| (method.to_owned(), template.to_owned()))
    };
    texts.each(at).filter_map(read).collect()
}

/// Returns whether some path can match: a template that none matches would guard nothing.
fn is_canonical(template: &str) -> bool {
    template
        .strip_prefix('/')
        .is_some_and(|rest| !rest.split('/').any(|segment| matches!(segment, "." | "..")))
        && !template.contains("//")
        && !template.contains("{{")
}

/// Returns whether every parameter has a name of its own.
fn has_unique_params(template: &str) -> bool {
    let mut names: Vec<&str> =
        template.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or(rest)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() == count
}
