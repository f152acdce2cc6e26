//! The levels: the decision core, the compiled module in the test's own host, which imitates three gateways, and a real
//! Envoy.

pub mod core;
pub mod differences;
pub mod envoy;
mod host_crypto;
pub mod hosts;
mod leaks;
pub mod table;
pub mod wasm;

use serde_json::json;

use callbound::policy::{ConfigError, Secrets, compile};

use crate::support::corpus::{Case, File, Level, Request, Vars};
use crate::support::expect::Observed;
use crate::support::gateway::Pieces;
use crate::support::require::{Piece, Skip, require};

use differences::{PlayedRequest, accepted};
use leaks::Leaks;

/// Gateway of one level, real or imitated.
pub trait Gate {
    /// Current time of the gateway, in Unix seconds.
    fn now(&self) -> u64;
    /// Advances the clock or sleeps.
    fn wait(&mut self, seconds: u64);
    fn exchange(&mut self, request: &Request) -> Result<Observed, String>;
    /// Runs the closing check; `good` is a request that was allowed before.
    fn close(&mut self, good: Option<&Request>) -> Result<(), String>;
}

/// Test name of the closing check of a file.
pub const CLOSING: &str = "worker_stays_alive";

/// Test name of a file whose policy needs more than the host has.
pub const REFUSED: &str = "refused_at_load";

/// Results in the order of the file, then the closing check.
pub struct Played(pub Vec<(String, Result<(), String>)>);

/// Finds the programs and files that a level needs.
pub fn needs(level: Level) -> Result<(), Skip> {
    match level.base() {
        Level::Wasm => require(Piece::Module).map(drop),
        Level::Envoy => Pieces::find().map(drop),
        _ => Ok(()),
    }
}

/// One file at one level.
pub struct Session {
    level: Level,
    /// The file with the overlay of this level.
    file: File,
    /// First problem of the policy on this host; `None`: it loads.
    pub refusal: Option<String>,
    /// The file without its limits, if the host then accepts it.
    reduced: Option<File>,
}

impl Session {
    pub fn new(file: &File, level: Level) -> Self {
        let file = file.at(level);
        let refusal = match level {
            // Envoy has every feature.
            Level::Core | Level::Wasm | Level::Envoy => None,
            _ => refused(&file).map(first_problem),
        };
        let without_limits = || {
            let reduced = file.with(json!({"limits": null, "limit_headers": null}));
            refused(&reduced).is_none().then_some(reduced)
        };
        // Not for files about limits.
        let is_apart = !file.name.contains("limits");
        let reduced = refusal.as_ref().filter(|_| is_apart).and_then(|_| without_limits());
        Self { level, file, refusal, reduced }
    }

    pub fn file_name(&self) -> &str {
        &self.file.name
    }

    /// Returns the names of its tests.
    pub fn names(&self) -> Vec<String> {
        let refused = self.refusal.iter().map(|_| REFUSED.to_owned());
        let cases = self.cases().map(|case| case.name.clone());
        let closing = self.file_to_play().map(|_| CLOSING.to_owned());
        refused.chain(cases).chain(closing).collect()
    }

    /// The file whose cases are played, if any is.
    fn file_to_play(&self) -> Option<&File> {
        if self.refusal.is_some() { self.reduced.as_ref() } else { Some(&self.file) }
    }

    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        let cases = self.file_to_play().into_iter().flat_map(|file| &file.cases);
        cases.filter(|case| case.runs_at(self.level))
    }

    /// Plays the file and returns a result per test.
    pub fn play(&self) -> Played {
        let mut results = Vec::new();
        if let Some(problem) = &self.refusal {
            let result = match self.level {
                Level::Mesh => envoy::refuses(&self.file, problem),
                level => wasm::refuses(&self.file, level, problem),
            };
            results.push((REFUSED.to_owned(), result));
        }
        let Some(file) = self.file_to_play() else { return Played(results) };
        match self.gate(file) {
            Ok(mut gate) => self.play_on(file, gate.as_mut(), &mut results),
            Err(problem) => {
                // The full message once only: a file may have hundreds of cases.
                let problems = [problem].into_iter().map(|problem| format!("it did not start: {problem}"));
                let problems = problems.chain(std::iter::repeat("it did not start, see above".to_owned()));
                let names = self.names().into_iter().skip(results.len());
                results.extend(names.zip(problems.map(Err)));
            }
        }
        Played(results)
    }

    fn gate(&self, file: &File) -> Result<Box<dyn Gate>, String> {
        match self.level.base() {
            Level::Core => core::gate(file),
            Level::Envoy => envoy::gate(file, self.level),
            _ => wasm::gate(file, self.level),
        }
    }

    fn play_on(&self, file: &File, gate: &mut dyn Gate, results: &mut Vec<(String, Result<(), String>)>) {
        let mut vars = file.vars.clone();
        let mut good = None;
        let beside = Beside { level: self.level, shadow: core::Shadow::new(file), leaks: Leaks::new(file) };
        for case in self.cases() {
            if case.after > 0 {
                gate.wait(case.after);
                // The request may be expired now.
                good = None;
            }
            let mut result = Ok(false);
            for _ in 0..case.times() {
                result = result
                    .and_then(|was_released| Ok(was_released | play_case(&beside, case, &mut vars, gate)?));
            }
            if result == Ok(true) {
                good = Some(case);
            }
            results.push((case.name.clone(), result.map(drop)));
        }
        let good = good.and_then(|case| case.request(&vars, gate.now()).ok());
        results.push((CLOSING.to_owned(), gate.close(good.as_ref())));
    }
}

/// What is known of a file beside its cases.
struct Beside {
    level: Level,
    shadow: Result<core::Shadow, String>,
    leaks: Leaks,
}

/// Plays a case once and returns true if the request was allowed.
fn play_case(beside: &Beside, case: &Case, vars: &mut Vars, gate: &mut dyn Gate) -> Result<bool, String> {
    let request = case.request(vars, gate.now())?;
    let awaits_body = beside.shadow.as_ref().map_err(Clone::clone)?.awaits_body(&request, gate.now());
    let read_headers = beside.leaks.read_headers.as_slice();
    let played = PlayedRequest { level: beside.level, request: &request, awaits_body, read_headers };
    let all = accepted(&played, &case.expect)?;
    let observed = gate.exchange(&request)?;
    beside.leaks.check(&request, &observed)?;
    let mut checks = all.iter().map(|expect| expect.check(&request, &observed));
    let first = checks.next().unwrap_or(Ok(()));
    if first.is_err() && !checks.any(|check| check.is_ok()) {
        return first.map(|()| false);
    }
    let is_released = observed.upstream.is_some();
    let is_unchanged = case.expect.check(&request, &observed).is_ok();
    if let Some(keep) = case.keep().filter(|_| is_unchanged) {
        let body = observed.answer.unwrap_or_default().json();
        let value = body.pointer(&keep.at).and_then(|value| value.as_str());
        let value = value.ok_or_else(|| format!("nothing to keep at `{}`", keep.at))?;
        vars.keep(&keep.name, value.to_owned());
    }
    Ok(is_released)
}

/// Returns the compiler's error for the policy of a file.
fn refused(file: &File) -> Option<ConfigError> {
    let lookup = |name: &str| file.env.get(name).cloned();
    compile(file.policy.as_bytes(), &Secrets::Lookup(&lookup)).err()
}

fn first_problem(error: ConfigError) -> String {
    error.problems.first().map(ToString::to_string).unwrap_or_default()
}
