//! State kept between requests, on real gateways: single-use tokens over workers, gateways, policies and restarts.
//! Helpers shared by the other store tests are here too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callbound::store::redis::{FUNCTION, LIBRARY};
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};

use super::{ALLOWED, KEY, MASTER, OTHER, OWNED, call, policy, same, status};
use crate::support::client::{Http1, exchange, head};
use crate::support::corpus::Request;
use crate::support::expect::{Answer, LoggedDecision};
use crate::support::gateway::{Gateway, Pieces, Setup, unchanged};
use crate::support::poll;
use crate::support::recorder::Recorder;
use crate::support::redis::{Redis, RedisPieces};

/// Number of races in a row.
const RACES: usize = 50;
/// Number of clients with the same token.
const RACERS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);

/// Gateways with one upstream, and their shared store, if any.
pub(super) struct Fleet {
    pub gateways: Vec<Gateway>,
    pub upstream: Recorder,
    pub redis: Option<Redis>,
    pieces: Pieces,
    env: BTreeMap<String, String>,
    workers: u32,
}

impl Fleet {
    /// Starts one gateway with a store of its own.
    pub(super) fn local(pieces: &Pieces, policy: &Value, workers: u32) -> Result<Self, String> {
        let mut fleet = Self::empty(pieces, None, workers)?;
        fleet.add_gateway(policy)?;
        fleet.wait_one_second();
        Ok(fleet)
    }

    /// Starts gateways with two workers each and one Redis.
    pub(super) fn shared(
        pieces: &Pieces,
        redis: Redis,
        policy: &Value,
        count: usize,
    ) -> Result<Self, String> {
        let fleet = Self::waiting(pieces, redis, policy, count)?;
        fleet.wait_until_ready(policy)?;
        if policy.to_string().contains("\"uses\"") {
            // A young store neither mints nor accepts tokens with uses.
            std::thread::sleep(Duration::from_millis(3_100));
        }
        Ok(fleet)
    }

    /// Starts gateways for which the store may not be ready.
    pub(super) fn waiting(
        pieces: &Pieces,
        redis: Redis,
        policy: &Value,
        count: usize,
    ) -> Result<Self, String> {
        let mut fleet = Self::empty(pieces, Some(redis), 2)?;
        for _ in 0..count {
            fleet.add_gateway(policy)?;
        }
        Ok(fleet)
    }

    fn empty(pieces: &Pieces, redis: Option<Redis>, workers: u32) -> Result<Self, String> {
        let env = BTreeMap::from([("CALLBOUND_MASTER".to_owned(), MASTER.to_owned())]);
        let (pieces, upstream) = (pieces.clone(), Recorder::start()?);
        Ok(Self { gateways: Vec::new(), upstream, redis, pieces, env, workers })
    }

    fn add_gateway(&mut self, policy: &Value) -> Result<(), String> {
        let text = policy.to_string();
        let gateway = Gateway::start_with_workers(&self.pieces, &self.setup(&text), self.workers)?;
        self.gateways.push(gateway);
        Ok(())
    }

    fn setup<'a>(&'a self, policy: &'a str) -> Setup<'a> {
        let upstream = self.upstream.address();
        Setup { policy, env: &self.env, upstream, cors: &[], edit: &unchanged }
    }

    /// Waits until each worker has reached Redis: until then it refuses everything.
    fn wait_until_ready(&self, policy: &Value) -> Result<(), String> {
        // A mint without members, by the only key of either policy.
        let asking = match policy["credentials"]["locations"][0]["header"].as_str() {
            Some("x-api-key") => {
                Request::new("POST", "/v1/client/tokens").header("x-api-key", super::realtime::API_KEY)
            }
            _ => Request::new("POST", "/v1/client-tokens").bearer(KEY),
        };
        poll("every worker to reach Redis", PATIENCE, || {
            let mut crowd = Crowd::connect(&self.addresses(), 16 * self.gateways.len()).ok()?;
            crowd.at_once(&asking).ok()?.iter().all(|answer| answer.status != 503).then_some(())
        })
    }

    /// Sleeps over the store's first second: tokens issued in it are refused.
    pub(super) fn wait_one_second(&self) {
        std::thread::sleep(Duration::from_millis(1_100));
    }

    /// Delivers another policy to every gateway.
    pub(super) fn deliver(&self, policy: &Value) -> Result<(), String> {
        let text = policy.to_string();
        self.gateways.iter().try_for_each(|gateway| gateway.deliver(&self.setup(&text)))
    }

