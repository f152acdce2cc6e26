//! Store shared by all gateways: batches for Redis, sent through an HTTP bridge, and their answers.
//!
//! The bridge is Webdis: the body carries the words of a command, percent-encoded, and the answer is JSON. Redis runs each
//! batch as a call of the function [`FUNCTION`], which the operator installs. An answer that is not exactly the expected
//! one makes the store unavailable.

use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::{
    Change, Charge, ChargeDenied, ChargeResult, CounterKey, Lease, Remaining, Revocation, Revocations, Rule,
    StoreError, interval,
};
use crate::hex::hex;
use crate::json::Json;

/// Function of Redis that runs a batch. Its number is that of the layout, the words of a batch and the keys in Redis: a
/// gateway calls the function of its own layout, and libraries of two layouts can be installed at once.
pub const FUNCTION: &str = "callbound_1";

/// Library of Redis with [`FUNCTION`], for `FUNCTION LOAD`. The library has the function's name.
pub const LIBRARY: &str = include_str!("store.lua");

/// Most bytes of a request with changes, its head included. A gateway that closes the connection after each answer has no
/// more than one read of the bridge for it, about 4 KiB in Webdis 0.1.9.
pub const MAX_REQUEST_BYTES: usize = 3_072;

/// Most bytes of the head of a request, without the authority: the lines that Envoy or Kong's nginx write.
const HEAD_BYTES: usize = 256;

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
    let mut body = b"FCALL".to_vec();
    let durable = if redis.is_durable { "1" } else { "0" };
    // One key: the beginning of all keys, which the function completes.
    for word in [FUNCTION, "1", &redis.prefix, nonce, durable] {
        add_word(word, &mut body);
    }
    operations.iter().for_each(|operation| write_operation(operation, &mut body));
    body
}

impl RedisStore {
    /// Returns the most bytes of a request with these operations, its head included.
    pub fn request_bytes(&self, operations: &[Operation]) -> usize {
        HEAD_BYTES + self.authority.len() + request(self, &hex(&[0; 16]), operations).len()
    }
}

impl Operation {
    /// Returns the bytes that the operation adds to a request.
    pub fn bytes(&self) -> usize {
        let mut body = Vec::new();
        write_operation(self, &mut body);
        body.len()
    }
}

fn write_operation(operation: &Operation, body: &mut Vec<u8>) {
    let (letter, words) = words_of(operation);
    add_word(letter, body);
    words.iter().for_each(|word| add_word(word, body));
}

