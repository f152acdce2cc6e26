//! A real Envoy with the module, real sockets and a recording upstream.

use std::time::Duration;

use super::Gate;
use crate::support::corpus::{File, Level, Request};
use crate::support::expect::{LoggedDecision, Observed};
use crate::support::gateway::{Gateway, Pieces, Setup, unchanged};
use crate::support::recorder::Recorder;
use crate::support::{client, real_now};

struct Real {
    gateway: Gateway,
    upstream: Recorder,
    /// Requests played, and those of them that the upstream was expected to see.
    played: usize,
    released: usize,
}

pub fn gate(file: &File, level: Level) -> Result<Box<dyn Gate>, String> {
    let pieces = Pieces::find().map_err(|_| "no Envoy or no module")?;
    let upstream = Recorder::start()?;
    let setup = Setup {
        policy: &file.policy,
        env: &file.env,
        upstream: upstream.address(),
        cors: &[],
        edit: &unchanged,
    };
    // Effects between workers are the same in both arrangements.
    let workers = if level == Level::Mesh { 1 } else { 2 };
    let gateway = Gateway::start_with_workers(&pieces, &setup, workers)?;
    if ["\"uses\"", "\"total_seconds\""].iter().any(|member| file.policy.contains(member)) {
        // Tokens issued in the store's first second are refused.
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(Box::new(Real { gateway, upstream, played: 0, released: 0 }))
}

/// Checks that a policy this arrangement cannot serve is not even rendered.
pub fn refuses(file: &File, problem: &str) -> Result<(), String> {
    let pieces = Pieces::find().map_err(|_| "no Envoy or no module")?;
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let setup =
        Setup { policy: &file.policy, env: &file.env, upstream: nowhere, cors: &[], edit: &unchanged };
    match Gateway::start(&pieces, &setup) {
        Err(error) if error.contains(problem) => Ok(()),
        Err(error) => Err(format!("expected `{problem}`, got: {error}")),
        Ok(_) => Err("it was rendered and started".to_owned()),
    }
}

impl Gate for Real {
    fn now(&self) -> u64 {
        real_now()
    }

    fn wait(&mut self, seconds: u64) {
        std::thread::sleep(Duration::from_secs(seconds));
    }

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let answer = client::exchange(self.gateway.address(), request);
        let line =
            self.gateway.next_access(self.played).map_err(|problem| format!("{problem}; {answer:?}"))?;
        self.played += 1;
        let answer = answer?;
        let decision = line["decision"].as_str().map(LoggedDecision::parse);
        let upstream = self.upstream.get(self.released);
        self.released = self.upstream.count();
        Ok(Observed { upstream, answer: Some(answer), decision })
    }

    fn close(&mut self, good: Option<&Request>) -> Result<(), String> {
        if let Some(good) = good {
            for worker in 0..6 {
                let observed = self.exchange(good)?;
                if !observed.is_alive() {
                    let status = observed.answer.map(|answer| answer.status);
                    return Err(format!("good request {worker} was refused afterwards: {status:?}"));
                }
            }
        }
        // Envoy's own counter includes leaks that never became a whole request.
        let (begun, recorded) = (self.gateway.upstream_requests(), self.upstream.count() as u64);
        if begun != recorded || self.released as u64 != recorded {
            return Err(format!("Envoy began {begun} upstream requests, {recorded} were recorded"));
        }
        let crashes = self.gateway.stat("wasm.*(crash|vm_reload)");
        if crashes > 0 { Err(format!("the module crashed {crashes} times")) } else { Ok(()) }
    }
}