    /// Kills a gateway and starts it again.
    fn restart(&mut self, index: usize, policy: &Value) -> Result<(), String> {
        drop(self.gateways.remove(index));
        self.add_gateway(policy)?;
        if self.redis.is_some() { self.wait_until_ready(policy) } else { Ok(()) }
    }

    pub(super) fn address(&self, index: usize) -> Result<SocketAddr, String> {
        self.gateways.get(index).map(Gateway::address).ok_or_else(|| "no such gateway".to_owned())
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(Gateway::address).collect()
    }

    pub(super) fn redis(&mut self) -> Result<&mut Redis, String> {
        self.redis.as_mut().ok_or_else(|| "no Redis".to_owned())
    }

    /// The keys in Redis.
    pub(super) fn keys(&self) -> Result<Vec<String>, String> {
        self.redis.as_ref().ok_or("no Redis")?.client()?.keys()
    }

    /// A token minted by the first gateway.
    pub(super) fn mint(&self) -> Result<String, String> {
        self.mint_with(KEY, json!({}))
    }

    /// Mints a token with a key and further members.
    pub(super) fn mint_with(&self, key: &str, more: Value) -> Result<String, String> {
        let mut asked = json!({"from_numbers": [OWNED], "to_numbers": [ALLOWED]});
        callbound::policy::merge(&mut asked, more);
        let request = Request::new("POST", "/v1/client-tokens").bearer(key).json(&asked);
        let answer = exchange(self.address(0)?, &request)?;
        let token = answer.json()["data"]["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| format!("no token: {} {}", answer.status, answer.text()))
    }

    /// Uses a token at a gateway, on a new connection.
    pub(super) fn use_at(&self, gateway: usize, token: &str) -> Result<Answer, String> {
        exchange(self.address(gateway)?, &call(token, ALLOWED))
    }

    /// Returns `Some` if a new token works now at every gateway.
    pub(super) fn serves(&self) -> Option<()> {
        (0..self.gateways.len())
            .all(|index| {
                let answer = self.mint().and_then(|token| self.use_at(index, &token));
                answer.is_ok_and(|answer| answer.status == 200)
            })
            .then_some(())
    }

    pub(super) fn wait_until_it_serves(&self) -> Result<(), String> {
        poll("a new token to work", PATIENCE, || self.serves())
    }

    /// Counts the lines of all access logs whose decision contains this text.
    pub(super) fn decisions(&self, part: &str) -> usize {
        let lines = self.gateways.iter().flat_map(Gateway::access_log);
        lines.filter(|line| line["decision"].as_str().is_some_and(|text| text.contains(part))).count()
    }

    /// Sends a request to a gateway and returns the answer with the logged decision.
    pub(super) fn judged(
        &self,
        gateway: usize,
        request: Request,
    ) -> Result<(Answer, LoggedDecision), String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("story-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let answer = exchange(self.address(gateway)?, &request.header("x-request-id", &id))?;
        let gateway = self.gateways.get(gateway).ok_or("no such gateway")?;
        let decision = poll("the decision in the access log", PATIENCE, || {
            let line = gateway.access_log().into_iter().find(|line| line["request_id"] == id.as_str())?;
            line["decision"].as_str().map(LoggedDecision::parse)
        })?;
        Ok((answer, decision))
    }

    /// Checks that a token is refused for this reason at every gateway, and reaches no upstream.
    pub(super) fn refuses(&self, what: &str, token: &str, reason: &str) -> Result<(), String> {
        let before = self.upstream.count();
        for index in 0..self.gateways.len() {
            let (answer, decision) = self.judged(index, call(token, ALLOWED))?;
            status(what, &answer, 401)?;
            same(what, decision.get("reason"), Some(reason))?;
        }
        same(&format!("{what}: requests upstream"), self.upstream.count(), before)
    }

    /// Checks that the upstream recorded as many requests as Envoy began.
    pub(super) fn counts_agree(&self) -> Result<(), String> {
        let begun: u64 = self.gateways.iter().map(Gateway::upstream_requests).sum();
        same("requests upstream, and begun by Envoy", self.upstream.count() as u64, begun)
    }
}

/// Connections that stay open.
pub(super) struct Crowd(Vec<(SocketAddr, Http1)>);

impl Crowd {
    pub(super) fn connect(addresses: &[SocketAddr], count: usize) -> Result<Self, String> {
        let addresses = addresses.iter().cycle().take(count);
        let connections = addresses.map(|address| Ok((*address, Http1::connect(*address)?)));
        connections.collect::<Result<_, String>>().map(Self)
    }

    /// Sends the request on every connection at the same time.
    pub(super) fn at_once(&mut self, request: &Request) -> Result<Vec<Answer>, String> {
        let total = self.0.len();
        self.send(request, total)
    }

