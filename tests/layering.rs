//! Holds the sources to the rules of `src/lib.rs`: rooms depend downward, files form no circle, functions stay small, one
//! room knows the host, one the signature library, the core reads no clock and no environment, and no platform is named.

#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/sources.rs"]
#[allow(missing_docs, reason = "for these tests only")]
mod sources;

use sources::{Arrows, Function, Sources, circles};

/// Rooms from the ground up; a room may use those before it.
const ROOMS: &[&str] = &[
    "version",
    "reason",
    "number",
    "header",
    "hex",
    "json",
    "uri",
    "store",
    "credential",
    "policy",
    "decision",
    "filter",
];

/// Rooms that still hold a circle of files.
const OPEN_CIRCLES: &[&str] = &[];

/// Rooms whose functions still exceed a limit.
const OPEN_FUNCTIONS: &[&str] = &[];

/// Most parameters of a function, `self` counted.
const MAX_PARAMETERS: usize = 5;
/// Most lines of a function, from `fn` to the closing brace.
const MAX_LINES: usize = 50;
/// Nine of ten functions of a room have at most so many lines.
const MAX_LINES_OF_NINE_IN_TEN: usize = 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// First part of a file's path below `src`; `bin` and `lib` are above all rooms.
fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Fails unless the rooms with problems are exactly those of the list.
fn expect_open(list: &str, open: &[&str], problems: &BTreeMap<&str, Vec<String>>) {
    let unexpected = problems.iter().filter(|(room, _)| !open.contains(room));
    let unexpected: Vec<&str> = unexpected.flat_map(|(_, lines)| lines).map(String::as_str).collect();
    assert!(unexpected.is_empty(), "not listed in {list}:\n  {}", unexpected.join("\n  "));
    let solved: Vec<&&str> = open.iter().filter(|room| !problems.contains_key(**room)).collect();
    assert!(solved.is_empty(), "listed in {list} without a problem, remove: {solved:?}");
}

#[test]
fn rooms_depend_only_on_rooms_below() {
    let place = |file: &str| ROOMS.iter().position(|other| *other == room(file));
    let mut upward = Vec::new();
    for ((from, to), names) in Sources::read(&folder()).arrows() {
        if place(&from).is_some_and(|from| place(&to).is_none_or(|to| to > from)) {
            upward.push(format!("src/{from} uses src/{to}: {names:?}"));
        }
    }
    assert!(upward.is_empty(), "upward:\n  {}", upward.join("\n  "));
}

#[test]
fn files_form_no_circle() {
    let arrows = Sources::read(&folder()).arrows();
    let mut problems: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for circle in circles(&arrows) {
        problems.entry(room(circle[0])).or_default().push(describe(&circle, &arrows));
    }
    expect_open("OPEN_CIRCLES", OPEN_CIRCLES, &problems);
}

#[test]
fn definition_in_the_parent_closes_a_circle_and_a_reexport_does_not() {
    let write = |name: &str, parent: &str, first: &str| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(folder.join("room")).expect("a folder");
        let declared = "mod first; mod second; pub use first::First; pub use second::Second;";
        let files = [
            ("lib.rs", "mod room;".to_owned()),
            ("room/mod.rs", format!("{declared} {parent}")),
            ("room/first.rs", format!("pub struct First; {first}")),
            ("room/second.rs", "use super::First; pub struct Second(First);".to_owned()),
        ];
        for (file, text) in files {
            fs::write(folder.join(file), text).expect("a written file");
        }
        Sources::read(&folder).arrows()
    };
    assert!(circles(&write("open", "", "")).is_empty(), "re-exports alone");
    let closed = write("closed", "pub struct Own; fn own(_: Second) {}", "use super::Own;");
    assert_eq!(circles(&closed), [["room/first.rs", "room/mod.rs", "room/second.rs"]]);
}

fn describe(circle: &[&str], arrows: &Arrows) -> String {
    let mut lines = vec![format!("circle of {} files:", circle.len())];
    for ((from, to), names) in arrows {
        if circle.contains(&from.as_str()) && circle.contains(&to.as_str()) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            lines.push(format!("  src/{from} uses src/{to}: {}", names.join(", ")));
        }
    }
    lines.join("\n  ")
}

