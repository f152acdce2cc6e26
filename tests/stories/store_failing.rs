//! A store that is missing, slow or misconfigured: nothing is allowed, nothing is allowed twice, and service resumes as
//! soon as it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use callbound::store::redis::FUNCTION;
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::store::{Crowd, Fleet, calm_window, in_redis, single_use, tally, timed, with_redis};
use super::{ALLOWED, KEY, call, same, status};
use crate::support::expect::Answer;
use crate::support::fake_bridge::{Behaviour, FakeBridge};
use crate::support::gateway::Pieces;
use crate::support::poll;
use crate::support::redis::{Redis, Reply};

/// Time limit of the policy for an answer of the store, and the longest wait of a client then.
const TIMEOUT_MS: u64 = 250;
const AT_MOST: Duration = Duration::from_secs(3);

/// Fault of the store.
#[derive(Clone, Copy, Debug)]
enum Fault {
    RedisKilled,
    RedisStopped,
    BridgeKilled,
    BridgeStopped,
    BridgeFaked(Behaviour),
    /// Redis has reached its memory limit.
    Full,
    /// Redis is a replica and accepts no writes.
    ReadOnly,
    /// The bridge's user lacks a right that the function needs.
    Forbidden,
    /// The bridge's user may not call the function.
    OtherFunction,
    /// The operator has not installed the function.
    NotInstalled,
}

impl Fault {
    /// Starts the fault; a fake bridge runs until it is dropped.
    fn begin(self, redis: &mut Redis) -> Result<Option<FakeBridge>, String> {
        match self {
            Self::RedisKilled => redis.kill_redis(),
            Self::RedisStopped => redis.freeze_redis()?,
            Self::BridgeKilled => redis.kill_bridge(),
            Self::BridgeStopped => redis.freeze_bridge()?,
            Self::BridgeFaked(behaviour) => return redis.fake_bridge(behaviour).map(Some),
            Self::Full => command(redis, &["CONFIG", "SET", "maxmemory", "1"])?,
            Self::ReadOnly => command(redis, &["REPLICAOF", "127.0.0.1", "1"])?,
            Self::Forbidden => command(redis, &["ACL", "SETUSER", "default", "-get"])?,
            Self::OtherFunction => command(redis, &["ACL", "SETUSER", "default", "-fcall"])?,
            Self::NotInstalled => redis.uninstall()?,
        }
        Ok(None)
    }

    fn end(self, fake_bridge: Option<FakeBridge>, redis: &mut Redis) -> Result<(), String> {
        drop(fake_bridge);
        match self {
            Self::RedisKilled => redis.start_redis(),
            Self::RedisStopped => redis.thaw_redis(),
            Self::BridgeKilled | Self::BridgeFaked(_) => redis.start_bridge(),
            Self::BridgeStopped => redis.thaw_bridge(),
            Self::Full => command(redis, &["CONFIG", "SET", "maxmemory", "512mb"]),
            Self::ReadOnly => command(redis, &["REPLICAOF", "NO", "ONE"]),
            Self::Forbidden => command(redis, &["ACL", "SETUSER", "default", "+get"]),
            Self::OtherFunction => {
                command(redis, &["ACL", "SETUSER", "default", &format!("+fcall|{FUNCTION}")])
            }
            Self::NotInstalled => redis.install(),
        }?;
        redis.wait_until_back()
    }

    /// Returns the logged reason of the refusals, and part of the line that names the cause.
    fn logged(self) -> (&'static str, &'static str) {
        match self {
            Self::NotInstalled => ("reason=store_not_installed", "run `callbound store install`"),
            Self::Forbidden | Self::OtherFunction => ("reason=store_unavailable", "compare users.acl"),
            Self::Full => ("reason=store_unavailable", "raise `maxmemory`"),
            Self::ReadOnly => ("reason=store_unavailable", "Redis is a replica"),
            _ => ("reason=store_unavailable", "store: "),
        }
    }

    /// Returns true if Redis executes the command although the gateway gets no answer: then the token is spent.
    fn reaches_redis(self) -> bool {
        use Behaviour::{CutsShort, Previous, Slow, Swallows};
        let reaches = |behaviour| matches!(behaviour, Slow(_) | Swallows | CutsShort | Previous);
        matches!(self, Self::RedisStopped)
            || matches!(self, Self::BridgeFaked(behaviour) if reaches(behaviour))
    }
}

fn command(redis: &Redis, words: &[&str]) -> Result<(), String> {
    match redis.client()?.ask(words)? {
        Reply::Text(_) => Ok(()),
        other => Err(format!("{words:?}: {other:?}")),
    }
}

