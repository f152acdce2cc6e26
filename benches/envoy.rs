//! What callbound costs on a real Envoy, beside Envoy's native filters: CPU time of the worker thread per request.
//! `make bench`; README.md here says what is measured and how to read it. Nothing here passes or fails by the clock.
#![allow(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement may fail loudly, print, and know the time"
)]

mod rig;
#[path = "../tests/support/wasm_host.rs"]
#[allow(clippy::pedantic, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
mod wasm_host;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use callbound::credential::Algorithm;
use clap::Parser;

use rig::gateway::{Gateway, Listener, Rendered, empty_filter};
use rig::load::Client;
use rig::platform::{Ask, Platform, SECRET_NAME, TOKENS, request};
use rig::{at, module};

/// What callbound costs on a real Envoy, beside Envoy's native filters.
#[derive(Parser)]
struct Settings {
    /// Requests per round of each line of the table
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Measure only lines whose group or variant contains this; repeatable
    #[arg(long)]
    only: Vec<String>,
    /// The module
    #[arg(long, default_value = "dist/callbound.wasm")]
    module: PathBuf,
    /// A further build of the module to measure beside it; repeatable
    #[arg(long, value_name = "NAME=FILE")]
    beside: Vec<String>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

const BARE: &str = "bare";
const EMPTY: &str = "empty wasm filter";
const CACHED: &str = "native, cached";
const UNCACHED: &str = "native, not cached";
const OURS: &str = "callbound";

/// What requests bear.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bears {
    ApiKey,
    /// The same token each time, one of this set that is kept for it.
    Seen(Set),
    /// Another token of this set each time.
    FirstSeen(Set),
}

/// A set of tokens, by its place in [`SETS`].
type Set = usize;
/// One set for each line that sees tokens for the first time: no other line shows them to its filter.
const SETS: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Es256, Algorithm::Hs256];
const HS256: Set = 0;
const HS256_AGAIN: Set = 3;

/// Lines of the table that belong together: one request, several variants.
struct Group {
    title: String,
    ask: Ask,
    bears: Bears,
    status: u16,
    variants: Vec<&'static str>,
}

fn groups() -> Vec<Group> {
    let group = |title: &str, ask, bears, status, variants: &[&'static str]| Group {
        title: title.to_owned(),
        ask,
        bears,
        status,
        variants: variants.to_vec(),
    };
    let all = [BARE, EMPTY, CACHED, UNCACHED, OURS];
    let mut groups = vec![
        group("header-only, token seen before (HS256)", Ask::Read, Bears::Seen(HS256), 200, &all),
        group("header-only, API key", Ask::Read, Bears::ApiKey, 200, &[OURS]),
    ];
    for (set, algorithm) in SETS.iter().enumerate().take(HS256_AGAIN) {
        let title = format!("header-only, token first seen ({})", algorithm.name());
        groups.push(group(&title, Ask::Read, Bears::FirstSeen(set), 200, &[CACHED, UNCACHED, OURS]));
    }
    groups.extend([
        group("300 B body, token seen before (HS256)", Ask::Dial, Bears::Seen(HS256), 200, &all),
        group(
            "300 B body, token first seen (HS256)",
            Ask::Dial,
            Bears::FirstSeen(HS256_AGAIN),
            200,
            &[UNCACHED, OURS],
        ),
        group("300 B body, API key", Ask::Dial, Bears::ApiKey, 200, &[OURS]),
        group(
            "header-only, refused for its scope (HS256 seen)",
            Ask::NoScope,
            Bears::Seen(HS256),
            403,
            &[CACHED, UNCACHED, OURS],
        ),
        group(
            "300 B body, refused for its destination (HS256 seen)",
            Ask::DialOutside,
            Bears::Seen(HS256),
            403,
            &[OURS],
        ),
    ]);
    groups
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
    let policy = folder.0.join("policy.json");
    fs::write(&policy, platform.policy.to_string()).map_err(at(policy.display()))?;

    eprintln!("bench: minting {} sets of {TOKENS} tokens", SETS.len());
    let tokens: [Result<_, String>; SETS.len()] =
        std::array::from_fn(|set| platform.tokens(SETS[set], &format!("{set}"), TOKENS));
    let tokens: Vec<Vec<String>> = tokens.into_iter().collect::<Result<_, _>>()?;

    let mut listeners = vec![
        Listener { name: BARE.into(), filters: Vec::new() },
        Listener { name: EMPTY.into(), filters: vec![empty_filter(&folder.0)?] },
        Listener { name: CACHED.into(), filters: platform.native_pair(true)? },
        Listener { name: UNCACHED.into(), filters: platform.native_pair(false)? },
    ];
    let mut first = None;
    for (index, (name, module)) in modules.iter().enumerate() {
        let rendered = Rendered::new(&folder.0.join(format!("ours-{index}")), &policy, module)?;
        listeners.push(Listener { name: name.clone(), filters: vec![rendered.filter.clone()] });
        first.get_or_insert(rendered);
    }
    let rendered = first.ok_or("no module")?;
    let secret = platform.secret();
    let gateway = Gateway::start(&envoy, &folder.0, &rendered, &listeners, (SECRET_NAME, &secret))?;
    let mut lines = lines(settings, &gateway, &modules)?;
    measure(settings, &gateway, &mut lines, &tokens)
        .map_err(|problem| format!("{problem}\n{}", gateway.log()))?;
    print_table(settings, &lines);
    for (name, path) in &modules {
        let report = module::report(path, &platform, tokens.first().map_or(&[][..], Vec::as_slice))?;
        print_module(name, &report);
    }
    Ok(())
}

