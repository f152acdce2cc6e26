//! One corpus, three levels: every case of `tests/cases` is a test at each level it is for, named
//! `level::file::case`. Cases of a file are played in order (what is minted first is used later), files side by side.
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
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let trials = match load_all() {
        Ok(files) => trials(files),
        Err(problem) => vec![Trial::test("the_corpus_can_be_read", move || Err(problem.into()))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One file at one level, played when the first of its tests is asked for.
struct Session {
    file: Arc<File>,
    level: Level,
    played: OnceLock<levels::Played>,
}

impl Session {
    fn result(&self, index: usize) -> Result<Completion, Failed> {
        if let Err(skip) = levels::needs(self.level) {
            return skip.end();
        }
        let played = self.played.get_or_init(|| levels::play(&self.file, self.level));
        match played.0.get(index) {
            Some((_, Ok(()))) => Ok(Completion::Completed),
            Some((_, Err(problem))) => Err(Failed::from(problem)),
            None => Err(Failed::from("it was never played")),
        }
    }
}

fn trials(files: Vec<File>) -> Vec<Trial> {
    let files: Vec<Arc<File>> = files.into_iter().map(Arc::new).collect();
    let mut first = Vec::new();
    let mut others = Vec::new();
    for level in [Level::Envoy, Level::Wasm, Level::Core] {
        for file in &files {
            let session = Arc::new(Session { file: file.clone(), level, played: OnceLock::new() });
            for (index, name) in levels::names(file, level).into_iter().enumerate() {
                let session = session.clone();
                let name = format!("{level:?}::{}::{name}", file.name).to_lowercase();
                let trial = Trial::ignorable_test(name, move || session.result(index));
                // The first test of a session plays all of it: apart from each other, they run side by side.
                if index == 0 { first.push(trial) } else { others.push(trial) }
            }
        }
    }
    first.extend(others);
    first
}
