//! Says where in a JSON text an error stands, as `bounds.to.members[0]`.
//!
//! serde_json counts lines and columns; an author looks for members. Refuses to know what is wrong there.

/// One level of nesting: the member or element being read.
enum Level {
    Member(Option<String>),
    Element(usize),
}

/// Returns the path of the innermost value that ends at, begins at or holds the byte `column` of line `line` (both
/// from 1, as serde_json counts what it has consumed). `text` must be well-formed up to there.
pub(super) fn path_at(text: &str, line: usize, column: usize) -> String {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let offset = before + column;
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty() && at < offset) {
        at += step(rest, at + 1 >= offset, &mut levels);
    }
    write(&levels)
}

/// Reads one token and returns its length; `is_last` says that the error stands on its first byte.
fn step(rest: &str, is_last: bool, levels: &mut Vec<Level>) -> usize {
    match (rest.as_bytes().first(), levels.last_mut()) {
        (Some(b'"'), Some(Level::Member(name @ None))) => {
            let length = string_length(rest);
            *name = rest.get(..length).and_then(|text| serde_json::from_str(text).ok());
            return length;
        }
        (Some(b'"'), _) => return string_length(rest),
        (Some(b'{'), _) if !is_last => levels.push(Level::Member(None)),
        (Some(b'['), _) if !is_last => levels.push(Level::Element(0)),
        (Some(b'}' | b']'), _) => drop(levels.pop()),
        (Some(b','), Some(Level::Member(name))) => *name = None,
        (Some(b','), Some(Level::Element(index))) => *index += 1,
        _ => {}
    }
    rest.chars().next().map_or(1, char::len_utf8)
}

/// The length of the string `rest` begins with, quotes included.
fn string_length(rest: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

fn write(levels: &[Level]) -> String {
    let mut path = String::new();
    for level in levels {
        match level {
            Level::Element(index) => path.push_str(&format!("[{index}]")),
            Level::Member(Some(name)) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Level::Member(None) => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Outer {
        list: Vec<Inner>,
        name: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Inner {
        a: u64,
        b: Option<Vec<String>>,
    }

    #[test]
    fn points_at_the_member_that_is_wrong() {
        for (text, path) in [
            (r#"{"list": [{"a": 1}, {"a": "x"}]}"#, "list[1].a"),
            ("{\"list\": [{\"a\": 1},\n {\"a\": 1, \"x\\\"\": 2}]}", "list[1].x\""),
            (r#"{"list": [{"a": 1, "b": ["x", 7]}]}"#, "list[0].b[1]"),
            (r#"{"list": [{"a": 1, "b": ["x", {}]}]}"#, "list[0].b[1]"),
            (r#"{"list": [{"b": []}]}"#, "list[0]"),
            (r#"{"list": {"a": 1}}"#, "list"),
            (r#"{"name": "ä", "list": [true]}"#, "list[0]"),
            (r#"{"list": [], "list": []}"#, "list"),
            (r#"{"name": "x"}"#, ""),
            (r#"[1"#, ""),
        ] {
            let error = serde_json::from_str::<Outer>(text).expect_err(text);
            assert_eq!(path_at(text, error.line(), error.column()), path, "{text}: {error}");
        }
    }
}
