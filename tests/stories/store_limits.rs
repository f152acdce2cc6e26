//! Limits, exact to the request: under many clients, after floods of strangers, over gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::store::{Crowd, Fleet, calm_window, in_redis, tally, with_redis};
use super::{ALLOWED, KEY, call, policy, same, status};
use crate::support::client::exchange;
use crate::support::corpus::Request;
use crate::support::expect::Answer;
use crate::support::gateway::Pieces;

const CLIENTS: usize = 64;
const MAX: usize = 100;
const REQUESTS: usize = 500;
/// Of good form, and nobody's.
const STRANGER: &str = "demo_ffeeddccbbaa99887766554433221100";

/// A hundred calls for a key, and one more for everybody together.
fn limited() -> Value {
    let mut policy = policy();
    let seconds = calm_window();
    let window = |max: usize| json!({"max": max, "seconds": seconds});
    policy["limits"] = json!([
        {"id": "hour", "per": "key", "routes": ["dial"], "window": window(MAX)},
        {"id": "all", "per": "platform", "routes": ["dial"], "window": window(MAX + 1)}
    ]);
    with_second_key(policy)
}

const SECOND_KEY: &str = "demo_0123456789abcdef0123456789abcdef";

/// A second key of the same team.
fn with_second_key(mut policy: Value) -> Value {
    let mut second = policy["api_keys"][0].clone();
    second["id"] = json!("second");
    second["sha256"] = json!(super::digest(SECOND_KEY));
    if let Some(keys) = policy["api_keys"].as_array_mut() {
        keys.push(second);
    }
    policy
}

pub fn exact_on_two_workers(pieces: &Pieces) -> Result<(), String> {
    exact(&Fleet::local(pieces, &limited(), 2)?)
}

pub fn exact_on_two_gateways() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = in_redis(limited(), &redis);
        exact(&Fleet::shared(pieces, redis, &policy, 2)?)
    })
}

fn exact(fleet: &Fleet) -> Result<(), String> {
    let token = fleet.mint()?;
    let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
    flood(fleet, &mut crowd, &token)?;
    let answers = crowd.send(&call(&token, ALLOWED), REQUESTS)?;
    same("answers", tally(&answers), BTreeMap::from([(200, MAX), (429, REQUESTS - MAX)]))?;
    same("requests upstream", fleet.upstream.count(), MAX)?;
    fleet.counts_agree()?;
    say_how_many_are_left(&answers)?;
    // What the key's limit refused did not weigh on the others': one of 101 is left.
    status("another key", &exchange(fleet.address(0)?, &call(SECOND_KEY, ALLOWED))?, 200)?;
    let refused = exchange(fleet.address(0)?, &call(SECOND_KEY, ALLOWED))?;
    status("and once more", &refused, 429)?;
    let named = refused.header("ratelimit").is_some_and(|value| value.contains("\"all\""));
    if named {
        Ok(())
    } else {
        Err(format!("the other limit is not named: {:?}", refused.header("ratelimit")))
    }
}

/// Strangers, forgers and requests that no policy lets through: none of them is charged.
fn flood(fleet: &Fleet, crowd: &mut Crowd, token: &str) -> Result<(), String> {
    let (good, last) = token.split_at(token.len() - 1);
    let forged = format!("{good}{}", if last == "A" { "Q" } else { "A" });
    let nobody =
        Request { headers: Vec::new(), ..call("", ALLOWED) }.header("content-type", "application/json");
    let flood = [
        (call(STRANGER, ALLOWED), 401),
        (call(&forged, ALLOWED), 401),
        (nobody, 401),
        (call(token, "+15550009999"), 403),
    ];
    for (request, expected) in flood {
        same("the flood", tally(&crowd.send(&request, 100)?), BTreeMap::from([(expected, 100)]))?;
    }
    same("requests upstream", fleet.upstream.count(), 0)
}

