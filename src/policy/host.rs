//! What a host gives a filter: one table, from which everything that differs between gateways is read.
//!
//! A host cannot be asked what it has: on some of them a call they lack ends the worker. So the policy names its host,
//! and this table is what is known of it (`docs/hosts.md` says where from). Refuses to know how anything is called or
//! carried out: that is [`crate::filter`]'s.

use super::reader::words;
use crate::json::Json;

words! {
    /// The gateway that loads the module.
    pub enum Host {
        /// Envoy, Istio, Envoy Gateway.
        Envoy = "envoy",
        /// Kong Gateway up to 3.10, and any nginx with its WebAssembly module.
        Kong = "kong",
        /// Apache APISIX.
        Apisix = "apisix",
    }
}

words! {
    /// Filter that holds a request's headers until its body was judged.
    pub enum HoldWord {
        /// callbound: by `allow_on_headers_stop_iteration` on Envoy; on other hosts the host by itself.
        Filter = "filter",
        /// Envoy's buffer filter behind callbound, where that flag cannot be set.
        BufferFilter = "buffer_filter",
    }
}

words! {
    /// Party that ends an open connection at its limit.
    pub enum SessionsEndedBy {
        /// The gateway.
        Gateway = "gateway",
        /// The upstream, which receives the limit in seconds in `x-callbound-session-seconds`.
        Upstream = "upstream",
    }
}

/// A gateway that loads the module, by what it gives.
#[derive(Debug)]
pub struct Profile {
    /// The word in policies.
    pub name: &'static str,
    /// Who keeps headers back while the body is awaited, unless the policy says otherwise.
    pub hold: Hold,
    /// How it says that a request has no body.
    pub end: End,
    /// What its workers share.
    pub memory: SharedMemory,
    /// Whether the module is called every so often without a request.
    pub has_ticks: bool,
    /// Whether a connection that is open can be ended at a time, and a request that is held answered.
    pub ends_streams: bool,
    /// Whether its random bytes are fit for what must not be guessed.
    pub has_entropy: bool,
    /// Whether it verifies signatures for the module.
    pub verifies: bool,
    /// Whether requests go on by themselves after the answer to a call, and when nobody says what is to become of them.
    pub resumes_automatically: bool,
    /// Whether a call names the address it goes to; otherwise a cluster of the gateway's own configuration.
    pub calls_addresses: bool,
    /// Whether a configuration that is refused is refused for good: no request passes, or the one before it stays.
    /// Otherwise the module must take it and refuse everything by itself.
    pub keeps_refused: bool,
    /// The most headers it can show; asked for more, some lose theirs, and some their memory.
    pub max_headers: Option<usize>,
    /// Whether header names come in lower case.
    pub lowers_names: bool,
    /// Whether a header that stands twice must be removed before it is set.
    pub remove_before_set: bool,
    /// The property with the client's address, its parts separated by zero bytes.
    pub address: &'static str,
    /// The property with path and query as the client wrote them, by a name that only this host has: elsewhere, be it
    /// that a policy is for the wrong one, there is no path, and nothing is judged or let through.
    pub target: Option<&'static str>,
    /// The properties that change the query, where the header `:path` does not: nginx's own, and the one with path and
    /// query that some gateways have computed before.
    pub query: Option<[&'static str; 2]>,
    /// The property by which the body is asked for.
    pub body: Option<&'static str>,
    /// The property that takes the decision for an access log.
    pub log: &'static str,
    /// Whether the details of an answer stand in its status line, where the client reads them.
    pub exposes_reply_details: bool,
    /// Whether what is logged for a request stands in a line with the request's own first line, query and all.
    pub logs_requests: bool,
}

/// Who keeps a request's headers back while its body is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The module, by what it returns: the headers can be changed until the verdict.
    Module,
    /// A filter behind the module: the headers must be ready at once, and go no further.
    FilterBehind,
    /// The host, which reads the whole body before it connects to anybody.
    Host,
    /// The host, when it is asked to read the body.
    HostOnRequest,
}

/// How a host says that a request has no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the headers.
    Announced,
    /// Not at all, and for an empty body it does not call: only `content-length` can be believed.
    Unsaid,
    /// By a call for the body, be it empty.
    Called,
}

/// What the workers of a host share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedMemory {
    /// Nothing.
    None,
    /// Memory that keeps what was written.
    Kept,
    /// Memory that may drop what was written, and knows "only over nothing" as a version of its own.
    Evicted,
}

const ENVOY: Profile = Profile {
    name: "envoy",
    hold: Hold::Module,
    end: End::Announced,
    memory: SharedMemory::Kept,
    has_ticks: true,
    ends_streams: true,
    has_entropy: true,
    verifies: true,
    resumes_automatically: false,
    calls_addresses: false,
    keeps_refused: true,
    max_headers: None,
    lowers_names: true,
    remove_before_set: false,
    address: "source\0address",
    target: None,
    query: None,
    body: None,
    log: "callbound",
    exposes_reply_details: false,
    logs_requests: false,
};

const KONG: Profile = Profile {
    name: "kong",
    hold: Hold::Host,
    end: End::Unsaid,
    memory: SharedMemory::Evicted,
    has_ticks: true,
    ends_streams: false,
    has_entropy: false,
    verifies: false,
    resumes_automatically: true,
    calls_addresses: true,
    keeps_refused: false,
    max_headers: Some(90),
    lowers_names: false,
    remove_before_set: true,
    address: "source\0address",
    target: Some("ngx\0request_uri"),
    query: Some(["ngx\0args", "ngx\0upstream_uri"]),
    body: None,
    log: "kong\0ctx\0shared\0callbound",
    exposes_reply_details: true,
    logs_requests: true,
};

const APISIX: Profile = Profile {
    name: "apisix",
    hold: Hold::HostOnRequest,
    end: End::Called,
    memory: SharedMemory::None,
    has_ticks: false,
    ends_streams: false,
    has_entropy: true,
    verifies: false,
    resumes_automatically: true,
    calls_addresses: true,
    keeps_refused: true,
    max_headers: None,
    lowers_names: false,
    remove_before_set: false,
    address: "remote_addr",
    target: Some("request_uri"),
    query: Some(["args", "upstream_uri"]),
    body: Some("wasm_process_req_body"),
    log: "callbound",
    exposes_reply_details: true,
    logs_requests: true,
};

impl Host {
    /// What this host gives.
    pub fn profile(self) -> &'static Profile {
        match self {
            Self::Envoy => &ENVOY,
            Self::Kong => &KONG,
            Self::Apisix => &APISIX,
        }
    }
}

impl Profile {
    /// Returns who holds headers under a policy.
    pub(super) fn hold(&self, word: HoldWord) -> Hold {
        match word {
            HoldWord::Filter => self.hold,
            HoldWord::BufferFilter => Hold::FilterBehind,
        }
    }
}

impl Hold {
    /// Whether headers can be changed once the body was read.
    pub fn lets_headers_change(self) -> bool {
        self == Self::Module
    }
}

/// Returns the host that a document names, whether or not the rest of it is right.
pub fn host_of(text: &[u8]) -> Option<Host> {
    let document = Json::parse(text).ok()?;
    let name = document.get("host")?.as_str()?;
    Host::ALL.iter().find_map(|(word, host)| (*word == name).then_some(*host))
}
