//! Bodies of `*_by_lua_block` directives, which have Lua's syntax.

/// Splits a text behind the opening brace of a Lua block: its body, and the text behind its closing brace. Braces in
/// strings and comments do not count. `None` where the block does not end.
pub(super) fn split_block(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1_usize;
    let mut rest = text;
    loop {
        let first = rest.chars().next()?;
        let length = skipped(rest, first);
        match first {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        let behind = rest.get(length..)?;
        if depth == 0 {
            return Some((text.get(..text.len() - rest.len())?, behind));
        }
        rest = behind;
    }
}

/// Returns the length of the comment, string or character at the beginning of a text.
fn skipped(text: &str, first: char) -> usize {
    if let Some(comment) = text.strip_prefix("--") {
        return 2 + bracketed(comment).unwrap_or_else(|| comment.find('\n').unwrap_or(comment.len()));
    }
    match first {
        '"' | '\'' => quoted(text, first),
        '[' => bracketed(text).unwrap_or(1),
        _ => first.len_utf8(),
    }
}

/// Returns the length of a text in quotes, with both.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (offset, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return offset + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of a text in long brackets, such as `[==[ ... ]==]`. `None` where the text does not begin so.
fn bracketed(text: &str) -> Option<usize> {
    let behind = text.strip_prefix('[')?;
    let level = behind.chars().take_while(|c| *c == '=').count();
    behind.get(level..)?.strip_prefix('[')?;
    let end = format!("]{}]", "=".repeat(level));
    Some(text.find(&end).map_or(text.len(), |start| start + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_strings_and_comments_do_not_count() {
        for body in [
            "",
            ";",
            "f({1, {2}})",
            "local a = '}' .. \"\\\"}\"",
            "-- }\nx()",
            "--[[ } \n } ]] x()",
            "a = [==[ }]] ]==] b = t[1]",
        ] {
            assert_eq!(split_block(&format!("{body}}} rest")), Some((body, " rest")), "{body}");
        }
        for open in ["", "{}", "'}", "-- }", "[[ }"] {
            assert_eq!(split_block(open), None, "{open}");
        }
    }
}
