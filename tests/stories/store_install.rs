//! The function that gateways call in Redis: installed by the tool, missing, replaced, and beside one of another layout.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callbound::store::redis::{FUNCTION, LIBRARY, MAX_REQUEST_BYTES, Operation, RedisStore, answer, request};
use callbound::store::{Charge, ChargeResult, CounterKey, Rule};
use libtest_mimic::{Completion, Failed};
use serde_json::json;

use super::store::{Crowd, Fleet, calm_window, in_redis, tally, with_redis};
use super::{ALLOWED, KEY, call, policy, same, status};
use crate::support::client::Http1;
use crate::support::fake_bridge::Behaviour;
use crate::support::poll;
use crate::support::redis::{OPERATORS_PASSWORD, Redis, Reply};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `callbound store install` and returns its output, or what it wrote to standard error.
fn install(address: SocketAddr, password: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callbound"));
    command.args(["store", "install", &address.to_string()]).env_remove("CALLBOUND_REDIS_PASSWORD");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if password.is_some() {
        command.arg("--password-stdin");
    }
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let (Some(input), Some(password)) = (&mut child.stdin, password) {
        writeln!(input, "{password}").map_err(|error| error.to_string())?;
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout) + &text(&output.stderr)),
        false => Err(text(&output.stderr)),
    }
}

fn contains(what: &str, text: &str, part: &str) -> Result<(), String> {
    if text.contains(part) { Ok(()) } else { Err(format!("{what}: `{part}` is not in: {text}")) }
}

/// Until the function is installed every credential is refused with its own reason, and the log has the fix.
pub fn missing_function() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        redis.uninstall()?;
        let address = redis.redis_address();
        let policy = in_redis(policy(), &redis);
        let fleet = Fleet::waiting(pieces, redis, &policy, 1)?;
        poll("every worker to know why", PATIENCE, || {
            let (answer, decision) = fleet.judged(0, call(KEY, ALLOWED)).ok()?;
            same("answer", answer.status, 503).ok()?;
            (decision.get("reason") == Some("store_not_installed")).then_some(())
        })?;
        let log = fleet.gateways.first().ok_or("no gateway")?.log();
        contains(
            "the log",
            &log,
            "`callbound_1`, or is older than version 7: run `callbound store install`",
        )?;
        same("requests upstream", fleet.upstream.count(), 0)?;

        let refused = install(address, None).err().unwrap_or_default();
        contains("without a password", &refused, "CALLBOUND_REDIS_PASSWORD")?;
        let refused = install(address, Some("wrong")).err().unwrap_or_default();
        contains("with a wrong password", &refused, "WRONGPASS")?;
        same("the password is not repeated", refused.contains("wrong\n"), false)?;
        let installed = install(address, Some(OPERATORS_PASSWORD))?;
        contains("the output", &installed, "`callbound_1` is in Redis 7")?;
        contains("the output", &installed, "it is new")?;
        contains("again", &install(address, Some(OPERATORS_PASSWORD))?, "it was there already")?;
        poll("every worker to serve", PATIENCE, || {
            let mut crowd = Crowd::connect(&fleet.addresses(), 16).ok()?;
            (tally(&crowd.at_once(&call(KEY, ALLOWED)).ok()?) == [(200, 16)].into()).then_some(())
        })
    })
}

/// Another version of the library is replaced while gateways call it, and no call fails.
pub fn replaced_function() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(policy(), &redis);
        policy["limits"] = json!([{
            "id": "calls", "per": "key", "routes": ["dial"],
            "window": {"max": 1_000_000, "seconds": calm_window()}
        }]);
        let address = redis.redis_address();
        let fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        let mut crowd = Crowd::connect(&fleet.addresses(), 8)?;
        let is_over = AtomicBool::new(false);
        let (tallies, replaced) = std::thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let mut tallies: BTreeMap<u16, usize> = BTreeMap::new();
                while !is_over.load(Ordering::Relaxed) {
                    for (status, count) in tally(&crowd.at_once(&call(KEY, ALLOWED))?) {
                        *tallies.entry(status).or_default() += count;
                    }
                }
                Ok::<_, String>(tallies)
            });
            let replaced = (0..10).try_for_each(|round| {
                let other = format!("{LIBRARY}-- version {round}\n");
                load(fleet.redis.as_ref().ok_or("no Redis")?, &other)?;
                contains(
                    "the output",
                    &install(address, Some(OPERATORS_PASSWORD))?,
                    "it replaced another version",
                )
            });
            is_over.store(true, Ordering::Relaxed);
            (clients.join(), replaced)
        });
        replaced?;
        let tallies = tallies.map_err(|_| "a client died")??;
        same("statuses", tallies.keys().copied().collect::<Vec<_>>(), vec![200])
    })
}

