//! Limits, exact to the request: under many clients, after floods of failed requests, over two gateways.

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
/// Well-formed API key that does not exist.
const UNKNOWN_KEY: &str = "demo_ffeeddccbbaa99887766554433221100";

/// Limits of a hundred calls per key, and one more for all keys together.
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
    check_remaining(&answers)?;
    // Requests refused by the key's limit did not charge the other limit: one of 101 is left.
    status("another key", &exchange(fleet.address(0)?, &call(SECOND_KEY, ALLOWED))?, 200)?;
    let refused = exchange(fleet.address(0)?, &call(SECOND_KEY, ALLOWED))?;
    status("and once more", &refused, 429)?;
    let named = refused.header("ratelimit").is_some_and(|value| value.contains("\"all\""));
    if named { Ok(()) } else { Err(format!("the other limit is missing: {:?}", refused.header("ratelimit"))) }
}

/// Sends unknown keys, forged tokens and calls outside the bounds: they are not charged.
fn flood(fleet: &Fleet, crowd: &mut Crowd, token: &str) -> Result<(), String> {
    let (good, last) = token.split_at(token.len() - 1);
    let forged = format!("{good}{}", if last == "A" { "Q" } else { "A" });
    let without_credential =
        Request { headers: Vec::new(), ..call("", ALLOWED) }.header("content-type", "application/json");
    let flood = [
        (call(UNKNOWN_KEY, ALLOWED), 401),
        (call(&forged, ALLOWED), 401),
        (without_credential, 401),
        (call(token, "+15550009999"), 403),
    ];
    for (request, expected) in flood {
        same("the flood", tally(&crowd.send(&request, 100)?), BTreeMap::from([(expected, 100)]))?;
    }
    same("requests upstream", fleet.upstream.count(), 0)
}

/// Checks the limit headers of every answer; the allowed ones show each remaining number once.
fn check_remaining(answers: &[Answer]) -> Result<(), String> {
    let (released, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    let left: BTreeSet<usize> = released.iter().filter_map(|answer| remaining(answer, "hour")).collect();
    same("remaining counts", left, (0..MAX).collect())?;
    for answer in refused {
        let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        let waits = seconds.is_some_and(|seconds| (800..200_000).contains(&seconds));
        let names_limit =
            answer.header("ratelimit-policy").is_some_and(|value| value.contains("\"hour\";q=100;w="));
        if !waits || !names_limit || remaining(answer, "hour") != Some(0) {
            return Err(format!("headers of a refusal: {:?}", answer.headers));
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

/// A rate of one call per two hours, with a burst of twenty.
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
    if waits { Ok(()) } else { Err("a refusal without a correct retry-after".to_owned()) }
}

/// A request after `retry-after` is allowed, with windows and rates, and not before.
pub fn retry_after_is_exact(pieces: &Pieces) -> Result<(), String> {
    let mut policy = with_second_key(policy());
    policy["limits"] = json!([
        {"id": "window", "per": "key", "routes": ["dial"], "credentials": ["api_key"], "window": {"max": 2, "seconds": 3}},
        {"id": "rate", "per": "token", "routes": ["dial"], "credentials": ["ct"], "rate": {"max": 1, "seconds": 2, "burst": 2}}
    ]);
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let token = fleet.mint()?;
    for credential in [KEY, &token] {
        // A window may end meanwhile.
        let refused = (0..5).map(|_| exchange(fleet.address(0)?, &call(credential, ALLOWED)));
        let refused =
            refused.collect::<Result<Vec<_>, String>>()?.into_iter().find(|answer| answer.status == 429);
        let refused = refused.ok_or("five at once were allowed")?;
        let seconds: u64 = refused.header("retry-after").and_then(|value| value.parse().ok()).unwrap_or(99);
        if !(1..=3).contains(&seconds) {
            return Err(format!("retry-after is {seconds} s"));
        }
        std::thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(100));
        status("after waiting", &exchange(fleet.address(0)?, &call(credential, ALLOWED))?, 200)?;
    }
    Ok(())
}

/// At the limit of failures an address is refused before authentication, even with a valid key; failures count on all
/// workers.
pub fn failures_are_limited(pieces: &Pieces) -> Result<(), String> {
    let mut policy = policy();
    policy["limits"] = json!([{
        "id": "failures", "per": "address", "count": "failures", "window": {"max": 30, "seconds": calm_window()}
    }]);
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let mut crowd = Crowd::connect(&fleet.addresses(), CLIENTS)?;
    let good = tally(&crowd.send(&call(KEY, ALLOWED), 100)?);
    same("valid keys are not failures", good, BTreeMap::from([(200, 100)]))?;
    let answers = tally(&crowd.send(&call(UNKNOWN_KEY, ALLOWED), 200)?);
    let [failures, refused] = [401, 429].map(|code| answers.get(&code).copied().unwrap_or_default());
    // Each worker may accept one more while the last is being recorded.
    if !(30..=32).contains(&failures) || failures + refused != 200 {
        return Err(format!("failures: {answers:?}"));
    }
    status("a good key from there", &exchange(fleet.address(0)?, &call(KEY, ALLOWED))?, 429)?;
    same("requests upstream", fleet.upstream.count(), 100)
}
