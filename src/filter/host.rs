//! The host as a request meets it: all that differs between gateways, by the profile the policy names.
//!
//! Refuses to know what is decided: it shows the head and the body as the engine reads them, does what an allow obliges
//! to, and says whether a request may be left to itself.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::credential::Entropy;
use crate::decision::{Answer, Obligations, Record};
use crate::policy::{End, Hold, Policy, Profile};
use crate::reason::Reason;

use super::raw::{self, BufferType, HostError, HostResult, MapType, Pairs};

/// Headers of which nginx knows one only: of two, one would survive its removal. Nobody has reason to send two.
const KNOWN_ONCE: &[&[u8]] =
    &[b"content-type", b"range", b"referer", b"upgrade", b"user-agent", b"x-real-ip"];

/// A host under one policy.
pub(super) struct HostAdapter {
    pub(super) profile: &'static Profile,
    hold: Hold,
    entropy: Option<Entropy>,
}

/// Whether a body follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    Nothing,
    Body,
    /// The host cannot say, and would not call for an empty one: the request would go on unjudged.
    Unknown,
}

/// A request's head as the engine reads it.
pub(super) struct Head {
    pairs: Pairs,
    /// Path and query as the client wrote them, where the host says them apart.
    target: Option<Vec<u8>>,
}

impl Head {
    /// All pairs, names in lower case, pseudo-headers among them; `None` when they are not what the ABI says.
    pub(super) fn list(&self) -> Option<Vec<(&[u8], &[u8])>> {
        let mut list = self.pairs.list()?;
        if let Some(target) = &self.target {
            list.iter_mut().filter(|(name, _)| *name == b":path").for_each(|(_, value)| *value = target);
        }
        Some(list)
    }

    fn stands_twice(&self, names: &[&[u8]]) -> bool {
        let list = self.list().unwrap_or_default();
        let is_double = |wanted: &&[u8]| list.iter().filter(|(name, _)| name == wanted).count() > 1;
        names.iter().any(is_double)
    }
}

impl HostAdapter {
    pub(super) fn new(policy: &Policy) -> Self {
        let entropy = (!policy.entropy.is_empty()).then(|| Entropy::new(&policy.entropy, &seed()));
        Self { profile: policy.host, hold: policy.hold, entropy }
    }

    /// Random bytes fit for tokens, or for what need not be secret where a policy mints none.
    pub(super) fn random(&self, bytes: &mut [u8]) -> bool {
        match &self.entropy {
            Some(entropy) => raw::now_nanoseconds().is_ok_and(|now| entropy.fill(bytes, now)),
            None => getrandom::fill(bytes).is_ok(),
        }
    }

