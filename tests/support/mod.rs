//! Helpers of the suites: the corpus, tokens made from recipes, a real Envoy, clients that can misbehave, and a
//! recording upstream. Nothing here uses the crate's own token code.
#![allow(dead_code, reason = "each suite uses its part")]

pub mod browser;
pub mod client;
pub mod corpus;
pub mod expect;
pub mod fake_bridge;
pub mod gateway;
pub mod recipe;
pub mod recorder;
pub mod redis;
pub mod require;

use std::time::{Duration, Instant};

/// Polls until there is a value; `what` names it in the error.
pub fn poll<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T, String> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if begin.elapsed() > limit {
            return Err(format!("{what}: not within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Unix seconds of the real clock.
pub fn real_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
