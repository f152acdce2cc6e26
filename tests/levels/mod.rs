//! The three places a case is played: the decision core, the compiled module, a real Envoy.

pub mod core;
pub mod envoy;
mod host_crypto;
pub mod wasm;

use crate::support::corpus::{Case, File, Level, Request};
use crate::support::expect::Observed;
use crate::support::gateway::Pieces;
use crate::support::require::{Piece, Skip, require};

/// Somewhere a request can be played.
pub trait Gate {
    /// Unix seconds.
    fn now(&self) -> u64;
    /// Lets time pass.
    fn wait(&mut self, seconds: u64);
    fn exchange(&mut self, request: &Request) -> Result<Observed, String>;
    /// What must hold when all is done; `good` is a request that was released before.
    fn close(&mut self, good: Option<&Request>) -> Result<(), String>;
}

/// The name under which the closing check of a file is counted.
pub const CLOSING: &str = "worker_alive_afterwards";

/// Case by case in the file's order, then the closing check.
pub struct Played(pub Vec<(String, Result<(), String>)>);

/// What a level needs that may be missing.
pub fn needs(level: Level) -> Result<(), Skip> {
    match level {
        Level::Core => Ok(()),
        Level::Wasm => require(Piece::Module).map(drop),
        Level::Envoy => Pieces::find().map(drop),
    }
}

/// Plays a file at a level.
pub fn play(file: &File, level: Level) -> Played {
    let gate: Result<Box<dyn Gate>, String> = match level {
        Level::Core => core::gate(file),
        Level::Wasm => wasm::gate(file),
        Level::Envoy => envoy::gate(file),
    };
    match gate {
        Ok(mut gate) => play_on(file, level, gate.as_mut()),
        Err(problem) => {
            // Said in full once: a file may have hundreds of cases.
            let problems = [problem].into_iter().map(|problem| format!("it did not start: {problem}"));
            let problems = problems.chain(std::iter::repeat("it did not start, as said above".to_owned()));
            Played(names(file, level).into_iter().zip(problems.map(Err)).collect())
        }
    }
}

/// The tests a file is at a level.
pub fn names(file: &File, level: Level) -> Vec<String> {
    let cases = file.cases.iter().filter(|case| case.runs_at(level)).map(|case| case.name.clone());
    cases.chain([CLOSING.to_owned()]).collect()
}

fn play_on(file: &File, level: Level, gate: &mut dyn Gate) -> Played {
    let mut vars = file.vars.clone();
    let mut results = Vec::new();
    let mut good = None;
    for case in file.cases.iter().filter(|case| case.runs_at(level)) {
        if case.after > 0 {
            gate.wait(case.after);
            // What was good may have expired.
            good = None;
        }
        let mut result = Ok(());
        for _ in 0..case.times() {
            result = result.and_then(|()| play_case(case, &mut vars, gate));
        }
        if result.is_ok() && case.expect.is_release() {
            good = Some(case);
        }
        results.push((case.name.clone(), result));
    }
    let good = good.and_then(|case| case.request(&vars, gate.now()).ok());
    results.push((CLOSING.to_owned(), gate.close(good.as_ref())));
    Played(results)
}

fn play_case(
    case: &Case,
    vars: &mut crate::support::corpus::Vars,
    gate: &mut dyn Gate,
) -> Result<(), String> {
    let request = case.request(vars, gate.now())?;
    let observed = gate.exchange(&request)?;
    case.expect.check(&request, &observed)?;
    if let Some(keep) = case.keep() {
        let body = observed.answer.unwrap_or_default().json();
        let value = body.pointer(&keep.at).and_then(|value| value.as_str());
        let value = value.ok_or_else(|| format!("nothing to keep at `{}`", keep.at))?;
        vars.keep(&keep.name, value.to_owned());
    }
    Ok(())
}
