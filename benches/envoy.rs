//! Cost of callbound on a real Envoy, compared with Envoy's native filters: CPU time of the worker thread per request,
//! without state and with limits and single-use tokens, in the gateway's own memory and in Redis. `make bench`; the
//! README here describes what is measured and how to read it. Nothing here passes or fails by the clock.
#![allow(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement may fail loudly, print, and know the time"
)]

mod rig;
#[path = "../tests/support/mod.rs"]
#[allow(clippy::pedantic, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
mod support;
#[path = "../tests/support/wasm_host.rs"]
#[allow(clippy::pedantic, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
mod wasm_host;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use callbound::credential::Algorithm;
use clap::Parser;

use rig::fleet::{Fleet, MISSING, Spent};
use rig::gateway::{Gateway, Listener, Rendered, empty_filter};
use rig::load::{Client, Wanted};
use rig::platform::{Ask, Bucket, Limits, Platform, SECRET_NAME, TOKENS, request};
use rig::{at, module};

/// Measures callbound on a real Envoy, compared with Envoy's native filters.
#[derive(Parser)]
struct Settings {
    /// Requests per round of each line of the table
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Measure only lines whose group or variant contains this; `memory` is the local store's memory; repeatable
    #[arg(long)]
    only: Vec<String>,
    /// Path of the module
    #[arg(long, default_value = "dist/callbound.wasm")]
    module: PathBuf,
    /// Another build of the module to measure in the same run; repeatable
    #[arg(long, value_name = "NAME=FILE")]
    compare: Vec<String>,
    /// Flag that `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

const BARE: &str = "bare";
const EMPTY: &str = "empty wasm filter";
const CACHED: &str = "native, cached";
const UNCACHED: &str = "native, not cached";
const BUCKET: &str = "native, cached, local_ratelimit";
const BUCKET_PER_KEY: &str = "native, cached, local_ratelimit per key";
const OURS: &str = "callbound";
const OURS_ONE: &str = "callbound, one window";
const OURS_THREE: &str = "callbound, window + rate + window";
const OURS_REDIS: &str = "callbound, store in redis";
const OURS_REDIS_ONE: &str = "callbound, one window, store in redis";

/// Limits of each callbound variant, and whether its store is Redis. All names begin with [`OURS`].
const POLICIES: [(&str, Limits, bool); 5] = [
    (OURS, Limits::None, false),
    (OURS_ONE, Limits::One, false),
    (OURS_THREE, Limits::Three, false),
    (OURS_REDIS, Limits::None, true),
    (OURS_REDIS_ONE, Limits::One, true),
];

/// Columns of ratios: their titles, and the variants that a line is compared with.
type Peers = [(&'static str, &'static str); 2];
const NATIVE: Peers = [("/ cached", CACHED), ("/ not cached", UNCACHED)];
const NATIVE_LIMITS: Peers = [("/ bucket", BUCKET), ("/ per key", BUCKET_PER_KEY)];

/// Header that shows that a limit was applied, sent by Envoy's filter and by callbound with this policy.
const LIMITED: &str = "x-ratelimit-limit";
/// Spent tokens in the store when its memory is measured.
const REMEMBERED: usize = 30_000;
/// Name of that measurement for `--only`.
const MEMORY: &str = "memory";
/// Requests per turn when latency is measured.
const TIMED_AT_ONCE: usize = 100;

impl Settings {
    fn wants(&self, group: &Group, variant: &str) -> bool {
        let is_named = |only: &String| group.title.contains(only) || variant.contains(only);
        self.only.is_empty() || self.only.iter().any(is_named)
    }
}

/// Credential of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Credential {
    ApiKey,
    /// One token of this set, the same each time.
    Seen(Set),
    /// Another token of this set each time.
    FirstSeen(Set),
    /// A new token each time (HS256), minted before its round, with this number of uses.
    Fresh(Option<u64>),
}

/// A set of tokens, by its place in [`SETS`].
type Set = usize;
/// One set for each line with first-seen tokens: no other line shows them to its filter.
const SETS: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256, Algorithm::Hs256];
const HS256: Set = 0;
const HS256_AGAIN: Set = 3;

