//! The compiled module in the test's own proxy-wasm host, at the same second as the core.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::Gate;
use super::core::{EARLIER, NOW, with_pseudo_headers};
use super::host_crypto::verify_signature;
use crate::support::corpus::{File, Headers, Request};
use crate::support::expect::{Answer, Decision, Observed, Seen};
use crate::support::require::{Piece, require};
use crate::wasm_host::{self, Module, Pairs, Reply, Upstream, Vm, World};

struct Worker {
    vm: Vm,
    now: u64,
}

pub fn gate(file: &File) -> Result<Box<dyn Gate>, String> {
    let env: Vec<(String, String)> =
        file.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut world = World::new(&env, nanoseconds(NOW - EARLIER));
    if let Some(peer) = file.peer {
        let address = std::net::SocketAddr::from((peer, 1234)).to_string();
        world.properties.insert("source\0address".to_owned(), address.into_bytes());
    }
    world.clusters.extend(clusters(&file.policy));
    world.foreign.insert("verify_signature".to_owned(), Arc::new(verify_signature));
    let mut vm = module()?.start_in(world, file.policy.as_bytes()).map_err(|error| error.to_string())?;
    vm.set_now(nanoseconds(NOW));
    Ok(Box::new(Worker { vm, now: NOW }))
}

/// The clusters the policy calls: on a gateway they are there.
fn clusters(policy: &str) -> Vec<String> {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let families = policy["tokens"].as_object().into_iter().flat_map(|families| families.values());
    let named = families.filter_map(|family| family["external"]["jwks"]["cluster"].as_str());
    named.map(str::to_owned).collect()
}

/// Compiled once: that is what takes long.
fn module() -> Result<&'static Module, String> {
    static MODULE: OnceLock<Result<Module, String>> = OnceLock::new();
    let load = || {
        let path = require(Piece::Module).map_err(|_| "no module")?;
        Module::load(path)
    };
    MODULE.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn nanoseconds(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

impl Gate for Worker {
    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        self.vm.set_now(nanoseconds(self.now));
    }

    fn exchange(&mut self, request: &Request) -> Result<Observed, String> {
        let before = self.vm.counters();
        let outcome = self.vm.exchange(&on_the_wire(request));
        if let Some(trap) = outcome.trapped {
            return Err(format!("the module trapped: {trap}"));
        }
        if outcome.held {
            return Err("the request is still held".to_owned());
        }
        let summary =
            outcome.properties.get("callbound").map(|value| String::from_utf8_lossy(value).into_owned());
        let decision = summary.as_deref().map(Decision::parse);
        if let Some(decision) = &decision {
            check_counter(decision, &before, &self.vm.counters())?;
        }
        let answer = outcome.reply.or(outcome.response).as_ref().map(answer);
        let upstream = outcome.upstream.map(|upstream| seen(request, &upstream));
        Ok(Observed { upstream, answer, decision })
    }

    fn close(&mut self, good: Option<&Request>) -> Result<(), String> {
        if let Some(trap) = self.vm.trapped() {
            return Err(format!("the module trapped: {trap}"));
        }
        let Some(good) = good else { return Ok(()) };
        if self.exchange(good)?.is_alive() {
            Ok(())
        } else {
            Err("a request that was good before is refused".to_owned())
        }
    }
}

fn on_the_wire(request: &Request) -> wasm_host::Request {
    let mut wire = wasm_host::Request::new(&request.method, &request.path);
    wire.headers = pairs(&with_pseudo_headers(request));
    wire.chunks = request.pieces().into_iter().map(<[u8]>::to_vec).collect();
    wire.unfinished = !request.ends_with_headers() && request.body.is_none();
    if request.framing.has_trailers() {
        wire.trailers = Some(pairs(&request.trailers));
    } else if request.body.is_some() && (wire.chunks.is_empty() || !request.framing.has_length()) {
        // The end of a body that announced no length is a frame of its own.
        wire.chunks.push(Vec::new());
    }
    wire
}

/// One decision is one step of one counter: its route's and reason's.
fn check_counter(
    decision: &Decision,
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> Result<(), String> {
    let outcome = decision.get("decision").unwrap_or_default();
    let route = decision.get("route").unwrap_or_default();
    let name = match decision.get("reason") {
        Some(reason) => format!("callbound.route.{route}.{outcome}.{reason}"),
        None => format!("callbound.route.{route}.{outcome}"),
    };
    let steps: Vec<(&String, u64)> = after
        .iter()
        .map(|(name, count)| (name, count - before.get(name).unwrap_or(&0)))
        .filter(|(_, step)| *step > 0)
        .collect();
    if steps == [(&name, 1)] { Ok(()) } else { Err(format!("counters: expected {name}, got {steps:?}")) }
}

fn pairs(headers: &Headers) -> Pairs {
    headers.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect()
}

fn headers(pairs: &Pairs) -> Headers {
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    pairs.iter().map(|(key, value)| (name(key), value.clone())).collect()
}

fn answer(reply: &Reply) -> Answer {
    let status = u16::try_from(reply.status).unwrap_or_default();
    Answer { status, headers: headers(&reply.headers), body: reply.body.clone() }
}

fn seen(request: &Request, upstream: &Upstream) -> Seen {
    let text = |name: &str, default: &str| {
        upstream.header(name).map_or(default.to_owned(), |value| String::from_utf8_lossy(value).into_owned())
    };
    Seen {
        method: text(":method", &request.method),
        path: text(":path", &request.path),
        headers: headers(&upstream.headers),
        body: upstream.body.clone(),
        trailers: upstream.trailers.as_ref().map(headers).unwrap_or_default(),
        complete: upstream.complete,
        session: None,
    }
}
