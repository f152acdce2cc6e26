//! The conformance table: the number of cases of each file at each level. It is kept in `docs/conformance.md` and
//! rewritten with `CALLBOUND_WRITE=1`.

use std::fmt::Write as _;
use std::fs;

use super::Session;
use super::differences;
use crate::support::corpus::{File, Level};
use crate::support::require::root;

const PATH: &str = "docs/conformance.md";

const HEAD: &str = "\
# Conformance

One corpus of requests (`tests/cases`), played on every gateway callbound supports. Each number below counts the cases of
a file whose decision, reason, status and answer are as the file expects, and whose upstream sees exactly what it expects:
a whole request if allowed, nothing if refused. `refused` marks a policy that needs more than the host has: the compiler
reports it, the compiled module reports the same at load, and no request passes. A number after it counts the cases that
are played under the same policy without its `limits`. This page is written by
`CALLBOUND_WRITE=1 cargo test --test corpus -- conformance_table`, and the test fails when it is out of date.

| Column | Gateway |
|---|---|
| core | the decision core alone, natively |
| wasm | the compiled module in the tests' own host on wasmtime, imitating Envoy with `allow_on_headers_stop_iteration` |
| buffer | the same, imitating Envoy without that flag and with its buffer filter after the module (`hold_headers: buffer_filter`) |
| kong | the same, imitating Kong 3.9 and its ngx_wasm_module |
| apisix | the same, imitating APISIX and its wasm-nginx-module |
| envoy | a real Envoy, real sockets |
| mesh | a real Envoy with the buffer filter after the module (`hold_headers: buffer_filter`), as in a mesh that cannot set the flag |

**Kong and APISIX are imitated here.** Each imitated rule, with its place in the host's source or the engine that showed it, is
in `tests/support/wasm_host/host_rules.rs`; [hosts.md](hosts.md#what-was-run-in-the-real-engines) lists what was run by hand in
the real engines. Cases about sockets are for the two real columns only, cases about exact times
for the others.
";

/// Renders the page.
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
    page.push_str(
        "\n\n## Refused at load\n\nThe first problem of each refused policy, as the compiler reports it:\n\n",
    );
    for (number, (level, problem)) in refusals.iter().enumerate() {
        _ = writeln!(page, "{}. {level}: `{}`", number + 1, problem.replace('`', "'"));
    }
    page.push_str(
        "\n## Expected differences\n\nThe complete list; everything else is the same on every host.\n\n",
    );
    for difference in differences::ALL {
        let levels: Vec<String> = difference.levels.iter().map(|level| level.name()).collect();
        _ = writeln!(page, "* {}: {}. {}.", levels.join(", "), difference.what, difference.why);
    }
    page
}

/// Returns the number of a refusal; equal refusals share one.
fn number(refusals: &mut Vec<(String, String)>, level: Level, problem: &str) -> usize {
    let refusal = (level.name(), problem.to_owned());
    let known = refusals.iter().position(|other| *other == refusal);
    let index = known.unwrap_or(refusals.len());
    if known.is_none() {
        refusals.push(refusal);
    }
    index + 1
}

/// Compares with the committed page, or writes it.
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
    Err(format!(
        "{PATH} is out of date: write it with CALLBOUND_WRITE=1; the first differing line: {other:?}"
    ))
}