/// Lines of the table that belong together: one request, several variants.
struct Group {
    title: String,
    ask: Ask,
    credential: Credential,
    wanted: Wanted,
    variants: Vec<&'static str>,
    peers: Peers,
    /// Latency and the CPU time of other programs are measured as well.
    is_remembered: bool,
}

fn groups() -> Vec<Group> {
    let group = |title: &str, ask, credential, status, variants: &[&'static str]| Group {
        title: title.to_owned(),
        ask,
        credential,
        wanted: Wanted { status, header: None },
        variants: variants.to_vec(),
        peers: NATIVE,
        is_remembered: false,
    };
    let all = [BARE, EMPTY, CACHED, UNCACHED, OURS];
    let mut groups = vec![
        group("header-only, token seen before (HS256)", Ask::Read, Credential::Seen(HS256), 200, &all),
        group("header-only, API key", Ask::Read, Credential::ApiKey, 200, &[OURS]),
    ];
    for (set, algorithm) in SETS.iter().enumerate().take(HS256_AGAIN) {
        let title = format!("header-only, token first seen ({})", algorithm.name());
        groups.push(group(&title, Ask::Read, Credential::FirstSeen(set), 200, &[CACHED, UNCACHED, OURS]));
    }
    groups.extend([
        group("300 B body, token seen before (HS256)", Ask::Dial, Credential::Seen(HS256), 200, &all),
        group(
            "300 B body, token first seen (HS256)",
            Ask::Dial,
            Credential::FirstSeen(HS256_AGAIN),
            200,
            &[UNCACHED, OURS],
        ),
        group("300 B body, API key", Ask::Dial, Credential::ApiKey, 200, &[OURS]),
        group(
            "header-only, refused for its scope (HS256 seen)",
            Ask::NoScope,
            Credential::Seen(HS256),
            403,
            &[CACHED, UNCACHED, OURS],
        ),
        group(
            "300 B body, refused for its destination (HS256 seen)",
            Ask::DialOutside,
            Credential::Seen(HS256),
            403,
            &[OURS],
        ),
    ]);
    groups.extend(remembering());
    groups
}

/// Lines with charges. Tokens without uses are measured in the same run as those with them.
fn remembering() -> [Group; 3] {
    let fresh = |title: &str, uses| Group {
        title: title.to_owned(),
        ask: Ask::Read,
        credential: Credential::Fresh(uses),
        wanted: Wanted { status: 200, header: None },
        variants: vec![OURS, OURS_REDIS],
        peers: NATIVE,
        is_remembered: true,
    };
    let limits = Group {
        title: "header-only, token seen before (HS256), limits".to_owned(),
        credential: Credential::Seen(HS256),
        wanted: Wanted { status: 200, header: Some(LIMITED) },
        variants: vec![BUCKET, BUCKET_PER_KEY, OURS_ONE, OURS_THREE, OURS_REDIS_ONE],
        peers: NATIVE_LIMITS,
        ..fresh("", None)
    };
    [
        limits,
        fresh("header-only, new token without uses (HS256)", None),
        fresh("header-only, new single-use token, spent (HS256)", Some(1)),
    ]
}

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let envoy = std::env::var_os("ENVOY_BIN").filter(|path| !path.is_empty());
    let envoy = envoy.map_or_else(|| root.join(".tools/envoy"), PathBuf::from);
    if !envoy.is_file() {
        return Err("no Envoy: make setup, or set ENVOY_BIN".to_owned());
    }
    let modules = modules(settings, root)?;
    let folder = Folder::new()?;
    let platform = Platform::new()?;
    let needs_fleet = needs_fleet(settings);
    let fleet = if needs_fleet { Fleet::start()? } else { None };
    let (bootstrap, listeners) = listeners(&folder.0, &platform, &modules, fleet.as_ref())?;
    let secret = platform.secret();
    let gateway = Gateway::start(&envoy, &folder.0, &bootstrap, &listeners, (SECRET_NAME, &secret))?;

    eprintln!("bench: minting {} sets of {TOKENS} tokens", SETS.len());
    let tokens: [Result<_, String>; SETS.len()] =
        std::array::from_fn(|set| platform.tokens(SETS[set], &format!("{set}"), 0..TOKENS, None));
    let tokens: Vec<Vec<String>> = tokens.into_iter().collect::<Result<_, _>>()?;
    // Tokens with uses must be newer than the store, and a worker must have reached Redis.
    std::thread::sleep(Duration::from_secs(3));

    let bench = Bench { settings, gateway, platform, tokens, fleet };
    let with_log = |problem| format!("{problem}\n{}", bench.gateway.log());
    let mut lines = lines(settings, &bench.gateway, &modules)?;
    bench.measure(&mut lines).map_err(with_log)?;
    print_table(settings, &lines);
    bench.time(&mut lines).map_err(with_log)?;
    print_remembering(&lines);
    if needs_fleet && bench.fleet.is_none() {
        println!("  store in redis: skipped, {MISSING}");
    }
    if settings.only.is_empty() || settings.only.iter().any(|only| only == MEMORY) {
        println!("\n{}", bench.remember().map_err(with_log)?);
    }
    for (name, path) in &modules {
        let tokens = bench.tokens.first().map_or(&[][..], Vec::as_slice);
        print_module(name, &module::report(path, &bench.platform, tokens)?);
    }
    Ok(())
}

