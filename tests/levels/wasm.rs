//! The compiled module in the test's own proxy-wasm host, imitating Envoy, Kong and APISIX, at the same time of day as
//! the core.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::Gate;
use super::core::{EARLIER, NOW, with_pseudo_headers};
use super::host_crypto::verify_signature;
use crate::support::corpus::{File, Headers, Level, Request};
use crate::support::expect::{Answer, LoggedDecision, Observed, Seen};
use crate::support::require::{Piece, require};
use crate::wasm_host::{self, HostRules, Module, Pairs, Reply, Upstream, Vm, World, host_rules};

struct Worker {
    vm: Vm,
    now: u64,
    level: Level,
}

pub fn gate(file: &File, level: Level) -> Result<Box<dyn Gate>, String> {
    let world = world(file, level);
    let mut vm = module()?.start_in(world, file.policy.as_bytes()).map_err(|error| error.to_string())?;
    if level == Level::Kong {
        // On Kong the store begins with the first request.
        vm.exchange(&wasm_host::Request::new("GET", "/"));
    }
    vm.set_now(nanoseconds(NOW));
    Ok(Box::new(Worker { vm, now: NOW, level }))
}

/// Sets up the gateway around the module as an operator would for this file.
fn world(file: &File, level: Level) -> World {
    let env: Vec<(String, String)> =
        file.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut world = World::imitating(host(level), &env, nanoseconds(NOW - EARLIER));
    if let Some(peer) = file.peer {
        let (property, address) = match level {
            Level::Kong => ("source\0address", peer.to_string()),
            Level::Apisix => ("remote_addr", peer.to_string()),
            _ => ("source\0address", std::net::SocketAddr::from((peer, 1234)).to_string()),
        };
        world.properties.insert(property.to_owned(), address.into_bytes());
    }
    world.clusters.extend(clusters(&file.policy));
    world.foreign.insert("verify_signature".to_owned(), Arc::new(verify_signature));
    world
}

pub fn host(level: Level) -> &'static HostRules {
    match level {
        Level::Buffer => &host_rules::BUFFER,
        Level::Kong => &host_rules::KONG,
        Level::Apisix => &host_rules::APISIX,
        _ => &host_rules::ENVOY,
    }
}

/// Property that holds the decision for an access log.
fn log_property(level: Level) -> &'static str {
    match level {
        Level::Kong => "kong\0ctx\0shared\0callbound",
        _ => "callbound",
    }
}

/// Checks that the module reports a policy this host cannot serve, and that no request passes.
pub fn refuses(file: &File, level: Level, problem: &str) -> Result<(), String> {
    let logs_problem =
        |logs: &[(wasm_host::Level, String)]| match logs.iter().any(|(_, line)| line.contains(problem)) {
            true => Ok(()),
            false => Err(format!("no log line contains `{problem}`: {logs:?}")),
        };
    match (module()?.start_in(world(file, level), file.policy.as_bytes()), level) {
        (Err(error), Level::Kong) => Err(format!("Kong would go on without it: {error}")),
        (Err(error), _) => logs_problem(&error.logs),
        (Ok(mut vm), Level::Kong) => {
            logs_problem(&vm.logs())?;
            let outcome = vm.exchange(&wasm_host::Request::new("GET", "/"));
            match (outcome.status(), &outcome.upstream, &outcome.trapped) {
                (Some(503), None, None) => Ok(()),
                _ => Err(format!("a request is not answered 503: {outcome:?}")),
            }
        }
        (Ok(_), _) => Err("the module took a policy its compiler refuses".to_owned()),
    }
}

/// Clusters that the policy names; a gateway has them.
fn clusters(policy: &str) -> Vec<String> {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let issuers = policy["issuers"].as_object().into_iter().flat_map(|issuers| issuers.values());
    let named = issuers.filter_map(|issuer| issuer["jwks"]["cluster"].as_str());
    named.map(str::to_owned).collect()
}

