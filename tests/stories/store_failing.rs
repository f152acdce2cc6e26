//! A store that is away, slow, or not what it should be: nothing passes, nothing passes twice, and everything is well
//! again as soon as it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::store::{Crowd, Fleet, calm_window, in_redis, single_use, tally, timed, with_redis};
use super::{ALLOWED, KEY, call, same, status};
use crate::support::expect::Answer;
use crate::support::gateway::Pieces;
use crate::support::poll;
use crate::support::redis::{Redis, Reply};
use crate::support::stand_in::{Behaviour, StandIn};

/// The policy's time limit for an answer of the store, and what an answer to a client may take then.
const TIMEOUT_MS: u64 = 250;
const AT_MOST: Duration = Duration::from_secs(3);

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    RedisKilled,
    RedisStopped,
    BridgeKilled,
    BridgeStopped,
    InItsPlace(Behaviour),
    /// Redis holds as much as it may.
    Full,
    /// Redis follows another one and takes no changes.
    ReadOnly,
    /// The bridge's rights are not those of the script.
    Forbidden,
}

impl Trouble {
    /// Begins it; what stands in for the bridge does so until it is dropped.
    fn begin(self, redis: &mut Redis) -> Result<Option<StandIn>, String> {
        match self {
            Self::RedisKilled => redis.kill_redis(),
            Self::RedisStopped => redis.freeze_redis()?,
            Self::BridgeKilled => redis.kill_bridge(),
            Self::BridgeStopped => redis.freeze_bridge()?,
            Self::InItsPlace(behaviour) => return redis.stand_in(behaviour).map(Some),
            Self::Full => tell(redis, &["CONFIG", "SET", "maxmemory", "1"])?,
            Self::ReadOnly => tell(redis, &["REPLICAOF", "127.0.0.1", "1"])?,
            Self::Forbidden => tell(redis, &["ACL", "SETUSER", "default", "-get"])?,
        }
        Ok(None)
    }

    fn end(self, stand_in: Option<StandIn>, redis: &mut Redis) -> Result<(), String> {
        drop(stand_in);
        match self {
            Self::RedisKilled => redis.start_redis(),
            Self::RedisStopped => redis.thaw_redis(),
            Self::BridgeKilled | Self::InItsPlace(_) => redis.start_bridge(),
            Self::BridgeStopped => redis.thaw_bridge(),
            Self::Full => tell(redis, &["CONFIG", "SET", "maxmemory", "512mb"]),
            Self::ReadOnly => tell(redis, &["REPLICAOF", "NO", "ONE"]),
            Self::Forbidden => tell(redis, &["ACL", "SETUSER", "default", "+get"]),
        }?;
        redis.wait_until_back()
    }

    /// Whether Redis hears what the gateway never gets an answer to: then the token is spent.
    fn is_heard(self) -> bool {
        use Behaviour::{CutsShort, Previous, Slow, Swallows};
        let heard = |behaviour| matches!(behaviour, Slow(_) | Swallows | CutsShort | Previous);
        matches!(self, Self::RedisStopped) || matches!(self, Self::InItsPlace(behaviour) if heard(behaviour))
    }
}

fn tell(redis: &Redis, words: &[&str]) -> Result<(), String> {
    match redis.client()?.ask(words)? {
        Reply::Text(_) => Ok(()),
        other => Err(format!("{words:?}: {other:?}")),
    }
}

/// Single-use tokens, and a limit, so that calls with a key need the store too.
fn needing_the_store(redis: &Redis) -> Value {
    let mut policy = in_redis(single_use(), redis);
    policy["store"]["redis"]["timeout_ms"] = json!(TIMEOUT_MS);
    // Kept as long as the machine is: what is tested here is not that Redis has started anew.
    policy["store"]["redis"]["durable"] = json!(true);
    policy["limits"] = json!([{
        "id": "calls", "per": "key", "routes": ["dial"],
        "window": {"max": 1_000_000, "seconds": calm_window()}
    }]);
    policy
}

pub fn away() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let troubles =
            [Trouble::RedisKilled, Trouble::RedisStopped, Trouble::BridgeKilled, Trouble::BridgeStopped];
        suffer(pieces, redis, &troubles)
    })
}

pub fn answering_in_other_words() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let behaviours = [
            Behaviour::Garbage,
            Behaviour::Says("<html>Welcome to nginx!</html>"),
            Behaviour::Says("{}"),
            Behaviour::Says(r#"{"EVAL":null}"#),
            Behaviour::Says(r#"{"EVAL":[true,"OK"]}"#),
            Behaviour::Says(r#"{"EVAL":"{\"epoch\":1,\"answers\":[[0,0],[0,0]]}"}"#),
            Behaviour::Status(500),
            Behaviour::Status(404),
            Behaviour::Closes,
        ];
        suffer(pieces, redis, &behaviours.map(Trouble::InItsPlace))
    })
}

pub fn answering_too_late_or_to_somebody_else() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let behaviours = [
            Behaviour::Hangs,
            Behaviour::Slow(Duration::from_millis(2 * TIMEOUT_MS)),
            Behaviour::Swallows,
            Behaviour::CutsShort,
            Behaviour::Previous,
        ];
        suffer(pieces, redis, &behaviours.map(Trouble::InItsPlace))
    })
}