/// Returns true if any selected line needs Redis.
fn needs_fleet(settings: &Settings) -> bool {
    let is_in_redis = |variant: &&&str| POLICIES.iter().any(|(name, _, redis)| name == *variant && *redis);
    let is_needed = |group: &Group| {
        group.variants.iter().filter(is_in_redis).any(|variant| settings.wants(group, variant))
    };
    groups().iter().any(is_needed)
}

/// Renders a listener for every variant, and their bootstrap.
fn listeners(
    folder: &Path,
    platform: &Platform,
    modules: &[(String, PathBuf)],
    fleet: Option<&Fleet>,
) -> Result<(Rendered, Vec<Listener>), String> {
    let mut listeners = vec![
        Listener { name: BARE.into(), filters: Vec::new() },
        Listener { name: EMPTY.into(), filters: vec![empty_filter(folder)?] },
        Listener { name: CACHED.into(), filters: platform.native_pair(true)? },
        Listener { name: UNCACHED.into(), filters: platform.native_pair(false)? },
        Listener { name: BUCKET.into(), filters: platform.native_limited(Bucket::One)? },
        Listener { name: BUCKET_PER_KEY.into(), filters: platform.native_limited(Bucket::PerKey)? },
    ];
    let redis = fleet.map(Fleet::section);
    let mut last = None;
    for (index, (variant, limits, in_redis)) in POLICIES.iter().enumerate() {
        if *in_redis && redis.is_none() {
            continue;
        }
        let policy = platform.remembering(*limits, redis.as_ref().filter(|_| *in_redis));
        let path = folder.join(format!("policy-{index}.json"));
        fs::write(&path, policy.to_string()).map_err(at(path.display()))?;
        for (number, (module, file)) in modules.iter().enumerate() {
            let rendered = Rendered::new(&folder.join(format!("ours-{index}-{number}")), &path, file)?;
            let name = named(module, variant);
            listeners.push(Listener { name, filters: vec![rendered.filter.clone()] });
            last = Some(rendered);
        }
    }
    // Only policies with Redis are rendered with its cluster, and those come last.
    Ok((last.ok_or("no module")?, listeners))
}

/// Names a callbound variant with this module.
fn named(module: &str, variant: &str) -> String {
    format!("{module}{}", variant.strip_prefix(OURS).unwrap_or_default())
}

/// Lists the module and the other builds, each under the name of its variant.
fn modules(settings: &Settings, root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut modules = vec![(OURS.to_owned(), root.join(&settings.module))];
    for other in &settings.compare {
        let (name, path) = other.split_once('=').ok_or("--compare: expected NAME=FILE")?;
        modules.push((format!("{OURS} {name}"), root.join(path)));
    }
    match modules.iter().find(|(_, path)| !path.is_file()) {
        Some((_, path)) => Err(format!("{} is not built: make wasm", path.display())),
        None => Ok(modules),
    }
}

/// One line of the table: a request on a listener.
struct Line {
    /// Number of this line.
    number: usize,
    group: usize,
    title: String,
    variant: String,
    ask: Ask,
    credential: Credential,
    wanted: Wanted,
    peers: Peers,
    is_remembered: bool,
    client: Client,
    /// Requests sent so far: the position in the set of tokens.
    sent: usize,
    /// Microseconds per request, one per round.
    rounds: Vec<f64>,
    /// Microseconds of Redis and of the bridge, and requests to a cluster, per request.
    others: [Vec<f64>; 3],
    /// Latency of each timed request, in microseconds.
    times: Vec<f64>,
}

