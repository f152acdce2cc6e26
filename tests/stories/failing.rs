//! An upstream that fails: a call is never repeated for the client.

use super::{ALLOWED, World, call, policy, status};
use crate::support::client::exchange;
use crate::support::gateway::Pieces;

pub fn one_request_on_503(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let token = world.mint()?;
    world.upstream.answer_with(503);
    status("plain", &exchange(world.address(), &call(&token, ALLOWED))?, 503)?;
    world.upstream_saw(1)?;
    let asking = call(&token, ALLOWED)
        .header("x-envoy-retry-on", "5xx,connect-failure,retriable-status-codes")
        .header("x-envoy-max-retries", "3")
        .header("x-envoy-retriable-status-codes", "503");
    status("asking for retries", &exchange(world.address(), &asking)?, 503)?;
    world.upstream_saw(2)
}
