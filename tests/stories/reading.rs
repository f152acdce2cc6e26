//! The operator's logs: enough to know what happened, and no credential.

use serde_json::Value;

use super::{ALLOWED, KEY, OTHER, OWNED, World, call, narrowed, policy, status};
use crate::support::client::exchange;
use crate::support::corpus::Request;
use crate::support::gateway::Pieces;

/// Fails if the text contains any of the secrets.
pub(super) fn holds_none_of(what: &str, text: &str, secrets: &[&str]) -> Result<(), String> {
    match secrets.iter().find(|secret| text.contains(**secret)) {
        Some(secret) => Err(format!("{what} holds `{secret}`:\n{text}")),
        None => Ok(()),
    }
}

/// Returns the parts of a token that must stay secret.
pub(super) fn secret_parts(token: &str) -> Vec<&str> {
    token.split('.').filter(|part| part.len() > 20).collect()
}

pub fn access_log(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &policy())?;
    let token = world.mint()?;
    let mut with_query = call(&token, ALLOWED);
    with_query.path = "/v1/calls?note=a-private-note".to_owned();
    status("allowed", &exchange(world.address(), &with_query)?, 200)?;
    status("refused", &exchange(world.address(), &call(&token, "+15550003333"))?, 403)?;
    let in_path = Request::new("GET", "/v1/numbers/+15550004444");
    status("a number in the path", &exchange(world.address(), &in_path)?, 404)?;
    world.gateway.next_access(3)?;
    let lines = [world.gateway.next_access(0)?, world.gateway.next_access(1)?, world.gateway.next_access(2)?];

    let logs = |line: &Value, part: &str| line["decision"].as_str().is_some_and(|text| text.contains(part));
    let expected = [
        "decision=mint route=mint",
        "decision=allow route=dial",
        "decision=deny reason=to_denied route=dial",
    ];
    for (line, part) in lines.iter().zip(expected) {
        if !logs(line, part) || !logs(line, "key=backend") {
            return Err(format!("expected `{part}` and the key's id in {line}"));
        }
    }
    let mut secrets =
        vec![KEY, "a-private-note", OWNED, ALLOWED, OTHER, "15550003333", "15550004444", "Bearer"];
    secrets.extend(secret_parts(&token));
    holds_none_of("the access log", &world.gateway.access_text(), &secrets)
}

pub fn refusal_lines(pieces: &Pieces) -> Result<(), String> {
    let world = World::start(pieces, &narrowed())?;
    let unknown = "demo_ffeeddccbbaa99887766554433221100";
    let odd = r#"{"from_number": "+15551234567", "to_number": "+15550001111", "to_numbÉr=x\nfake line": 1"#;
    let mut odd_body =
        Request::new("POST", "/v1/calls").bearer(KEY).header("content-type", "application/json");
    odd_body.body = Some(odd.as_bytes().to_vec());
    let refused = [
        (call(unknown, ALLOWED), 401, "reason=key_unknown"),
        (call(KEY, OTHER), 403, "reason=to_ceiling"),
        (odd_body, 400, "reason=member_ambiguous"),
        (Request::new("GET", "/v2/nothing?token=secret-in-query"), 404, "reason=route_not_found"),
    ];
    for (index, (request, expected, _)) in refused.iter().enumerate() {
        let request = request.clone().header("x-request-id", &format!("refusal-{index}"));
        status("refused", &exchange(world.address(), &request)?, *expected)?;
    }
    world.gateway.wait_for_log("request_id=refusal-3")?;
    let log = world.gateway.log();
    for (index, (_, _, reason)) in refused.iter().enumerate() {
        let id = format!("request_id=refusal-{index}");
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&id)).collect();
        if lines.len() != 1 || !lines[0].contains(reason) || !lines[0].contains("decision=deny") {
            return Err(format!("expected one line with `{reason}` and `{id}`, got {lines:#?}"));
        }
    }
    let secrets =
        [KEY, unknown, "ffeeddcc", "00112233", OWNED, ALLOWED, OTHER, "secret-in-query", "fake line"];
    holds_none_of("Envoy's log", &log, &secrets)?;
    world.upstream_saw(0)
}