/// Compiles the module once, which is slow.
pub fn module() -> Result<&'static Module, String> {
    static MODULE: OnceLock<Result<Module, String>> = OnceLock::new();
    let load = || {
        let path = require(Piece::Module).map_err(|_| "no module")?;
        Module::load(path)
    };
    MODULE.get_or_init(load).as_ref().map_err(Clone::clone)
}

pub fn nanoseconds(seconds: u64) -> u64 {
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
        let outcome = self.vm.exchange(&on_the_wire(request, self.level));
        if let Some(trap) = outcome.trapped {
            return Err(format!("the module trapped: {trap}"));
        }
        if outcome.held {
            return Err("the request is still held".to_owned());
        }
        if outcome.reset {
            return Ok(Observed::default());
        }
        if let Some(status) = outcome.failed {
            let status = u16::try_from(status).unwrap_or_default();
            return Ok(Observed {
                answer: Some(Answer { status, ..Answer::default() }),
                ..Observed::default()
            });
        }
        let summary = outcome
            .properties
            .get(log_property(self.level))
            .map(|value| String::from_utf8_lossy(value).into_owned());
        let decision = summary.as_deref().map(LoggedDecision::parse);
        // APISIX has no counters.
        if let Some(decision) = decision.as_ref().filter(|_| self.level != Level::Apisix) {
            check_counter(decision, &before, &self.vm.counters())?;
        }
        // nginx puts the details into its status line, which the client can read.
        let details = outcome.reply.as_ref().map_or("", |reply| &reply.details);
        if matches!(self.level, Level::Kong | Level::Apisix) && !details.is_empty() {
            return Err(format!("the client is shown the cause: {details}"));
        }
        let mut answer = outcome.reply.or(outcome.response).as_ref().map(answer);
        if let (Level::Kong, Some(answer), None) = (self.level, &mut answer, &outcome.upstream) {
            // nginx ends the body of a local reply with a line feed of its own.
            let body = answer.body.strip_suffix(b"\n").map(<[u8]>::to_vec);
            let is_head = request.method == "HEAD";
            answer.body = body.or(is_head.then(Vec::new)).ok_or("a local reply without Kong's line feed")?;
        }
        let upstream = outcome.upstream.map(|upstream| seen(request, &upstream));
        Ok(Observed { upstream, answer, decision })
    }

    fn close(&mut self, good: Option<&Request>) -> Result<(), String> {
        if let Some(trap) = self.vm.trapped() {
            return Err(format!("the module trapped: {trap}"));
        }
        let grown = self.vm.world().shared.times_grown();
        if self.level == Level::Kong && grown > 0 {
            return Err(format!("{grown} values grew in shared memory: a full zone would trap"));
        }
        let Some(good) = good else { return Ok(()) };
        if self.exchange(good)?.is_alive() {
            Ok(())
        } else {
            Err("a request that was good before is refused".to_owned())
        }
    }
}

fn on_the_wire(request: &Request, level: Level) -> wasm_host::Request {
    let mut wire = wasm_host::Request::new(&request.method, &request.path);
    wire.headers = pairs(&with_pseudo_headers(request));
    if request.framing.is_h2() {
        wire.protocol = "HTTP/2.0";
    } else if level == Level::Kong {
        // A client of HTTP/1 may capitalise names, and this host keeps them.
        wire.headers.iter_mut().for_each(|(name, _)| capitalize(name));
    }
    wire.chunks = request.pieces().into_iter().map(<[u8]>::to_vec).collect();
    wire.unfinished = !request.ends_with_headers() && request.body.is_none();
    if request.framing.has_trailers() {
        wire.trailers = Some(pairs(&request.trailers));
    } else if request.body.is_some() && (wire.chunks.is_empty() || !request.framing.has_length()) {
        // Without an announced length the end of a body is a frame of its own.
        wire.chunks.push(Vec::new());
    }
    wire
}

/// `Content-Type`, not `content-type`.
fn capitalize(name: &mut [u8]) {
    for part in name.split_mut(|byte| *byte == b'-') {
        if let Some(first) = part.first_mut() {
            first.make_ascii_uppercase();
        }
    }
}

/// Checks that one decision is one step of the counter of its route and reason.
fn check_counter(
    decision: &LoggedDecision,
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
