//! One corpus, seven levels: every case of `tests/cases` is a test at each level it is for, named
//! `level::file::case`. Cases of a file are played in order (later ones use minted tokens), files in parallel.
#![allow(
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, know the time and ask the environment"
)]

mod levels;
mod support;
#[path = "support/wasm_host.rs"]
#[allow(clippy::pedantic, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
mod wasm_host;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use support::corpus::{File, Level, load_all};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A session mostly waits for its Envoy.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let trials = match load_all() {
        Ok(files) => trials(files),
        Err(problem) => vec![Trial::test("corpus_is_readable", move || Err(problem.into()))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One file at one level; the first of its tests plays all of it.
struct Once {
    level: Level,
    session: levels::Session,
    played: OnceLock<levels::Played>,
}

impl Once {
    fn result(&self, index: usize) -> Result<Completion, Failed> {
        if let Err(skip) = levels::needs(self.level) {
            return skip.end();
        }
        let played = self.played.get_or_init(|| self.session.play());
        match played.0.get(index) {
            Some((_, Ok(()))) => Ok(Completion::Completed),
            Some((_, Err(problem))) => Err(Failed::from(problem)),
            None => Err(Failed::from("the case was not played")),
        }
    }
}

fn trials(files: Vec<File>) -> Vec<Trial> {
    let mut first = Vec::new();
    let mut others = Vec::new();
    // The slowest levels first.
    for level in Level::ALL.into_iter().rev() {
        for file in &files {
            let session = levels::Session::new(file, level);
            let names = session.names();
            let once = Arc::new(Once { level, session, played: OnceLock::new() });
            for (index, name) in names.into_iter().enumerate() {
                let name = format!("{}::{}::{name}", level.name(), once.session.file_name()).to_lowercase();
                let once = once.clone();
                let trial = Trial::ignorable_test(name, move || once.result(index));
                // The first test of a session plays the whole session; the sessions run in parallel.
                if index == 0 { first.push(trial) } else { others.push(trial) }
            }
        }
    }
    for (name, test) in levels::hosts::ALL {
        let test = || match levels::needs(Level::Wasm) {
            Ok(()) => test().map(|()| Completion::Completed).map_err(Failed::from),
            Err(skip) => skip.end(),
        };
        others.push(Trial::ignorable_test(format!("hosts::{name}"), test));
    }
    first.extend(others);
    first.push(Trial::test("conformance_table", move || levels::table::check(&files).map_err(Failed::from)));
    first
}