    /// Sends the request `total` times over all connections, each as soon as it was answered.
    pub(super) fn send(&mut self, request: &Request, total: usize) -> Result<Vec<Answer>, String> {
        let wire = [head(request), request.body.clone().unwrap_or_default()].concat();
        let (begin, sent) = (Barrier::new(self.0.len()), AtomicUsize::new(0));
        let client = |connection: &mut (SocketAddr, Http1)| {
            begin.wait();
            let mut answers = Vec::new();
            while sent.fetch_add(1, Ordering::Relaxed) < total {
                answers.push(one_exchange(connection, &wire)?);
            }
            Ok::<_, String>(answers)
        };
        let client = &client;
        std::thread::scope(|scope| {
            let threads = self.0.iter_mut().map(|connection| scope.spawn(move || client(connection)));
            let threads: Vec<_> = threads.collect();
            let mut answers = Vec::new();
            for thread in threads {
                answers.extend(thread.join().map_err(|_| "a client died")??);
            }
            Ok(answers)
        })
    }
}

fn one_exchange(connection: &mut (SocketAddr, Http1), wire: &[u8]) -> Result<Answer, String> {
    let (address, open) = connection;
    open.send(wire)?;
    let answer = open.read_answer()?;
    if answer.header("connection").is_some_and(|value| value == "close") {
        *open = Http1::connect(*address)?;
    }
    Ok(answer)
}

/// Counts answers by status.
pub(super) fn tally(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut tally = BTreeMap::new();
    answers.iter().for_each(|answer| *tally.entry(answer.status).or_default() += 1);
    tally
}

/// Runs a test that needs Redis as well.
pub(super) fn with_redis(
    story: impl FnOnce(&Pieces, Redis) -> Result<(), String>,
) -> Result<Completion, Failed> {
    match (Pieces::find(), RedisPieces::find()) {
        (Ok(pieces), Ok(redis)) => {
            let story = Redis::start(&redis).and_then(|redis| story(&pieces, redis));
            Ok(story.map(|()| Completion::Completed)?)
        }
        (Err(skip), _) | (_, Err(skip)) => skip.end(),
    }
}

/// Returns the policy with this Redis as store.
pub(super) fn in_redis(mut policy: Value, redis: &Redis) -> Value {
    policy["store"] = json!({"backend": "redis", "redis": redis.section()});
    policy
}

/// Returns the shared policy with single-use tokens, unless they ask for more uses.
pub(super) fn single_use() -> Value {
    let mut policy = policy();
    policy["tokens"]["ct"]["uses"] = json!({"default": 1});
    policy["routes"][0]["mint"]["request"]["uses"] = json!({"field": "max_uses", "min": 1, "max": 5});
    policy
}

/// [`single_use`] for a fleet.
fn single_use_in(redis: &Redis) -> Value {
    let mut policy = in_redis(single_use(), redis);
    policy["tokens"]["ct"]["uses"]["strength"] = json!("fleet");
    policy
}

/// Of 200 clients with the same token one is allowed, in every race; with a token of three uses, three.
pub fn one_of_many_on_four_workers(pieces: &Pieces) -> Result<(), String> {
    let fleet = Fleet::local(pieces, &single_use(), 4)?;
    races(&fleet)?;
    let gateway = fleet.gateways.first().ok_or("no gateway")?;
    let reached = (0..4).filter(|worker| {
        gateway.stat(&format!("^listener\\.127.*worker_{worker}\\.downstream_cx_total")) > 0
    });
    same("workers that had clients", reached.count(), 4)
}

pub fn one_of_many_on_two_gateways() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = single_use_in(&redis);
        races(&Fleet::shared(pieces, redis, &policy, 2)?)
    })
}

fn races(fleet: &Fleet) -> Result<(), String> {
    let mut crowd = Crowd::connect(&fleet.addresses(), RACERS)?;
    for race in 0..RACES {
        run(fleet, &mut crowd, &fleet.mint()?, 1).map_err(|problem| format!("race {race}: {problem}"))?;
    }
    run(fleet, &mut crowd, &fleet.mint_with(KEY, json!({"max_uses": 3}))?, 3)?;
    fleet.counts_agree()?;
    let refused = (RACES + 1) * RACERS - RACES - 3;
    poll("the access log", PATIENCE, || (fleet.decisions("reason=token_spent") >= refused).then_some(()))?;
    same("refused for being spent", fleet.decisions("reason=token_spent"), refused)
}