    /// Where the client is, as the host knows it (on Envoy behind `use_remote_address` and what it trusts of
    /// `x-forwarded-for`); some hosts say the port as well.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        let text = raw::property(self.profile.address).ok()?;
        let text = std::str::from_utf8(&text).ok()?;
        text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()
    }

    /// How this host names the place of a call: by one of its own clusters, or by address and port.
    pub(super) fn called<'a>(&self, cluster: &'a str, scheme: &str, authority: &'a str) -> Cow<'a, str> {
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        match (self.profile.calls_addresses, has_port) {
            (false, _) => cluster.into(),
            (true, true) => authority.into(),
            (true, false) => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }).into(),
        }
    }

    /// Reads a request's head; `count` is what the host says of the number of headers.
    pub(super) fn head(&self, count: usize) -> Result<Head, Reason> {
        if self.profile.max_headers.is_some_and(|max| count > max) {
            return Err(Reason::HeadersTooMany);
        }
        let mut pairs = raw::pairs(MapType::RequestHeaders).map_err(|_| Reason::HostError)?;
        if !self.profile.lowers_names {
            pairs.lower_names();
        }
        let target = self.profile.target.map(raw::property).transpose().map_err(|_| Reason::HostError)?;
        let head = Head { pairs, target };
        if self.profile.remove_before_set && head.stands_twice(KNOWN_ONCE) {
            return Err(Reason::RequestMalformed);
        }
        Ok(head)
    }

    /// Whether the headers end the request.
    pub(super) fn ends(&self, end_of_stream: bool) -> bool {
        end_of_stream && self.profile.end == End::Announced
    }

    /// Whether a body follows this head, which did not end the request.
    pub(super) fn ahead(&self, headers: &[(&[u8], &[u8])]) -> Ahead {
        if self.profile.end != End::Unsaid {
            return Ahead::Body;
        }
        let all = |wanted: &'static [u8]| headers.iter().filter(move |(name, _)| *name == wanted);
        let mut lengths = all(b"content-length").map(|(_, value)| length(value));
        match (lengths.next(), lengths.next(), all(b"transfer-encoding").next()) {
            (Some(Some(0)), None, None) => Ahead::Nothing,
            (Some(Some(_)), None, None) => Ahead::Body,
            // Without a length a body is announced by its coding in HTTP/1 (RFC 9112 section 6.3), by nothing later.
            (None, None, None) if is_http_1() => Ahead::Nothing,
            _ => Ahead::Unknown,
        }
    }

    /// Asks for the body, where that must be asked for.
    pub(super) fn ask_for_body(&self) -> HostResult<()> {
        self.profile.body.map_or(Ok(()), |property| raw::set_property(property, b"1"))
    }

    /// Reads the whole body, of which the host says how long it is.
    pub(super) fn body(&self, size: usize) -> Result<Vec<u8>, Reason> {
        // Some hosts have no buffer for an empty body, and some an older one.
        if size == 0 && self.profile.end != End::Announced {
            return Ok(Vec::new());
        }
        // One byte more than is said to be there: what is released must be what was judged.
        match raw::buffer(BufferType::RequestBody, size.saturating_add(1)) {
            Err(_) if size == 0 => Ok(Vec::new()),
            Err(raw::NOT_FOUND) if self.hold == Hold::Host => Err(Reason::BodyTooLarge),
            Ok(body) if body.len() == size => Ok(body),
            _ => Err(Reason::HostError),
        }
    }

    /// Whether headers that wait for their body are left to others, who hold them.
    pub(super) fn leaves_headers(&self) -> bool {
        self.hold != Hold::Module
    }

    /// Whether a request that waits for its body must be let go on after a call, to whoever holds it.
    pub(super) fn passes_on(&self) -> bool {
        self.hold == Hold::FilterBehind
    }

    /// Meets the obligations of an allow, or of a request that may still be refused.
    pub(super) fn oblige(&self, obligations: &Obligations) -> HostResult<()> {
        for name in &obligations.remove {
            raw::remove(MapType::RequestHeaders, name)?;
        }
        for (name, value) in &obligations.set {
            match (name.as_ref(), self.profile.query) {
                (":path", Some(properties)) => change_query(value, properties)?,
                (name, _) => self.set(name, value)?,
            }
        }
        Ok(())
    }

    fn set(&self, name: &str, value: &str) -> HostResult<()> {
        if self.profile.remove_before_set {
            raw::remove(MapType::RequestHeaders, name)?;
        }
        raw::replace(MapType::RequestHeaders, name, value)
    }

    /// Sends an answer; its details are for the operator.
    pub(super) fn answer(&self, answer: &Answer, record: &Record) -> HostResult<()> {
        let cause = record.denial.as_ref().map_or(record.outcome.as_str(), |denial| denial.reason.as_str());
        let details =
            if self.profile.exposes_reply_details { String::new() } else { format!("callbound_{cause}") };
        let headers: Vec<(&str, &str)> =
            answer.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
        raw::send_local_response(answer.status, &details, &headers, &answer.body)
    }

    /// What a host that goes on by itself must not be left with: an answer that could not be given.
    pub(super) fn stop(&self) {
        if self.profile.resumes_automatically {
            raw::trap();
        }
    }
}

/// Changes the query, in nginx's own variable and in the one that some gateways have computed from it before.
fn change_query(target: &str, [query, computed]: [&'static str; 2]) -> HostResult<()> {
    let (_, wanted) = target.split_once('?').unwrap_or((target, ""));
    raw::set_property(query, wanted.as_bytes())?;
    if raw::property(query).unwrap_or_default() != wanted.as_bytes() {
        return Err(HostError(0));
    }
    let Ok(before) = raw::property(computed) else { return Ok(()) };
    let path = before.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path.is_empty() {
        return Ok(());
    }
    let mut after = path.to_vec();
    if !wanted.is_empty() {
        after.push(b'?');
        after.extend_from_slice(wanted.as_bytes());
    }
    raw::set_property(computed, &after)
}

fn is_http_1() -> bool {
    raw::property("request\0protocol").is_ok_and(|protocol| protocol.starts_with(b"HTTP/1."))
}

/// A `content-length`; `None` when it is none (RFC 9110 section 8.6).
fn length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// What tells this worker from others: the host's own random bytes, weak as they are, and the time.
fn seed() -> Vec<u8> {
    let mut bytes = [0; 32];
    let _ = getrandom::fill(&mut bytes);
    let now = raw::now_nanoseconds().unwrap_or_default();
    [&bytes[..], &now.to_le_bytes()].concat()
}