fn lines(settings: &Settings, gateway: &Gateway, modules: &[(String, PathBuf)]) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (index, group) in groups().into_iter().enumerate() {
        let mut names: Vec<String> = Vec::new();
        for variant in &group.variants {
            match *variant {
                ours if ours.starts_with(OURS) => {
                    names.extend(modules.iter().map(|(module, _)| named(module, ours)));
                }
                other => names.push(other.to_owned()),
            }
        }
        for variant in names {
            // Bare Envoy is always measured: the differences are taken from it.
            if variant != BARE && !settings.wants(&group, &variant) {
                continue;
            }
            // Redis is not installed.
            let Some(address) = gateway.addresses.get(&variant) else { continue };
            lines.push(Line {
                number: lines.len(),
                group: index,
                title: group.title.clone(),
                variant,
                ask: group.ask,
                credential: group.credential,
                wanted: group.wanted,
                peers: group.peers,
                is_remembered: group.is_remembered,
                client: Client::connect(*address)?,
                sent: 0,
                rounds: Vec::new(),
                others: Default::default(),
                times: Vec::new(),
            });
        }
    }
    Ok(lines)
}

/// Gateway, tokens and store for the measurements.
struct Bench<'a> {
    settings: &'a Settings,
    gateway: Gateway,
    platform: Platform,
    tokens: Vec<Vec<String>>,
    fleet: Option<Fleet>,
}