#[test]
fn functions_stay_within_limits() {
    let sources = Sources::read(&folder());
    let mut rooms: BTreeMap<&str, Vec<&Function>> = BTreeMap::new();
    for function in sources.functions() {
        rooms.entry(room(&function.file)).or_default().push(function);
    }
    let mut problems: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (room, functions) in rooms {
        let found = excesses(room, &functions);
        if !found.is_empty() {
            problems.insert(room, found);
        }
    }
    expect_open("OPEN_FUNCTIONS", OPEN_FUNCTIONS, &problems);
}

fn excesses(room: &str, functions: &[&Function]) -> Vec<String> {
    let too_large =
        |function: &&&Function| function.lines > MAX_LINES || function.parameters > MAX_PARAMETERS;
    let describe = |function: &&Function| {
        let Function { name, file, line, lines, parameters } = function;
        format!("src/{file}:{line}: {name} has {lines} lines and {parameters} parameters")
    };
    let mut found: Vec<String> = functions.iter().filter(too_large).map(describe).collect();
    let mut lengths: Vec<usize> = functions.iter().map(|function| function.lines).collect();
    lengths.sort_unstable();
    let nine_in_ten = lengths[lengths.len() * 9 / 10];
    if nine_in_ten > MAX_LINES_OF_NINE_IN_TEN {
        found.push(format!("src/{room}: nine in ten functions have up to {nine_in_ten} lines"));
    }
    found
}

#[test]
fn every_source_file_belongs_to_a_module_and_a_room() {
    let sources = Sources::read(&folder());
    let modules = sources.files();
    let is_placed = |file: &str| ROOMS.contains(&room(file)) || ["bin", "lib"].contains(&room(file));
    let files: BTreeSet<String> = texts().into_iter().map(|text| text.file).collect();
    assert!(files.len() > 20, "src is incomplete");
    let lost: Vec<&String> =
        files.iter().filter(|file| !modules.contains(file.as_str()) || !is_placed(file)).collect();
    assert!(lost.is_empty(), "no module, or no room on the map of src/lib.rs: {lost:?}");
}

/// A source file without its comments and its tests.
struct Text {
    /// Path below `src`.
    file: String,
    lines: Vec<(usize, String)>,
}

fn texts() -> Vec<Text> {
    let folder = folder();
    let mut files = Vec::new();
    collect(&folder, &mut files);
    files.sort();
    files.iter().map(|file| read(&folder, file)).collect()
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

fn read(folder: &Path, path: &Path) -> Text {
    let text = fs::read_to_string(path).expect("a readable source");
    let file = path.strip_prefix(folder).expect("a file below src").to_string_lossy().replace('\\', "/");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let numbered = code.lines().enumerate().map(|(index, line)| (index + 1, without_comment(line)));
    Text { file, lines: numbered.collect() }
}

fn without_comment(line: &str) -> String {
    let line = if line.trim_start().starts_with("//") { "" } else { line };
    line.split(" // ").next().unwrap_or_default().to_owned()
}

/// Fails with every line that holds one of the words outside the rooms that may.
fn forbid(rule: &str, words: &[&str], may_hold: &[&str]) {
    let mut found = Vec::new();
    for text in texts().iter().filter(|text| !may_hold.contains(&room(&text.file))) {
        for (number, line) in &text.lines {
            let lower = line.to_ascii_lowercase();
            if words.iter().any(|word| line.contains(word) || lower.contains(word)) {
                found.push(format!("src/{}:{number}: {}", text.file, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn host_api_is_named_only_in_the_adapter() {
    forbid("functions of the host outside src/filter", &["extern \"C\""], &["filter"]);
    // The tool reads nginx's directives of this name.
    forbid("proxy_wasm outside src/filter", &["proxy_wasm"], &["filter", "bin"]);
}

#[test]
fn signature_library_is_named_only_in_the_credential_room() {
    forbid("jwt_compact outside src/credential", &["jwt_compact"], &["credential"]);
}

#[test]
fn core_reads_no_clock_environment_thread_or_log() {
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
    forbid("input or output in the core", &words, &["filter", "bin"]);
}

#[test]
fn platforms_are_not_named() {
    forbid("platforms are configuration", &["revdesk", "telapi", "delphi", "decart"], &[]);
}

#[test]
fn every_reason_is_listed_in_the_operations_guide() {
    let guide = fs::read_to_string("docs/operations.md").expect("docs/operations.md");
    for reason in callbound::reason::Reason::ALL {
        let line = format!("{:<26} {}  {}", reason.as_str(), reason.status(), reason.message());
        assert!(guide.lines().any(|other| other == line), "docs/operations.md lacks: {line}");
    }
}
