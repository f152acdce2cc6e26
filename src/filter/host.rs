//! Differences between gateways, by the profile the policy names.
//!
//! Presents head and body as the engine reads them, applies obligations and sends replies.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::credential::Entropy;
use crate::decision::{Answer, Obligations, Record};
use crate::policy::{DuringCallouts, End, Hold, Policy, Profile};
use crate::reason::Reason;

use super::raw::{self, BufferType, HostResult, MapType, Pairs};

/// Host under one policy.
pub(super) struct HostAdapter {
    pub(super) profile: &'static Profile,
    hold: Hold,
    entropy: Option<Entropy>,
}

/// Body of a request whose head did not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyAhead {
    None,
    Expected,
    /// Not stated, and this host makes no callback for an empty body: the request would pass unjudged.
    Unknown,
}

/// Head of a request in the host's form.
pub(super) struct RawHead {
    pairs: Pairs,
    /// Path and query as the client sent them, where the host has them in a property.
    target: Option<Vec<u8>>,
}

impl RawHead {
    /// Returns all headers, pseudo-headers included, names in lower case; `None` when they are not in the form of the ABI.
    pub(super) fn list(&self) -> Option<Vec<(&[u8], &[u8])>> {
        let mut list = self.pairs.list()?;
        if let Some(target) = &self.target {
            list.iter_mut().filter(|(name, _)| *name == b":path").for_each(|(_, value)| *value = target);
        }
        Some(list)
    }
}

impl HostAdapter {
    pub(super) fn new(policy: &Policy) -> Self {
        let entropy = (!policy.entropy.is_empty()).then(|| Entropy::new(&policy.entropy, &seed()));
        Self { profile: policy.host, hold: policy.hold, entropy }
    }

    /// Fills a slice with random bytes: unpredictable ones where the policy mints tokens. Returns false when it cannot.
    pub(super) fn random(&self, bytes: &mut [u8]) -> bool {
        match &self.entropy {
            Some(entropy) => raw::now_nanoseconds().is_ok_and(|now| entropy.fill(bytes, now)),
            None => getrandom::fill(bytes).is_ok(),
        }
    }

