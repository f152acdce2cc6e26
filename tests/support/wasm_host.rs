//! A gateway small enough to read: a synchronous proxy-wasm ABI 0.2.1 host on wasmtime.
//!
//! It stands in for one worker of Envoy with `allow_on_headers_stop_iteration: true`, so that a
//! test can send the compiled module any request, in any order of steps, and see what left towards the
//! upstream.
//!
//! What it models, with Envoy's rules and status codes:
//!
//! * Holding. Pause in the headers callback holds the headers and lets body callbacks run. Each of
//!   them reads the whole body so far from offset 0 and is told its whole size. Continue from a
//!   body or trailers callback, or `proxy_continue_stream`, releases all that is held. Without the flag
//!   (`stop_iteration_flag: false`) Pause in the headers callback stops everything until resumed.
//! * Leaks. [`Outcome::upstream`] is what the upstream really saw, complete or not. A refusal that
//!   came after a release therefore shows *both* a reply and an upstream request.
//! * Local replies, from any callback or from a tick through the effective context: sent once the
//!   callback has returned, with its action overridden, and passed through the filter's own
//!   response callbacks.
//! * Header maps (first value, all pairs, writes while held, `BadArgument` after release), buffers,
//!   the 413 for a body that outgrows the buffer, properties, shared data with CAS, metrics, ticks,
//!   HTTP calls, foreign functions, environment, clock, randomness, logs.
//! * Life cycle. A new configuration is tried in a throw-away VM, then becomes a new root context
//!   in the same VM. Streams begun on the old root keep it; it is deleted with its last stream. At the
//!   end of a stream come `on_log`, `on_done`, `on_delete`, in Envoy's order.
//! * A trap kills the VM (`FAIL_CLOSED`). Envoy would answer 503; here the reply stays empty and
//!   [`Outcome::trapped`] is set, so that no test can take a crash for a refusal.
//!
//! Stricter than Envoy: after any release request headers can be neither read one by one nor
//! written (Envoy forgets to forbid it when the release came from a body callback).
//!
//! What it refuses to model: gRPC calls and shared queues (status 12, which the SDK turns into a
//! trap), TCP streams, response trailers, gRPC-shaped local replies, the codec (header values may
//! be any bytes, repeated headers are never joined, nothing is added), routes, timers (call
//! [`Vm::tick`]), the reload of a crashed VM, endless loops (they hang the test).
//!
//! Every host call can be counted ([`Vm::host_calls`]) and made to fail ([`Vm::fail`]).

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::{Engine, Extern, ExternType, Instance, InstancePre, Linker, Store, Val};
use wasmtime::{StoreLimits, StoreLimitsBuilder, WasmParams, WasmResults};

/// Statuses of the ABI.
pub mod status {
    pub const OK: u32 = 0;
    pub const NOT_FOUND: u32 = 1;
    pub const BAD_ARGUMENT: u32 = 2;
    pub const PARSE_FAILURE: u32 = 4;
    pub const INVALID_MEMORY_ACCESS: u32 = 6;
    pub const CAS_MISMATCH: u32 = 8;
    pub const INTERNAL_FAILURE: u32 = 10;
    pub const UNIMPLEMENTED: u32 = 12;
}

/// Error numbers of WASI preview 1.
mod errno {
    pub const BADF: u32 = 8;
    pub const INVAL: u32 = 28;
    pub const IO: u32 = 29;
    pub const NOSYS: u32 = 52;
    pub const NOTSUP: u32 = 58;
}

/// Envoy's default `per_connection_buffer_limit_bytes`.
const BUFFER_LIMIT: usize = 1 << 20;
/// Envoy's cap on the memory of one VM.
const MEMORY_LIMIT: usize = 1 << 30;

// -------------------------------------------------------------------------------------------------
// What tests say and see
// -------------------------------------------------------------------------------------------------

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
    fn from_abi(level: u32) -> Option<Level> {
        use Level::*;
        [Trace, Debug, Info, Warn, Error, Critical].into_iter().nth(level as usize)
    }
}

/// A whole request, and the answer of the upstream should it get that far.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: Pairs,
    /// One body callback each. None and no trailers: the headers end the stream.
    pub chunks: Vec<Vec<u8>>,
    pub trailers: Option<Pairs>,
    /// The headers do not end the stream, and nothing follows: a handshake, whose frames are not shown here.
    pub unfinished: bool,
    /// `allow_on_headers_stop_iteration`. False: Pause from the headers callback stops everything.
    pub stop_iteration_flag: bool,
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

/// An answer: the filter's own, or the upstream's as the client gets it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub details: String,
    /// Without `:status`.
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

/// What the upstream saw of a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub trailers: Option<Pairs>,
    /// False: the request was cut, or its end never came.
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

/// What became of one stream.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The filter's own answer (or the host's 413).
    pub reply: Option<Reply>,
    /// What left towards the upstream; `None` is the only proof that nothing did.
    pub upstream: Option<Upstream>,
    /// The upstream's answer after the filter's response callbacks.
    pub response: Option<Reply>,
    /// What the filter set with `proxy_set_property`, by path; parts are joined with NUL.
    pub properties: BTreeMap<String, Vec<u8>>,
    /// Something of the request or of the reply is still waiting.
    pub held: bool,
    /// The filter reset the stream (`proxy_close_stream`).
    pub reset: bool,
    /// The VM is dead, and why.
    pub trapped: Option<String>,
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

/// A stream in the making: a handle for the step-by-step calls of [`Vm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u32);

/// An HTTP call the filter made, waiting for [`Vm::answer_call`].
#[derive(Clone, Debug)]
pub struct HttpCall {
    pub token: u32,
    pub cluster: String,
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub timeout_ms: u32,
    root: u32,
}

/// Why a VM did not start, or refused its configuration.
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
    /// Upstreams an HTTP call may name; any other is a `BadArgument`.
    pub clusters: BTreeSet<String>,
    pub buffer_limit: usize,
    faults: BTreeMap<String, i32>,
}