/// Single-use tokens, and a limit, so that calls with a key need the store too.
fn needing_the_store(redis: &Redis) -> Value {
    let mut policy = in_redis(single_use(), redis);
    policy["store"]["redis"]["timeout_ms"] = json!(TIMEOUT_MS);
    // Durable, because a restart of Redis is not the subject of these tests.
    policy["store"]["redis"]["durable"] = json!(true);
    policy["limits"] = json!([{
        "id": "calls", "per": "key", "routes": ["dial"],
        "window": {"max": 1_000_000, "seconds": calm_window()}
    }]);
    policy
}

pub fn away() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let faults = [Fault::RedisKilled, Fault::RedisStopped, Fault::BridgeKilled, Fault::BridgeStopped];
        play_all(pieces, redis, &faults)
    })
}

pub fn malformed_answers() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let behaviours = [
            Behaviour::Garbage,
            Behaviour::Answers("<html>Welcome to nginx!</html>"),
            Behaviour::Answers("{}"),
            Behaviour::Answers(r#"{"FCALL":null}"#),
            Behaviour::Answers(r#"{"FCALL":[true,"OK"]}"#),
            Behaviour::Answers(r#"{"FCALL":"{\"epoch\":1,\"answers\":[[0,0],[0,0]]}"}"#),
            Behaviour::Status(500),
            Behaviour::Status(404),
            Behaviour::Closes,
        ];
        play_all(pieces, redis, &behaviours.map(Fault::BridgeFaked))
    })
}

pub fn late_answers() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let behaviours = [
            Behaviour::Hangs,
            Behaviour::Slow(Duration::from_millis(2 * TIMEOUT_MS)),
            Behaviour::Swallows,
            Behaviour::CutsShort,
            Behaviour::Previous,
        ];
        play_all(pieces, redis, &behaviours.map(Fault::BridgeFaked))
    })
}

pub fn redis_in_the_wrong_state() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let faults =
            [Fault::Full, Fault::ReadOnly, Fault::Forbidden, Fault::OtherFunction, Fault::NotInstalled];
        play_all(pieces, redis, &faults)
    })
}

fn play_all(pieces: &Pieces, redis: Redis, faults: &[Fault]) -> Result<(), String> {
    let policy = needing_the_store(&redis);
    let mut fleet = Fleet::shared(pieces, redis, &policy, 1)?;
    for fault in faults {
        play(&mut fleet, *fault).map_err(|problem| format!("{fault:?}: {problem}"))?;
    }
    fleet.counts_agree()
}

/// Plays one fault: service before, refusals during, and service after it.
fn play(fleet: &mut Fleet, fault: Fault) -> Result<(), String> {
    const CLIENTS: usize = 8;
    let tokens = (0..CLIENTS).map(|_| fleet.mint()).collect::<Result<Vec<_>, _>>()?;
    let (reason, cause) = fault.logged();
    let (before, logged) = (fleet.upstream.count(), fleet.decisions(reason));
    let fake_bridge = fault.begin(fleet.redis()?)?;

    let (answers, took) = timed(|| use_all(fleet, &tokens));
    same("answers to tokens", tally(&answers?), BTreeMap::from([(503, CLIENTS)]))?;
    let with_key = Crowd::connect(&fleet.addresses(), CLIENTS)?.at_once(&call(KEY, ALLOWED))?;
    same("answers to a key", tally(&with_key), BTreeMap::from([(503, CLIENTS)]))?;
    same("requests upstream meanwhile", fleet.upstream.count(), before)?;
    if took > AT_MOST {
        return Err(format!("the clients waited for {took:?}"));
    }
    poll("the access log", AT_MOST, || (fleet.decisions(reason) == logged + 2 * CLIENTS).then_some(()))?;
    // Each worker logs one failure a second, which may have been that of the fault before.
    poll("the cause in the log", AT_MOST, || {
        let is_logged = fleet.gateways.iter().any(|gateway| gateway.log().contains(cause));
        if !is_logged {
            fleet.use_at(0, KEY).ok()?;
        }
        is_logged.then_some(())
    })?;

    fault.end(fake_bridge, fleet.redis()?)?;
    fleet.wait_until_it_serves()?;
    let before = fleet.upstream.count();
    let (again, once_more) = (use_all(fleet, &tokens)?, use_all(fleet, &tokens)?);
    let released = again.iter().filter(|answer| answer.status == 200).count();
    same("requests upstream afterwards", fleet.upstream.count() - before, released)?;
    same("a second time", tally(&once_more), BTreeMap::from([(401, CLIENTS)]))?;
    match fault.reaches_redis() {
        true => same("tokens that Redis had spent", tally(&again), BTreeMap::from([(401, CLIENTS)])),
        false => Ok(()),
    }
}

/// Uses each token once, all at the same time.
fn use_all(fleet: &Fleet, tokens: &[String]) -> Result<Vec<Answer>, String> {
    std::thread::scope(|scope| {
        let threads = tokens.iter().map(|token| scope.spawn(|| fleet.use_at(0, token)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a client died")?).collect()
    })
}

/// The bridge knows a client only by its socket number: the late answer for one client goes to the next with that
/// number. A spent token must not be allowed by the answer for another one.
pub fn crossed_answers() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = needing_the_store(&redis);
        let mut fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        for round in 0..5 {
            cross(&mut fleet).map_err(|problem| format!("round {round}: {problem}"))?;
        }
        fleet.counts_agree()
    })
}