fn load(redis: &Redis, library: &str) -> Result<(), String> {
    match redis.client()?.ask(&["FUNCTION", "LOAD", "REPLACE", library])? {
        Reply::Text(_) => Ok(()),
        other => Err(format!("FUNCTION LOAD: {other:?}")),
    }
}

/// During an upgrade gateways of both layouts work, each with its own library.
pub fn two_layouts() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let command = |name: &str| format!("FCALL/{name}/1/callbound%3A/n0/1/Q");
        let next = FUNCTION.replace('1', "2");
        load(&redis, &LIBRARY.replace(FUNCTION, &next))?;
        contains("before the right", &redis.send(&command(&next))?.text(), "NOPERM")?;
        redis.client()?.ask(&["ACL", "SETUSER", "default", &format!("+fcall|{next}")])?;
        for name in [FUNCTION, &next] {
            contains(name, &redis.send(&command(name))?.text(), r#"\"nonce\":\"n0\""#)?;
        }
        let installed = install(redis.redis_address(), Some(OPERATORS_PASSWORD))?;
        contains("the output", &installed, "it was there already")?;
        contains("the output", &installed, "redis-cli FUNCTION DELETE callbound_2")?;
        let policy = in_redis(policy(), &redis);
        let fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        status("a gateway of this layout", &fleet.use_at(0, &fleet.mint()?)?, 200)
    })
}

/// Through the bridge nothing passes but calls of our function on our keys.
pub fn bridge_passes_the_function_only() -> Result<Completion, Failed> {
    with_redis(|_, redis| {
        for command in
            ["EVAL/return%201/0", "GET/callbound%3Aepoch", "FUNCTION/LIST", "FCALL_RO/callbound_1/0"]
        {
            status(command, &redis.send(command)?, 403)?;
        }
        for command in ["FCALL/other/1/callbound%3A/n0/1/Q", "FCALL/callbound_1/1/other%3A/n0/1/Q"] {
            contains(command, &redis.send(command)?.text(), "NOPERM")?;
        }
        contains("our own", &redis.send("FCALL/callbound_1/1/callbound%3A/n0/1/Q")?.text(), "answers")
    })
}

/// Kong's engine sends `Connection: close` in one write with the body, and Webdis 0.1.9 answers only what comes in one read.
pub fn longest_request() -> Result<Completion, Failed> {
    with_redis(|_, redis| {
        let store = RedisStore {
            cluster: "callbound_store".to_owned(),
            authority: redis.address().to_string(),
            timeout: 250,
            prefix: "callbound:".to_owned(),
            is_durable: false,
        };
        let nonce = "0123456789abcdef0123456789abcdef";
        let charges = |count: usize| -> Vec<Operation> {
            let key = |number: usize| CounterKey::of(&[&number.to_le_bytes()]);
            let rule = Rule::Window { max: 1_000_000_000, seconds: 2_678_400 };
            (0..count).map(|number| Operation::Charge(Charge { key: key(number), share: 0, rule })).collect()
        };
        let fits = |count: &usize| store.request_bytes(&charges(*count)) <= MAX_REQUEST_BYTES;
        let operations = charges((1..).take_while(fits).last().unwrap_or_default());
        let body = request(&store, nonce, &operations);
        // As long as it may be, and as the head may be too.
        let mut head = format!("POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", store.authority);
        head += &format!("content-length: {}\r\nx-filler: ", body.len());
        head += &"x".repeat(MAX_REQUEST_BYTES - head.len() - 4 - body.len());
        let wire = [head.as_bytes(), b"\r\n\r\n", &body].concat();
        same("bytes", wire.len(), MAX_REQUEST_BYTES)?;
        let mut connection = Http1::connect(redis.address())?;
        connection.send(&wire)?;
        let answered = connection.read_answer()?;
        let reply = answer(answered.status, &answered.body, nonce, &operations);
        let taken = reply.map(|reply| matches!(reply.result, ChargeResult::All(taken) if taken.len() > 50));
        same("all charges are taken", taken, Ok(true))
    })
}

/// The head that Envoy writes is no longer than the module assumes.
pub fn short_head() -> Result<Completion, Failed> {
    with_redis(|pieces, mut redis| {
        let authority = redis.address().to_string();
        let bridge = redis.fake_bridge(Behaviour::Status(500))?;
        let mut policy = in_redis(policy(), &redis);
        policy["store"]["redis"]["timeout_ms"] = json!(5_000);
        let _fleet = Fleet::waiting(pieces, redis, &policy, 1)?;
        let head = poll("a request", PATIENCE, || Some(bridge.longest_head()).filter(|head| *head > 0))?;
        match head <= 256 + authority.len() {
            true => Ok(()),
            false => Err(format!("the head has {head} bytes")),
        }
    })
}
