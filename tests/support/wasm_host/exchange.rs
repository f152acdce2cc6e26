//! Requests that tests send, results that they see, and the world around a VM.

use super::*;

/// Headers or trailers in order, names in lower case, values of any bytes.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The first value of a header, as a filter that reads single values would see it.
pub fn first<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a [u8]> {
    let found = pairs.iter().find(|(key, _)| key == name.as_bytes());
    found.map(|(_, value)| value.as_slice())
}

/// Builds [`Pairs`] from anything that looks like them.
pub fn pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(from: impl IntoIterator<Item = (N, V)>) -> Pairs {
    from.into_iter()
        .map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.as_ref().to_vec()))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl Level {
    pub(super) fn from_abi(level: u32) -> Option<Level> {
        use Level::*;
        [Trace, Debug, Info, Warn, Error, Critical].into_iter().nth(level as usize)
    }
}

/// Whole request, and the answer of the upstream if it gets there.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: Pairs,
    /// One body callback each. None and no trailers: the headers end the stream.
    pub chunks: Vec<Vec<u8>>,
    pub trailers: Option<Pairs>,
    /// The headers do not end the stream and nothing follows: a handshake, whose frames are not shown here.
    pub unfinished: bool,
    /// `allow_on_headers_stop_iteration`. False: Pause from the headers callback stops everything.
    pub stop_iteration_flag: bool,
    /// `HTTP/1.1` or `HTTP/2.0`, for hosts that report it.
    pub protocol: &'static str,
    /// Another request came on the connection before, for hosts where that matters.
    pub is_later: bool,
    pub answer: Reply,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Request {
        let headers =
            [(":method", method), (":path", path), (":authority", "api.example.com"), (":scheme", "https")];
        let answer = Reply { status: 200, ..Reply::default() };
        Request {
            headers: pairs(headers),
            chunks: Vec::new(),
            trailers: None,
            unfinished: false,
            stop_iteration_flag: true,
            protocol: "HTTP/1.1",
            is_later: false,
            answer,
        }
    }

    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Request {
        self.headers.extend(pairs([(name, value)]));
        self
    }

    /// Adds one chunk. An empty one is an empty DATA frame.
    pub fn chunk(mut self, bytes: impl AsRef<[u8]>) -> Request {
        self.chunks.push(bytes.as_ref().to_vec());
        self
    }

    /// A JSON body in one chunk, with its content type and length.
    pub fn json(self, text: impl AsRef<[u8]>) -> Request {
        let length = text.as_ref().len().to_string();
        self.header("content-type", "application/json").header("content-length", length).chunk(text)
    }

    pub fn trailer(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Request {
        self.trailers.get_or_insert_default().extend(pairs([(name, value)]));
        self
    }

    pub fn without_stop_iteration_flag(mut self) -> Request {
        self.stop_iteration_flag = false;
        self
    }
}

/// Answer of the filter itself, or the upstream's as the client gets it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub details: String,
    /// Headers without `:status`.
    pub headers: Pairs,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        first(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Request as the upstream saw it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub trailers: Option<Pairs>,
    /// The end of the request arrived.
    pub complete: bool,
}

impl Upstream {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        first(&self.headers, name)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = lines(&self.headers);
        write!(out, "{} {:?} {headers:?} {:?}", self.status, self.details, self.text())
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.complete { "complete" } else { "incomplete" };
        let (headers, trailers) = (lines(&self.headers), self.trailers.as_ref().map(lines));
        write!(out, "{end} {headers:?} {:?} {trailers:?}", String::from_utf8_lossy(&self.body))
    }
}

fn lines(pairs: &Pairs) -> Vec<String> {
    let line =
        |(name, value): &(Vec<u8>, Vec<u8>)| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    pairs.iter().map(line).collect()
}

/// Result of one stream.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The filter's own answer (or the host's 413).
    pub reply: Option<Reply>,
    /// Request sent to the upstream; `None` is the only proof that nothing was.
    pub upstream: Option<Upstream>,
    /// The upstream's answer after the filter's response callbacks.
    pub response: Option<Reply>,
    /// Properties that the filter set, by path; parts are joined with NUL.
    pub properties: BTreeMap<String, Vec<u8>>,
    /// Part of the request or of the reply is still waiting.
    pub held: bool,
    /// The filter reset the stream (`proxy_close_stream`).
    pub reset: bool,
    /// Message of the trap in this request, or of an earlier one that killed the VM.
    pub trapped: Option<String>,
    /// Status that the host answers itself: the module trapped, or never saw the request.
    pub failed: Option<u32>,
    pub logs: Vec<(Level, String)>,
}