impl World {
    pub fn new(env: &[(String, String)], now_ns: u64) -> World {
        World {
            now_ns,
            env: env.to_vec(),
            shared: SharedData::default(),
            properties: BTreeMap::new(),
            foreign: BTreeMap::new(),
            clusters: BTreeSet::new(),
            buffer_limit: BUFFER_LIMIT,
            faults: BTreeMap::new(),
        }
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

/// The key-value store all workers of a gateway share.
#[derive(Clone, Default)]
pub struct SharedData(Arc<Mutex<SharedEntries>>);

#[derive(Default)]
struct SharedEntries {
    last_cas: u32,
    entries: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
}

impl SharedData {
    pub fn get(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.lock().entries.get(key).cloned()
    }

    /// Envoy's rule: CAS 0, or a key that is not there yet, always writes.
    pub fn set(&self, key: &[u8], value: &[u8], cas: u32) -> bool {
        let mut store = self.lock();
        let present = store.entries.get(key).map(|(_, cas)| *cas);
        if cas != 0 && present.is_some_and(|present| present != cas) {
            return false;
        }
        store.last_cas = store.last_cas.wrapping_add(1).max(1);
        let entry = (value.to_vec(), store.last_cas);
        store.entries.insert(key.to_vec(), entry);
        true
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().entries.keys().cloned().collect()
    }

    /// Keys and values together: what an unbounded store would show as growth.
    pub fn size_in_bytes(&self) -> usize {
        self.lock().entries.iter().map(|(key, (value, _))| key.len() + value.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, SharedEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// -------------------------------------------------------------------------------------------------
// The module
// -------------------------------------------------------------------------------------------------

/// A module, compiled and linked once, started as often as wanted, from any thread.
#[derive(Clone)]
pub struct Module {
    engine: Engine,
    linked: InstancePre<Host>,
}

impl Module {
    /// Loads a `.wasm` or `.wat` file.
    pub fn load(path: impl AsRef<Path>) -> Result<Module, String> {
        let engine = Engine::default();
        let module = wasmtime::Module::from_file(&engine, path).map_err(text)?;
        if !module.exports().any(|export| export.name() == "proxy_abi_version_0_2_1") {
            return Err("the module does not export `proxy_abi_version_0_2_1`".to_owned());
        }
        let mut linker = Linker::new(&engine);
        link_env(&mut linker).map_err(text)?;
        link_wasi(&mut linker, &module).map_err(text)?;
        let linked = linker.instantiate_pre(&module).map_err(text)?;
        Ok(Module { engine, linked })
    }

    /// Every import, as `module.name`.
    pub fn imports(&self) -> Vec<String> {
        self.linked
            .module()
            .imports()
            .map(|import| format!("{}.{}", import.module(), import.name()))
            .collect()
    }

    /// Starts a VM of its own and configures its root context.
    pub fn start(&self, config: &[u8], env: &[(String, String)], now_ns: u64) -> Result<Vm, StartError> {
        self.start_in(World::new(env, now_ns), config)
    }

    /// As [`Module::start`], in a given world: its clock, shared data, properties, faults.
    pub fn start_in(&self, world: World, config: &[u8]) -> Result<Vm, StartError> {
        let host = Host::new(world).map_err(|reason| StartError { reason, logs: Vec::new() })?;
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        let instance = match self.linked.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => {
                return Err(StartError { reason: text(error), logs: store.data().all_logs() });
            }
        };
        let mut vm = Vm { module: self.clone(), store, instance, root: 0, dead: None };
        match vm.boot(config) {
            true => Ok(vm),
            false => Err(vm.refusal()),
        }
    }
}

// -------------------------------------------------------------------------------------------------
// The VM: contexts, frames, callbacks
// -------------------------------------------------------------------------------------------------

/// One instance of the module: one worker of the gateway.
pub struct Vm {
    module: Module,
    store: Store<Host>,
    instance: Instance,
    root: u32,
    dead: Option<String>,
}

impl Vm {
    /// The world around this VM, to read or to change.
    pub fn world(&mut self) -> &mut World {
        &mut self.store.data_mut().world
    }

    pub fn set_now(&mut self, now_ns: u64) {
        self.world().now_ns = now_ns;
    }

    /// See [`World::fail`].
    pub fn fail(&mut self, function: &str, status: i32) -> Result<(), String> {
        self.world().fail(function, status)
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.world().heal();
    }

    pub fn logs(&self) -> Vec<(Level, String)> {
        self.store.data().all_logs()
    }

    pub fn clear_logs(&mut self) {
        self.store.data_mut().logs.clear();
    }

    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.store.data().metrics.of_kind(MetricKind::Counter)
    }

    pub fn gauges(&self) -> BTreeMap<String, u64> {
        self.store.data().metrics.of_kind(MetricKind::Gauge)
    }

    /// How often each host function was called since the start or the last reset.
    pub fn host_calls(&self) -> BTreeMap<&'static str, u64> {
        self.store.data().calls.clone()
    }

    pub fn reset_host_calls(&mut self) {
        self.store.data_mut().calls.clear();
    }

    /// The size of the VM's linear memory. It never shrinks.
    pub fn memory_bytes(&mut self) -> usize {
        let memory = self.instance.get_memory(&mut self.store, "memory");
        memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    pub fn trapped(&self) -> Option<&str> {
        self.dead.as_deref()
    }

    /// The tick period the present root context asked for, in milliseconds; 0 is none.
    pub fn tick_period(&self) -> u32 {
        self.store.data().roots.get(&self.root).copied().unwrap_or_default()
    }

    /// One tick of every live root context that asked for ticks.
    pub fn tick(&mut self) {
        let roots = &self.store.data().roots;
        let due: Vec<u32> = roots.iter().filter(|(_, period)| **period > 0).map(|(id, _)| *id).collect();
        for root in due {
            self.call::<_, ()>(root, "proxy_on_tick", root);
            self.settle();
        }
    }

    /// Delivers a new configuration as Envoy does. False: it was refused, the old one stays.
    pub fn reconfigure(&mut self, config: &[u8]) -> bool {
        let canary = self.module.start_in(self.store.data().world.clone(), config);
        if let Err(refused) = canary {
            let lines = refused.logs.into_iter().map(|(level, line)| Line { context: 0, level, line });
            self.store.data_mut().logs.extend(lines);
            return false;
        }
        let accepted = self.configure_new_root(config);
        if !accepted && self.dead.is_none() {
            self.dead = Some("the configuration was refused by a running VM".to_owned());
        }
        self.retire_roots();
        accepted
    }

    /// The whole life of one stream. An upstream that got it all answers `request.answer`.
    pub fn exchange(&mut self, request: &Request) -> Outcome {
        let frames = request.chunks.len() + usize::from(request.trailers.is_some());
        let ends = frames == 0 && !request.unfinished;
        let stream = self.open_with(&request.headers, ends, request.stop_iteration_flag);
        for (index, chunk) in request.chunks.iter().enumerate() {
            self.body(stream, chunk, index + 1 == frames);
        }
        if let Some(trailers) = &request.trailers {
            self.trailers(stream, trailers);
        }
        self.respond(stream, &request.answer);
        self.finish(stream)
    }

    /// Begins a stream: its context and its headers.
    pub fn open(&mut self, headers: &Pairs, end_of_stream: bool) -> Stream {
        self.open_with(headers, end_of_stream, true)
    }

    /// As [`Vm::open`], with or without `allow_on_headers_stop_iteration`.
    pub fn open_with(&mut self, headers: &Pairs, end_of_stream: bool, stop_iteration_flag: bool) -> Stream {
        let root = self.root;
        let host = self.store.data_mut();
        let id = host.new_id();
        host.streams.insert(id, StreamState::new(root, pairs(headers.clone()), stop_iteration_flag));
        self.call::<_, ()>(id, "proxy_on_context_create", (id, root));
        self.feed(id, Frame::Headers { end: end_of_stream });
        Stream(id)
    }

    /// One more chunk of the request body.
    pub fn body(&mut self, stream: Stream, chunk: &[u8], end_of_stream: bool) {
        self.feed(stream.0, Frame::Body { bytes: chunk.to_vec(), end: end_of_stream });
    }

    /// The trailers, which end the request.
    pub fn trailers(&mut self, stream: Stream, trailers: &Pairs) {
        self.feed(stream.0, Frame::Trailers(pairs(trailers.clone())));
    }

    /// The upstream answers, if it has the whole request and nobody has answered yet.
    pub fn respond(&mut self, stream: Stream, answer: &Reply) {
        let Some(state) = self.store.data().streams.get(&stream.0) else {
            return;
        };
        if state.upstream.as_ref().is_some_and(|upstream| upstream.complete) && !state.over() {
            self.begin_response(stream.0, answer.clone(), Source::Upstream);
        }
    }

    /// How the stream stands, without ending it.
    pub fn look(&self, stream: Stream) -> Outcome {
        let host = self.store.data();
        let mut outcome = host.streams.get(&stream.0).map(StreamState::outcome).unwrap_or_default();
        outcome.held &= self.dead.is_none();
        outcome.trapped.clone_from(&self.dead);
        outcome.logs = host.logs_of(|line| line.context == stream.0);
        outcome
    }

    /// Ends the stream, whatever its state: the client has its answer, or is gone.
    pub fn finish(&mut self, stream: Stream) -> Outcome {
        let Stream(id) = stream;
        if let Some(state) = self.store.data_mut().streams.get_mut(&id) {
            state.logging = true;
        }
        self.call::<_, ()>(id, "proxy_on_log", id);
        self.call::<_, u32>(id, "proxy_on_done", id);
        self.call::<_, ()>(id, "proxy_on_delete", id);
        let outcome = self.look(stream);
        let host = self.store.data_mut();
        host.streams.remove(&id);
        self.settle();
        self.retire_roots();
        outcome
    }

    /// HTTP calls that wait for an answer.
    pub fn http_calls(&self) -> Vec<HttpCall> {
        self.store.data().http_calls.values().cloned().collect()
    }

    /// Answers an HTTP call; `None` is a connection that broke.
    pub fn answer_call(&mut self, token: u32, answer: Option<&Reply>) {
        let Some(call) = self.store.data_mut().http_calls.remove(&token) else {
            return;
        };
        let (headers, body) =
            answer.map_or((0, 0), |reply| (reply.headers.len() as u32 + 1, reply.body.len() as u32));
        self.store.data_mut().call_response = answer.map(|reply| (with_status(reply), reply.body.clone()));
        self.call::<_, ()>(call.root, "proxy_on_http_call_response", (call.root, token, headers, body, 0));
        self.store.data_mut().call_response = None;
        self.settle();
    }

    fn boot(&mut self, config: &[u8]) -> bool {
        self.call::<_, ()>(0, "_initialize", ());
        let root = self.create_root();
        let started = self.call::<_, u32>(root, "proxy_on_vm_start", (root, 0)).unwrap_or(1) != 0;
        started && self.configure(root, config)
    }

    fn configure_new_root(&mut self, config: &[u8]) -> bool {
        let root = self.create_root();
        self.configure(root, config)
    }

    fn create_root(&mut self) -> u32 {
        let host = self.store.data_mut();
        let root = host.new_id();
        host.roots.insert(root, 0);
        self.call::<_, ()>(root, "proxy_on_context_create", (root, 0));
        root
    }

    fn configure(&mut self, root: u32, config: &[u8]) -> bool {
        self.store.data_mut().configuration = Some(config.to_vec());
        let size = config.len() as u32;
        let accepted = self.call::<_, u32>(root, "proxy_on_configure", (root, size)).unwrap_or(1) != 0;
        self.store.data_mut().configuration = None;
        self.settle();
        let accepted = accepted && self.dead.is_none();
        if accepted {
            self.root = root;
        }
        accepted
    }

    fn refusal(self) -> StartError {
        let reason = self.dead.unwrap_or_else(|| "the module refused its configuration".to_owned());
        StartError { reason, logs: self.store.data().all_logs() }
    }

    /// Deletes root contexts that were replaced and have no stream left.
    fn retire_roots(&mut self) {
        let host = self.store.data();
        let used: BTreeSet<u32> = host.streams.values().map(|stream| stream.root).collect();
        let idle = |id: &u32| *id != self.root && !used.contains(id);
        let retired: Vec<u32> = host.roots.keys().copied().filter(idle).collect();
        for root in retired {
            self.call::<_, u32>(root, "proxy_on_done", root);
            self.call::<_, ()>(root, "proxy_on_delete", root);
            let host = self.store.data_mut();
            host.roots.remove(&root);
            // Envoy cancels the calls of a context that goes.
            host.http_calls.retain(|_, call| call.root != root);
        }
    }

    fn feed(&mut self, id: u32, frame: Frame) {
        if let Some(stream) = self.store.data_mut().streams.get_mut(&id) {
            stream.backlog.push_back(frame);
            self.pump(id);
        }
    }

    /// Shows waiting frames to the filter for as long as it takes them.
    fn pump(&mut self, id: u32) {
        while let Some(frame) = self.next_frame(id) {
            let too_large = self.receive(id, &frame);
            if !too_large {
                let flow = self.show(id, &frame);
                self.apply(id, &frame, flow);
            }
            self.settle();
        }
    }

    fn next_frame(&mut self, id: u32) -> Option<Frame> {
        let stream = self.store.data_mut().streams.get_mut(&id)?;
        let waits = self.dead.is_some() || stream.stopped || stream.over();
        if waits { None } else { stream.backlog.pop_front() }
    }

    /// Takes a frame into the stream's buffers. True: the host answered 413 itself.
    fn receive(&mut self, id: u32, frame: &Frame) -> bool {
        let host = self.store.data_mut();
        let Some(stream) = host.streams.get_mut(&id) else {
            return false;
        };
        stream.ended |= frame.ends();
        match frame {
            Frame::Headers { .. } => false,
            Frame::Trailers(trailers) => {
                stream.trailers = Some(trailers.clone());
                false
            }
            Frame::Body { bytes, .. } => {
                let buffering = !stream.body.is_empty();
                stream.body.extend_from_slice(bytes);
                buffering && host.refuse_large_body(id)
            }
        }
    }

    fn show(&mut self, id: u32, frame: &Frame) -> Flow {
        let Some(stream) = self.store.data().streams.get(&id) else {
            return Flow::Pause;
        };
        let (headers, body) = (stream.headers.len() as u32, stream.body.len() as u32);
        match frame {
            Frame::Headers { end } => {
                self.ask(id, "proxy_on_request_headers", (id, headers, u32::from(*end)))
            }
            Frame::Body { end, .. } => self.ask(id, "proxy_on_request_body", (id, body, u32::from(*end))),
            Frame::Trailers(trailers) => {
                self.ask(id, "proxy_on_request_trailers", (id, trailers.len() as u32))
            }
        }
    }

    fn apply(&mut self, id: u32, frame: &Frame, flow: Flow) {
        let host = self.store.data_mut();
        let Some(stream) = host.streams.get_mut(&id) else {
            return;
        };
        match (flow, frame) {
            (Flow::Continue, _) if !stream.over() => stream.release(),
            (Flow::Pause, Frame::Headers { .. }) => stream.stopped = !stream.stop_iteration_flag,
            (Flow::Pause, Frame::Body { .. }) => {
                host.refuse_large_body(id);
            }
            _ => {}
        }
    }

    /// Does what host calls left for after the callback.
    fn settle(&mut self) {
        while let Some(deferred) = self.store.data_mut().deferred.pop_front() {
            match deferred {
                Deferred::Resume(id) => self.resume_request(id),
                Deferred::ResumeResponse(id) => self.resume_response(id),
                Deferred::Reply(id, reply) => self.begin_response(id, reply, Source::Filter),
            }
        }
    }

    fn resume_request(&mut self, id: u32) {
        let Some(stream) = self.store.data_mut().streams.get_mut(&id) else {
            return;
        };
        if self.dead.is_none() && !stream.over() {
            stream.stopped = false;
            stream.release();
            self.pump(id);
        }
    }

    fn resume_response(&mut self, id: u32) {
        let stream = self.store.data_mut().streams.get_mut(&id);
        if let Some(response) = stream.and_then(|stream| stream.response.as_mut()) {
            response.paused = false;
            self.drive_response(id);
        }
    }

    fn begin_response(&mut self, id: u32, reply: Reply, source: Source) {
        let Some(stream) = self.store.data_mut().streams.get_mut(&id) else {
            return;
        };
        let answered = stream.response.as_ref().is_some_and(|response| response.source == Source::Filter);
        if self.dead.is_some() || stream.reset || stream.logging || answered {
            return;
        }
        if stream.response.as_ref().is_some_and(Response::sent) {
            stream.reset = true; // Too late to replace the answer: Envoy cuts the stream.
            return;
        }
        let replaces = stream.response.is_some();
        let mut response = Response::new(reply, source, stream.is_head());
        if replaces {
            response.stage = Stage::Sent;
        }
        stream.response = Some(response);
        self.drive_response(id);
    }

    /// Runs the response callbacks until the answer is sent or the filter holds it.
    fn drive_response(&mut self, id: u32) {
        while let Some(stage) = self.next_stage(id) {
            let flow = self.show_response(id, stage);
            if let Some(response) = self.store.data_mut().response_mut(id) {
                response.passed(stage, flow);
            }
            self.settle();
        }
    }

    fn next_stage(&mut self, id: u32) -> Option<Stage> {
        let alive = self.dead.is_none();
        let stream = self.store.data().streams.get(&id).filter(|stream| alive && !stream.reset)?;
        let response = stream.response.as_ref()?;
        let blocked = response.paused && !stream.stop_iteration_flag;
        (response.stage != Stage::Sent && !blocked).then_some(response.stage)
    }

    fn show_response(&mut self, id: u32, stage: Stage) -> Flow {
        let Some(response) = self.store.data_mut().response_mut(id) else {
            return Flow::Pause;
        };
        let (headers, body) = (response.headers.len() as u32, response.body.len() as u32);
        match stage {
            Stage::Headers => self.ask(id, "proxy_on_response_headers", (id, headers, u32::from(body == 0))),
            Stage::Body => self.ask(id, "proxy_on_response_body", (id, body, 1)),
            Stage::Sent => Flow::Continue,
        }
    }

    /// Calls back for an action. A local reply made meanwhile overrides what the filter returned.
    fn ask<P: WasmParams>(&mut self, context: u32, name: &str, params: P) -> Flow {
        let action = self.call::<P, u32>(context, name, params).unwrap_or(0);
        let stopped = self.dead.is_some() || self.store.data().stop_iteration;
        if stopped || action != 0 { Flow::Pause } else { Flow::Continue }
    }

    /// Calls an export in a context. `None`: the VM is dead, or there is no such export.
    fn call<P: WasmParams, R: WasmResults>(&mut self, context: u32, name: &str, params: P) -> Option<R> {
        self.store.data_mut().stop_iteration = false;
        if self.dead.is_some() {
            return None;
        }
        let function = self.instance.get_func(&mut self.store, name)?;
        let host = self.store.data_mut();
        (host.current, host.effective) = (context, 0);
        let result =
            function.typed::<P, R>(&self.store).and_then(|export| export.call(&mut self.store, params));
        self.store.data_mut().effective = 0;
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.dead = Some(format!("{name}: {}", text(error)));
                None
            }
        }
    }
}

fn text(error: wasmtime::Error) -> String {
    format!("{error:?}")
}

fn with_status(reply: &Reply) -> Pairs {
    let mut headers = pairs([(":status", reply.status.to_string())]);
    headers.extend(reply.headers.iter().cloned());
    headers
}

// -------------------------------------------------------------------------------------------------
// The state of one stream
// -------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Pause,
}

