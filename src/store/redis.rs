//! Store shared by all gateways: batches for Redis, sent through an HTTP bridge, and their answers.
//!
//! The bridge is Webdis: the body carries the words of a command, percent-encoded, and the answer is JSON. Every batch
//! carries its script, so Redis needs no installation and gateways of different versions never share a script. An answer
//! that is not exactly the expected one makes the store unavailable.

use std::rc::Rc;

use super::{
    Change, Charge, ChargeDenied, ChargeResult, CounterKey, Lease, Remaining, Revocation, Revocations, Rule,
    StoreError, interval, revocation,
};
use crate::hex::hex;
use crate::json::Json;

/// Script that Redis runs for each batch.
const SCRIPT: &str = include_str!("store.lua");

/// Most revocations in the store: every worker fetches all of them in one answer.
const MAX_REVOCATIONS: u64 = 10_000;

/// Most revocations by one team, so that none keeps the others from revoking.
const MAX_REVOCATIONS_BY_ONE: u64 = 1_000;

/// Words that follow the letter of an operation.
const VALUES: usize = 6;

/// Address of the store and the names it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStore {
    /// Cluster of the bridge in the gateway's configuration.
    pub cluster: String,
    /// Host of the bridge, with the port unless it is the scheme's default.
    pub authority: String,
    /// Milliseconds to wait for an answer.
    pub timeout: u64,
    /// Prefix of every name in Redis.
    pub prefix: String,
    /// Redis keeps all data across a restart.
    pub is_durable: bool,
    /// Encoded beginning of every batch.
    pub script: Script,
}

/// Command and script without comments, percent-encoded once.
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

/// Way to find an API key in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// SHA-256 of the API key, for a request that presents it.
    Digest([u8; 32]),
    /// Id of the API key, for a client token minted from it.
    Id(String),
}

/// One operation of a batch.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Takes a charge; all charges of a batch are taken or none.
    Charge(Charge),
    /// Asks whether a charge for the use of a token would be denied.
    Question(Charge),
    /// Applies a change.
    Change(Change),
    /// Adds uses of an API key: id, count, and Unix seconds of the last one.
    Usage(String, u64, u64),
    /// Looks up an API key.
    Find(Lookup),
    /// Stores an API key: id, digest, and entry as in a policy.
    Put(String, [u8; 32], String),
    /// Removes an API key by id.
    Remove(String),
    /// Reads the uses of all API keys.
    ReadUsage,
    /// Adds a revocation.
    Revoke(Revocation),
    /// Asks for the revocations unless they still have this version.
    Feed(Option<u64>),
}

/// Uses of one API key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Id of the key.
    pub key: String,
    /// Requests with the key or one of its tokens that were not denied.
    pub uses: u64,
    /// Unix seconds of the last one.
    pub last: u64,
}

/// Answer to a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Unix seconds at which the store began to record.
    pub epoch: u64,
    /// Result of the charges.
    pub result: ChargeResult,
    /// The question was answered: no use is left.
    pub is_spent: bool,
    /// Redis is configured to evict data when memory is short.
    pub may_evict: bool,
    /// There was no room for a revocation.
    pub is_full: bool,
    /// Entry of the API key that was looked up, as in a policy.
    pub found: Option<String>,
    /// Uses of each API key.
    pub usage: Vec<Usage>,
    /// Version of the revocations, and the list unless it is unchanged.
    pub feed: Option<(u64, Option<Revocations>)>,
}

/// Writes a batch as the body of a request to the bridge. `nonce` must be new: it ties the answer to this batch.
pub fn request(redis: &RedisStore, nonce: &str, operations: &[Operation]) -> Vec<u8> {
    let mut names: Vec<String> = vec![(4 + operations.len()).to_string()];
    names.extend(["epoch", "revocations", "version", "usage"].map(|name| redis.name(name)));
    let mut arguments = vec![nonce.to_owned(), u8::from(redis.is_durable).to_string()];
    for operation in operations {
        let (name, (letter, values)) = redis.words_of(operation);
        names.push(name);
        let end = arguments.len() + 1 + VALUES;
        arguments.push(letter.to_owned());
        arguments.extend(values);
        arguments.resize(end, String::new());
    }
    let mut body = Vec::with_capacity(redis.script.0.len() + 64 * (names.len() + arguments.len()));
    body.extend_from_slice(&redis.script.0);
    for word in names.iter().chain(&arguments) {
        body.push(b'/');
        encode(word, &mut body);
    }
    body
}

