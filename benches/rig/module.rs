//! The module alone, in the tests' own proxy-wasm host: its memory and its host calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::at;
use super::platform::{Ask, Platform, SECRET_NAME, body};
use crate::wasm_host::{Module, Request};

/// Figures of one build of the module.
pub struct Report {
    pub size: u64,
    /// Linear memory with the policy loaded, in bytes.
    pub loaded: usize,
    /// Linear memory once more tokens were seen than are remembered.
    pub full: usize,
    /// Host calls of one request, by kind of request.
    pub calls: Vec<(&'static str, BTreeMap<&'static str, u64>)>,
}

pub fn report(path: &Path, platform: &Platform, tokens: &[String]) -> Result<Report, String> {
    let module = Module::load(path)?;
    let env = [(SECRET_NAME.to_owned(), platform.secret())];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(at("clock"))?.as_nanos();
    let now = u64::try_from(now).map_err(at("clock"))?;
    let policy = platform.policy.to_string();
    let mut vm = module.start(policy.as_bytes(), &env, now).map_err(|error| error.to_string())?;
    let loaded = vm.memory_bytes();
    for token in tokens.iter().take(3_000) {
        let outcome = vm.exchange(&asked(Ask::Read, token));
        if outcome.upstream.is_none() {
            return Err(format!("the module refused a token: {outcome:?}"));
        }
    }
    let full = vm.memory_bytes();
    let token = tokens.last().ok_or("no tokens")?;
    let mut calls = Vec::new();
    for (name, ask) in
        [("header-only", Ask::Read), ("300 B body", Ask::Dial), ("refused in the body", Ask::DialOutside)]
    {
        vm.exchange(&asked(ask, token));
        vm.reset_host_calls();
        vm.exchange(&asked(ask, token));
        calls.push((name, vm.host_calls()));
    }
    let size = std::fs::metadata(path).map_err(at(path.display()))?.len();
    Ok(Report { size, loaded, full, calls })
}

/// As a host shows it to the module.
fn asked(ask: Ask, token: &str) -> Request {
    let credential = format!("Bearer {token}");
    let request = |method: &str, path: &str| {
        Request::new(method, path)
            .header("user-agent", "bench/1")
            .header("accept", "application/json")
            .header("x-request-id", "7e4f2a0c-51f6-4c0e-9a5b-1f0c7a9d8e4b")
            .header("authorization", &credential)
    };
    match ask {
        Ask::Read => request("GET", "/v1/me"),
        Ask::NoScope => request("GET", "/v1/usage"),
        Ask::Dial | Ask::DialOutside => {
            let to = if ask == Ask::Dial { "+15557654321" } else { "+15557650000" };
            request("POST", "/v1/calls/dial").json(body(to))
        }
    }
}
