//! An Envoy that is not configured to hold requests: nothing leaks, and the log names the missing setting.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ALLOWED, KEY, World, call, policy, status};
use crate::support::client::exchange;
use crate::support::gateway::Pieces;

const FLAG: &str = "allow_on_headers_stop_iteration";

pub fn names_the_setting(pieces: &Pieces) -> Result<(), String> {
    let mut policy = policy();
    policy["hold_seconds"] = json!(1);
    let without_flag = |text: String| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with(FLAG));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    let world = World::start_with(pieces, &policy.to_string(), &[], &without_flag)?;
    let begin = Instant::now();
    let answer = exchange(world.address(), &call(KEY, ALLOWED))?;
    status("a held request", &answer, 503)?;
    if begin.elapsed() > Duration::from_secs(6) {
        return Err(format!("answered only after {:?}", begin.elapsed()));
    }
    world.gateway.wait_for_log(&format!("set `{FLAG}: true`"))?;
    world.upstream_saw(0)
}
