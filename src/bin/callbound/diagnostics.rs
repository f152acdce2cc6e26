//! Problems of a policy for people, with the line at fault, and for machines, as JSON.

use std::collections::HashMap;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use callbound::policy::{Problem, Severity};
use serde_json::{Value, json};

use crate::sources::{Place, Sources};

/// Most problems of one kind that are shown; the rest are counted.
const SHOWN: usize = 5;

/// Renders problems for people: message, file, line, column, the line with a caret, and the likely fix. Many of one
/// kind are counted.
pub fn render(problems: &[Problem], sources: &Sources) -> String {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut blocks = Vec::new();
    for problem in problems {
        let count = seen.entry(kind(problem)).or_default();
        *count += 1;
        if *count <= SHOWN {
            blocks.push((kind(problem), block(problem, sources)));
        }
    }
    let mut text = String::new();
    for (index, (kind, block)) in blocks.iter().enumerate() {
        text.push_str(block);
        text.push_str("\n\n");
        let is_last = blocks.iter().skip(index + 1).all(|(other, _)| other != kind);
        let more = seen.get(kind).copied().unwrap_or_default().saturating_sub(SHOWN);
        if is_last && more > 0 {
            text.push_str(&format!("... and {} like it\n\n", grouped(more)));
        }
    }
    text.trim_end().to_owned()
}

/// Writes a number with commas: `3,284`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns what problems of one kind share: the path without indices, and the message without names.
fn kind(problem: &Problem) -> String {
    let path = problem.path.to_string();
    let path: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
    let message: String = problem.message.split('`').step_by(2).collect();
    format!("{:?} {path} {message}", problem.severity)
}

fn block(problem: &Problem, sources: &Sources) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let path = problem.path.to_string();
    let title = match path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    };
    let mut group =
        level.primary_title(title).elements(Vec::<Snippet<'_, annotate_snippets::Annotation<'_>>>::new());
    let excerpt = sources.locate(problem).map(|place| Excerpt::of(&place, &problem.message));
    if let Some(excerpt) = &excerpt {
        let annotation = AnnotationKind::Primary.span(excerpt.start..excerpt.end);
        let snippet = Snippet::source(excerpt.line.as_str()).path(excerpt.file.as_str());
        group = group.element(snippet.line_start(excerpt.number).annotation(annotation));
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    Renderer::plain().render(&[group]).to_string()
}

/// One line of a file without what may be a secret, and the bytes at fault in it.
struct Excerpt {
    file: String,
    line: String,
    number: usize,
    start: usize,
    end: usize,
}

impl Excerpt {
    fn of(place: &Place<'_>, message: &str) -> Self {
        let text = place.source.text.as_str();
        let (number, column) = place.position();
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let line = masked(line, message);
        let offset = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(offset, _)| offset);
        let fault =
            text.get(place.start..place.end).and_then(|fault| fault.lines().next()).unwrap_or_default();
        // Of an object or list only the beginning is marked.
        let length = if fault.starts_with(['{', '[']) { 1 } else { fault.chars().count() };
        let (start, end) = (offset(column - 1), offset(column - 1 + length.max(1)));
        Self { file: place.source.name.clone(), line, number, start, end }
    }
}

/// Masks every text of a line that may be a secret: shown are names of members, texts that the message repeats, and
/// those that look like words, routes or fields. The number of characters stays the same.
fn masked(line: &str, message: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('"') {
        let (before, text) = rest.split_at(start);
        out.push_str(before);
        let length = text_length(text);
        let (text, after) = text.split_at(length);
        let is_name = after.trim_start().starts_with(':') && text.len() <= 34;
        let inner = text.trim_matches('"');
        if is_name || is_plain(inner) || message.contains(&format!("`{inner}`")) {
            out.push_str(text);
        } else {
            out.push('"');
            out.extend(inner.chars().map(|_| '*'));
            out.push_str(if text.len() > 1 && text.ends_with('"') { "\"" } else { "" });
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Returns the bytes of a JSON text that begins with its opening quote, to its closing quote or the end of the line.
fn text_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (offset, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return offset + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns whether a text is a short word, a route, a field or a placeholder.
fn is_plain(text: &str) -> bool {
    let is_word =
        text.len() <= 14 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.: ".contains(&byte));
    let is_field = ["/", "query:", "header:", "path:", "$"].iter().any(|prefix| text.starts_with(prefix));
    let is_route =
        text.split_once(" /").is_some_and(|(method, _)| method.bytes().all(|byte| byte.is_ascii_uppercase()));
    is_word || is_field || is_route
}

/// Renders problems for machines: one JSON object with every problem.
pub fn to_json(problems: &[Problem], sources: &Sources) -> Value {
    let entry = |problem: &Problem| {
        let place = sources.locate(problem);
        let position = place.as_ref().map(Place::position);
        json!({
            "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "file": place.as_ref().map(|place| place.source.name.as_str()),
            "line": position.map(|(line, _)| line),
            "column": position.map(|(_, column)| column),
            "path": problem.path.to_string(),
            "message": problem.message,
            "help": problem.help,
        })
    };
    json!({"problems": problems.iter().map(entry).collect::<Vec<_>>()})
}