impl Bench<'_> {
    /// Runs every line once per round, so that other load of the machine affects all lines alike.
    fn measure(&self, lines: &mut [Line]) -> Result<(), String> {
        for round in 0..=self.settings.rounds {
            match round {
                0 => eprintln!("bench: warming up"),
                _ => eprintln!("bench: round {round} of {}", self.settings.rounds),
            }
            for line in &mut *lines {
                let about = about(line);
                self.measure_line(line, round > 0).map_err(&about)?;
                if round == 0 && line.credential == Credential::Fresh(Some(1)) {
                    self.check_spent(line).map_err(&about)?;
                }
            }
        }
        Ok(())
    }

    fn measure_line(&self, line: &mut Line, counts: bool) -> Result<(), String> {
        let count = self.settings.requests;
        let mut message = self.messages(line, count)?;
        let others = |line: &Line| line.is_remembered.then(|| self.others()).transpose();
        let before_others = others(line)?;
        let before = self.gateway.cpu()?;
        line.client.run(count, line.wanted, &mut message)?;
        let spent = self.gateway.cpu()?.saturating_sub(before);
        line.sent += count;
        let after_others = others(line)?;
        if !counts {
            return Ok(());
        }
        line.rounds.push(microseconds(spent) / count as f64);
        if let (Some(before), Some(after)) = (before_others, after_others) {
            for ((rounds, before), after) in line.others.iter_mut().zip(before).zip(after) {
                rounds.push((after - before) / count as f64);
            }
        }
        Ok(())
    }

    /// Microseconds of Redis and of the bridge, and requests to clusters, so far.
    fn others(&self) -> Result<[f64; 3], String> {
        let nothing = Spent { redis: Duration::ZERO, bridge: Duration::ZERO };
        let spent = self.fleet.as_ref().map_or(Ok(nothing), Fleet::spent)?;
        Ok([microseconds(spent.redis), microseconds(spent.bridge), self.gateway.callouts()? as f64])
    }

    /// Prepares the next requests of a line. New tokens are minted here, before the measurement.
    fn messages(&self, line: &Line, count: usize) -> Result<impl FnMut(usize) -> Vec<u8> + use<'_>, String> {
        let (ask, credential, start) = (line.ask, line.credential, line.sent);
        let fresh = match credential {
            Credential::Fresh(uses) => {
                let set = format!("line-{}", line.number);
                self.platform.tokens(Algorithm::Hs256, &set, start..start + count, uses)?
            }
            _ => Vec::new(),
        };
        Ok(move |index: usize| match credential {
            Credential::ApiKey => request(ask, None),
            Credential::Seen(set) => request(ask, self.tokens[set].last().map(String::as_str)),
            Credential::FirstSeen(set) => {
                let set = &self.tokens[set][..TOKENS - 1];
                request(ask, Some(&set[(start + index) % set.len()]))
            }
            Credential::Fresh(_) => request(ask, fresh.get(index).map(String::as_str)),
        })
    }

    /// A use that is not counted would be cheap: the same token again must be refused.
    fn check_spent(&self, line: &mut Line) -> Result<(), String> {
        let message = self.messages(line, 1)?(0);
        line.sent += 1;
        line.client.run(1, line.wanted, |_| message.clone())?;
        line.client.run(1, Wanted { status: 401, header: None }, |_| message.clone())
    }

    /// Measures latency, one request at a time, in turns.
    fn time(&self, lines: &mut [Line]) -> Result<(), String> {
        eprintln!("bench: timing");
        for _ in 0..self.settings.rounds {
            for line in lines.iter_mut().filter(|line| is_timed(line)) {
                let about = about(line);
                let message = self.messages(line, TIMED_AT_ONCE)?;
                let times = line.client.time(TIMED_AT_ONCE, line.wanted, message).map_err(about)?;
                line.sent += TIMED_AT_ONCE;
                line.times.extend(times.into_iter().map(microseconds));
            }
        }
        Ok(())
    }

    /// Measures the local store's share of Envoy's heap, and the cost of a use once it is full.
    fn remember(&self) -> Result<String, String> {
        eprintln!("bench: spending {REMEMBERED} tokens");
        // Where no token with uses was seen before.
        let address = self.gateway.addresses.get(OURS_ONE).ok_or("no listener for it")?;
        let mut client = Client::connect(*address)?;
        let wanted = Wanted { status: 200, header: Some(LIMITED) };
        let mut spend = |numbers: std::ops::Range<usize>| {
            let count = numbers.len();
            let tokens = self.platform.tokens(Algorithm::Hs256, "memory", numbers, Some(1))?;
            let before = self.gateway.cpu()?;
            client.run(count, wanted, |index| request(Ask::Read, Some(&tokens[index])))?;
            Ok::<_, String>(microseconds(self.gateway.cpu()?.saturating_sub(before)) / count as f64)
        };
        let chunk = self.settings.requests.min(REMEMBERED);
        let before = self.gateway.heap()?;
        let first = spend(0..chunk)?;
        spend(chunk..REMEMBERED)?;
        let bytes = self.gateway.heap()?.saturating_sub(before);
        let last = spend(REMEMBERED..REMEMBERED + chunk)?;
        Ok(format!(
            "local store: {REMEMBERED} spent tokens take {} KiB of Envoy's heap, {} bytes each; spending one on a route with \
             a window costs the worker {first:.1} \u{b5}s in all with none remembered, {last:.1} \u{b5}s with these",
            bytes.div_ceil(1024),
            bytes / REMEMBERED as u64,
        ))
    }
}

/// Adds the line to an error.
fn about(line: &Line) -> impl Fn(String) -> String + use<> {
    let about = format!("{}, {}", line.title, line.variant);
    move |problem| format!("{about}: {problem}")
}

/// Returns true for lines with state and those they are compared with: the same request without state.
fn is_timed(line: &Line) -> bool {
    let is_plain = line.group == 0 && (line.variant == BARE || line.variant.starts_with(OURS));
    line.is_remembered || is_plain
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Returns the quantile of the values, interpolated between the two nearest.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().saturating_sub(1) as f64;
    let (lower, upper) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(lower), sorted.get(upper)) {
        (Some(lower), Some(upper)) => lower + (upper - lower) * place.fract(),
        _ => f64::NAN,
    }
}

/// Returns the cost of a line above bare Envoy: the median of the differences within each round.
fn above_bare(line: &Line, lines: &[Line]) -> f64 {
    let is_bare = |other: &&Line| other.variant == BARE && other.ask.has_body() == line.ask.has_body();
    let Some(bare) = lines.iter().find(is_bare) else { return f64::NAN };
    let differences: Vec<f64> = line.rounds.iter().zip(&bare.rounds).map(|(own, bare)| own - bare).collect();
    median(&differences)
}

