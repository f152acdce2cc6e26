//! The published clients of a realtime platform, unmodified, through the gateway: they mint, connect, and are refused.
//! Their findings come from `tests/clients`; the upstream's are checked here.

use std::path::Path;
use std::process::Stdio;

use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::reading::{holds_none_of, secret_parts};
use super::realtime::{API_KEY, MODEL, start};
use super::{World, same};
use crate::support::gateway::{Pieces, command_that_ends_with_us};
use crate::support::require::{Piece, in_path, require, root};

pub fn javascript() -> Result<Completion, Failed> {
    with_clients(|pieces, clients| {
        let world = start(pieces)?;
        let node = in_path("node").ok_or("no node: scripts/setup.sh --clients")?;
        let found = drive(&node, "decart.mjs", &world, Some(clients))?;
        let permissions = json!({"models": [MODEL], "origins": ["https://app.example"]});
        minted(&found, &permissions)?;
        refused_mints(&found)?;
        same("a wish too long", &found["tooLong"]["refused"], &json!(422))?;
        connected(&found)?;
        same("another model, and again", &found["wrongModel"]["dials"], &refused(&[403, 403]))?;
        same("another origin", &found["wrongOrigin"]["dials"], &refused(&[403]))?;
        same("no origin", &found["noOrigin"]["dials"], &refused(&[403]))?;
        same("no token", &found["noToken"]["dials"], &refused(&[401]))?;
        upstream_saw_two_sessions(&world, &found)
    })
}

pub fn python() -> Result<Completion, Failed> {
    with_clients(|pieces, clients| {
        let world = start(pieces)?;
        let found = drive(&clients.join("python/bin/python"), "decart.py", &world, None)?;
        minted(&found, &json!({"models": [MODEL]}))?;
        refused_mints(&found)?;
        same("verified by the gateway's keys", &found["verified"]["models"], &json!([MODEL]))?;
        for case in ["otherAudience", "forged"] {
            same(case, found[case]["failed"].is_string(), true)?;
        }
        connected(&found)?;
        same("another model, and again", &found["wrongModel"]["dials"], &refused(&[403, 403]))?;
        same("no token", &found["noToken"]["dials"], &refused(&[401]))?;
        upstream_saw_two_sessions(&world, &found)
    })
}

fn with_clients(story: fn(&Pieces, &Path) -> Result<(), String>) -> Result<Completion, Failed> {
    match (Pieces::find(), require(Piece::Clients)) {
        (Err(skip), _) | (_, Err(skip)) => skip.end(),
        (Ok(pieces), Ok(clients)) => Ok(story(&pieces, &clients).map(|()| Completion::Completed)?),
    }
}

/// Runs a driver (each ends itself after a minute) and reads its findings.
fn drive(program: &Path, driver: &str, world: &World, clients: Option<&Path>) -> Result<Value, String> {
    let output = command_that_ends_with_us(program)
        .arg(root().join("tests/clients").join(driver))
        .arg(format!("http://{}", world.address()))
        .arg(API_KEY)
        .args(clients)
        // No proxy, key or other setting of this machine.
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let problem = || format!("{driver}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let found = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    found.ok_or_else(problem)
}

/// Checks a token in both forms with its permissions, and one minted without any.
fn minted(found: &Value, permissions: &Value) -> Result<(), String> {
    let mint = &found["mint"];
    same("its permissions", &mint["permissions"], permissions)?;
    same("its constraints", &mint["constraints"], &json!({"realtime": {"maxSessionDuration": 60}}))?;
    let text = |name: &str| mint[name].as_str().unwrap_or_default().to_owned();
    same("its spellings", text("apiKey"), format!("ek_{}", text("token")))?;
    same("its end", text("expiresAt").ends_with('Z'), true)?;
    same("a plain token", found["plain"]["token"].is_string(), true)?;
    same(
        "its bounds",
        (&found["plain"]["permissions"], &found["plain"]["constraints"]),
        (&Value::Null, &Value::Null),
    )
}

fn refused_mints(found: &Value) -> Result<(), String> {
    same("a stranger mints", &found["stranger"]["refused"], &json!(401))?;
    same("a token mints", &found["fromToken"]["refused"], &json!(403))
}

fn connected(found: &Value) -> Result<(), String> {
    for case in ["opaque", "jwt"] {
        same(case, &found[case], &json!({"dials": [{"open": true}], "state": "connected", "session": "s"}))?;
    }
    Ok(())
}

fn refused(statuses: &[u16]) -> Value {
    statuses.iter().map(|status| json!({"refused": status})).collect()
}

/// Checks one session with each form of the token, and that neither form is in path or log.
fn upstream_saw_two_sessions(world: &World, found: &Value) -> Result<(), String> {
    world.upstream_saw(2)?;
    let token = found["mint"]["token"].as_str().unwrap_or_default();
    let secrets = [secret_parts(token), vec![API_KEY]].concat();
    for seen in world.upstream.seen() {
        let is_stream = seen.path.starts_with("/v1/stream?") && seen.path.contains(&format!("model={MODEL}"));
        same(&format!("a session at {}", seen.path), is_stream && !seen.path.contains("api_key"), true)?;
        let headers = seen.headers.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii()));
        let all = [seen.path.clone()].into_iter().chain(headers).collect::<Vec<_>>().join("\n");
        holds_none_of("the upstream's request", &all, &secrets)?;
        let texts = seen.session.map(|session| session.texts).unwrap_or_default();
        let has_kind = |kind: &str| texts.iter().any(|text| text.contains(&format!(r#""type":"{kind}""#)));
        same("it was joined and prompted", (has_kind("livekit_join"), has_kind("prompt")), (true, true))?;
    }
    holds_none_of("a log", &(world.gateway.access_text() + &world.gateway.log()), &secrets)
}