/// Percent-encodes a word except for characters that every reader takes literally (RFC 3986 section 2.3).
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

impl RedisStore {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn counter_name(&self, key: CounterKey) -> String {
        self.name(&hex(&key.0))
    }

    fn digest_name(&self, digest: &[u8; 32]) -> String {
        self.name(&format!("key:{}", hex(digest)))
    }

    /// Returns the name in Redis that an operation works on, its letter in the script, and its values.
    fn words_of(&self, operation: &Operation) -> (String, (&'static str, Vec<String>)) {
        let lease = |lease: &Lease| vec![session(lease.holder), lease.grace.to_string()];
        let id_name = |id: &str| self.name(&format!("key-id:{id}"));
        // The script expects a name for each operation; some work on the names at the beginning of the batch.
        let common = || self.name("epoch");
        match operation {
            Operation::Charge(charge) => (self.counter_name(charge.key), self.charge_values(&charge.rule)),
            Operation::Question(charge) => {
                (self.counter_name(charge.key), ("P", self.charge_values(&charge.rule).1))
            }
            Operation::Change(Change::Renew(open)) => (self.counter_name(open.key), ("N", lease(open))),
            Operation::Change(Change::End(ended)) => (self.counter_name(ended.key), ("E", lease(ended))),
            Operation::Change(Change::GiveBack(key, seconds)) => {
                (self.counter_name(*key), ("G", numbers(&[*seconds])))
            }
            Operation::Usage(key, uses, last) => {
                (common(), ("K", [vec![key.clone()], numbers(&[*uses, *last])].concat()))
            }
            Operation::ReadUsage => (common(), ("Q", Vec::new())),
            Operation::Find(Lookup::Digest(digest)) => (self.digest_name(digest), ("D", Vec::new())),
            Operation::Find(Lookup::Id(id)) => (id_name(id), ("I", Vec::new())),
            Operation::Put(id, digest, text) => {
                (id_name(id), ("A", vec![self.digest_name(digest), text.clone()]))
            }
            Operation::Remove(id) => (id_name(id), ("X", Vec::new())),
            Operation::Revoke(revocation) => {
                let limits = [MAX_REVOCATIONS_BY_ONE, MAX_REVOCATIONS, revocation::LONGEST_TOKEN];
                let before = numbers(&[revocation.before]);
                (common(), ("V", [vec![revocation.name()], before, numbers(&limits)].concat()))
            }
            Operation::Feed(seen) => {
                let seen = seen.map_or_else(|| "-1".to_owned(), |version| version.to_string());
                (common(), ("F", vec![seen, revocation::LONGEST_TOKEN.to_string()]))
            }
        }
    }

    fn charge_values(&self, rule: &Rule) -> (&'static str, Vec<String>) {
        match *rule {
            Rule::Window { max, seconds } => ("W", numbers(&[max, seconds])),
            Rule::Rate { max, seconds, burst } => ("R", numbers(&[interval(max, seconds), burst])),
            Rule::Uses { max, issued_at, until, stream } => {
                let stream = stream.map_or_else(Vec::new, |Lease { key, holder, grace }| {
                    vec![session(holder), grace.to_string(), self.counter_name(key)]
                });
                ("U", [numbers(&[max, issued_at, until]), stream].concat())
            }
            Rule::Sessions { max, holder } => ("S", vec![max.to_string(), session(holder)]),
            Rule::Seconds { max, ask, issued_at, until } => ("B", numbers(&[max, ask, issued_at, until])),
        }
    }
}

fn numbers(values: &[u64]) -> Vec<String> {
    values.iter().map(u64::to_string).collect()
}

/// Writes a session id as text, because Lua would round so large a number.
fn session(holder: u64) -> String {
    format!("{holder:016x}")
}

/// Reads the bridge's answer to a batch.
///
/// # Errors
///
/// [`StoreError::Unavailable`] for anything but the script's answer to exactly this batch.
pub fn answer(status: u16, body: &[u8], nonce: &str, operations: &[Operation]) -> Result<Reply, StoreError> {
    let read = || {
        let json = Json::parse(body).ok().filter(|_| status == 200)?;
        let reply = Json::parse(json.get("EVAL")?.as_str()?.as_bytes()).ok()?;
        (reply.get("nonce")?.as_str()? == nonce).then(|| Reply::read(&reply, operations))?
    };
    read().ok_or(StoreError::Unavailable)
}

impl Reply {
    fn read(json: &Json<'_>, operations: &[Operation]) -> Option<Self> {
        let number = |name: &str| match json.get(name) {
            Some(Json::Unsigned(number)) => Some(*number),
            _ => None,
        };
        let mut reply = Self {
            epoch: number("epoch")?,
            result: ChargeResult::All(Vec::new()),
            is_spent: false,
            may_evict: false,
            found: None,
            usage: Vec::new(),
            is_full: false,
            feed: None,
        };
        if let Some(Json::Array(refusal)) = json.get("refusal") {
            let charge = usize::try_from(number("charge")?).ok()?.checked_sub(1)?;
            let Some(Operation::Charge(_)) = operations.get(charge) else { return None };
            reply.result = ChargeResult::Denied { charge, refusal: read_denial(refusal)? };
            return Some(reply);
        }
        let Some(Json::Array(answers)) = json.get("answers") else { return None };
        if answers.len() != operations.len() {
            return None;
        }
        let mut taken = Vec::new();
        for (operation, answer) in operations.iter().zip(answers) {
            match operation {
                Operation::Charge(_) => taken.push(read_remaining(answer)?),
                operation => reply.read_answer(operation, answer).ok()?,
            }
        }
        reply.result = ChargeResult::All(taken);
        Some(reply)
    }

