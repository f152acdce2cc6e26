//! Standard output and standard error of every command.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _, stderr, stdout};

/// Writes a line to standard output. A reader that has gone, as in `callbound schema | head`, is not an error: the
/// command ends with its usual exit status.
///
/// # Errors
///
/// Any other failure to write, such as a full disk.
pub fn print(line: impl Display) -> Result<(), String> {
    let mut out = stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Returns an untrusted text as it may be shown: control characters and characters that change the direction of writing
/// become escapes, so that it can neither move the cursor nor imitate another line.
pub fn escaped(text: &str) -> String {
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unsafe(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// Writes a line to standard error. Where that fails there is no other place to report to.
pub fn note(line: impl Display) {
    _ = writeln!(stderr(), "{line}");
}
