//! Policies that are replaced, and policies that are rejected.

use super::{ALLOWED, OTHER, World, call, narrowed, policy, same, status};
use crate::support::client::{Frames, Http1, Http2, chunk, exchange, head};
use crate::support::corpus::{Framing, Request};
use crate::support::expect::Answer;
use crate::support::gateway::{Pieces, unchanged};

/// A connection that stays open, of either protocol.
type Connection<'a> = &'a mut dyn FnMut(&Request) -> Result<Answer, String>;

pub fn ceiling_on_http1(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let mut connection = Http1::connect(world.address())?;
    ceiling(&world, &mut |request| connection.exchange(request))
}

pub fn ceiling_on_http2(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let mut connection = Http2::connect(world.address())?;
    ceiling(&world, &mut |request| connection.exchange(&Request { framing: Framing::H2, ..request.clone() }))
}

fn ceiling(world: &World, connection: Connection<'_>) -> Result<(), String> {
    let token = world.mint()?;
    status("before", &connection(&call(&token, OTHER))?, 200)?;
    world.deliver(&narrowed(), &unchanged)?;
    status("outside the new ceiling", &connection(&call(&token, OTHER))?, 403)?;
    status("inside the new ceiling", &connection(&call(&token, ALLOWED))?, 200)?;
    world.upstream_saw(2)
}

pub fn in_flight_on_http1(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let request = Request { framing: Framing::Chunked, ..call(&world.mint()?, OTHER) };
    let body = request.body.clone().unwrap_or_default();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut connection = Http1::connect(world.address())?;
    connection.send(&head(&request))?;
    connection.send(&chunk(first))?;
    world.wait_until_held()?;
    world.deliver(&narrowed(), &unchanged)?;
    connection.send(&chunk(rest))?;
    connection.send(b"0\r\n\r\n")?;
    // A request begun under the old policy is judged by it.
    status("begun before", &connection.read_answer()?, 200)?;
    status("begun after", &connection.exchange(&request)?, 403)?;
    same("the body", world.upstream.get(0).map(|seen| seen.body), Some(body))?;
    world.upstream_saw(1)
}

pub fn in_flight_on_http2(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let request = Request { framing: Framing::H2, ..call(&world.mint()?, OTHER) };
    let body = request.body.clone().unwrap_or_default();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut connection = Http2::connect(world.address())?;
    let (open, frames) = Frames::channel(false);
    open.data(first);
    let started = connection.begin(&request, frames)?;
    world.wait_until_held()?;
    world.deliver(&narrowed(), &unchanged)?;
    open.data(rest);
    drop(open);
    status("begun before", &started.answer(&connection)?, 200)?;
    status("begun after", &connection.exchange(&request)?, 403)?;
    same("the body", world.upstream.get(0).map(|seen| seen.body), Some(body))?;
    world.upstream_saw(1)
}

/// Breaks a rendered policy, since `callbound envoy` refuses to render an invalid one.
fn broken(text: String) -> String {
    text.replacen(r#"\"calls:write\"]"#, r#"\"calls:wriet\"]"#, 1)
}

pub fn bad_policy_is_refused(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let token = world.mint()?;
    let mut connection = Http1::connect(world.address())?;
    status("before", &connection.exchange(&call(&token, OTHER))?, 200)?;
    let refused = world.deliver(&narrowed(), &broken);
    same("the delivery", refused, Err("Envoy refused the new policy".to_owned()))?;
    world.gateway.wait_for_log("policy refused")?;
    status("the old policy serves", &connection.exchange(&call(&token, OTHER))?, 200)?;
    world.deliver(&narrowed(), &unchanged)?;
    status("and a good one is taken", &connection.exchange(&call(&token, OTHER))?, 403)?;
    world.is_alive(&token)
}

pub fn first_bad_policy_serves_nothing(pieces: &Pieces) -> Result<(), String> {
    let world = World::start_with(pieces, &policy().to_string(), &[], &broken)?;
    serves_nothing(&world)
}

pub fn missing_secret_serves_nothing(pieces: &Pieces) -> Result<(), String> {
    let mut policy = policy();
    policy["token_keys"][0]["secret"] = serde_json::json!({"env": "CALLBOUND_NOT_SET"});
    let world = World::start_with(pieces, &policy.to_string(), &[], &unchanged)?;
    serves_nothing(&world)?;
    world.gateway.wait_for_log("CALLBOUND_NOT_SET")
}

fn serves_nothing(world: &World) -> Result<(), String> {
    world.gateway.wait_for_log("policy refused")?;
    for request in [call(super::KEY, ALLOWED), Request::new("GET", "/"), Request::new("GET", "/health")] {
        let answer = exchange(world.address(), &request)?;
        if !matches!(answer.status, 500 | 503) {
            return Err(format!("{} was answered {} {}", request.path, answer.status, answer.text()));
        }
    }
    world.upstream_saw(0)
}