enum Frame {
    Headers { end: bool },
    Body { bytes: Vec<u8>, end: bool },
    Trailers(Pairs),
}

impl Frame {
    fn ends(&self) -> bool {
        match self {
            Frame::Headers { end } | Frame::Body { end, .. } => *end,
            Frame::Trailers(_) => true,
        }
    }
}

/// What Envoy does only when the callback that asked for it has returned.
enum Deferred {
    Resume(u32),
    ResumeResponse(u32),
    Reply(u32, Reply),
}

#[derive(Default)]
struct StreamState {
    root: u32,
    stop_iteration_flag: bool,
    headers: Pairs,
    /// Bytes shown to the filter and not released yet.
    body: Vec<u8>,
    trailers: Option<Pairs>,
    /// Frames the filter has not been shown yet.
    backlog: VecDeque<Frame>,
    /// Pause without the flag: no callback until resumed.
    stopped: bool,
    /// The end of the request was shown to the filter.
    ended: bool,
    upstream: Option<Upstream>,
    response: Option<Response>,
    properties: BTreeMap<String, Vec<u8>>,
    reset: bool,
    logging: bool,
}

impl StreamState {
    fn new(root: u32, headers: Pairs, stop_iteration_flag: bool) -> StreamState {
        StreamState { root, stop_iteration_flag, headers, ..StreamState::default() }
    }