fn run(fleet: &Fleet, crowd: &mut Crowd, token: &str, uses: usize) -> Result<(), String> {
    let before = fleet.upstream.count();
    let answers = crowd.at_once(&call(token, ALLOWED))?;
    same("answers", tally(&answers), BTreeMap::from([(200, uses), (401, RACERS - uses)]))?;
    same("requests upstream", fleet.upstream.count() - before, uses)
}

/// Spent uses and charges survive another policy.
pub fn reload_keeps_state(pieces: &Pieces) -> Result<(), String> {
    let mut policy = single_use();
    policy["limits"] = json!([{
        "id": "calls", "per": "key", "routes": ["dial"], "window": {"max": 3, "seconds": calm_window()}
    }]);
    let fleet = Fleet::local(pieces, &policy, 2)?;
    let (spent, fresh) = (fleet.mint()?, fleet.mint()?);
    status("the first use", &fleet.use_at(0, &spent)?, 200)?;
    for other in [OTHER, "+15550007777"] {
        policy["api_keys"][0]["ceiling"] = json!({"to": [ALLOWED, other]});
        fleet.deliver(&policy)?;
        let refused = Crowd::connect(&fleet.addresses(), 16)?.at_once(&call(&spent, ALLOWED))?;
        same("a spent token, on every worker", tally(&refused), BTreeMap::from([(401, 16)]))?;
    }
    status("an unspent one", &fleet.use_at(0, &fresh)?, 200)?;
    status("the third of three", &fleet.use_at(0, &fleet.mint()?)?, 200)?;
    let mut crowd = Crowd::connect(&fleet.addresses(), 16)?;
    let refused = crowd.at_once(&call(&fleet.mint()?, ALLOWED))?;
    same("the fourth, on every worker", tally(&refused), BTreeMap::from([(429, 16)]))?;
    same("requests upstream", fleet.upstream.count(), 3)?;
    fleet.counts_agree()
}

/// A restarted gateway accepts no token whose uses it may have lost.
pub fn restart_refuses_older_tokens(pieces: &Pieces) -> Result<(), String> {
    let policy = single_use();
    let mut fleet = Fleet::local(pieces, &policy, 2)?;
    fleet.wait_one_second();
    let (spent, unspent) = (fleet.mint()?, fleet.mint()?);
    status("before", &fleet.use_at(0, &spent)?, 200)?;
    fleet.restart(0, &policy)?;
    fleet.refuses("a spent token", &spent, "token_forgotten")?;
    fleet.refuses("an unspent token", &unspent, "token_forgotten")?;
    fleet.wait_until_it_serves()
}

/// A use at one gateway counts at the other and after a restart.
pub fn restart_in_fleet_keeps_uses() -> Result<Completion, Failed> {
    with_redis(|pieces, redis| {
        let policy = single_use_in(&redis);
        let mut fleet = Fleet::shared(pieces, redis, &policy, 2)?;
        let (spent, unspent) = (fleet.mint()?, fleet.mint()?);
        status("at one gateway", &fleet.use_at(0, &spent)?, 200)?;
        fleet.refuses("at both", &spent, "token_spent")?;
        fleet.restart(0, &policy)?;
        fleet.refuses("after a restart", &spent, "token_spent")?;
        status("an unspent token", &fleet.use_at(1, &unspent)?, 200)?;
        fleet.refuses("and then", &unspent, "token_spent")?;
        let foreign = fleet.keys()?.into_iter().find(|key| !key.starts_with("callbound:"));
        same("a key in Redis outside the prefix", foreign, None)
    })
}

/// Compares the bridge's rights in Redis with the commands of the function, which it calls with these rights.
pub fn bridge_rights_match_function() -> Result<Completion, Failed> {
    let read = |path: &str| {
        let path = crate::support::require::root().join(path);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let called = LIBRARY.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next());
    let function = format!("fcall|{FUNCTION}");
    let mut called: Vec<String> = called.map(str::to_ascii_lowercase).chain([function]).collect();
    called.sort();
    called.dedup();
    let users = read("envoy/redis/users.acl")?;
    let bridge = users.lines().find(|line| line.starts_with("user default ")).ok_or("no user `default`")?;
    let mut allowed: Vec<String> =
        bridge.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    allowed.sort();
    Ok(same("the bridge's rights", allowed, called).map(|()| Completion::Completed)?)
}

/// Returns a window of an hour or more that ends long after the test.
pub(super) fn calm_window() -> u64 {
    let now = crate::support::real_now();
    (3_600..).find(|seconds| seconds - now % seconds > 900).unwrap_or(3_600)
}

/// Runs `doing` and returns its result and duration.
pub(super) fn timed<T>(doing: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = doing();
    (result, begin.elapsed())
}