/// Every answer says what is left; the released ones said each number once.
fn say_how_many_are_left(answers: &[Answer]) -> Result<(), String> {
    let (released, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    let left: BTreeSet<usize> = released.iter().filter_map(|answer| remaining(answer, "hour")).collect();
    same("numbers said to be left", left, (0..MAX).collect())?;
    for answer in refused {
        let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        let waits = seconds.is_some_and(|seconds| (800..200_000).contains(&seconds));
        let says_policy =
            answer.header("ratelimit-policy").is_some_and(|value| value.contains("\"hour\";q=100;w="));
        if !waits || !says_policy || remaining(answer, "hour") != Some(0) {
            return Err(format!("a refusal says {:?}", answer.headers));
        }
    }
    Ok(())
}

/// `r` of one limit in `"hour";r=99;t=3400, "all";r=…`.
fn remaining(answer: &Answer, limit: &str) -> Option<usize> {
    let header = answer.header("ratelimit")?;
    let own = header.split(',').find(|part| part.contains(&format!("\"{limit}\"")))?;
    own.split(';').find_map(|part| part.trim().strip_prefix("r="))?.parse().ok()
}

pub fn burst_on_two_workers(pieces: &Pieces) -> Result<(), String> {
    burst(&Fleet::local(pieces, &evenly(), 2)?)
}

pub fn burst_on_two_gateways() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = in_redis(evenly(), &redis);
        burst(&Fleet::shared(pieces, redis, &policy, 2)?)
    })
}

/// One each two hours, and twenty at once.
fn evenly() -> Value {
    let mut policy = policy();
    policy["limits"] = json!([{
        "id": "burst", "per": "team", "routes": ["dial"], "rate": {"max": 12, "seconds": 86_400, "burst": 20}
    }]);
    policy
}

fn burst(fleet: &Fleet) -> Result<(), String> {
    let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
    let answers = crowd.send(&call(KEY, ALLOWED), 200)?;
    same("answers", tally(&answers), BTreeMap::from([(200, 20), (429, 180)]))?;
    same("requests upstream", fleet.upstream.count(), 20)?;
    let waits = answers.iter().filter(|answer| answer.status == 429).all(|answer| {
        let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        seconds.is_some_and(|seconds| (7_100..=7_200).contains(&seconds))
    });
    if waits { Ok(()) } else { Err("a refusal does not say when to come again".to_owned()) }
}

/// Who waits as long as he is told is let through, in windows and at an even rate, and not before.
pub fn retry_after_is_true(pieces: &Pieces) -> Result<(), String> {
    let mut policy = with_second_key(policy());
    policy["limits"] = json!([
        {"id": "window", "per": "key", "routes": ["dial"], "credentials": ["api_key"], "window": {"max": 2, "seconds": 3}},
        {"id": "rate", "per": "token", "routes": ["dial"], "credentials": ["ct"], "rate": {"max": 1, "seconds": 2, "burst": 2}}
    ]);
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let token = fleet.mint()?;
    for credential in [KEY, &token] {
        // A window may end in between.
        let refused = (0..5).map(|_| exchange(fleet.address(0)?, &call(credential, ALLOWED)));
        let refused =
            refused.collect::<Result<Vec<_>, String>>()?.into_iter().find(|answer| answer.status == 429);
        let refused = refused.ok_or("five at once were let through")?;
        let seconds: u64 = refused.header("retry-after").and_then(|value| value.parse().ok()).unwrap_or(99);
        if !(1..=3).contains(&seconds) {
            return Err(format!("to be tried again after {seconds} s"));
        }
        std::thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(100));
        status("after waiting", &exchange(fleet.address(0)?, &call(credential, ALLOWED))?, 200)?;
    }
    Ok(())
}

/// Who guesses is refused before he is looked at, also with a good key; a gateway's guesses count on all workers.
pub fn guesses_are_limited(pieces: &Pieces) -> Result<(), String> {
    let mut policy = policy();
    policy["limits"] = json!([{
        "id": "guesses", "per": "address", "count": "failures", "window": {"max": 30, "seconds": calm_window()}
    }]);
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
    let good = tally(&crowd.send(&call(KEY, ALLOWED), 100)?);
    same("good ones are no guesses", good, BTreeMap::from([(200, 100)]))?;
    let answers = tally(&crowd.send(&call(STRANGER, ALLOWED), 200)?);
    let [guesses, refused] = [401, 429].map(|code| answers.get(&code).copied().unwrap_or_default());
    // Each worker may be at one more while the last is written down.
    if !(30..=32).contains(&guesses) || guesses + refused != 200 {
        return Err(format!("guesses: {answers:?}"));
    }
    status("a good key from there", &exchange(fleet.address(0)?, &call(KEY, ALLOWED))?, 429)?;
    same("requests upstream", fleet.upstream.count(), 100)
}
