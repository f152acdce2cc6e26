//! Positions in a JSON text, for error messages about a policy.
//!
//! The text is walked token by token: no tree is built and nothing recurses. The walk relies on a text that the strict
//! reader accepts, apart from duplicate members; of any other text it returns `None` or a position within it.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Deepest nesting in which [`duplicate_member`] looks, the same as serde_json's.
const MAX_DEPTH: usize = 128;

/// One step of the path to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Into the member of an object, by its unescaped name.
    Member(&'a str),
    /// Into the element of an array, counted from 0.
    Index(usize),
}

/// Byte offsets of a value, each pair from its first byte to the one after its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the value's first byte.
    pub start: usize,
    /// Offset after the value's last byte.
    pub end: usize,
    /// Offsets of the member's name with its quotes; `None` for an array's element and for the whole text.
    pub name: Option<(usize, usize)>,
}

/// A member that occurs twice in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// Path of the member from the top of the text, as in `routes[3].bounds.to`.
    pub path: String,
    /// Offsets of the name's first occurrence, with its quotes.
    pub first: (usize, usize),
    /// Offsets of the name's second occurrence, with its quotes.
    pub second: (usize, usize),
}

/// Finds the value at a path; the first one where a member occurs twice.
///
/// Returns `None` for a path that leads nowhere and for a text that ends too early.
pub fn locate(text: &[u8], path: &[Step<'_>]) -> Option<Span> {
    let mut tokens = Tokens { text, at: 0 };
    let mut name = None;
    for step in path {
        name = match step {
            Step::Member(member) => Some(tokens.enter_member(member)?),
            Step::Index(index) => tokens.enter_element(*index).then_some(None)?,
        };
    }
    let (start, end) = tokens.skip_value()?;
    Some(Span { start, end, name })
}

/// Converts a byte offset to a line and a column in characters, both counted from 1.
///
/// An offset beyond the text is taken for its end.
pub fn line_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let is_newline = |byte: &&u8| **byte == b'\n';
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_first_of_character = |byte: &&u8| **byte & 0xc0 != 0x80;
    (before.iter().filter(is_newline).count() + 1, line.iter().filter(is_first_of_character).count() + 1)
}

/// Finds the first name that repeats one of the same object, escapes decoded.
pub fn duplicate_member(text: &[u8]) -> Option<Duplicate> {
    let mut tokens = Tokens { text, at: 0 };
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut is_name_next = false;
    while let Some(token) = tokens.take() {
        match text.get(token.0)? {
            b'{' | b'[' if levels.len() == MAX_DEPTH => return None,
            b'{' => levels.push(Level::Object { names: BTreeMap::new(), current: token }),
            b'[' => levels.push(Level::Array { index: 0 }),
            b'}' | b']' => _ = levels.pop()?,
            _ => {}
        }
        is_name_next = match (text.get(token.0)?, levels.last_mut()) {
            (b'{', _) => true,
            (b',', Some(Level::Object { .. })) => true,
            (b',', Some(Level::Array { index })) => {
                *index += 1;
                false
            }
            (b'"', Some(Level::Object { names, current })) if is_name_next => {
                *current = token;
                if let Some(first) = names.insert(tokens.name(token)?, token) {
                    return Some(Duplicate { path: path(&levels, &tokens), first, second: token });
                }
                false
            }
            _ => false,
        };
    }
    None
}

/// One array or object that is open at a position.
enum Level<'t> {
    Object { names: BTreeMap<Cow<'t, str>, (usize, usize)>, current: (usize, usize) },
    Array { index: usize },
}

fn path(levels: &[Level<'_>], tokens: &Tokens<'_>) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Array { index } => path.push_str(&format!("[{index}]")),
            Level::Object { current, .. } => {
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(&tokens.name(*current).unwrap_or_default());
            }
        }
    }
    path
}

