//! API keys in Redis instead of the policy: added and removed with the tool, found by every gateway, and the usage that
//! the store reports.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::store::{Crowd, Fleet, in_redis, tally, with_redis};
use super::{ALLOWED, KEY, call, digest, policy, same, status};
use crate::support::corpus::Request;
use crate::support::poll;

/// API key that is only in Redis.
const STORED_KEY: &str = "demo_eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the tool on a policy and returns its output.
fn callbound(words: &[&str], policy: &Value) -> Result<String, String> {
    let file =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("directory-{}.json", std::process::id()));
    std::fs::write(&file, policy.to_string()).map_err(|error| error.to_string())?;
    let (command, rest) =
        words.split_at(words.iter().position(|word| word.starts_with("--")).unwrap_or(words.len()));
    let output = Command::new(env!("CARGO_BIN_EXE_callbound")).args(command).arg(&file).args(rest).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("callbound {words:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn with_directory(mut policy: Value) -> Value {
    policy["store"]["directory"] = json!({"fresh_seconds": 2, "unknown_seconds": 1});
    policy
}

/// Returns the policy for the tool, with the key in it.
fn with_key(mut policy: Value) -> Value {
    let scopes = policy["api_keys"][0]["scopes"].clone();
    let key = json!({"id": "stored", "sha256": digest(STORED_KEY), "team": "acme", "scopes": scopes});
    policy["api_keys"] = json!([key]);
    policy
}

/// A key is accepted from its addition to Redis until its removal, and its tokens with it.
pub fn keys_in_redis() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = with_directory(in_redis(policy(), &redis));
        let mut fleet = Fleet::shared(pieces, redis, &policy, 2)?;
        fleet.refuses("not there yet", STORED_KEY, "key_unknown")?;
        let output = callbound(&["directory", "push"], &with_key(policy.clone()))?;
        same("output of the tool", output.starts_with("1 keys are in the store"), true)?;
        // A worker remembers for a short time that the key was unknown.
        poll("the key to be found by every worker", PATIENCE, || {
            let mut crowd = Crowd::connect(&fleet.addresses(), 32).ok()?;
            (tally(&crowd.at_once(&call(STORED_KEY, ALLOWED)).ok()?) == [(200, 32)].into()).then_some(())
        })?;
        let token = fleet.mint_with(STORED_KEY, json!({}))?;
        status("its token at the other gateway", &fleet.use_at(1, &token)?, 200)?;
        status("a key of the policy", &fleet.use_at(0, KEY)?, 200)?;

        poll("the store to report its use", PATIENCE, || {
            let usage = callbound(&["usage"], &policy).ok()?;
            let line = usage.lines().find(|line| line.starts_with("stored "))?.to_owned();
            (line.split_whitespace().nth(1)?.parse::<u64>().ok()? >= 20).then_some(())
        })?;

        callbound(&["directory", "remove", "--key", "stored"], &policy)?;
        poll("the key to be gone", PATIENCE, || {
            let mut crowd = Crowd::connect(&fleet.addresses(), 16).ok()?;
            let answers = crowd.at_once(&call(STORED_KEY, ALLOWED)).ok()?;
            (tally(&answers) == [(401, 16)].into()).then_some(())
        })?;
        fleet.refuses("its token", &token, "token_owner")?;

        fleet.redis()?.kill_redis();
        let before = fleet.upstream.count();
        let stranger = Request::new("POST", "/v1/calls").bearer("demo_ffffffffffffffffffffffffffffffff");
        status("a key that cannot be looked up", &fleet.judged(0, stranger.json(&json!({})))?.0, 503)?;
        same("requests upstream", fleet.upstream.count(), before)?;
        fleet.counts_agree()
    })
}

/// The tool revokes at every gateway, and every decision can be logged.
pub fn revocation_by_tool() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(policy(), &redis);
        policy["audit"] = json!("all");
        policy["store"]["revocations"] = json!({"refresh_seconds": 1, "stale_seconds": 10});
        let fleet = Fleet::shared(pieces, redis, &policy, 2)?;
        let token = fleet.mint()?;
        status("before", &fleet.use_at(1, &token)?, 200)?;
        let logged = |part: &str| {
            fleet.gateways.iter().map(|gateway| gateway.log().matches(part).count()).sum::<usize>()
        };
        poll("a line of the call that was let through", PATIENCE, || {
            (logged("decision=allow") > 0).then_some(())
        })?;
        callbound(&["revoke", "--tokens-of-team", "acme"], &policy)?;
        poll("the token to be refused by every worker", PATIENCE, || {
            let mut crowd = Crowd::connect(&fleet.addresses(), 16).ok()?;
            (tally(&crowd.at_once(&call(&token, ALLOWED)).ok()?) == [(401, 16)].into()).then_some(())
        })?;
        fleet.refuses("the token", &token, "token_revoked")?;
        status("the key itself", &fleet.use_at(0, KEY)?, 200)
    })
}