    /// Sends on everything held so far.
    fn release(&mut self) {
        let upstream = self
            .upstream
            .get_or_insert_with(|| Upstream { headers: self.headers.clone(), ..Upstream::default() });
        upstream.body.append(&mut self.body);
        upstream.trailers.clone_from(&self.trailers);
        upstream.complete = self.ended;
    }

    /// Request headers (0) and trailers (1) can be changed until they are released.
    fn holds(&self, map: u32) -> bool {
        self.upstream.as_ref().is_none_or(|upstream| map == 1 && !upstream.complete)
    }

    /// No more of the request is shown: it was answered, reset, or is at its end.
    fn over(&self) -> bool {
        self.reset || self.logging || self.response.is_some()
    }

    fn held(&self) -> bool {
        match &self.response {
            _ if self.reset => false,
            Some(response) => !response.sent(),
            None => {
                self.upstream.is_none()
                    || !self.body.is_empty()
                    || !self.backlog.is_empty()
                    || self.end_is_held()
            }
        }
    }

    fn end_is_held(&self) -> bool {
        self.ended && self.upstream.as_ref().is_some_and(|upstream| !upstream.complete)
    }

    fn is_head(&self) -> bool {
        first(&self.headers, ":method") == Some(b"HEAD")
    }

    fn outcome(&self) -> Outcome {
        let sent = self.response.as_ref().filter(|response| response.sent());
        let by = |source| sent.filter(|response| response.source == source).map(Response::as_client_sees_it);
        Outcome {
            reply: by(Source::Filter),
            upstream: self.upstream.clone(),
            response: by(Source::Upstream),
            properties: self.properties.clone(),
            held: self.held(),
            reset: self.reset,
            ..Outcome::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Filter,
    Upstream,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Headers,
    Body,
    Sent,
}

/// An answer on its way through the filter's response callbacks.
struct Response {
    source: Source,
    details: String,
    /// With `:status`.
    headers: Pairs,
    body: Vec<u8>,
    stage: Stage,
    paused: bool,
}

impl Response {
    fn new(reply: Reply, source: Source, head: bool) -> Response {
        let mut headers = with_status(&reply);
        if source == Source::Filter {
            complete_local_headers(&mut headers, &reply.body);
        }
        let body = if head { Vec::new() } else { reply.body };
        Response { source, details: reply.details, headers, body, stage: Stage::Headers, paused: false }
    }

    fn passed(&mut self, stage: Stage, flow: Flow) {
        self.paused = flow == Flow::Pause;
        self.stage = if stage == Stage::Headers && !self.body.is_empty() { Stage::Body } else { Stage::Sent };
    }

    fn sent(&self) -> bool {
        self.stage == Stage::Sent && !self.paused
    }

    fn as_client_sees_it(&self) -> Reply {
        let status = first(&self.headers, ":status").map(String::from_utf8_lossy);
        let headers = self.headers.iter().filter(|(name, _)| !name.starts_with(b":")).cloned().collect();
        Reply {
            status: status.and_then(|status| status.parse().ok()).unwrap_or_default(),
            details: self.details.clone(),
            headers,
            body: self.body.clone(),
        }
    }
}

/// Envoy's own touches to a local reply: a length, and a type where the filter named none.
fn complete_local_headers(headers: &mut Pairs, body: &[u8]) {
    headers.retain(|(name, _)| name != b"content-length");
    if body.is_empty() {
        headers.retain(|(name, _)| name != b"content-type");
        return;
    }
    if first(headers, "content-type").is_none() {
        headers.extend(pairs([("content-type", "text/plain")]));
    }
    headers.extend(pairs([("content-length", body.len().to_string())]));
}

// -------------------------------------------------------------------------------------------------
// The host's side of a VM
// -------------------------------------------------------------------------------------------------

struct Line {
    context: u32,
    level: Level,
    line: String,
}

struct Host {
    world: World,
    limits: StoreLimits,
    random: File,
    last_id: u32,
    /// Root contexts and their tick periods.
    roots: BTreeMap<u32, u32>,
    streams: BTreeMap<u32, StreamState>,
    /// The context being called, and the one it speaks for (0: itself).
    current: u32,
    effective: u32,
    stop_iteration: bool,
    deferred: VecDeque<Deferred>,
    configuration: Option<Vec<u8>>,
    last_call: u32,
    http_calls: BTreeMap<u32, HttpCall>,
    call_response: Option<(Pairs, Vec<u8>)>,
    metrics: Metrics,
    logs: Vec<Line>,
    calls: BTreeMap<&'static str, u64>,
}

impl Host {
    fn new(world: World) -> Result<Host, String> {
        let random = File::open("/dev/urandom").map_err(|error| format!("/dev/urandom: {error}"))?;
        Ok(Host {
            world,
            limits: StoreLimitsBuilder::new().memory_size(MEMORY_LIMIT).build(),
            random,
            last_id: 0,
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            current: 0,
            effective: 0,
            stop_iteration: false,
            deferred: VecDeque::new(),
            configuration: None,
            last_call: 0,
            http_calls: BTreeMap::new(),
            call_response: None,
            metrics: Metrics::default(),
            logs: Vec::new(),
            calls: BTreeMap::new(),
        })
    }

    fn new_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn exists(&self, context: u32) -> bool {
        self.roots.contains_key(&context) || self.streams.contains_key(&context)
    }

    /// The context a host call speaks for.
    fn context(&self) -> u32 {
        if self.exists(self.effective) { self.effective } else { self.current }
    }

    fn root_of(&self, context: u32) -> u32 {
        self.streams.get(&context).map_or(context, |stream| stream.root)
    }

    fn stream(&mut self) -> Option<&mut StreamState> {
        let context = self.context();
        self.streams.get_mut(&context)
    }

    fn response_mut(&mut self, id: u32) -> Option<&mut Response> {
        self.streams.get_mut(&id)?.response.as_mut()
    }

    fn log(&mut self, level: Level, line: &[u8]) {
        let line = Line { context: self.context(), level, line: String::from_utf8_lossy(line).into_owned() };
        self.logs.push(line);
    }

    fn logs_of(&self, wanted: impl Fn(&&Line) -> bool) -> Vec<(Level, String)> {
        self.logs.iter().filter(wanted).map(|entry| (entry.level, entry.line.clone())).collect()
    }

    fn all_logs(&self) -> Vec<(Level, String)> {
        self.logs_of(|_| true)
    }

    /// A held body above the limit is answered 413 by the gateway itself.
    fn refuse_large_body(&mut self, id: u32) -> bool {
        let limit = self.world.buffer_limit;
        let too_large =
            self.streams.get(&id).is_some_and(|stream| stream.body.len() > limit && !stream.over());
        if too_large {
            let details = "request_payload_too_large".to_owned();
            let body = b"Payload Too Large".to_vec();
            self.deferred
                .push_back(Deferred::Reply(id, Reply { status: 413, details, body, ..Reply::default() }));
        }
        too_large
    }

    /// A header map as the filter may read it now.
    fn readable_map(&mut self, map: u32) -> Option<&Pairs> {
        if map == 6 {
            return self.call_response.as_ref().map(|(headers, _)| headers);
        }
        let stream = self.stream()?;
        match map {
            0 if stream.holds(map) || stream.logging => Some(&stream.headers),
            1 if stream.holds(map) || stream.logging => stream.trailers.as_ref(),
            2 => {
                let response = stream.response.as_ref()?;
                (!response.sent() || stream.logging).then_some(&response.headers)
            }
            _ => None,
        }
    }

    /// A header map as the filter may change it now: not after its release.
    fn writable_map(&mut self, map: u32) -> Option<&mut Pairs> {
        let stream = self.stream()?;
        let held = stream.holds(map) && !stream.logging;
        match map {
            0 if held => Some(&mut stream.headers),
            1 if held => stream.trailers.as_mut(),
            2 => stream
                .response
                .as_mut()
                .filter(|response| !response.sent())
                .map(|response| &mut response.headers),
            _ => None,
        }
    }

    fn buffer(&mut self, kind: u32) -> Option<Vec<u8>> {
        match kind {
            0 => self.stream().map(|stream| stream.body.clone()),
            1 => self.stream().map(|stream| {
                stream.response.as_ref().map_or_else(Vec::new, |response| response.body.clone())
            }),
            4 => self.call_response.as_ref().map(|(_, body)| body.clone()),
            6 => Some(Vec::new()),
            7 => self.configuration.clone(),
            _ => None,
        }
    }

    fn writable_buffer(&mut self, kind: u32) -> Option<&mut Vec<u8>> {
        let stream = self.stream()?;
        match kind {
            0 => Some(&mut stream.body),
            1 => stream.response.as_mut().map(|response| &mut response.body),
            _ => None,
        }
    }

    fn property(&mut self, path: &str) -> Option<Vec<u8>> {
        let own = self.stream().and_then(|stream| stream.properties.get(path).cloned());
        own.or_else(|| self.world.properties.get(path).cloned())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Metrics by kind and name. As in Envoy, each definition gets an id of its own.
#[derive(Default)]
struct Metrics {
    defined: Vec<(MetricKind, String)>,
    values: BTreeMap<(MetricKind, String), u64>,
}

impl Metrics {
    fn define(&mut self, kind: MetricKind, name: String) -> u32 {
        self.values.entry((kind, name.clone())).or_default();
        self.defined.push((kind, name));
        self.defined.len() as u32
    }

    fn find(&mut self, id: u32) -> Option<(MetricKind, &mut u64)> {
        let key = self.defined.get((id as usize).checked_sub(1)?)?;
        self.values.get_mut(key).map(|value| (key.0, value))
    }

    fn of_kind(&self, kind: MetricKind) -> BTreeMap<String, u64> {
        let wanted = self.values.iter().filter(|((of, _), _)| *of == kind);
        wanted.map(|((_, name), value)| (name.clone(), *value)).collect()
    }
}

// -------------------------------------------------------------------------------------------------
// Guest memory
// -------------------------------------------------------------------------------------------------

type Guest<'a> = wasmtime::Caller<'a, Host>;
type Answer<T = ()> = Result<T, Refusal>;

/// Why a host call does not return 0.
enum Refusal {
    Status(u32),
    Trap(wasmtime::Error),
}

const NOT_FOUND: Refusal = Refusal::Status(status::NOT_FOUND);
const BAD_ARGUMENT: Refusal = Refusal::Status(status::BAD_ARGUMENT);
const UNIMPLEMENTED: Refusal = Refusal::Status(status::UNIMPLEMENTED);
const OUT_OF_BOUNDS: Refusal = Refusal::Status(status::INVALID_MEMORY_ACCESS);

/// Counts a host call and lets it fail if a test asked for that.
fn enter(
    mut guest: Guest<'_>,
    name: &'static str,
    run: impl FnOnce(&mut Guest<'_>) -> Answer,
) -> wasmtime::Result<i32> {
    let host = guest.data_mut();
    *host.calls.entry(name).or_default() += 1;
    if let Some(status) = host.world.faults.get(name) {
        return Ok(*status);
    }
    match run(&mut guest) {
        Ok(()) => Ok(0),
        Err(Refusal::Status(status)) => Ok(status as i32),
        Err(Refusal::Trap(error)) => Err(error),
    }
}

fn memory(guest: &mut Guest) -> Answer<wasmtime::Memory> {
    guest.get_export("memory").and_then(Extern::into_memory).ok_or(OUT_OF_BOUNDS)
}

fn read(guest: &mut Guest, data: u32, size: u32) -> Answer<Vec<u8>> {
    let memory = memory(guest)?;
    let (start, size) = (data as usize, size as usize);
    let bytes = memory.data(&*guest).get(start..start.saturating_add(size));
    bytes.map(<[u8]>::to_vec).ok_or(OUT_OF_BOUNDS)
}

fn read_text(guest: &mut Guest, data: u32, size: u32) -> Answer<String> {
    String::from_utf8(read(guest, data, size)?).map_err(|_| BAD_ARGUMENT)
}

fn write(guest: &mut Guest, at: u32, bytes: &[u8]) -> Answer {
    memory(guest)?.write(guest, at as usize, bytes).map_err(|_| OUT_OF_BOUNDS)
}

fn write_u32(guest: &mut Guest, at: u32, value: u32) -> Answer {
    write(guest, at, &value.to_le_bytes())
}

fn write_u64(guest: &mut Guest, at: u32, value: u64) -> Answer {
    write(guest, at, &value.to_le_bytes())
}

/// Hands bytes to the guest in memory of its own. Nothing is handed over as a null pointer.
fn give(guest: &mut Guest, bytes: &[u8], data_out: u32, size_out: u32) -> Answer {
    let data = if bytes.is_empty() { 0 } else { allocate(guest, bytes.len() as u32)? };
    write(guest, data, bytes)?;
    write_u32(guest, data_out, data)?;
    write_u32(guest, size_out, bytes.len() as u32)
}

fn allocate(guest: &mut Guest, size: u32) -> Answer<u32> {
    let names = ["proxy_on_memory_allocate", "malloc"];
    let export = names.into_iter().find_map(|name| guest.get_export(name)).and_then(Extern::into_func);
    let allocator = export.ok_or(OUT_OF_BOUNDS)?.typed::<u32, u32>(&*guest).map_err(Refusal::Trap)?;
    allocator.call(guest, size).map_err(Refusal::Trap)
}

fn encode_pairs(pairs: &Pairs) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

fn decode_pairs(mut bytes: &[u8]) -> Option<Pairs> {
    if bytes.is_empty() {
        return Some(Pairs::new());
    }
    let count = take_u32(&mut bytes)?;
    let sizes: Option<Vec<_>> =
        (0..count).map(|_| Some((take_u32(&mut bytes)?, take_u32(&mut bytes)?))).collect();
    let mut decoded = Pairs::new();
    for (name, value) in sizes? {
        decoded.push((take_part(&mut bytes, name)?.to_ascii_lowercase(), take_part(&mut bytes, value)?));
    }
    Some(decoded)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*head))
}

/// A part of a serialised map, with the NUL that ends it.
fn take_part(bytes: &mut &[u8], size: u32) -> Option<Vec<u8>> {
    let (part, rest) = bytes.split_at_checked(size as usize)?;
    *bytes = rest.strip_prefix(b"\0")?;
    Some(part.to_vec())
}

fn read_pairs(guest: &mut Guest, data: u32, size: u32) -> Answer<Pairs> {
    decode_pairs(&read(guest, data, size)?).ok_or(Refusal::Status(status::PARSE_FAILURE))
}

// -------------------------------------------------------------------------------------------------
// The ABI: each function below is the import of the same name
// -------------------------------------------------------------------------------------------------

/// Defines imports: their names, how to link them, and what they do. Arguments are `u32` unless
/// said otherwise; `Ok` is status 0.
macro_rules! imports {
    ($names:ident, $link:ident, $module:literal; $(
        $(#[$about:meta])*
        fn $function:ident($guest:ident $(, $arg:ident $(: $type:ty)?)*) $body:block
    )*) => {
        const $names: &[&str] = &[$(stringify!($function)),*];

        fn $link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
            $(linker.func_wrap(
                $module,
                stringify!($function),
                |guest: Guest<'_>, $($arg: or_u32!($($type)?)),*| {
                    enter(guest, stringify!($function), |guest| $function(guest, $($arg),*))
                },
            )?;)*
            Ok(())
        }

        $(
            $(#[$about])*
            #[allow(clippy::too_many_arguments)]
            fn $function($guest: &mut Guest<'_>, $($arg: or_u32!($($type)?)),*) -> Answer $body
        )*
    };
}

macro_rules! or_u32 {
    () => {
        u32
    };
    ($type:ty) => {
        $type
    };
}

imports! { ENV_FUNCTIONS, link_env, "env";

    fn proxy_log(guest, level, data, size) {
        let level = Level::from_abi(level).ok_or(BAD_ARGUMENT)?;
        let line = read(guest, data, size)?;
        guest.data_mut().log(level, &line);
        Ok(())
    }

    fn proxy_get_log_level(guest, level_out) {
        write_u32(guest, level_out, Level::Trace as u32)
    }

    fn proxy_get_current_time_nanoseconds(guest, time_out) {
        let now = guest.data().world.now_ns;
        write_u64(guest, time_out, now)
    }

    fn proxy_set_tick_period_milliseconds(guest, period) {
        let host = guest.data_mut();
        let root = host.root_of(host.context());
        host.roots.insert(root, period);
        Ok(())
    }

    fn proxy_set_effective_context(guest, context) {
        let host = guest.data_mut();
        if !host.exists(context) {
            return Err(BAD_ARGUMENT);
        }
        host.effective = context;
        Ok(())
    }

    /// Contexts are deleted at once here, so there is never a pending `on_done` to confirm.
    fn proxy_done(_guest) {
        Err(NOT_FOUND)
    }

    fn proxy_get_status(guest, code_out, data_out, size_out) {
        write_u32(guest, code_out, 0)?;
        give(guest, b"", data_out, size_out)
    }

    // Properties

    fn proxy_get_property(guest, path, path_size, data_out, size_out) {
        let path = read_text(guest, path, path_size)?;
        let value = guest.data_mut().property(&path).ok_or(NOT_FOUND)?;
        give(guest, &value, data_out, size_out)
    }

    fn proxy_set_property(guest, path, path_size, data, size) {
        let path = read_text(guest, path, path_size)?;
        let value = read(guest, data, size)?;
        let stream = guest.data_mut().stream().ok_or(NOT_FOUND)?;
        stream.properties.insert(path, value);
        Ok(())
    }

    // Buffers

    fn proxy_get_buffer_bytes(guest, kind, start, length, data_out, size_out) {
        let buffer = guest.data_mut().buffer(kind).ok_or(NOT_FOUND)?;
        let wanted = buffer.iter().skip(start as usize).take(length as usize);
        let bytes: Vec<u8> = wanted.copied().collect();
        if bytes.is_empty() { Ok(()) } else { give(guest, &bytes, data_out, size_out) }
    }

    fn proxy_get_buffer_status(guest, kind, length_out, flags_out) {
        let length = guest.data_mut().buffer(kind).ok_or(NOT_FOUND)?.len();
        write_u32(guest, length_out, length as u32)?;
        write_u32(guest, flags_out, 0)
    }

    /// Prepends, appends or replaces the whole; nothing in between, as in Envoy.
    fn proxy_set_buffer_bytes(guest, kind, start, length, data, size) {
        let bytes = read(guest, data, size)?;
        let buffer = guest.data_mut().writable_buffer(kind).ok_or(NOT_FOUND)?;
        let (start, length) = (start as usize, length as usize);
        match start {
            0 if length == 0 => drop(buffer.splice(..0, bytes)),
            0 if length >= buffer.len() => *buffer = bytes,
            start if start > 0 && start >= buffer.len() => buffer.extend(bytes),
            _ => return Err(BAD_ARGUMENT),
        }
        Ok(())
    }

    // Header maps

    fn proxy_get_header_map_pairs(guest, map, data_out, size_out) {
        let pairs = guest.data_mut().readable_map(map).cloned().unwrap_or_default();
        let bytes = if pairs.is_empty() { Vec::new() } else { encode_pairs(&pairs) };
        give(guest, &bytes, data_out, size_out)
    }

    fn proxy_set_header_map_pairs(guest, map, data, size) {
        let pairs = read_pairs(guest, data, size)?;
        *guest.data_mut().writable_map(map).ok_or(BAD_ARGUMENT)? = pairs;
        Ok(())
    }

    fn proxy_get_header_map_size(guest, map, size_out) {
        let pairs = guest.data_mut().readable_map(map).ok_or(BAD_ARGUMENT)?;
        let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        write_u32(guest, size_out, size as u32)
    }

    fn proxy_get_header_map_value(guest, map, key, key_size, data_out, size_out) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let pairs = guest.data_mut().readable_map(map).ok_or(BAD_ARGUMENT)?;
        let (_, value) = pairs.iter().find(|(name, _)| *name == key).cloned().ok_or(NOT_FOUND)?;
        give(guest, &value, data_out, size_out)
    }

    fn proxy_add_header_map_value(guest, map, key, key_size, data, size) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let value = read(guest, data, size)?;
        guest.data_mut().writable_map(map).ok_or(BAD_ARGUMENT)?.push((key, value));
        Ok(())
    }

    fn proxy_replace_header_map_value(guest, map, key, key_size, data, size) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let value = read(guest, data, size)?;
        let pairs = guest.data_mut().writable_map(map).ok_or(BAD_ARGUMENT)?;
        pairs.retain(|(name, _)| *name != key);
        pairs.push((key, value));
        Ok(())
    }

    fn proxy_remove_header_map_value(guest, map, key, key_size) {
        let key = read(guest, key, key_size)?.to_ascii_lowercase();
        let pairs = guest.data_mut().writable_map(map).ok_or(BAD_ARGUMENT)?;
        pairs.retain(|(name, _)| *name != key);
        Ok(())
    }

    // Streams

    fn proxy_continue_stream(guest, kind) {
        let host = guest.data_mut();
        let context = host.context();
        let deferred = match kind {
            0 => Deferred::Resume(context),
            1 => Deferred::ResumeResponse(context),
            _ => return Err(BAD_ARGUMENT),
        };
        host.deferred.push_back(deferred);
        Ok(())
    }

    fn proxy_close_stream(guest, kind) {
        match guest.data_mut().stream() {
            Some(stream) if kind <= 1 => stream.reset = true,
            None if kind <= 1 => {}
            _ => return Err(BAD_ARGUMENT),
        }
        Ok(())
    }

    fn proxy_send_local_response(
        guest, status, details, details_size, body, body_size, headers, headers_size,
        _grpc_status: i32
    ) {
        let details = read(guest, details, details_size)?;
        let details = String::from_utf8_lossy(&details).into_owned();
        let body = read(guest, body, body_size)?;
        let headers = read_pairs(guest, headers, headers_size)?;
        let host = guest.data_mut();
        let reply = Reply { status, details, headers, body };
        host.deferred.push_back(Deferred::Reply(host.context(), reply));
        host.stop_iteration = true;
        Ok(())
    }

    // Calls to others

    fn proxy_http_call(
        guest, cluster, cluster_size, headers, headers_size, body, body_size,
        _trailers, _trailers_size, timeout_ms, token_out
    ) {
        let cluster = read_text(guest, cluster, cluster_size)?;
        let headers = read_pairs(guest, headers, headers_size)?;
        let body = read(guest, body, body_size)?;
        let mut required = [":method", ":path", ":authority"].into_iter();
        let complete = required.all(|name| first(&headers, name).is_some());
        let host = guest.data_mut();
        if !complete || !host.world.clusters.contains(&cluster) {
            return Err(BAD_ARGUMENT);
        }
        host.last_call += 1;
        let (token, root) = (host.last_call, host.root_of(host.context()));
        let call = HttpCall { token, cluster, headers, body, timeout_ms, root };
        host.http_calls.insert(token, call);
        write_u32(guest, token_out, token)
    }

    fn proxy_call_foreign_function(guest, name, name_size, data, size, data_out, size_out) {
        let name = read_text(guest, name, name_size)?;
        let arguments = read(guest, data, size)?;
        let function = guest.data().world.foreign.get(&name).cloned().ok_or(NOT_FOUND)?;
        let result = function(&arguments).map_err(Refusal::Status)?;
        give(guest, &result, data_out, size_out)
    }

    // Shared data

    fn proxy_get_shared_data(guest, key, key_size, data_out, size_out, cas_out) {
        let key = read(guest, key, key_size)?;
        let (value, cas) = guest.data().world.shared.get(&key).ok_or(NOT_FOUND)?;
        give(guest, &value, data_out, size_out)?;
        write_u32(guest, cas_out, cas)
    }

    fn proxy_set_shared_data(guest, key, key_size, data, size, cas) {
        let key = read(guest, key, key_size)?;
        let value = read(guest, data, size)?;
        let written = guest.data().world.shared.set(&key, &value, cas);
        if written { Ok(()) } else { Err(Refusal::Status(status::CAS_MISMATCH)) }
    }

    // Metrics

    fn proxy_define_metric(guest, kind, name, name_size, id_out) {
        let kinds = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram];
        let kind = kinds.into_iter().nth(kind as usize).ok_or(BAD_ARGUMENT)?;
        let name = read_text(guest, name, name_size)?;
        let id = guest.data_mut().metrics.define(kind, name);
        write_u32(guest, id_out, id)
    }