/// The module and those beside it, each under the name of its variant.
fn modules(settings: &Settings, root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut modules = vec![(OURS.to_owned(), root.join(&settings.module))];
    for beside in &settings.beside {
        let (name, path) = beside.split_once('=').ok_or("--beside: expected NAME=FILE")?;
        modules.push((format!("{OURS} {name}"), root.join(path)));
    }
    match modules.iter().find(|(_, path)| !path.is_file()) {
        Some((_, path)) => Err(format!("{} is not built: make wasm", path.display())),
        None => Ok(modules),
    }
}

/// One line of the table: a request on a listener.
struct Line {
    group: usize,
    title: String,
    variant: String,
    ask: Ask,
    bears: Bears,
    status: u16,
    client: Client,
    /// Requests sent so far: where in the set of tokens this line is.
    sent: usize,
    /// Microseconds per request, one per round.
    rounds: Vec<f64>,
}

fn lines(settings: &Settings, gateway: &Gateway, modules: &[(String, PathBuf)]) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (index, group) in groups().into_iter().enumerate() {
        let mut names: Vec<String> = Vec::new();
        for variant in &group.variants {
            match *variant {
                OURS => names.extend(modules.iter().map(|(name, _)| name.clone())),
                other => names.push(other.to_owned()),
            }
        }
        for variant in names {
            let is_wanted = |only: &String| group.title.contains(only) || variant.contains(only);
            // Differences are taken from bare Envoy: it is always there.
            if !settings.only.is_empty() && !settings.only.iter().any(is_wanted) && variant != BARE {
                continue;
            }
            let address =
                *gateway.addresses.get(&variant).ok_or_else(|| format!("no listener `{variant}`"))?;
            lines.push(Line {
                group: index,
                title: group.title.clone(),
                variant,
                ask: group.ask,
                bears: group.bears,
                status: group.status,
                client: Client::connect(address)?,
                sent: 0,
                rounds: Vec::new(),
            });
        }
    }
    Ok(lines)
}

/// Every line once per round, so that what else happens on the machine falls on all alike.
fn measure(
    settings: &Settings,
    gateway: &Gateway,
    lines: &mut [Line],
    tokens: &[Vec<String>],
) -> Result<(), String> {
    for round in 0..=settings.rounds {
        match round {
            0 => eprintln!("bench: warming up"),
            _ => eprintln!("bench: round {round} of {}", settings.rounds),
        }
        for line in &mut *lines {
            let (ask, bears) = (line.ask, line.bears);
            let start = line.sent;
            let message = |index: usize| match bears {
                Bears::ApiKey => request(ask, None),
                Bears::Seen(set) => request(ask, tokens[set].last().map(String::as_str)),
                Bears::FirstSeen(set) => {
                    let set = &tokens[set][..TOKENS - 1];
                    request(ask, Some(&set[(start + index) % set.len()]))
                }
            };
            let before = gateway.cpu()?;
            line.client
                .run(settings.requests, line.status, message)
                .map_err(|problem| format!("{}, {}: {problem}", line.title, line.variant))?;
            let spent = gateway.cpu()?.saturating_sub(before);
            line.sent += settings.requests;
            if round > 0 {
                line.rounds.push(spent.as_secs_f64() * 1e6 / settings.requests as f64);
            }
        }
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the values lies, between the two nearest.
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

/// What a line costs above bare Envoy: the median of the differences within each round.
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
            let head = ["median", "middle half", "above bare", "/ cached", "/ not cached"];
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
            ratio(CACHED).unwrap_or_default(),
            ratio(UNCACHED).unwrap_or_default(),
        );
    }
}

/// The native peer of a line: the same request, or for an API key (which `jwt_authn` does not know) a token seen before.
fn is_like(line: &Line, peer: &Line) -> bool {
    let bears = match line.bears {
        Bears::ApiKey => Bears::Seen(HS256),
        other => other,
    };
    peer.bears == bears && peer.ask == line.ask && peer.status == line.status
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
