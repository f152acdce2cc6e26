//! WebSockets: origin, duration and deadline. Time is the feature here, so it is asserted: at the deadline the upstream
//! is rid of a session within 0.3 s, and the client learns of it within a second.

use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::browser::with_browser;
use super::realtime::{MODEL, OTHER_MODEL, handshake, policy, start};
use super::{World, same, status};
use crate::support::browser::Site;
use crate::support::client::websocket;
use crate::support::expect::Session;
use crate::support::gateway::{Pieces, unchanged};
use crate::support::poll;

const AT_UPSTREAM: Duration = Duration::from_millis(300);
const AT_CLIENT: Duration = Duration::from_secs(1);
/// Longest session of these tests, in seconds.
const CAP: u64 = 2;

/// Script of a page that opens a socket and reports its end.
const SCRIPT: &str = r#"
  const socket = new WebSocket(GATEWAY + '/v1/stream?model=' + MODEL + '&api_key=' + TOKEN);
  const found = {heard: []};
  let opened;
  socket.onopen = () => { opened = performance.now(); socket.send('hello'); };
  socket.onmessage = event => found.heard.push(event.data);
  socket.onclose = () => report({...found, lasted: opened && performance.now() - opened});"#;

impl World {
    /// Waits for the end of a session at the upstream.
    fn ended_session(&self, index: usize) -> Result<Session, String> {
        poll("the end of the session at the upstream", Duration::from_secs(10), || {
            self.upstream.get(index)?.session.filter(|session| session.ended.is_some())
        })
    }
}

/// Checks that a socket was closed at its deadline, neither late nor early.
fn cut_at_deadline(whose: &str, lasted: Duration, tolerance: Duration) -> Result<(), String> {
    let deadline = Duration::from_secs(CAP);
    let in_time = lasted + AT_UPSTREAM >= deadline && lasted <= deadline + tolerance;
    if in_time { Ok(()) } else { Err(format!("{whose}: cut after {lasted:?}, expected {deadline:?}")) }
}

pub fn page_is_cut_at_deadline() -> Result<Completion, Failed> {
    with_browser(|pieces, chromium| {
        let world = start(pieces)?;
        let site = Site::start()?;
        let bounds = json!({
            "allowedModels": [MODEL],
            "allowedOrigins": [site.origin()],
            "constraints": {"realtime": {"maxSessionDuration": CAP}}
        });
        let token = world.mint_client_token(&bounds)?;
        let found = visit(&site, chromium, &world, &token)?;
        same("texts at the page", &found["heard"], &json!(["hello"]))?;
        let lasted = found["lasted"].as_f64().ok_or("the socket never opened")?;
        cut_at_deadline("at the page", Duration::from_secs_f64(lasted / 1000.0), AT_CLIENT)?;
        let session = world.ended_session(0)?;
        same("texts at the upstream", &session.texts, &vec!["hello".to_owned()])?;
        cut_at_deadline("at the upstream", session.lasted().unwrap_or_default(), AT_UPSTREAM)?;
        world.upstream_saw(1)
    })
}

pub fn page_of_another_origin_is_refused() -> Result<Completion, Failed> {
    with_browser(|pieces, chromium| {
        let world = start(pieces)?;
        let (site, other) = (Site::start()?, Site::start()?);
        let token = world.mint_client_token(&json!({"allowedOrigins": [site.origin()]}))?;
        let found = visit(&other, chromium, &world, &token)?;
        same("the other page", &found, &json!({"heard": []}))?;
        world.upstream_saw(0)
    })
}

fn visit(site: &Site, chromium: &Path, world: &World, token: &str) -> Result<Value, String> {
    let constants = [
        ("GATEWAY", format!("ws://{}", world.address())),
        ("MODEL", MODEL.to_owned()),
        ("TOKEN", token.to_owned()),
    ];
    site.visit(chromium, &constants, SCRIPT)
}

/// A client cannot grant itself a longer session.
pub fn own_duration_changes_nothing(pieces: &Pieces) -> Result<(), String> {
    let world = start(pieces)?;
    let token =
        world.mint_client_token(&json!({"constraints": {"realtime": {"maxSessionDuration": CAP}}}))?;
    let asking = handshake(&token, MODEL)
        .header("x-envoy-upstream-stream-duration-ms", "999999")
        .header("x-envoy-upstream-rq-timeout-ms", "999999");
    let mut socket = websocket(world.address(), &asking)?.opened()?;
    same("the echo", socket.ask("hello")?, "hello".to_owned())?;
    let opened = socket.opened;
    let closed = socket.wait_until_closed()?;
    cut_at_deadline("at the client", closed.duration_since(opened), AT_CLIENT)?;
    let session = world.ended_session(0)?;
    cut_at_deadline("at the upstream", session.lasted().unwrap_or_default(), AT_UPSTREAM)?;
    world.upstream_saw(1)
}

/// A session without a cap outlives its token and ends when its client closes it.
pub fn uncapped_session_lasts(pieces: &Pieces) -> Result<(), String> {
    let world = start(pieces)?;
    let token = world.mint_client_token(&json!({"expiresIn": 3}))?;
    let mut socket = websocket(world.address(), &handshake(&token, MODEL))?.opened()?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        same("the echo", socket.ask("hello again")?, "hello again".to_owned())?;
        std::thread::sleep(Duration::from_millis(200));
    }
    // The token is expired by now: it limits the opening of sessions only.
    let late = websocket(world.address(), &handshake(&token, MODEL))?.refused()?;
    status("an expired token", &late, 401)?;
    socket.close()?;
    let session = world.ended_session(0)?;
    let end = session.ended.map(|(_, end)| end).unwrap_or_default();
    if end.starts_with("closed") { world.upstream_saw(1) } else { Err(format!("it ended otherwise: {end}")) }
}

/// An open socket stays as it was judged; the next one is judged by the new policy.
pub fn reload_binds_new_sockets(pieces: &Pieces) -> Result<(), String> {
    let world = start(pieces)?;
    let token = world.mint_client_token(&json!({}))?;
    let mut open = websocket(world.address(), &handshake(&token, MODEL))?.opened()?;
    same("before", open.ask("one")?, "one".to_owned())?;

    let mut narrowed = policy()?;
    narrowed["api_keys"][0]["ceiling"] = json!({"model": [OTHER_MODEL]});
    world.deliver(&narrowed, &unchanged)?;
    same("the open one", open.ask("two")?, "two".to_owned())?;
    let refused = websocket(world.address(), &handshake(&token, MODEL))?.refused()?;
    status("outside the new ceiling", &refused, 403)?;
    let mut inside = websocket(world.address(), &handshake(&token, OTHER_MODEL))?.opened()?;
    same("inside the new ceiling", inside.ask("three")?, "three".to_owned())?;
    same("the open one still", open.ask("four")?, "four".to_owned())?;
    world.upstream_saw(2)
}