    fn proxy_get_metric(guest, id, value_out) {
        let value = match guest.data_mut().metrics.find(id).ok_or(NOT_FOUND)? {
            (MetricKind::Histogram, _) => return Err(BAD_ARGUMENT),
            (_, value) => *value,
        };
        write_u64(guest, value_out, value)
    }

    fn proxy_record_metric(guest, id, recorded: u64) {
        match guest.data_mut().metrics.find(id).ok_or(NOT_FOUND)? {
            (MetricKind::Counter, value) => *value = value.saturating_add(recorded),
            (_, value) => *value = recorded,
        }
        Ok(())
    }

    /// A counter only grows; by nothing is an error too.
    fn proxy_increment_metric(guest, id, offset: i64) {
        match guest.data_mut().metrics.find(id).ok_or(NOT_FOUND)? {
            (MetricKind::Histogram, _) => return Err(BAD_ARGUMENT),
            (MetricKind::Counter, _) if offset <= 0 => return Err(BAD_ARGUMENT),
            (_, value) => *value = value.saturating_add_signed(offset),
        }
        Ok(())
    }

    // Refused: see the head of this file

    fn proxy_register_shared_queue(_guest, _name, _name_size, _id_out) { Err(UNIMPLEMENTED) }
    fn proxy_resolve_shared_queue(_guest, _a, _b, _c, _d, _e) { Err(UNIMPLEMENTED) }
    fn proxy_dequeue_shared_queue(_guest, _id, _data_out, _size_out) { Err(UNIMPLEMENTED) }
    fn proxy_enqueue_shared_queue(_guest, _id, _data, _size) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_call(_guest, _a, _b, _c, _d, _e, _f, _g, _h, _i, _j, _k, _l) {
        Err(UNIMPLEMENTED)
    }
    fn proxy_grpc_stream(_guest, _a, _b, _c, _d, _e, _f, _g, _h, _i) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_send(_guest, _token, _data, _size, _end) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_cancel(_guest, _token) { Err(UNIMPLEMENTED) }
    fn proxy_grpc_close(_guest, _token) { Err(UNIMPLEMENTED) }
}