    /// Returns the client's address as the host determines it (on Envoy by `use_remote_address` and trusted
    /// `x-forwarded-for` hops). Some hosts add the port.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        let text = raw::property(self.profile.address).ok()?;
        let text = std::str::from_utf8(&text).ok()?;
        text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()
    }

    /// Returns whether a request is held while a callout for it is pending. Must be called in a request.
    pub(super) fn holds_during_callouts(&self) -> bool {
        match self.profile.during_callouts {
            DuringCallouts::Hold => true,
            DuringCallouts::HoldUnlessLater { proof, requests } => {
                raw::set_property(proof, b"").is_ok()
                    || raw::property(requests).is_ok_and(|count| count == b"1")
            }
            DuringCallouts::Pass => false,
        }
    }

    /// Returns the upstream of a callout in this host's form: a cluster, or address and port.
    pub(super) fn callout_upstream<'a>(
        &self,
        cluster: &'a str,
        scheme: &str,
        authority: &'a str,
    ) -> Cow<'a, str> {
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        match (self.profile.calls_addresses, has_port) {
            (false, _) => cluster.into(),
            (true, true) => authority.into(),
            (true, false) => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }).into(),
        }
    }

    /// Reads the head of a request; `count` is the number of headers the host reports, which may leave out
    /// pseudo-headers, or all.
    pub(super) fn head(&self, count: usize) -> Result<RawHead, Reason> {
        let is_too_many = |count: usize| self.profile.max_headers.is_some_and(|max| count > max);
        if is_too_many(count) {
            return Err(Reason::HeadersTooMany);
        }
        let mut pairs = raw::pairs(MapType::RequestHeaders).map_err(|_| Reason::HostError)?;
        if !self.profile.lowers_names {
            pairs.lower_names();
        }
        let target = self.profile.target.map(raw::property).transpose().map_err(|_| Reason::HostError)?;
        if is_too_many(pairs.count()) {
            return Err(Reason::HeadersTooMany);
        }
        if pairs.count() < count {
            return Err(Reason::HostError);
        }
        let head = RawHead { pairs, target };
        // An upgrade is of HTTP/1.1 alone (RFC 9110 section 7.8).
        let is_upgrade =
            |head: &RawHead| head.list().is_none_or(|list| list.iter().any(|(name, _)| *name == b"upgrade"));
        match self.profile.protocol {
            Some(protocol)
                if is_upgrade(&head) && !raw::property(protocol).is_ok_and(|name| name == b"HTTP/1.1") =>
            {
                Err(Reason::UpgradeRefused)
            }
            _ => Ok(head),
        }
    }

    /// Returns true when the headers end the request.
    pub(super) fn ends_request(&self, end_of_stream: bool) -> bool {
        end_of_stream && self.profile.end == End::Announced
    }

    /// Returns whether a body follows a head that did not end the request.
    pub(super) fn body_ahead(&self, headers: &[(&[u8], &[u8])]) -> BodyAhead {
        if self.profile.end != End::Unknown {
            return BodyAhead::Expected;
        }
        let all = |wanted: &'static [u8]| headers.iter().filter(move |(name, _)| *name == wanted);
        let mut lengths = all(b"content-length").map(|(_, value)| length(value));
        match (lengths.next(), lengths.next(), all(b"transfer-encoding").next()) {
            (Some(Some(0)), None, None) => BodyAhead::None,
            (Some(Some(_)), None, None) => BodyAhead::Expected,
            // Without a length, HTTP/1 announces a body by its coding (RFC 9112 section 6.3); HTTP/2 does not announce it.
            (None, None, None) if is_http_1() => BodyAhead::None,
            _ => BodyAhead::Unknown,
        }
    }

    /// Requests the body from a host that delivers it only on request.
    pub(super) fn request_body(&self) -> HostResult<()> {
        self.profile.body.map_or(Ok(()), |property| raw::set_property(property, b"1"))
    }

    /// Reads the whole body; `size` is the length the host reports.
    pub(super) fn body(&self, size: usize) -> Result<Vec<u8>, Reason> {
        // For an empty body some hosts have no buffer and some an outdated one.
        if size == 0 && self.profile.end != End::Announced {
            return Ok(Vec::new());
        }
        // One byte more than reported: the judged body must be the released one.
        match raw::buffer(BufferType::RequestBody, size.saturating_add(1)) {
            Err(_) if size == 0 => Ok(Vec::new()),
            Err(raw::NOT_FOUND) if self.hold == Hold::Host => Err(Reason::BodyTooLarge),
            Ok(body) if body.len() == size => Ok(body),
            _ => Err(Reason::HostError),
        }
    }

    /// Returns true when something other than this filter holds headers back until the body has come: the host, or its
    /// buffer filter.
    pub(super) fn holds_headers(&self) -> bool {
        self.hold != Hold::Module
    }

    /// Returns true when a request that waits for its body must be resumed after a callout, for the filter that holds it.
    pub(super) fn resumes_before_body(&self) -> bool {
        self.hold == Hold::FilterBehind
    }

    /// Applies the obligations of an allow, or of a request that is not decided yet.
    pub(super) fn apply(&self, obligations: &Obligations) -> HostResult<()> {
        if !self.profile.removes_headers && !obligations.remove.is_empty() {
            return Err(raw::UNUSABLE);
        }
        for name in &obligations.remove {
            raw::remove(MapType::RequestHeaders, name)?;
        }
        for (name, value) in &obligations.set {
            match (name.as_ref(), self.profile.query) {
                (":path", Some(properties)) => set_query(value, properties)?,
                (name, _) => raw::replace(MapType::RequestHeaders, name, value)?,
            }
        }
        Ok(())
    }

    /// Sends a reply. Its response-code details are for the operator.
    pub(super) fn reply(&self, answer: &Answer, record: &Record) -> HostResult<()> {
        let cause = record.denial.as_ref().map_or(record.outcome.as_str(), |denial| denial.reason.as_str());
        let details =
            if self.profile.exposes_reply_details { String::new() } else { format!("callbound_{cause}") };
        let headers: Vec<(&str, &str)> =
            answer.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
        raw::send_local_response(answer.status, &details, &headers, &answer.body)
    }

    /// Aborts the callback where the host would otherwise resume a request that got no reply.
    pub(super) fn abort(&self) {
        if self.profile.resumes_automatically {
            raw::trap();
        }
    }
}

/// Sets the query in nginx's own variable, and in the variable that some gateways have already computed from it.
fn set_query(target: &str, [query, computed]: [&'static str; 2]) -> HostResult<()> {
    let (_, wanted) = target.split_once('?').unwrap_or((target, ""));
    raw::set_property(query, wanted.as_bytes())?;
    if raw::property(query).unwrap_or_default() != wanted.as_bytes() {
        return Err(raw::UNUSABLE);
    }
    let Ok(before) = raw::property(computed) else { return Ok(()) };
    let path = before.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path.is_empty() {
        return Ok(());
    }
    let query = if wanted.is_empty() { String::new() } else { format!("?{wanted}") };
    raw::set_property(computed, &[path, query.as_bytes()].concat())
}

fn is_http_1() -> bool {
    raw::property("request\0protocol").is_ok_and(|protocol| protocol.starts_with(b"HTTP/1."))
}

/// Reads a `content-length` (RFC 9110 section 8.6); `None` when it is malformed.
fn length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// Returns bytes that differ between workers: random ones of the host, which may be weak, and the time.
fn seed() -> Vec<u8> {
    let mut bytes = [0; 32];
    let _ = getrandom::fill(&mut bytes);
    let now = raw::now_nanoseconds().unwrap_or_default();
    [&bytes[..], &now.to_le_bytes()].concat()
}
