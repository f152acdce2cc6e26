//! The conformance table: every file of the corpus, and at which levels how many of its cases are played. Kept in
//! `docs/conformance.md`, written anew with `CALLBOUND_WRITE=1`.

use std::fmt::Write as _;
use std::fs;

use super::Session;
use super::differences;
use crate::support::corpus::{File, Level};
use crate::support::require::root;

const PATH: &str = "docs/conformance.md";

const HEAD: &str = "\
# Conformance

One corpus of requests (`tests/cases`), played on every gateway callbound knows. Each number below is so many cases of a
file whose verdict, reason, status and answer are what the file says, and whose upstream sees what the file says: a
release is a whole request, a refusal is nothing at all. `refused` is a policy that needs what the host has not; then the
compiler says so, the compiled module says the same at load, and no request passes; a number behind it is that of the
file's cases played under the same policy without its `limits`. This page is written by
`CALLBOUND_WRITE=1 cargo test --test corpus -- conformance_table`, and the test fails when it is out of date.

| Column | What runs |
|---|---|
| core | the decision core alone, natively |
| wasm | the compiled module in the tests' own host on wasmtime, imitating Envoy with `allow_on_headers_stop_iteration` |
| buffer | the same, imitating Envoy without that flag and with its buffer filter behind (`hold_headers: buffer_filter`) |
| kong | the same, imitating Kong 3.9 and its ngx_wasm_module |
| apisix | the same, imitating APISIX and its wasm-nginx-module |
| envoy | a real Envoy, real sockets |
| mesh | a real Envoy with the buffer filter behind (`hold_headers: buffer_filter`), as a mesh that cannot set the flag |

**Kong and APISIX are imitated, never run here.** What is imitated, switch by switch and with the place in the host's
source where it was read, is `tests/support/wasm_host/switches.rs`. Cases about sockets are for the two real columns only,
cases about exact times for the others.
";

/// The page as it has to be.
pub fn page(files: &[File]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Cases by file\n\n| File |");
    Level::ALL.iter().for_each(|level| _ = write!(page, " {} |", level.name()));
    page.push_str("\n|---|");
    Level::ALL.iter().for_each(|_| page.push_str("--:|"));
    page.push('\n');
    let mut sums = [0; Level::ALL.len()];
    let mut refusals: Vec<(String, String)> = Vec::new();
    for file in files {
        _ = write!(page, "| {} |", file.name);
        for (level, sum) in Level::ALL.into_iter().zip(&mut sums) {
            let session = Session::new(file, level);
            let cases = session.cases().count();
            *sum += cases;
            let Some(problem) = &session.refusal else {
                _ = write!(page, " {cases} |");
                continue;
            };
            _ = write!(page, " refused ({})", number(&mut refusals, level, problem));
            _ = if cases > 0 { write!(page, "; {cases} |") } else { write!(page, " |") };
        }
        page.push('\n');
    }
    page.push_str("| **all** |");
    sums.iter().for_each(|sum| _ = write!(page, " **{sum}** |"));
    page.push_str("\n\n## Refused at load\n\nThe first problem of each policy that is refused, in the compiler's words:\n\n");
    for (number, (level, problem)) in refusals.iter().enumerate() {
        _ = writeln!(page, "{}. {level}: `{}`", number + 1, problem.replace('`', "'"));
    }
    page.push_str(
        "\n## Expected differences\n\nAll there are. Everything else is the same on every host.\n\n",
    );
    for difference in differences::ALL {
        let levels: Vec<String> = difference.levels.iter().map(|level| level.name()).collect();
        _ = writeln!(page, "* {}: {}. {}.", levels.join(", "), difference.what, difference.why);
    }
    page
}

/// The number of a refusal, which is said once.
fn number(refusals: &mut Vec<(String, String)>, level: Level, problem: &str) -> usize {
    let refusal = (level.name(), problem.to_owned());
    let known = refusals.iter().position(|other| *other == refusal);
    let index = known.unwrap_or(refusals.len());
    if known.is_none() {
        refusals.push(refusal);
    }
    index + 1
}

/// Compares with the page that is there, or writes it.
pub fn check(files: &[File]) -> Result<(), String> {
    let path = root().join(PATH);
    let page = page(files);
    if std::env::var("CALLBOUND_WRITE").is_ok_and(|value| value == "1") {
        return fs::write(path, page).map_err(|error| format!("{PATH}: {error}"));
    }
    let known = fs::read_to_string(path).map_err(|error| format!("{PATH}: {error}"))?;
    if known == page {
        return Ok(());
    }
    let other = known.lines().zip(page.lines()).find(|(known, line)| known != line);
    Err(format!("{PATH} is out of date: write it with CALLBOUND_WRITE=1; the first other line: {other:?}"))
}
