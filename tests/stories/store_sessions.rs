//! Sessions that are counted while they are open, and the seconds they last together.

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

/// How long a lease lasts that nobody renews, with a second for whole seconds.
const LEASE: Duration = Duration::from_secs(16);
/// How soon a slot is free again when its client has said goodbye.
const SOON: Duration = Duration::from_secs(2);

/// Two sessions at a time for a token.
fn two_at_a_time() -> Result<Value, String> {
    let mut policy = policy()?;
    policy["limits"] = json!([{"id": "live", "per": "token", "sessions": {"max": 2}}]);
    Ok(policy)
}

/// A client token that lives longer than the story.
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

/// Waits for a slot.
fn open_within(fleet: &Fleet, gateway: usize, token: &str, limit: Duration) -> Result<Socket, String> {
    poll("a free slot", limit, || open(fleet, gateway, token).ok())
}

/// Handshakes meet every worker, and all of them refuse.
fn is_full(fleet: &Fleet, gateway: usize, token: &str) -> Result<(), String> {
    let before = fleet.upstream.count();
    for _ in 0..6 {
        let refused = ask(fleet, gateway, token)?.refused()?;
        status("one more", &refused, 429)?;
        let seconds = refused.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        same("it says when to come again", seconds.is_some_and(|seconds| seconds > 0), true)?;
    }
    same("requests upstream", fleet.upstream.count(), before)
}

/// Two, not three; the slot of one that has gone is free soon; those that stay are counted for as long as they do.
pub fn as_many_as_it_may(pieces: &Pieces) -> Result<(), String> {
    let fleet = Fleet::local(pieces, &two_at_a_time()?, 2)?;
    let (token, other) = (mint(&fleet)?, mint(&fleet)?);
    let (first, second) = (open(&fleet, 0, &token)?, open(&fleet, 0, &token)?);
    let begin = Instant::now();
    is_full(&fleet, 0, &token)?;
    drop(open(&fleet, 0, &other)?);

    first.close()?;
    let third = open_within(&fleet, 0, &token, SOON)?;
    is_full(&fleet, 0, &token)?;
    // Without a word, as when a browser is closed.
    drop(second);
    let mut fourth = open_within(&fleet, 0, &token, SOON)?;
    is_full(&fleet, 0, &token)?;

    // Leases are renewed: nobody's slot is free because time has passed, nor after another policy.
    let mut policy = two_at_a_time()?;
    policy["tokens"]["ek"]["ttl_seconds"]["max"] = json!(3_000);
    fleet.deliver(&policy)?;
    std::thread::sleep((LEASE + SOON).saturating_sub(begin.elapsed()));
    is_full(&fleet, 0, &token)?;
    same("one of them still speaks", fourth.ask("still there?")?, "still there?".to_owned())?;
    third.close()?;
    open_within(&fleet, 0, &token, SOON).map(drop)
}

/// A gateway that is killed cannot say that its sessions are over: they count until their leases end, and those of the
/// other gateway go on.
pub fn slots_come_back_after_a_crash() -> Result<Completion, Failed> {
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
        // By now the other's first lease would have ended too.
        std::thread::sleep((LEASE + SOON).saturating_sub(begin.elapsed()));
        is_full(&fleet, 1, &token)?;
        same("the other's still speaks", kept.ask("still there?")?, "still there?".to_owned())?;
        kept.close()?;
        open_within(&fleet, 1, &token, SOON + Duration::from_secs(1)).map(drop)
    })
}

/// All sessions of a token together last as long as it says: what one does not take is another's, and at the end all are
/// cut.
pub fn seconds_together(pieces: &Pieces) -> Result<(), String> {
    const TOTAL: u64 = 5;
    let mut policy = policy()?;
    policy["tokens"]["ek"]["total_seconds"] = json!({"default": TOTAL});
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let token = mint(&fleet)?;
    let begin = Instant::now();
    let first = open(&fleet, 0, &token)?;
    // It may take all there is, so there is nothing for a second one beside it.
    status("beside it", &ask(&fleet, 0, &token)?.refused()?, 403)?;
    std::thread::sleep(Duration::from_millis(1_200));
    first.close()?;

    let mut rest = open_within(&fleet, 0, &token, SOON)?;
    let opened = rest.opened;
    let closed = rest.wait_until_closed()?;
    let (own, all) = (closed.duration_since(opened), closed.duration_since(begin));
    // The first took part of a second more, and each is counted in whole ones.
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

/// A single-use token comes back to the session it lost, for as long as it may, and never beside itself.
pub fn lost_session_comes_back(pieces: &Pieces) -> Result<(), String> {
    come_back(&Fleet::local(pieces, &may_come_back()?, 2)?)
}

pub fn lost_session_comes_back_elsewhere() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = in_redis(may_come_back()?, &redis);
        come_back(&Fleet::shared(pieces, redis, &policy, 2)?)
    })
}

const GRACE: u64 = 4;

fn may_come_back() -> Result<Value, String> {
    let mut policy = policy()?;
    let routes = policy["routes"].as_array_mut().ok_or("no routes")?;
    let stream = routes.iter_mut().find(|route| route["id"] == "stream").ok_or("no stream")?;
    stream["uses"] = json!({"max": 1, "reconnect_seconds": GRACE});
    Ok(policy)
}

fn come_back(fleet: &Fleet) -> Result<(), String> {
    let last = fleet.gateways.len() - 1;
    // The route counts a token that carries no uses: one of the second in which the store began may have been used.
    fleet.let_a_second_pass();
    let token = mint(fleet)?;
    let first = open(fleet, 0, &token)?;
    for gateway in [0, last] {
        status("beside itself", &ask(fleet, gateway, &token)?.refused()?, 401)?;
    }
    drop(first);
    let second = open_within(fleet, last, &token, SOON)?;
    status("beside itself again", &ask(fleet, 0, &token)?.refused()?, 401)?;
    // Longer than it may be away: while it is there, that does not begin.
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
