//! Gateways that load the module: one table of everything that differs between them.
//!
//! A host cannot be queried: on some, a call that they lack ends the worker. So the policy names its host, and this
//! table holds its features; `docs/hosts.md` has the sources. The calls themselves belong to [`crate::filter`].

use super::reader::words;
use crate::json::Json;
use crate::store::redis::MAX_REQUEST_BYTES;

words! {
    /// The gateway that loads the module.
    pub enum Host {
        /// Envoy, Istio, Envoy Gateway.
        Envoy = "envoy",
        /// Kong Gateway up to 3.10.
        Kong = "kong",
        /// nginx with Kong's WebAssembly module, without Kong.
        Nginx = "nginx",
        /// Apache APISIX, with its Wasm plugins.
        Apisix = "apisix",
    }
}

words! {
    /// Filter that holds a request's headers until its body is judged.
    pub enum HoldWord {
        /// callbound, with `allow_on_headers_stop_iteration` on Envoy; other hosts hold them by themselves.
        Filter = "filter",
        /// Envoy's buffer filter behind callbound, where that flag cannot be set.
        BufferFilter = "buffer_filter",
    }
}

words! {
    /// Party that ends an open connection at its limit.
    pub enum SessionsEndedBy {
        /// The gateway itself.
        Gateway = "gateway",
        /// The upstream, which receives the limit in seconds in `x-callbound-session-seconds`.
        Upstream = "upstream",
    }
}

/// Features of a gateway that loads the module.
#[derive(Debug)]
pub struct Profile {
    /// The word in policies.
    pub name: &'static str,
    /// Party that holds headers while the body is awaited, unless the policy names the buffer filter.
    pub hold: Hold,
    /// Sign that a request has no body.
    pub end: End,
    /// Memory that its workers share.
    pub memory: SharedMemory,
    /// True when the module is called periodically, without a request.
    pub has_ticks: bool,
    /// True when an open connection can be ended at a given time, and a held request answered.
    pub ends_streams: bool,
    /// True when its random bytes are fit for secrets.
    pub has_entropy: bool,
    /// True when it verifies signatures for the module.
    pub verifies: bool,
    /// True when a held request resumes without the module's order, as after the reply to a callout.
    pub resumes_automatically: bool,
    /// True when a callout names an address; otherwise it names a cluster of the gateway's configuration.
    pub calls_addresses: bool,
    /// True when the host enforces that a configuration was refused: no request passes, or the previous one stays.
    /// Otherwise the module must accept it and refuse every request.
    pub keeps_refused: bool,
    /// The most headers it can show, pseudo-headers among them; above, it loses headers or memory. `None`: any number.
    pub max_headers: Option<usize>,
    /// The most bytes of a callout, head and body; a larger one may never be answered. `None`: any number.
    pub max_callout_bytes: Option<usize>,
    /// True when header names arrive in lower case.
    pub lowers_names: bool,
    /// True when a request header that the module removes does not reach the upstream. Otherwise a header can only be
    /// given another value, and of two with one name only the first.
    pub removes_headers: bool,
    /// Treatment of a request while a callout for it is pending.
    pub during_callouts: DuringCallouts,
    /// Property with the client's address; zero bytes separate the parts of a name.
    pub address: &'static str,
    /// Property with path and query as the client wrote them; `None`: the header `:path` has them. Only this host has a
    /// property of this name, so a policy for the wrong host finds no path and lets no request pass.
    pub target: Option<&'static str>,
    /// Property with the protocol of the request, where the host would switch protocols over another than HTTP/1.1.
    pub protocol: Option<&'static str>,
    /// Properties that change the query, where the header `:path` does not: nginx's own, and the path and query that
    /// some gateways have computed before.
    pub query: Option<[&'static str; 2]>,
    /// Property that makes the host read the body.
    pub body: Option<&'static str>,
    /// Property that takes the decision for an access log.
    pub log: &'static str,
    /// True when the details of a reply appear in its status line, where the client reads them.
    pub exposes_reply_details: bool,
    /// True when a log line of a request also has the request's first line, with its query, and the log at level `info`
    /// has whole headers. There all lines are warnings, so that the log needs no lower level.
    pub logs_requests: bool,
}

/// Party that holds a request's headers while its body is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The module, by its return value: headers can be changed until the decision.
    Module,
    /// A filter after the module: headers must be final at once, and wait there.
    FilterBehind,
    /// The host, which reads the whole body before it connects to the upstream.
    Host,
    /// The host, when it is asked to read the body.
    HostOnRequest,
}