fn cross(fleet: &mut Fleet) -> Result<(), String> {
    const CLIENTS: usize = 12;
    let mint_all = || (0..CLIENTS).map(|_| fleet.mint()).collect::<Result<Vec<_>, _>>();
    let (spent, fresh) = (mint_all()?, mint_all()?);
    same("the first use", tally(&use_all(fleet, &spent)?), BTreeMap::from([(200, CLIENTS)]))?;
    let before = fleet.upstream.count();
    let redis = fleet.redis.as_ref().ok_or("no Redis")?;
    redis.freeze_redis()?;
    let gave_up = use_all(fleet, &fresh)?;
    let after = std::thread::scope(|scope| {
        let thread = scope.spawn(|| use_all(fleet, &spent));
        std::thread::sleep(Duration::from_millis(TIMEOUT_MS / 3));
        redis.thaw_redis()?;
        thread.join().map_err(|_| "a client died")?
    })?;
    same("clients that gave up", tally(&gave_up), BTreeMap::from([(503, CLIENTS)]))?;
    if after.iter().any(|answer| !matches!(answer.status, 401 | 503)) {
        return Err(format!("spent tokens were answered {:?}", tally(&after)));
    }
    same("requests upstream", fleet.upstream.count(), before)?;
    fleet.redis()?.wait_until_back()?;
    fleet.wait_until_it_serves()
}

/// A Redis that lost its data: tokens whose uses it may have lost are refused, and new ones work.
pub fn redis_without_data() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(single_use(), &redis);
        let mut fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        for what in ["lost", "kept, but not durable"] {
            let (spent, unspent) = one_spent_of_two(&fleet)?;
            match what {
                "lost" => fleet.redis()?.restart_losing_data()?,
                _ => fleet.redis()?.restart_keeping_data()?,
            }
            fleet.refuses(&format!("{what}: spent"), &spent, "token_forgotten")?;
            fleet.refuses(&format!("{what}: unspent"), &unspent, "token_forgotten")?;
            fleet.wait_until_it_serves()?;
        }

        policy["store"]["redis"]["durable"] = json!(true);
        fleet.deliver(&policy)?;
        let (spent, unspent) = one_spent_of_two(&fleet)?;
        fleet.redis()?.restart_keeping_data()?;
        fleet.refuses("kept, and vouched for: spent", &spent, "token_spent")?;
        status("kept, and vouched for: unspent", &fleet.use_at(0, &unspent)?, 200)?;
        let (spent, unspent) = one_spent_of_two(&fleet)?;
        fleet.redis()?.restart_losing_data()?;
        fleet.refuses("vouched for and lost: spent", &spent, "token_forgotten")?;
        fleet.refuses("vouched for and lost: unspent", &unspent, "token_forgotten")?;
        fleet.wait_until_it_serves()?;
        fleet.counts_agree()
    })
}

fn one_spent_of_two(fleet: &Fleet) -> Result<(String, String), String> {
    fleet.wait_one_second();
    let (spent, unspent) = (fleet.mint()?, fleet.mint()?);
    status("the first use", &fleet.use_at(0, &spent)?, 200)?;
    Ok((spent, unspent))
}

/// A Redis with an evicting policy is refused as soon as that is detected.
pub fn evicting_redis() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(single_use(), &redis);
        policy["store"]["revocations"] = json!({"refresh_seconds": 1, "stale_seconds": 3});
        let fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        let client = || fleet.redis.as_ref().ok_or("no Redis")?.client();
        let unspent = fleet.mint()?;
        client()?.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])?;
        // Each worker detects it with its next query for revocations, and refuses once they are stale.
        poll("every worker to see it", Duration::from_secs(8), || at_every_worker(&fleet, KEY, 503))?;
        let before = fleet.upstream.count();
        at_every_worker(&fleet, &unspent, 503).ok_or("a token is not refused")?;
        at_every_worker(&fleet, KEY, 503).ok_or("a key is not refused any more")?;
        same("requests upstream", fleet.upstream.count(), before)?;
        client()?.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])?;
        fleet.wait_until_it_serves()?;
        status("an unspent token", &fleet.use_at(0, &unspent)?, 200)
    })
}

/// Returns `Some` if every worker gives this answer.
fn at_every_worker(fleet: &Fleet, credential: &str, status: u16) -> Option<()> {
    let mut crowd = Crowd::connect(&fleet.addresses(), 16).ok()?;
    let answers = crowd.at_once(&call(credential, ALLOWED)).ok()?;
    (tally(&answers) == BTreeMap::from([(status, 16)])).then_some(())
}
