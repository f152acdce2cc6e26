//! Holds the sources to the laws of `src/lib.rs`: one direction between the rooms, one adapter that knows a host, one
//! place that knows the signature library, a core without clock, environment and threads, and no platform's name.

#![allow(clippy::expect_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up; a room may use those before it.
const ROOMS: &[&str] = &[
    "version",
    "reason",
    "number",
    "hex",
    "json",
    "uri",
    "store",
    "credential",
    "policy",
    "decision",
    "filter",
];

/// A source file without its comments and its tests.
struct Source {
    /// Below `src`, with `/` between its parts.
    path: String,
    lines: Vec<(usize, String)>,
}

impl Source {
    /// The room it stands in; `bin` and `lib` are above all of them.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Every line that contains this word, as `path:line: text`.
    fn mentions(&self, word: &str) -> Vec<String> {
        let found = self.lines.iter().filter(|(_, text)| text.contains(word));
        found.map(|(number, text)| format!("src/{}:{number}: {}", self.path, text.trim())).collect()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources are not where this test looks");
    let mut sources: Vec<Source> = files.iter().map(|file| read(&root, file)).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let text = fs::read_to_string(file).expect("a readable source");
    let path = file.strip_prefix(root).expect("a file below src").to_string_lossy().replace('\\', "/");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let numbered = code.lines().enumerate().map(|(index, line)| (index + 1, without_comment(line)));
    Source { path, lines: numbered.collect() }
}

fn without_comment(line: &str) -> String {
    let line = if line.trim_start().starts_with("//") { "" } else { line };
    line.split(" // ").next().unwrap_or_default().to_owned()
}

/// Fails with every line that holds one of the words where it must not.
fn forbid(law: &str, words: &[&str], is_allowed: impl Fn(&Source) -> bool) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !is_allowed(source)) {
        found.extend(words.iter().flat_map(|word| source.mentions(word)));
    }
    assert!(found.is_empty(), "{law}:\n  {}", found.join("\n  "));
}

#[test]
fn a_room_knows_only_what_stands_below_it() {
    let mut found = Vec::new();
    for source in sources() {
        let Some(place) = ROOMS.iter().position(|room| *room == source.room()) else { continue };
        for above in ROOMS.iter().skip(place + 1) {
            found.extend(source.mentions(&format!("crate::{above}")));
        }
    }
    assert!(found.is_empty(), "upward:\n  {}", found.join("\n  "));
}

#[test]
fn rooms_are_named_singly_so_that_this_test_can_see_them() {
    // `use crate::{policy, decision}` would hide its rooms from the test above.
    forbid(
        "grouped at the crate's root",
        &["use crate::{", "use crate::*", "use super::super::super::"],
        |_| false,
    );
}

#[test]
fn every_room_is_on_the_map() {
    let strange: Vec<String> = sources()
        .iter()
        .filter(|source| !ROOMS.contains(&source.room()) && !["bin", "lib"].contains(&source.room()))
        .map(|source| source.path.clone())
        .collect();
    assert!(strange.is_empty(), "no place on the map of src/lib.rs: {strange:?}");
}

#[test]
fn only_the_adapter_knows_a_host() {
    forbid("proxy_wasm outside src/filter", &["proxy_wasm", "extern \"C\""], |source| {
        source.room() == "filter"
    });
}

#[test]
fn only_the_credential_room_knows_the_signature_library() {
    forbid("jwt_compact outside src/credential", &["jwt_compact"], |source| source.room() == "credential");
}

#[test]
fn the_core_has_no_clock_no_environment_no_threads_and_no_log() {
    let words = [
        "SystemTime",
        "Instant",
        "std::env",
        "env::var",
        "std::thread",
        "thread::",
        "std::fs",
        "std::net",
        "std::io",
        "log::",
        "println!",
        "eprintln!",
        "getrandom",
        "static mut",
        "thread_local!",
    ];
    forbid("impure", &words, |source| ["filter", "bin"].contains(&source.room()));
}

#[test]
fn no_platform_is_named() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in &source.lines {
            let line = line.to_ascii_lowercase();
            let name = ["revdesk", "telapi", "delphi", "decart"].into_iter().find(|name| line.contains(name));
            found.extend(name.map(|name| format!("src/{}:{number}: {name}", source.path)));
        }
    }
    assert!(found.is_empty(), "platforms are configuration:\n  {}", found.join("\n  "));
}

#[test]
fn every_reason_stands_in_the_operators_papers_as_it_is() {
    let papers = fs::read_to_string("docs/operations.md").expect("docs/operations.md");
    for reason in callbound::reason::Reason::ALL {
        let line = format!("{:<26} {}  {}", reason.as_str(), reason.status(), reason.message());
        assert!(papers.lines().any(|other| other == line), "docs/operations.md lacks: {line}");
    }
}
