//! The store of all gateways: the batch they send to Redis through an HTTP bridge, and its answer.
//!
//! The bridge is Webdis: a command's words stand in the body, each percent-encoded, and the answer is JSON. The script
//! travels with every batch, so nothing has to be installed in Redis and gateways of two versions do not share a wrong
//! one. What is not the expected answer to the letter is none: the store is then unavailable.

use std::rc::Rc;

use super::{
    Change, Charge, ChargeDenied, ChargeResult, CounterKey, Lease, Remaining, Revocation, Revocations, Rule,
    StoreError, Stream, hex, interval, revocation,
};
use crate::json::Json;

/// What Redis runs.
const SCRIPT: &str = include_str!("store.lua");

/// The most revocations a fleet may hold: what every worker can fetch in one answer.
const MAX_REVOCATIONS: u64 = 10_000;

/// The most of them by one team's word: nobody can keep the others from revoking.
const MAX_REVOCATIONS_BY_ONE: u64 = 1_000;

/// How many texts follow the letter of an operation.
const VALUES: usize = 6;

/// Where the store is and what its names begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStore {
    /// The gateway's name for the bridge.
    pub cluster: String,
    /// The bridge's host, with its port where that is not the scheme's.
    pub authority: String,
    /// Milliseconds an answer may take.
    pub timeout: u64,
    /// What every name in Redis begins with.
    pub prefix: String,
    /// Whether Redis keeps everything over a restart.
    pub is_durable: bool,
    /// How every batch begins, encoded once.
    pub script: Script,
}

/// The script as a batch carries it: without its comments, percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script(Rc<[u8]>);

impl Default for Script {
    fn default() -> Self {
        let lines = SCRIPT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
        let mut encoded = b"EVAL/".to_vec();
        encode(&lines.collect::<Vec<_>>().join("\n"), &mut encoded);
        Self(encoded.into())
    }
}

/// An API key that stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// By the SHA-256 of its text: whoever presents it.
    Digest([u8; 32]),
    /// By its id: a token names its key so.
    Id(String),
}

/// One thing to be done in a batch.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A charge; of several all are taken or none.
    Charge(Charge),
    /// Asks whether a charge of a token's use would be refused.
    Question(Charge),
    /// A change.
    Change(Change),
    /// So many uses of a key, the last of them at this Unix second.
    Usage(String, u64, u64),
    /// Looks an API key up.
    Find(Lookup),
    /// Puts an API key into the store: its id, its digest, and how a policy would write it.
    Put(String, [u8; 32], String),
    /// Takes an API key out of the store, by its id.
    Remove(String),
    /// Asks how often each key was used.
    ReadUsage,
    /// A revocation.
    Revoke(Revocation),
    /// Asks for the revocations if they are others than those of this version.
    Feed(Option<u64>),
}

/// How often a key was used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The key's id.
    pub key: String,
    /// How often a request with it, or with a token of it, was let through or answered.
    pub uses: u64,
    /// When that was last, in Unix seconds.
    pub last: u64,
}

/// What came of a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// When the store began to remember, in Unix seconds.
    pub epoch: u64,
    /// Whether the charges were taken.
    pub taken: ChargeResult,
    /// Whether what was asked after is spent.
    pub is_spent: bool,
    /// Whether Redis may forget what it was told, to make room.
    pub may_evict: bool,
    /// Whether a revocation found no room.
    pub is_full: bool,
    /// The API key that was looked up, as a policy would write it.
    pub found: Option<String>,
    /// How often each key was used.
    pub usage: Vec<Usage>,
    /// The version of the revocations, and the revocations unless they are those that were known.
    pub feed: Option<(u64, Option<Revocations>)>,
}

/// Writes a batch as the body of a request to the bridge. `nonce` must be new: by it the answer is known.
pub fn request(remote: &RedisStore, nonce: &str, operations: &[Operation]) -> Vec<u8> {
    let mut words: Vec<String> = vec![(4 + operations.len()).to_string()];
    words.extend(["epoch", "revocations", "version", "usage"].map(|name| format!("{}{name}", remote.prefix)));
    words.extend(operations.iter().map(|operation| key_of(remote, operation)));
    words.push(nonce.to_owned());
    words.push(u8::from(remote.is_durable).to_string());
    for operation in operations {
        let (letter, mut values) = written(remote, operation);
        values.resize(VALUES, String::new());
        words.push(letter.to_owned());
        words.append(&mut values);
    }
    let mut body = Vec::with_capacity(remote.script.0.len() + 64 * words.len());
    body.extend_from_slice(&remote.script.0);
    for word in &words {
        body.push(b'/');
        encode(word, &mut body);
    }
    body
}

