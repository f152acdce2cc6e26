//! Clients that disconnect before the end of their request.

use std::time::Duration;

use super::{ALLOWED, World, call, policy};
use crate::support::client::{Frames, Http1, Http2, chunk, head};
use crate::support::corpus::{Framing, Request};
use crate::support::gateway::Pieces;
use crate::support::poll;

impl World {
    /// Waits until Envoy holds an unanswered request.
    pub(super) fn wait_until_held(&self) -> Result<(), String> {
        poll("a held request", Duration::from_secs(10), || {
            (self.gateway.stat("http.gateway.downstream_rq_active$") > 0).then_some(())
        })
    }

    fn wait_until_idle(&self) -> Result<(), String> {
        poll("an idle gateway", Duration::from_secs(10), || {
            (self.gateway.stat("http.gateway.downstream_rq_active$") == 0).then_some(())
        })
    }
}

pub fn mid_body(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let token = world.mint()?;
    let request = Request { framing: Framing::Chunked, ..call(&token, ALLOWED) };
    let body = request.body.clone().unwrap_or_default();

    let mut connection = Http1::connect(world.address())?;
    connection.send(&head(&request))?;
    // All of the JSON is there; the end of the request is not.
    connection.send(&chunk(&body))?;
    world.wait_until_held()?;
    connection.abandon();
    world.wait_until_idle()?;

    let mut connection = Http2::connect(world.address())?;
    let (open, frames) = Frames::channel(false);
    open.data(&body);
    let started = connection.begin(&Request { framing: Framing::H2Trailers, ..request }, frames)?;
    world.wait_until_held()?;
    drop((started, connection, open));
    world.wait_until_idle()?;

    world.upstream_saw(0)?;
    world.is_alive(&token)
}