// -------------------------------------------------------------------------------------------------
// WASI preview 1, as far as a filter gets it
// -------------------------------------------------------------------------------------------------

const WASI: &str = "wasi_snapshot_preview1";

fn link_wasi(linker: &mut Linker<Host>, module: &wasmtime::Module) -> wasmtime::Result<()> {
    link_wasi_functions(linker)?;
    linker.func_wrap(WASI, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!("proc_exit({code})")))
    })?;
    for import in module.imports().filter(|import| import.module() == WASI) {
        let known = import.name() == "proc_exit" || WASI_FUNCTIONS.contains(&import.name());
        if let (ExternType::Func(signature), false) = (import.ty(), known) {
            linker.func_new(WASI, import.name(), signature, not_supported)?;
        }
    }
    Ok(())
}

fn not_supported(_: Guest<'_>, _: &[Val], results: &mut [Val]) -> wasmtime::Result<()> {
    results.fill(Val::I32(errno::NOSYS as i32));
    Ok(())
}

fn environment(guest: &Guest) -> Vec<Vec<u8>> {
    let entry = |(name, value): &(String, String)| format!("{name}={value}\0").into_bytes();
    guest.data().world.env.iter().map(entry).collect()
}

imports! { WASI_FUNCTIONS, link_wasi_functions, "wasi_snapshot_preview1";

    fn random_get(guest, data, size) {
        if size > 1 << 16 {
            return Err(Refusal::Status(errno::INVAL));
        }
        let mut bytes = vec![0; size as usize];
        let filled = guest.data_mut().random.read_exact(&mut bytes);
        filled.map_err(|_| Refusal::Status(errno::IO))?;
        write(guest, data, &bytes)
    }

    /// Both the wall clock and the monotonic clock show the test's time.
    fn clock_time_get(guest, clock, _precision: u64, time_out) {
        if clock > 1 {
            return Err(Refusal::Status(errno::NOTSUP));
        }
        let now = guest.data().world.now_ns;
        write_u64(guest, time_out, now)
    }

    fn environ_sizes_get(guest, count_out, size_out) {
        let entries = environment(guest);
        write_u32(guest, count_out, entries.len() as u32)?;
        write_u32(guest, size_out, entries.iter().map(Vec::len).sum::<usize>() as u32)
    }

    fn environ_get(guest, pointers_out, data_out) {
        let (mut pointer, mut data) = (pointers_out, data_out);
        for entry in environment(guest) {
            write_u32(guest, pointer, data)?;
            write(guest, data, &entry)?;
            pointer += 4;
            data += entry.len() as u32;
        }
        Ok(())
    }

    fn args_sizes_get(guest, count_out, size_out) {
        write_u32(guest, count_out, 0)?;
        write_u32(guest, size_out, 0)
    }

    fn args_get(_guest, _pointers_out, _data_out) {
        Ok(())
    }

    /// Standard output and error go to the log.
    fn fd_write(guest, fd, slices, count, written_out) {
        let level = match fd {
            1 => Level::Info,
            2 => Level::Error,
            _ => return Err(Refusal::Status(errno::BADF)),
        };
        let table = read(guest, slices, count.saturating_mul(8))?;
        let mut table = table.as_slice();
        let mut line = Vec::new();
        while let (Some(data), Some(size)) = (take_u32(&mut table), take_u32(&mut table)) {
            line.extend(read(guest, data, size)?);
        }
        write_u32(guest, written_out, line.len() as u32)?;
        guest.data_mut().log(level, line.strip_suffix(b"\n").unwrap_or(&line));
        Ok(())
    }
}