fn add_word(word: &str, body: &mut Vec<u8>) {
    body.push(b'/');
    encode(word, body);
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

/// Returns the letter of an operation in the function, and the words of its form there.
fn words_of(operation: &Operation) -> (&'static str, Vec<String>) {
    let lease = |open: &Lease| vec![counter(open.key), session(open.holder), open.grace.to_string()];
    match operation {
        Operation::Charge(charge) => charge_words(charge),
        Operation::Question(charge) => {
            // A question opens no stream.
            let words = charge_words(charge).1.into_iter().take(4);
            ("P", words.collect())
        }
        Operation::Change(Change::Renew(open)) => ("N", lease(open)),
        Operation::Change(Change::End(ended)) => ("E", lease(ended)),
        Operation::Change(Change::GiveBack(key, seconds)) => ("G", vec![counter(*key), seconds.to_string()]),
        Operation::Usage(key, uses, last) => ("K", vec![key.clone(), uses.to_string(), last.to_string()]),
        Operation::ReadUsage => ("Q", Vec::new()),
        Operation::Find(Lookup::Digest(digest)) => ("D", vec![hex(digest)]),
        Operation::Find(Lookup::Id(id)) => ("I", vec![id.clone()]),
        Operation::Put(id, digest, text) => ("A", vec![id.clone(), hex(digest), text.clone()]),
        Operation::Remove(id) => ("X", vec![id.clone()]),
        Operation::Revoke(revocation) => ("V", vec![revocation.name(), revocation.before.to_string()]),
        Operation::Feed(seen) => {
            ("F", vec![seen.map_or_else(|| "-1".to_owned(), |version| version.to_string())])
        }
    }
}

fn charge_words(charge: &Charge) -> (&'static str, Vec<String>) {
    let words = |numbers: &[u64]| {
        [counter(charge.key)].into_iter().chain(numbers.iter().map(u64::to_string)).collect::<Vec<_>>()
    };
    match charge.rule {
        Rule::Window { max, seconds } => ("W", words(&[max, seconds])),
        Rule::Rate { max, seconds, burst } => ("R", words(&[interval(max, seconds), burst])),
        Rule::Uses { max, issued_at, until, stream: None } => ("U", words(&[max, issued_at, until])),
        Rule::Uses { max, issued_at, until, stream: Some(Lease { key, holder, grace }) } => {
            let stream = vec![session(holder), grace.to_string(), counter(key)];
            ("T", [words(&[max, issued_at, until]), stream].concat())
        }
        Rule::Sessions { max, holder } => ("S", [words(&[max]), vec![session(holder)]].concat()),
        Rule::Seconds { max, ask, issued_at, until } => ("B", words(&[max, ask, issued_at, until])),
    }
}

/// Writes the name of a counter.
fn counter(key: CounterKey) -> String {
    Base64UrlUnpadded::encode_string(&key.0)
}

/// Writes a session id as text, because Lua would round so large a number.
fn session(holder: u64) -> String {
    Base64UrlUnpadded::encode_string(&holder.to_be_bytes())
}

/// Reads the bridge's answer to a batch.
///
/// # Errors
///
/// The cause that Redis or the bridge gives; [`StoreError::Unavailable`] for anything else but the function's answer to
/// exactly this batch.
pub fn answer(status: u16, body: &[u8], nonce: &str, operations: &[Operation]) -> Result<Reply, StoreError> {
    match status {
        200 => {}
        403 => return Err(StoreError::BridgeForbids),
        _ => return Err(StoreError::Unavailable),
    }
    let json = Json::parse(body).map_err(|_| StoreError::Unavailable)?;
    match json.get("FCALL") {
        Some(Json::String(text)) => {
            Reply::of_batch(text.as_bytes(), nonce, operations).ok_or(StoreError::Unavailable)
        }
        Some(Json::Array(words)) => match words.as_slice() {
            [Json::Bool(false), Json::String(error)] => Err(cause_of(error)),
            _ => Err(StoreError::Unavailable),
        },
        _ => Err(StoreError::Unavailable),
    }
}

/// Part of an error of Redis, and its cause. For a right that a command of the function lacks there is no code: the texts
/// are those of Redis 7.0 and of 7.2.
const CAUSES: [(&str, StoreError); 10] = [
    ("ERR Function not found", StoreError::NotInstalled),
    ("ERR unknown command", StoreError::NotInstalled),
    ("NOPERM ", StoreError::NotPermitted),
    ("user executing the script can't", StoreError::NotPermitted),
    ("ACL failure in script", StoreError::NotPermitted),
    ("NOAUTH ", StoreError::NotLoggedIn),
    ("OOM ", StoreError::OutOfMemory),
    ("READONLY ", StoreError::ReadOnly),
    ("LOADING ", StoreError::Loading),
    ("MISCONF ", StoreError::DiskFailed),
];

/// Returns the cause that an error of Redis names. Its text repeats words of the batch, so it is not kept.
fn cause_of(error: &str) -> StoreError {
    let cause = CAUSES.iter().find(|(text, _)| error.contains(text));
    cause.map_or(StoreError::Refused, |(_, cause)| *cause)
}

impl Reply {
    /// Reads the function's answer; `None` unless it has the nonce of this batch.
    fn of_batch(text: &[u8], nonce: &str, operations: &[Operation]) -> Option<Self> {
        let json = Json::parse(text).ok()?;
        (json.get("nonce")?.as_str()? == nonce).then(|| Self::read(&json, operations))?
    }

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
    // The function writes an empty list as an empty object.
    for (name, before) in list.members()? {
        revocations.add(Revocation::read(name, before.as_str()?.parse().ok()?)?);
    }
    Some((version, Some(revocations)))
}

#[cfg(test)]
mod tests {
    use super::super::{KEPT_SECONDS, LEASE_SECONDS, revocation};
    use super::*;

    #[test]
    fn library_has_the_name_of_the_function() {
        assert_eq!(LIBRARY.lines().next(), Some(format!("#!lua name={FUNCTION}").as_str()));
        assert!(LIBRARY.ends_with(&format!("redis.register_function('{FUNCTION}', run)\n")));
    }

    #[test]
    fn library_and_module_agree_on_times() {
        let longest = format!("local MOST, SHARE, LONGEST = 10000, 1000, {}\n", revocation::LONGEST_TOKEN);
        assert!(LIBRARY.contains(&longest), "{longest}");
        assert!(LIBRARY.contains(&format!("local LEASE = {LEASE_SECONDS}\n")));
        assert_eq!(revocation::LONGEST_TOKEN, 86_400 + KEPT_SECONDS);
    }

    fn redis() -> RedisStore {
        RedisStore {
            cluster: "callbound_store".into(),
            authority: "127.0.0.1:7379".into(),
            timeout: 250,
            prefix: "callbound:".into(),
            is_durable: false,
        }
    }

    #[test]
    fn batch_is_one_call_of_the_function() {
        let key = CounterKey::of(&[b"one"]);
        let charge = Charge { key, share: 0, rule: Rule::Window { max: 60, seconds: 3_600 } };
        let body = request(&redis(), "n0", &[Operation::Charge(charge), Operation::Feed(Some(7))]);
        let name = counter(key);
        assert_eq!(name.len(), 22);
        let expected = format!("FCALL/callbound_1/1/callbound%3A/n0/0/W/{name}/60/3600/F/7");
        assert_eq!(String::from_utf8(body), Ok(expected));
    }

    #[test]
    fn error_of_redis_or_bridge_becomes_its_cause() {
        let cause = |status, error: &str| {
            let body = format!(r#"{{"FCALL":[false,"{error}"]}}"#);
            answer(status, body.as_bytes(), "n0", &[]).err()
        };
        let lacks_get =
            "ERR The user executing the script can't run this command or subcommand script: callbound_1";
        let causes = [
            ("ERR Function not found", StoreError::NotInstalled),
            (
                "ERR unknown command `FCALL`, with args beginning with: `callbound_1`",
                StoreError::NotInstalled,
            ),
            (
                "ERR unknown command 'FCALL', with args beginning with: 'callbound_1'",
                StoreError::NotInstalled,
            ),
            ("NOPERM this user has no permissions to run the 'fcall' command", StoreError::NotPermitted),
            (lacks_get, StoreError::NotPermitted),
            ("ERR ACL failure in script: User default has no permissions", StoreError::NotPermitted),
            ("NOAUTH Authentication required.", StoreError::NotLoggedIn),
            ("OOM command not allowed when used memory > 'maxmemory'.", StoreError::OutOfMemory),
            ("READONLY You can't write against a read only replica.", StoreError::ReadOnly),
            ("LOADING Redis is loading the dataset in memory", StoreError::Loading),
            ("MISCONF Redis is configured to save RDB snapshots", StoreError::DiskFailed),
            ("ERR malformed operation script: callbound_1", StoreError::Refused),
            ("", StoreError::Refused),
        ];
        for (error, expected) in causes {
            assert_eq!(cause(200, error), Some(expected), "{error}");
        }
        assert_eq!(cause(403, ""), Some(StoreError::BridgeForbids));
        assert_eq!(cause(503, "ERR Function not found"), Some(StoreError::Unavailable));
    }

    #[test]
    fn cause_names_the_installed_function() {
        assert!(StoreError::NotInstalled.to_string().contains(FUNCTION));
    }

    #[test]
    fn word_keeps_every_byte() {
        let body = request(&redis(), "n0", &[Operation::Find(Lookup::Id("a/b+c?.json %é".into()))]);
        let body = String::from_utf8(body).unwrap_or_default();
        assert!(body.ends_with("/I/a%2Fb%2Bc%3F%2Ejson%20%25%C3%A9"), "{body}");
    }
}