/// Treatment of a request while a callout for it is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuringCallouts {
    /// The request is held.
    Hold,
    /// The request is held by this host, which takes the property `proof`. Another host has the same interface, not this
    /// property, and holds only the first request of a connection.
    HoldUnlessLater {
        /// Property that only this host lets the module set.
        proof: &'static str,
        /// Property with the number of the request on its connection, from 1.
        requests: &'static str,
    },
    /// The request passes, unless it is the first of its connection.
    Pass,
}

/// Sign of a host that a request has no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A flag that comes with the headers.
    Announced,
    /// None, and no call for an empty body: only `content-length` can be trusted.
    Unknown,
    /// A call for the body, even for an empty one.
    Called,
}

/// Memory that the workers of a host share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedMemory {
    /// No shared memory.
    None,
    /// Memory that keeps its entries.
    Kept,
    /// Memory that may drop its entries, is empty after the gateway reloads its configuration, and has a version of its own
    /// for "write only if absent".
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
    max_callout_bytes: None,
    lowers_names: true,
    removes_headers: true,
    during_callouts: DuringCallouts::Hold,
    address: "source\0address",
    target: None,
    protocol: None,
    query: None,
    body: None,
    log: "callbound",
    exposes_reply_details: false,
    logs_requests: false,
};

const KONG: Profile = Profile {
    name: "kong",
    hold: Hold::Host,
    end: End::Unknown,
    memory: SharedMemory::Evicted,
    has_ticks: true,
    ends_streams: false,
    has_entropy: false,
    verifies: false,
    resumes_automatically: true,
    calls_addresses: true,
    keeps_refused: false,
    max_headers: Some(94),
    max_callout_bytes: Some(MAX_REQUEST_BYTES),
    lowers_names: false,
    removes_headers: false,
    during_callouts: DuringCallouts::HoldUnlessLater {
        proof: "kong\0ctx\0shared\0callbound",
        requests: "ngx\0connection_requests",
    },
    address: "source\0address",
    target: Some("ngx\0request_uri"),
    protocol: Some("request\0protocol"),
    query: Some(["ngx\0args", "ngx\0upstream_uri"]),
    body: None,
    log: "kong\0ctx\0shared\0callbound",
    exposes_reply_details: true,
    logs_requests: true,
};

const NGINX: Profile =
    Profile { name: "nginx", during_callouts: DuringCallouts::Pass, log: "ngx\0callbound_decision", ..KONG };

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
    max_headers: Some(99),
    max_callout_bytes: None,
    lowers_names: false,
    removes_headers: true,
    during_callouts: DuringCallouts::Hold,
    address: "remote_addr",
    target: Some("request_uri"),
    protocol: Some("server_protocol"),
    query: Some(["args", "upstream_uri"]),
    body: Some("wasm_process_req_body"),
    log: "callbound",
    exposes_reply_details: true,
    logs_requests: true,
};

impl Host {
    /// Returns the features of this host.
    pub fn profile(self) -> &'static Profile {
        match self {
            Self::Envoy => &ENVOY,
            Self::Kong => &KONG,
            Self::Nginx => &NGINX,
            Self::Apisix => &APISIX,
        }
    }
}

impl Profile {
    /// Returns the party that holds headers under a policy.
    pub(super) fn hold(&self, word: HoldWord) -> Hold {
        match word {
            HoldWord::Filter => self.hold,
            HoldWord::BufferFilter => Hold::FilterBehind,
        }
    }
}

impl Hold {
    /// Returns whether headers can be changed after the body was read.
    pub fn lets_headers_change(self) -> bool {
        self == Self::Module
    }
}

/// Returns the host that a document names, even if the rest of it is invalid.
pub fn host_of(text: &[u8]) -> Option<Host> {
    let document = Json::parse(text).ok()?;
    let name = document.get("host")?.as_str()?;
    Host::ALL.iter().find_map(|(word, host)| (*word == name).then_some(*host))
}