/// The tokens of a text: strings with their quotes, other scalars, and single punctuation marks.
struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Tokens<'t> {
    /// Takes the next token; `None` at the end of the text and for a string without an end.
    fn take(&mut self) -> Option<(usize, usize)> {
        let rest = self.text.get(self.at..)?;
        let start = self.at + rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let end = match self.text.get(start)? {
            b'{' | b'}' | b'[' | b']' | b':' | b',' => start + 1,
            b'"' => self.end_of_string(start + 1)?,
            _ => self.end_of_scalar(start),
        };
        self.at = end;
        Some((start, end))
    }

    fn end_of_string(&self, start: usize) -> Option<usize> {
        let mut is_escaped = false;
        let closes = |byte: &u8| {
            let closes = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            closes
        };
        Some(start + self.text.get(start..)?.iter().position(closes)? + 1)
    }

    fn end_of_scalar(&self, start: usize) -> usize {
        let rest = self.text.get(start..).unwrap_or_default();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"{}[]:,\"".contains(byte);
        start + rest.iter().position(ends).unwrap_or(rest.len())
    }

    /// Takes the next token if it is this punctuation mark.
    fn take_mark(&mut self, mark: u8) -> bool {
        self.take().is_some_and(|(start, _)| self.text.get(start) == Some(&mark))
    }

    /// Reads the string at a position, escapes decoded.
    fn name(&self, (start, end): (usize, usize)) -> Option<Cow<'t, str>> {
        let quoted = self.text.get(start..end)?;
        let plain = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if plain.contains(&b'\\') {
            return serde_json::from_slice(quoted).ok().map(Cow::Owned);
        }
        std::str::from_utf8(plain).ok().map(Cow::Borrowed)
    }

    /// Moves to the value of an object's member and returns the position of its name.
    fn enter_member(&mut self, member: &str) -> Option<(usize, usize)> {
        let mut is_open = self.take_mark(b'{');
        while is_open {
            let name = self.take()?;
            let is_wanted = self.name(name)? == member;
            is_open = self.take_mark(b':');
            if is_open && is_wanted {
                return Some(name);
            }
            is_open = is_open && self.skip_value().is_some() && self.take_mark(b',');
        }
        None
    }

    /// Moves to an element of an array; false when the array is shorter.
    fn enter_element(&mut self, index: usize) -> bool {
        self.take_mark(b'[') && (0..index).all(|_| self.skip_value().is_some() && self.take_mark(b','))
    }

    /// Takes one whole value, counting brackets.
    fn skip_value(&mut self) -> Option<(usize, usize)> {
        let (start, mut end) = self.take()?;
        let mut last = start;
        let mut depth = 0_usize;
        loop {
            match self.text.get(last)? {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1)?,
                b':' | b',' if depth == 0 => return None,
                _ => {}
            }
            if depth == 0 {
                return Some((start, end));
            }
            (last, end) = self.take()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Step::{Index, Member};
    use super::*;

    /// Returns the texts of the value and of its name.
    fn found<'t>(text: &'t str, path: &[Step<'_>]) -> Option<(&'t str, Option<&'t str>)> {
        let span = locate(text.as_bytes(), path)?;
        Some((text.get(span.start..span.end)?, span.name.and_then(|(start, end)| text.get(start..end))))
    }

    /// Returns the path, and line and column of both names.
    fn positions(text: &str) -> Option<(String, [(usize, usize); 2])> {
        let duplicate = duplicate_member(text.as_bytes())?;
        let at = |(start, _): (usize, usize)| line_column(text.as_bytes(), start);
        Some((duplicate.path, [at(duplicate.first), at(duplicate.second)]))
    }

    #[test]
    fn value_at_a_path_is_found_with_its_name() {
        let text = r#" {"a" : [1, {"b": {"c":"}]\"x"}, "d":-1.5e3}, []], "e": null } "#;
        for (path, value, name) in [
            (vec![Member("a"), Index(0)], "1", None),
            (vec![Member("a"), Index(1), Member("b")], r#"{"c":"}]\"x"}"#, Some(r#""b""#)),
            (vec![Member("a"), Index(1), Member("b"), Member("c")], r#""}]\"x""#, Some(r#""c""#)),
            (vec![Member("a"), Index(1), Member("d")], "-1.5e3", Some(r#""d""#)),
            (vec![Member("a"), Index(2)], "[]", None),
            (vec![Member("e")], "null", Some(r#""e""#)),
            (vec![], text.trim(), None),
        ] {
            assert_eq!(found(text, &path), Some((value, name)), "{path:?}");
        }
    }

    #[test]
    fn name_with_escapes_is_found_by_its_text() {
        let text = r#"{"x\\":1,"\u0074o":2,"q\"":3,"\ud83d\ude00":4,"ö":5}"#;
        for (name, value, quoted) in [
            ("x\\", "1", r#""x\\""#),
            ("to", "2", r#""\u0074o""#),
            ("q\"", "3", r#""q\"""#),
            ("😀", "4", r#""\ud83d\ude00""#),
            ("ö", "5", r#""ö""#),
        ] {
            assert_eq!(found(text, &[Member(name)]), Some((value, Some(quoted))), "{name}");
        }
    }

    #[test]
    fn path_that_leads_nowhere_is_not_found() {
        let text = r#"{"a":[1,[]],"b":"c","d":{}}"#;
        for path in [
            vec![Member("c")],
            vec![Index(0)],
            vec![Member("a"), Index(2)],
            vec![Member("a"), Index(1), Index(0)],
            vec![Member("a"), Member("b")],
            vec![Member("b"), Index(0)],
            vec![Member("d"), Member("a")],
        ] {
            assert_eq!(found(text, &path), None, "{path:?}");
        }
    }

    #[test]
    fn truncated_text_is_not_found_and_nothing_panics() {
        let text = r#"{"a":[{"b":"x\"y"},{"\u0063":[tru]}]}"#;
        let path = [Member("a"), Index(1), Member("c")];
        assert_eq!(found(text, &path), Some(("[tru]", Some(r#""\u0063""#))));
        for end in 0..text.len() {
            let Some(cut) = text.get(..end) else { continue };
            assert_eq!(found(cut, &[]), None, "{cut}");
            assert_eq!(found(cut, &path).is_some(), end >= text.len() - 3, "{cut}");
            assert_eq!(duplicate_member(cut.as_bytes()), None, "{cut}");
        }
        for malformed in ["", "}", "{,}", "{1:2}", "{\"a\"}", "[,]", ":", "{\"a\" 1}", "\"\\"] {
            assert_eq!(found(malformed, &[]).filter(|_| malformed.len() < 2), None, "{malformed}");
            assert_eq!(found(malformed, &[Member("a")]), None, "{malformed}");
            assert_eq!(found(malformed, &[Index(0)]), None, "{malformed}");
        }
        assert_eq!(locate(b"{\"\xff\":1,\"a\":2}", &[Member("a")]), None);
    }

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let deep = format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(found(&deep, &[Member("b")]), Some(("1", Some(r#""b""#))));
        assert_eq!(duplicate_member(deep.as_bytes()), None);
    }

    #[test]
    fn column_is_counted_in_characters() {
        let text = "{\r\n  \"ö😀\": 1,\n\t\"a\": 2}\n";
        for (needle, expected) in [("{", (1, 1)), ("\"ö", (2, 3)), (": 1", (2, 7)), ("\"a", (3, 2))] {
            assert_eq!(line_column(text.as_bytes(), text.find(needle).unwrap()), expected, "{needle}");
        }
        assert_eq!(line_column(text.as_bytes(), text.len() + 9), (4, 1));
        assert_eq!(line_column(b"", 0), (1, 1));
    }

    #[test]
    fn duplicate_member_is_located_at_both_names() {
        for (text, path, first, second) in [
            (r#"{"to":1,"to":2}"#, "to", (1, 2), (1, 9)),
            (r#"{"to":1,"\u0074o":2}"#, "to", (1, 2), (1, 9)),
            (
                "{\"a\": {\"x\": 1},\n\"b\": [0, {\"y\": 1,\n \"x\": 3, \"y\": 2}]}",
                "b[1].y",
                (2, 11),
                (3, 10),
            ),
            ("[[],[1,{\"ö\":\"{\",\"ö\":1}]]", "[1][1].ö", (1, 9), (1, 17)),
            (r#"{"a":{"b":"a"},"c":["a","a",{}],"a":1"#, "a", (1, 2), (1, 33)),
        ] {
            assert_eq!(positions(text), Some((path.to_owned(), [first, second])), "{text}");
        }
    }

    #[test]
    fn equal_names_in_different_objects_are_no_duplicate() {
        for text in
            [r#"{"a":{"a":"a"},"b":[{"a":1},{"a":1}]}"#, r#"["a","a"]"#, "1", "", "{}", r#"{"A":1,"a":1}"#]
        {
            assert_eq!(positions(text), None, "{text}");
        }
    }
}
