//! Concurrent sessions, and the total seconds of a token.

use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::realtime::{API_KEY, MODEL, handshake, policy};
use super::store::{Fleet, in_redis, with_redis};
use super::{same, status};
use crate::support::client::{Handshake, Socket, exchange, websocket};
use crate::support::corpus::Request;
use crate::support::gateway::Pieces;
use crate::support::poll;

/// Duration of a lease without renewal, rounded up by a second.
const LEASE: Duration = Duration::from_secs(16);
/// Time until a session is freed after its client closed it.
const SOON: Duration = Duration::from_secs(2);

/// Two sessions at a time for a token.
fn two_at_a_time() -> Result<Value, String> {
    let mut policy = policy()?;
    policy["limits"] = json!([{"id": "live", "per": "token", "sessions": {"max": 2}}]);
    Ok(policy)
}

/// Mints a client token that outlives the test.
fn mint(fleet: &Fleet) -> Result<String, String> {
    let asked = json!({"expiresIn": 600});
    let request = Request::new("POST", "/v1/client/tokens").header("x-api-key", API_KEY).json(&asked);
    let answer = exchange(fleet.address(0)?, &request)?;
    let token = answer.json()["apiKey"].as_str().map(str::to_owned);
    token.ok_or_else(|| format!("no token: {} {}", answer.status, answer.text()))
}

fn ask(fleet: &Fleet, gateway: usize, token: &str) -> Result<Handshake, String> {
    websocket(fleet.address(gateway)?, &handshake(token, MODEL))
}

fn open(fleet: &Fleet, gateway: usize, token: &str) -> Result<Socket, String> {
    let mut socket = ask(fleet, gateway, token)?.opened()?;
    same("the echo", socket.ask("hello")?, "hello".to_owned())?;
    Ok(socket)
}

/// Waits for a free session.
fn open_within(fleet: &Fleet, gateway: usize, token: &str, limit: Duration) -> Result<Socket, String> {
    poll("a free slot", limit, || open(fleet, gateway, token).ok())
}

/// Checks that every worker refuses another handshake.
fn is_full(fleet: &Fleet, gateway: usize, token: &str) -> Result<(), String> {
    let before = fleet.upstream.count();
    for _ in 0..6 {
        let refused = ask(fleet, gateway, token)?.refused()?;
        status("one more", &refused, 429)?;
        let seconds = refused.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        same("retry-after is given", seconds.is_some_and(|seconds| seconds > 0), true)?;
    }
    same("requests upstream", fleet.upstream.count(), before)
}

/// Two sessions are allowed and a third is not; a closed one is freed soon, and open ones count as long as they last.
pub fn concurrent_sessions(pieces: &Pieces) -> Result<(), String> {
    let fleet = Fleet::local(pieces, &two_at_a_time()?, 2)?;
    let (token, other) = (mint(&fleet)?, mint(&fleet)?);
    let (first, second) = (open(&fleet, 0, &token)?, open(&fleet, 0, &token)?);
    let begin = Instant::now();
    is_full(&fleet, 0, &token)?;
    drop(open(&fleet, 0, &other)?);

    first.close()?;
    let third = open_within(&fleet, 0, &token, SOON)?;
    is_full(&fleet, 0, &token)?;
    // Without a close frame, as when a browser is closed.
    drop(second);
    let mut fourth = open_within(&fleet, 0, &token, SOON)?;
    is_full(&fleet, 0, &token)?;

    // Leases are renewed: no session is freed by the passing of time or by another policy.
    let mut policy = two_at_a_time()?;
    policy["tokens"]["ek"]["ttl_seconds"]["max"] = json!(3_000);
    fleet.deliver(&policy)?;
    std::thread::sleep((LEASE + SOON).saturating_sub(begin.elapsed()));
    is_full(&fleet, 0, &token)?;
    same("an open session", fourth.ask("hello again")?, "hello again".to_owned())?;
    third.close()?;
    open_within(&fleet, 0, &token, SOON).map(drop)
}