impl Outcome {
    /// The status the client gets, if any.
    pub fn status(&self) -> Option<u32> {
        self.reply.as_ref().or(self.response.as_ref()).map(|reply| reply.status)
    }

    pub fn property(&self, path: &str) -> Option<String> {
        self.properties.get(path).map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// Handle of a stream for the step-by-step calls of [`Vm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub(super) u32);

/// An HTTP call the filter made, waiting for [`Vm::answer_call`].
#[derive(Clone, Debug)]
pub struct HttpCall {
    pub token: u32,
    pub cluster: String,
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub timeout_ms: u32,
    pub(super) root: u32,
    /// Request it was made for, on hosts that record it.
    pub(super) stream: Option<u32>,
}

impl HttpCall {
    /// Returns the length as HTTP/1.1: the lines of the head, which end in two bytes each, and the body.
    pub fn bytes(&self) -> usize {
        let lines = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4);
        lines.sum::<usize>() + "HTTP/1.1\r\nconnection: close\r\n\r\n".len() + self.body.len()
    }
}

/// Reason why a VM did not start or refused its configuration.
#[derive(Clone, Debug)]
pub struct StartError {
    pub reason: String,
    pub logs: Vec<(Level, String)>,
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.reason)?;
        self.logs.iter().try_for_each(|(level, line)| write!(out, "\n  {level:?} {line}"))
    }
}

impl std::error::Error for StartError {}

/// A native function the filter may call by name. `Err` is the status to return.
pub type ForeignFunction = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, u32> + Send + Sync>;

/// The gateway around a VM. Clone it to start a second worker: the clone sees the same shared data.
#[derive(Clone)]
pub struct World {
    pub now_ns: u64,
    pub env: Vec<(String, String)>,
    pub shared: SharedData,
    /// Readable properties by path; parts are joined with NUL.
    pub properties: BTreeMap<String, Vec<u8>>,
    pub foreign: BTreeMap<String, ForeignFunction>,
    /// Upstreams an HTTP call may name; any other cannot be called.
    pub clusters: BTreeSet<String>,
    /// The longest body; more is 413 by the gateway.
    pub buffer_limit: usize,
    /// The longest body in memory; a longer one goes to a file, where a host has one (`client_body_buffer_size`).
    pub memory_limit: usize,
    /// Zones of shared memory, where a host has zones.
    pub zones: BTreeSet<String>,
    /// nginx variables declared by `set $name ''` or by another gateway, with their initial values.
    pub variables: BTreeMap<String, Vec<u8>>,
    /// Rules of the imitated host.
    pub host: &'static HostRules,
    pub(super) faults: BTreeMap<String, i32>,
}

impl World {
    pub fn new(env: &[(String, String)], now_ns: u64) -> World {
        World {
            now_ns,
            env: env.to_vec(),
            shared: SharedData::default(),
            properties: BTreeMap::from([("plugin_vm_id".to_owned(), b"callbound".to_vec())]),
            foreign: BTreeMap::new(),
            clusters: BTreeSet::new(),
            buffer_limit: BUFFER_LIMIT,
            memory_limit: BUFFER_LIMIT,
            zones: BTreeSet::new(),
            variables: BTreeMap::new(),
            host: &host_rules::ENVOY,
            faults: BTreeMap::new(),
        }
    }

    /// As [`World::new`], with another host's rules and what an operator sets up there.
    pub fn imitating(host: &'static HostRules, env: &[(String, String)], now_ns: u64) -> World {
        let mut world = World { host, ..World::new(env, now_ns) };
        match host.properties {
            PropertyRules::Envoy => {}
            PropertyRules::NgxWasm => {
                world.properties.clear();
                world.zones.insert("callbound".to_owned());
            }
            PropertyRules::Variables => {
                world.properties.clear();
                let names = ["callbound", "upstream_uri", "wasm_process_req_body", "wasm_process_resp_body"];
                world.variables.extend(names.map(|name| (name.to_owned(), Vec::new())));
            }
        }
        world
    }

    /// From now on the named import returns `status` and does nothing else.
    pub fn fail(&mut self, function: &str, status: i32) -> Result<(), String> {
        if !ENV_FUNCTIONS.contains(&function) && !WASI_FUNCTIONS.contains(&function) {
            return Err(format!("no host function is called `{function}`"));
        }
        self.faults.insert(function.to_owned(), status);
        Ok(())
    }

    pub fn heal(&mut self) {
        self.faults.clear();
    }
}