fn print_table(settings: &Settings, lines: &[Line]) {
    println!(
        "CPU time of Envoy's worker per request, in microseconds: median of {} rounds of {} requests,\n\
         above bare Envoy in the same round, and the ratio of that to the native filters' with and without their cache",
        settings.rounds, settings.requests
    );
    let mut group = None;
    for line in lines {
        if group.replace(line.group) != Some(line.group) {
            let [(first, _), (second, _)] = line.peers;
            let head = ["median", "middle half", "above bare", first, second];
            println!(
                "\n{:<56}{:>8} {:>13} {:>11} {:>9} {:>13}",
                line.title, head[0], head[1], head[2], head[3], head[4]
            );
        }
        let own = above_bare(line, lines);
        let ratio = |peer: &str| {
            let peer = lines.iter().find(|other| other.variant == peer && is_like(line, other))?;
            let other = above_bare(peer, lines);
            let is_measurable =
                line.variant != BARE && line.variant != peer.variant && other > 0.0 && own > 0.0;
            is_measurable.then(|| format!("{:.2}", own / other))
        };
        println!(
            "  {:<54}{:>8.1} {:>13} {:>11} {:>9} {:>13}",
            line.variant,
            median(&line.rounds),
            format!("{:.1}-{:.1}", quantile(&line.rounds, 0.25), quantile(&line.rounds, 0.75)),
            format!("{own:.1}"),
            ratio(line.peers[0].1).unwrap_or_default(),
            ratio(line.peers[1].1).unwrap_or_default(),
        );
    }
}

/// Finds the native line to compare with: the same request; for an API key a token seen before, and for a new token a
/// first-seen one.
fn is_like(line: &Line, peer: &Line) -> bool {
    let credential = match line.credential {
        Credential::ApiKey => Credential::Seen(HS256),
        Credential::Fresh(_) => Credential::FirstSeen(HS256),
        other => other,
    };
    peer.credential == credential && peer.ask == line.ask && peer.wanted.status == line.wanted.status
}

/// Prints the calls to other programs per request, and the latencies.
fn print_remembering(lines: &[Line]) {
    let mut timed = lines.iter().filter(|line| is_timed(line)).peekable();
    if timed.peek().is_none() {
        return;
    }
    println!(
        "\nRequests to the store's cluster and CPU time of Redis and of its bridge in microseconds, per request (medians);\n\
         and microseconds until the answer, one request at a time, with what that is above bare Envoy"
    );
    let bare = lines.iter().find(|line| line.variant == BARE && is_timed(line));
    let mut group = None;
    for line in timed {
        if group.replace(line.group) != Some(line.group) {
            println!(
                "\n{:<50}{:>9} {:>7} {:>7} {:>9} {:>7} {:>11} {:>7}",
                line.title, "callouts", "redis", "bridge", "p50", "p99", "above: p50", "p99"
            );
        }
        let [redis, bridge, callouts] = &line.others;
        let shown = |values: &[f64], digits: usize| match values {
            [] => String::new(),
            values => format!("{:.digits$}", median(values)),
        };
        let time = |part| quantile(&line.times, part);
        let above = |part| time(part) - bare.map_or(f64::NAN, |bare| quantile(&bare.times, part));
        println!(
            "  {:<48}{:>9} {:>7} {:>7} {:>9.0} {:>7.0} {:>11.0} {:>7.0}",
            line.variant,
            shown(callouts, 3),
            shown(redis, 1),
            shown(bridge, 1),
            time(0.5),
            time(0.99),
            above(0.5),
            above(0.99)
        );
    }
}

fn print_module(name: &str, report: &module::Report) {
    let kib = |bytes: usize| bytes.div_ceil(1024);
    println!(
        "\n{name}: {} bytes ({} KiB); memory per worker: {} KiB with the policy, {} KiB with its token cache full",
        report.size,
        report.size.div_ceil(1024),
        kib(report.loaded),
        kib(report.full)
    );
    for (request, calls) in &report.calls {
        let total: u64 = calls.values().sum();
        let list: Vec<String> = calls
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(call, count)| format!("{}\u{a0}{count}", call.trim_start_matches("proxy_")))
            .collect();
        println!("  host calls, {request}: {total} ({})", list.join(", "));
    }
}

/// The files of this run; removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(at(folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