/// A killed gateway cannot report the end of its sessions: they count until their leases end, and those of the other
/// gateway continue.
pub fn crashed_sessions_are_freed() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = in_redis(two_at_a_time()?, &redis);
        let mut fleet = Fleet::shared(pieces, redis, &policy, 2)?;
        let token = mint(&fleet)?;
        let lost = open(&fleet, 0, &token)?;
        let mut kept = open(&fleet, 1, &token)?;
        is_full(&fleet, 0, &token)?;
        is_full(&fleet, 1, &token)?;

        fleet.gateways.first_mut().ok_or("no gateway")?.kill();
        let begin = Instant::now();
        drop(lost);
        is_full(&fleet, 1, &token)?;
        let _again = open_within(&fleet, 1, &token, LEASE + SOON)?;
        // By now the first lease of the other gateway would have ended too.
        std::thread::sleep((LEASE + SOON).saturating_sub(begin.elapsed()));
        is_full(&fleet, 1, &token)?;
        same("the session of the other gateway", kept.ask("hello again")?, "hello again".to_owned())?;
        kept.close()?;
        open_within(&fleet, 1, &token, SOON + Duration::from_secs(1)).map(drop)
    })
}

/// The sessions of a token share its total seconds: unused ones go to the next, and at the end all are closed.
pub fn seconds_together(pieces: &Pieces) -> Result<(), String> {
    const TOTAL: u64 = 5;
    let mut policy = policy()?;
    policy["tokens"]["ek"]["total_seconds"] = json!({"default": TOTAL});
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let token = mint(&fleet)?;
    let begin = Instant::now();
    let first = open(&fleet, 0, &token)?;
    // The first session reserves all seconds, so a second one gets none.
    status("while the first is open", &ask(&fleet, 0, &token)?.refused()?, 403)?;
    std::thread::sleep(Duration::from_millis(1_200));
    first.close()?;

    let mut rest = open_within(&fleet, 0, &token, SOON)?;
    let opened = rest.opened;
    let closed = rest.wait_until_closed()?;
    let (own, all) = (closed.duration_since(opened), closed.duration_since(begin));
    // The first session lasted a fraction of a second more, and whole seconds are counted.
    let is_rest = (Duration::from_millis(1_500)..=Duration::from_secs(TOTAL)).contains(&own);
    if !is_rest || all > Duration::from_secs(TOTAL + 3) {
        return Err(format!("the rest of {TOTAL} s lasted {own:?}, {all:?} after the first began"));
    }
    let sum: Duration = fleet.upstream.seen().iter().filter_map(|seen| seen.session.as_ref()?.lasted()).sum();
    if sum > Duration::from_secs(TOTAL) + Duration::from_millis(700) {
        return Err(format!("together the sessions lasted {sum:?}"));
    }
    std::thread::sleep(SOON);
    for _ in 0..6 {
        status("afterwards", &ask(&fleet, 0, &token)?.refused()?, 403)?;
    }
    open(&fleet, 0, &mint(&fleet)?).map(drop)
}

/// A single-use token resumes its lost session within the time allowed, and never a session that is open.
pub fn lost_session_is_resumed(pieces: &Pieces) -> Result<(), String> {
    resume(&Fleet::local(pieces, &resumable()?, 2)?)
}

pub fn lost_session_at_other_gateway() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = in_redis(resumable()?, &redis);
        resume(&Fleet::shared(pieces, redis, &policy, 2)?)
    })
}

const GRACE: u64 = 4;

fn resumable() -> Result<Value, String> {
    let mut policy = policy()?;
    let routes = policy["routes"].as_array_mut().ok_or("no routes")?;
    let stream = routes.iter_mut().find(|route| route["id"] == "stream").ok_or("no stream")?;
    stream["uses"] = json!({"max": 1, "reconnect_seconds": GRACE});
    Ok(policy)
}

fn resume(fleet: &Fleet) -> Result<(), String> {
    let last = fleet.gateways.len() - 1;
    // The route counts a token without uses of its own: one from the store's first second would be refused.
    fleet.wait_one_second();
    let token = mint(fleet)?;
    let first = open(fleet, 0, &token)?;
    for gateway in [0, last] {
        status("while it is open", &ask(fleet, gateway, &token)?.refused()?, 401)?;
    }
    drop(first);
    let second = open_within(fleet, last, &token, SOON)?;
    status("while the second is open", &ask(fleet, 0, &token)?.refused()?, 401)?;
    // Longer than the resumption time, which does not start while the session is open.
    std::thread::sleep(Duration::from_secs(GRACE + 1));
    second.close()?;
    let third = open_within(fleet, 0, &token, SOON)?;
    third.close()?;
    std::thread::sleep(Duration::from_secs(GRACE) + SOON);
    for gateway in [0, last] {
        status("too late", &ask(fleet, gateway, &token)?.refused()?, 401)?;
    }
    same("sessions upstream", fleet.upstream.count(), 3)
}