    /// Reads the answer to an operation that is no charge.
    fn read_answer(&mut self, operation: &Operation, answer: &Json<'_>) -> Result<(), StoreError> {
        match operation {
            Operation::Question(_) => self.is_spent |= *answer != Json::Unsigned(0),
            Operation::Find(_) => {
                self.found = match answer {
                    Json::Bool(false) => None,
                    Json::String(text) => Some(text.clone().into_owned()),
                    _ => return Err(StoreError::Unavailable),
                };
            }
            Operation::ReadUsage => self.usage = read_usage(answer).ok_or(StoreError::Unavailable)?,
            Operation::Revoke(_) => self.is_full |= *answer != Json::Unsigned(1),
            Operation::Feed(_) if matches!(answer, Json::OtherNumber(_)) => self.may_evict = true,
            Operation::Feed(_) => self.feed = Some(read_feed(answer).ok_or(StoreError::Unavailable)?),
            Operation::Charge(_)
            | Operation::Change(_)
            | Operation::Usage(..)
            | Operation::Put(..)
            | Operation::Remove(_) => {}
        }
        Ok(())
    }
}

fn read_remaining(answer: &Json<'_>) -> Option<Remaining> {
    let Json::Array(values) = answer else { return None };
    let [Json::Unsigned(remaining), Json::Unsigned(reset)] = values.as_slice() else { return None };
    Some(Remaining { remaining: *remaining, reset: *reset })
}

fn read_denial(answer: &[Json<'_>]) -> Option<ChargeDenied> {
    match answer {
        [Json::Unsigned(1), Json::Unsigned(retry), Json::Unsigned(reset)] => {
            Some(ChargeDenied::Spent { retry: *retry, reset: *reset })
        }
        [Json::Unsigned(2), ..] => Some(ChargeDenied::Forgotten),
        _ => None,
    }
}

/// Reads a hash with two fields per API key: `<id>`, its uses, and `<id> last`, the time of the last one.
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
    // The script writes an empty list as an empty object.
    for (name, before) in list.members()? {
        revocations.add(Revocation::read(name, before.as_str()?.parse().ok()?)?);
    }
    Some((version, Some(revocations)))
}