pub fn redis_in_the_wrong_state() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| suffer(pieces, redis, &[Trouble::Full, Trouble::ReadOnly, Trouble::Forbidden]))
}

fn suffer(pieces: &Pieces, redis: Redis, troubles: &[Trouble]) -> Result<(), String> {
    let policy = needing_the_store(&redis);
    let mut fleet = Fleet::shared(pieces, redis, &policy, 1)?;
    for trouble in troubles {
        endure(&mut fleet, *trouble).map_err(|problem| format!("{trouble:?}: {problem}"))?;
    }
    fleet.counts_agree()
}

/// One trouble, from good through bad to good.
fn endure(fleet: &mut Fleet, trouble: Trouble) -> Result<(), String> {
    const CLIENTS: usize = 8;
    let tokens = (0..CLIENTS).map(|_| fleet.mint()).collect::<Result<Vec<_>, _>>()?;
    let (before, logged) = (fleet.upstream.count(), fleet.decisions("reason=store_unavailable"));
    let stand_in = trouble.begin(fleet.redis()?)?;

    let (answers, took) = timed(|| use_all(fleet, &tokens));
    same("answers to tokens", tally(&answers?), BTreeMap::from([(503, CLIENTS)]))?;
    let with_key = Crowd::connect(&fleet.addresses(), CLIENTS)?.at_once(&call(KEY, ALLOWED))?;
    same("answers to a key", tally(&with_key), BTreeMap::from([(503, CLIENTS)]))?;
    same("requests upstream meanwhile", fleet.upstream.count(), before)?;
    if took > AT_MOST {
        return Err(format!("the clients waited for {took:?}"));
    }
    poll("the access log", AT_MOST, || {
        (fleet.decisions("reason=store_unavailable") == logged + 2 * CLIENTS).then_some(())
    })?;

    trouble.end(stand_in, fleet.redis()?)?;
    fleet.wait_until_it_serves()?;
    let before = fleet.upstream.count();
    let (again, once_more) = (use_all(fleet, &tokens)?, use_all(fleet, &tokens)?);
    let released = again.iter().filter(|answer| answer.status == 200).count();
    same("requests upstream afterwards", fleet.upstream.count() - before, released)?;
    same("a second time", tally(&once_more), BTreeMap::from([(401, CLIENTS)]))?;
    match trouble.is_heard() {
        true => same("what Redis had heard", tally(&again), BTreeMap::from([(401, CLIENTS)])),
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

/// The bridge knows a client by the number of its socket alone: what one gave up waiting for is answered to whoever got
/// the number after it. A spent token must not be let through by another one's good answer.
pub fn late_answers_to_somebody_else() -> Result<Completion, Failed> {
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
    same("who gave up", tally(&gave_up), BTreeMap::from([(503, CLIENTS)]))?;
    if after.iter().any(|answer| !matches!(answer.status, 401 | 503)) {
        return Err(format!("spent tokens were answered {:?}", tally(&after)));
    }
    same("requests upstream", fleet.upstream.count(), before)?;
    fleet.redis()?.wait_until_back()?;
    fleet.wait_until_it_serves()
}

/// Redis that began anew: nothing that it may have forgotten is good any more, and what is new works.
pub fn redis_that_lost_its_data() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(single_use(), &redis);
        let mut fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        for what in ["lost", "kept, but nobody vouches for it"] {
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
    fleet.let_a_second_pass();
    let (spent, unspent) = (fleet.mint()?, fleet.mint()?);
    status("the first use", &fleet.use_at(0, &spent)?, 200)?;
    Ok((spent, unspent))
}

/// A Redis that may drop what it likes is no store: it is refused as soon as that is seen.
pub fn redis_that_may_forget() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let mut policy = in_redis(single_use(), &redis);
        policy["store"]["revocations"] = json!({"refresh_seconds": 1, "stale_seconds": 3});
        let fleet = Fleet::shared(pieces, redis, &policy, 1)?;
        let client = || fleet.redis.as_ref().ok_or("no Redis")?.client();
        let unspent = fleet.mint()?;
        client()?.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])?;
        // Each worker sees it with its next question for revocations, and waits until what it knows is too old.
        poll("every worker to see it", Duration::from_secs(8), || everywhere(&fleet, KEY, 503))?;
        let before = fleet.upstream.count();
        everywhere(&fleet, &unspent, 503).ok_or("a token is not refused")?;
        everywhere(&fleet, KEY, 503).ok_or("a key is not refused any more")?;
        same("requests upstream", fleet.upstream.count(), before)?;
        client()?.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])?;
        fleet.wait_until_it_serves()?;
        status("what nobody spent", &fleet.use_at(0, &unspent)?, 200)
    })
}

/// Whether clients enough to meet every worker get this answer.
fn everywhere(fleet: &Fleet, credential: &str, status: u16) -> Option<()> {
    let mut crowd = Crowd::connect(&fleet.addresses(), 16).ok()?;
    let answers = crowd.at_once(&call(credential, ALLOWED)).ok()?;
    (tally(&answers) == BTreeMap::from([(status, 16)])).then_some(())
}