/// Percent-encodes all but what no reader takes for anything else (RFC 3986 section 2.3).
fn encode(word: &str, body: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            body.push(byte);
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
            body.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn key_of(remote: &RedisStore, operation: &Operation) -> String {
    let name = |cell: CounterKey| format!("{}{}", remote.prefix, cell.hex());
    match operation {
        Operation::Charge(charge) | Operation::Question(charge) => name(charge.cell),
        Operation::Change(Change::Renew(lease) | Change::End(lease)) => name(lease.cell),
        Operation::Change(Change::GiveBack(cell, _)) => name(*cell),
        Operation::Find(Lookup::Digest(digest)) => key_name(remote, digest),
        Operation::Find(Lookup::Id(id)) | Operation::Put(id, ..) | Operation::Remove(id) => {
            format!("{}key-id:{id}", remote.prefix)
        }
        // Redis wants a name for each; these have theirs already.
        Operation::Usage(..) | Operation::ReadUsage | Operation::Revoke(_) | Operation::Feed(_) => {
            format!("{}epoch", remote.prefix)
        }
    }
}

fn key_name(remote: &RedisStore, digest: &[u8; 32]) -> String {
    format!("{}key:{}", remote.prefix, hex(digest))
}

fn written(remote: &RedisStore, operation: &Operation) -> (&'static str, Vec<String>) {
    let leased = |lease: &Lease| vec![session(lease.holder), lease.grace.to_string()];
    match operation {
        Operation::Charge(charge) => written_charge(remote, &charge.rule),
        Operation::Question(charge) => ("P", written_charge(remote, &charge.rule).1),
        Operation::Change(Change::Renew(lease)) => ("N", leased(lease)),
        Operation::Change(Change::End(lease)) => ("E", leased(lease)),
        Operation::Change(Change::GiveBack(_, seconds)) => ("G", texts(&[*seconds])),
        Operation::Usage(key, uses, last) => ("K", [vec![key.clone()], texts(&[*uses, *last])].concat()),
        Operation::ReadUsage => ("Q", Vec::new()),
        Operation::Find(Lookup::Digest(_)) => ("D", Vec::new()),
        Operation::Find(Lookup::Id(_)) => ("I", Vec::new()),
        Operation::Put(_, digest, text) => ("A", vec![key_name(remote, digest), text.clone()]),
        Operation::Remove(_) => ("X", Vec::new()),
        Operation::Revoke(revocation) => (
            "V",
            [
                vec![revocation.name()],
                texts(&[
                    revocation.before,
                    MAX_REVOCATIONS_BY_ONE,
                    MAX_REVOCATIONS,
                    revocation::LONGEST_TOKEN,
                ]),
            ]
            .concat(),
        ),
        Operation::Feed(known) => {
            let known = known.map_or_else(|| "-1".to_owned(), |version| version.to_string());
            ("F", vec![known, revocation::LONGEST_TOKEN.to_string()])
        }
    }
}

fn written_charge(remote: &RedisStore, rule: &Rule) -> (&'static str, Vec<String>) {
    match *rule {
        Rule::Window { max, seconds } => ("W", texts(&[max, seconds])),
        Rule::Rate { max, seconds, burst } => ("R", texts(&[interval(max, seconds), burst])),
        Rule::Uses { max, issued_at, until, stream } => {
            let stream = stream.map_or_else(Vec::new, |Stream { cell, holder, grace }| {
                vec![session(holder), grace.to_string(), format!("{}{}", remote.prefix, cell.hex())]
            });
            ("U", [texts(&[max, issued_at, until]), stream].concat())
        }
        Rule::Sessions { max, holder } => ("S", vec![max.to_string(), session(holder)]),
        Rule::Seconds { max, ask, issued_at, until } => ("B", texts(&[max, ask, issued_at, until])),
    }
}

/// Numbers as the words of a batch.
fn texts(values: &[u64]) -> Vec<String> {
    values.iter().map(u64::to_string).collect()
}

/// A session's name: Lua would round so large a number.
fn session(holder: u64) -> String {
    format!("{holder:016x}")
}

/// Reads the bridge's answer to a batch.
///
/// # Errors
///
/// [`StoreError::Unavailable`] for everything but the answer the script gives to these operations of this batch.
pub fn answer(status: u16, body: &[u8], nonce: &str, operations: &[Operation]) -> Result<Reply, StoreError> {
    let reply = || {
        let json = Json::parse(body).ok().filter(|_| status == 200)?;
        let inner = Json::parse(json.get("EVAL")?.as_str()?.as_bytes()).ok()?;
        read(&inner, nonce, operations)
    };
    reply().ok_or(StoreError::Unavailable)
}

fn read(json: &Json<'_>, nonce: &str, operations: &[Operation]) -> Option<Reply> {
    let number = |name: &str| match json.get(name) {
        Some(Json::Unsigned(number)) => Some(*number),
        _ => None,
    };
    if json.get("nonce").and_then(Json::as_str) != Some(nonce) {
        return None;
    }
    let taken = ChargeResult::All(Vec::new());
    let mut reply = Reply {
        epoch: number("epoch")?,
        taken,
        is_spent: false,
        may_evict: false,
        found: None,
        usage: Vec::new(),
        is_full: false,
        feed: None,
    };
    if let Some(Json::Array(refusal)) = json.get("refusal") {
        let charge = usize::try_from(number("charge")?).ok()?.checked_sub(1)?;
        let is_charge = matches!(operations.get(charge), Some(Operation::Charge(_)));
        reply.taken = ChargeResult::None { charge, refusal: read_refusal(refusal).filter(|_| is_charge)? };
        return Some(reply);
    }
    let Some(Json::Array(answers)) = json.get("answers") else { return None };
    if answers.len() != operations.len() {
        return None;
    }
    let mut standings = Vec::new();
    for (operation, answer) in operations.iter().zip(answers) {
        match operation {
            Operation::Charge(_) => standings.push(read_standing(answer)?),
            Operation::Question(_) => reply.is_spent |= *answer != Json::Unsigned(0),
            Operation::Find(_) => {
                reply.found = match answer {
                    Json::Bool(false) => None,
                    Json::String(text) => Some(text.clone().into_owned()),
                    _ => return None,
                };
            }
            Operation::ReadUsage => reply.usage = read_usage(answer)?,
            Operation::Revoke(_) => reply.is_full |= *answer != Json::Unsigned(1),
            Operation::Feed(_) if matches!(answer, Json::OtherNumber(_)) => reply.may_evict = true,
            Operation::Feed(_) => reply.feed = Some(read_feed(answer)?),
            Operation::Change(_) | Operation::Usage(..) | Operation::Put(..) | Operation::Remove(_) => {}
        }
    }
    reply.taken = ChargeResult::All(standings);
    Some(reply)
}

fn read_standing(answer: &Json<'_>) -> Option<Remaining> {
    let Json::Array(values) = answer else { return None };
    let [Json::Unsigned(remaining), Json::Unsigned(reset)] = values.as_slice() else { return None };
    Some(Remaining { remaining: *remaining, reset: *reset })
}

fn read_refusal(answer: &[Json<'_>]) -> Option<ChargeDenied> {
    match answer {
        [Json::Unsigned(1), Json::Unsigned(retry), Json::Unsigned(reset)] => {
            Some(ChargeDenied::Spent { retry: *retry, reset: *reset })
        }
        [Json::Unsigned(2), ..] => Some(ChargeDenied::Forgotten),
        _ => None,
    }
}

/// A hash of two fields a key: its id, and its id with the word "last".
fn read_usage(answer: &Json<'_>) -> Option<Vec<Usage>> {
    let fields = answer.members()?;
    let number = |value: &Json<'_>| value.as_str()?.parse().ok();
    let keys = fields.iter().filter(|(name, _)| !name.contains(' '));
    let usage = keys.map(|(key, uses)| {
        let last = answer.get(&format!("{key} last")).and_then(number).unwrap_or(0);
        Some(Usage { key: key.clone().into_owned(), uses: number(uses)?, last })
    });
    usage.collect()
}

fn read_feed(answer: &Json<'_>) -> Option<(u64, Option<Revocations>)> {
    let Json::Array(values) = answer else { return None };
    let (version, list) = match values.as_slice() {
        [Json::Unsigned(version)] => return Some((*version, None)),
        [Json::Unsigned(version), list] => (*version, list),
        _ => return None,
    };
    let mut revocations = Revocations::default();
    // Lua's empty list is its empty object.
    for (name, before) in list.members()? {
        revocations.add(Revocation::read(name, before.as_str()?.parse().ok()?).ok()?);
    }
    Some((version, Some(revocations)))
}
