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

/// Writes a line to standard error. Where that fails there is no other place to report to.
pub fn note(line: impl Display) {
    _ = writeln!(stderr(), "{line}");
}
