//! The host's side of a VM, and the guest's memory.

use super::*;

pub(super) struct Line {
    pub(super) context: u32,
    pub(super) level: Level,
    pub(super) line: String,
}

pub(super) struct Host {
    pub(super) world: World,
    pub(super) limits: StoreLimits,
    pub(super) random: File,
    /// State of the predictable generator, on hosts with weak random bytes.
    pub(super) weak: u64,
    /// Body shown last, on hosts where a buffer outlives its request.
    pub(super) stale_body: Vec<u8>,
    pub(super) last_id: u32,
    /// Root contexts and their tick periods.
    pub(super) roots: BTreeMap<u32, u32>,
    pub(super) streams: BTreeMap<u32, StreamState>,
    /// Context being called, and the effective one (0: itself).
    pub(super) current: u32,
    pub(super) effective: u32,
    /// Callback that is running.
    pub(super) callback: Callback,
    pub(super) stop_iteration: bool,
    pub(super) deferred: VecDeque<Deferred>,
    pub(super) configuration: Option<Vec<u8>>,
    pub(super) last_call: u32,
    pub(super) http_calls: BTreeMap<u32, HttpCall>,
    pub(super) call_response: Option<(Pairs, Vec<u8>)>,
    pub(super) metrics: Metrics,
    pub(super) logs: Vec<Line>,
    pub(super) calls: BTreeMap<&'static str, u64>,
}

/// nginx seeds random() with a worker's process id and the time.
static NEXT_SEED: AtomicU64 = AtomicU64::new(1);

impl Host {
    pub(super) fn new(world: World) -> Result<Host, String> {
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
            callback: Callback::Other,
            weak: NEXT_SEED.fetch_add(1, Ordering::Relaxed),
            stale_body: Vec::new(),
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

    pub(super) fn new_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn exists(&self, context: u32) -> bool {
        self.roots.contains_key(&context) || self.streams.contains_key(&context)
    }

    /// Returns the context a host call acts on.
    pub(super) fn context(&self) -> u32 {
        if self.exists(self.effective) { self.effective } else { self.current }
    }

    pub(super) fn root_of(&self, context: u32) -> u32 {
        self.streams.get(&context).map_or(context, |stream| stream.root)
    }

    pub(super) fn stream(&mut self) -> Option<&mut StreamState> {
        let context = self.context();
        self.streams.get_mut(&context)
    }

    pub(super) fn response_mut(&mut self, id: u32) -> Option<&mut Response> {
        self.streams.get_mut(&id)?.response.as_mut()
    }

    pub(super) fn log(&mut self, level: Level, line: &[u8]) {
        let line = Line { context: self.context(), level, line: String::from_utf8_lossy(line).into_owned() };
        self.logs.push(line);
    }

    pub(super) fn logs_of(&self, wanted: impl Fn(&&Line) -> bool) -> Vec<(Level, String)> {
        self.logs.iter().filter(wanted).map(|entry| (entry.level, entry.line.clone())).collect()
    }

    pub(super) fn all_logs(&self) -> Vec<(Level, String)> {
        self.logs_of(|_| true)
    }

    /// A held body above the limit is answered 413 by the gateway itself.
    pub(super) fn refuse_large_body(&mut self, id: u32) -> bool {
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

    /// Returns a header map as the filter may read it now.
    pub(super) fn readable_map(&mut self, map: u32) -> Answer<Option<Pairs>> {
        match (self.world.host.headers, map) {
            (HeaderRules::Envoy, 0) => {
                let max = self.world.host.max_pairs;
                Ok(self.held_map(map).map(|pairs| pairs.iter().take(max).cloned().collect()))
            }
            (HeaderRules::Envoy, _) | (_, 2) => Ok(self.held_map(map).cloned()),
            (_, 0) => self.nginx_headers(),
            (HeaderRules::OpenResty, 6) if self.call_response.is_none() => Err(NOT_FOUND),
            (_, 6) => Ok(self.held_map(map).cloned()),
            (HeaderRules::NgxWasm, _) => Err(trap("there is no such map")),
            _ => Err(UNIMPLEMENTED),
        }
    }

    fn held_map(&mut self, map: u32) -> Option<&Pairs> {
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

    /// Returns a header map as the filter may change it now: not after its release.
    pub(super) fn writable_map(&mut self, map: u32) -> Option<&mut Pairs> {
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

    pub(super) fn buffer(&mut self, kind: u32) -> Option<Vec<u8>> {
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

    pub(super) fn writable_buffer(&mut self, kind: u32) -> Option<&mut Vec<u8>> {
        let stream = self.stream()?;
        match kind {
            0 => Some(&mut stream.body),
            1 => stream.response.as_mut().map(|response| &mut response.body),
            _ => None,
        }
    }

    pub(super) fn property(&mut self, path: &str) -> Answer<Vec<u8>> {
        match self.world.host.properties {
            PropertyRules::NgxWasm => return self.ngx_wasm_property(path),
            PropertyRules::Variables => return self.nginx_variable(path),
            PropertyRules::Envoy => {}
        }
        let own = self.stream().and_then(|stream| stream.properties.get(path).cloned());
        own.or_else(|| self.world.properties.get(path).cloned()).ok_or(NOT_FOUND)
    }

    pub(super) fn set_property(&mut self, path: String, value: Vec<u8>) -> Answer {
        match self.world.host.properties {
            PropertyRules::NgxWasm => return self.set_ngx_wasm_property(&path, value),
            PropertyRules::Variables => return self.set_nginx_variable(&path, value),
            PropertyRules::Envoy => {}
        }
        self.stream().ok_or(NOT_FOUND)?.properties.insert(path, value);
        Ok(())
    }

    /// Checks that a key has a zone, on hosts with zones: named by the text before the first `/`, else the one for all.
    pub(super) fn check_zone(&self, key: &[u8]) -> Answer {
        let zones = &self.world.zones;
        let prefix = key.split(|byte| *byte == b'/').next().unwrap_or_default();
        let is_zone = zones.iter().any(|zone| zone.as_bytes() == prefix) || zones.contains("*");
        match self.world.host.shared_data {
            SharedDataRules::Zones if !is_zone => Err(trap("could not resolve namespace")),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Metrics by kind and name. Each definition gets an id of its own, unless the host gives one per name.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) defined: Vec<(MetricKind, String)>,
    pub(super) values: BTreeMap<(MetricKind, String), u64>,
}

impl Metrics {
    pub(super) fn define(&mut self, kind: MetricKind, name: String, is_once: bool) -> u32 {
        self.values.entry((kind, name.clone())).or_default();
        if is_once && let Some(at) = self.defined.iter().position(|(_, known)| *known == name) {
            return at as u32 + 1;
        }
        self.defined.push((kind, name));
        self.defined.len() as u32
    }

    pub(super) fn find(&mut self, id: u32) -> Option<(MetricKind, &mut u64)> {
        let key = self.defined.get((id as usize).checked_sub(1)?)?;
        self.values.get_mut(key).map(|value| (key.0, value))
    }

    pub(super) fn of_kind(&self, kind: MetricKind) -> BTreeMap<String, u64> {
        let wanted = self.values.iter().filter(|((of, _), _)| *of == kind);
        wanted.map(|((_, name), value)| (name.clone(), *value)).collect()
    }
}

pub(super) type Guest<'a> = wasmtime::Caller<'a, Host>;
pub(super) type Answer<T = ()> = Result<T, Refusal>;

/// Callback of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callback {
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseBody,
    CallResponse,
    Configure,
    Tick,
    Log,
    Other,
}

impl Callback {
    pub(super) fn named(name: &str) -> Callback {
        match name {
            "proxy_on_request_headers" => Self::RequestHeaders,
            "proxy_on_request_body" => Self::RequestBody,
            "proxy_on_response_headers" => Self::ResponseHeaders,
            "proxy_on_response_body" => Self::ResponseBody,
            "proxy_on_http_call_response" => Self::CallResponse,
            "proxy_on_configure" => Self::Configure,
            "proxy_on_tick" => Self::Tick,
            "proxy_on_log" => Self::Log,
            _ => Self::Other,
        }
    }
}

/// Error of a host call.
pub(super) enum Refusal {
    Status(u32),
    Trap(wasmtime::Error),
}

pub(super) const NOT_FOUND: Refusal = Refusal::Status(status::NOT_FOUND);
pub(super) const BAD_ARGUMENT: Refusal = Refusal::Status(status::BAD_ARGUMENT);
pub(super) const UNIMPLEMENTED: Refusal = Refusal::Status(status::UNIMPLEMENTED);
pub(super) const INTERNAL_FAILURE: Refusal = Refusal::Status(status::INTERNAL_FAILURE);
pub(super) const OUT_OF_BOUNDS: Refusal = Refusal::Status(status::INVALID_MEMORY_ACCESS);

/// Ends the callback, and on some hosts the instance.
pub(super) fn trap(why: &str) -> Refusal {
    Refusal::Trap(wasmtime::Error::msg(format!("trap by the host: {why}")))
}

/// Counts a host call, and lets it fail if a test requires it.
pub(super) fn enter(
    mut guest: Guest<'_>,
    name: &'static str,
    run: impl FnOnce(&mut Guest<'_>) -> Answer,
) -> wasmtime::Result<i32> {
    let host = guest.data_mut();
    *host.calls.entry(name).or_default() += 1;
    if let Some(status) = host.world.faults.get(name) {
        return Ok(*status);
    }
    let rules = host.world.host;
    match rules.unimplemented_is {
        _ if !rules.unimplemented.contains(&name) => {}
        Unimplemented::Status => return Ok(status::UNIMPLEMENTED as i32),
        Unimplemented::Trap => {
            return Err(wasmtime::Error::msg(format!("trap by the host: {name} is not there")));
        }
    }
    match run(&mut guest) {
        Ok(()) => Ok(0),
        Err(Refusal::Status(status)) => Ok(status as i32),
        Err(Refusal::Trap(error)) => Err(error),
    }
}

pub(super) fn memory(guest: &mut Guest) -> Answer<wasmtime::Memory> {
    guest.get_export("memory").and_then(Extern::into_memory).ok_or(OUT_OF_BOUNDS)
}

pub(super) fn read(guest: &mut Guest, data: u32, size: u32) -> Answer<Vec<u8>> {
    let memory = memory(guest)?;
    let (start, size) = (data as usize, size as usize);
    let bytes = memory.data(&*guest).get(start..start.saturating_add(size));
    bytes.map(<[u8]>::to_vec).ok_or(OUT_OF_BOUNDS)
}

pub(super) fn read_text(guest: &mut Guest, data: u32, size: u32) -> Answer<String> {
    String::from_utf8(read(guest, data, size)?).map_err(|_| BAD_ARGUMENT)
}

pub(super) fn write(guest: &mut Guest, at: u32, bytes: &[u8]) -> Answer {
    memory(guest)?.write(guest, at as usize, bytes).map_err(|_| OUT_OF_BOUNDS)
}

pub(super) fn write_u32(guest: &mut Guest, at: u32, value: u32) -> Answer {
    write(guest, at, &value.to_le_bytes())
}

pub(super) fn write_u64(guest: &mut Guest, at: u32, value: u64) -> Answer {
    write(guest, at, &value.to_le_bytes())
}

/// Copies bytes into memory allocated by the guest. Empty bytes are a null pointer.
pub(super) fn give(guest: &mut Guest, bytes: &[u8], data_out: u32, size_out: u32) -> Answer {
    let data = if bytes.is_empty() { 0 } else { allocate(guest, bytes.len() as u32)? };
    write(guest, data, bytes)?;
    write_u32(guest, data_out, data)?;
    write_u32(guest, size_out, bytes.len() as u32)
}

pub(super) fn allocate(guest: &mut Guest, size: u32) -> Answer<u32> {
    let names = ["proxy_on_memory_allocate", "malloc"];
    let export = names.into_iter().find_map(|name| guest.get_export(name)).and_then(Extern::into_func);
    let allocator = export.ok_or(OUT_OF_BOUNDS)?.typed::<u32, u32>(&*guest).map_err(Refusal::Trap)?;
    allocator.call(guest, size).map_err(Refusal::Trap)
}

pub(super) fn encode_pairs(pairs: &Pairs) -> Vec<u8> {
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

pub(super) fn decode_pairs(mut bytes: &[u8]) -> Option<Pairs> {
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

pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*head))
}

/// A part of a serialised map, with the NUL that ends it.
pub(super) fn take_part(bytes: &mut &[u8], size: u32) -> Option<Vec<u8>> {
    let (part, rest) = bytes.split_at_checked(size as usize)?;
    *bytes = rest.strip_prefix(b"\0")?;
    Some(part.to_vec())
}

pub(super) fn read_pairs(guest: &mut Guest, data: u32, size: u32) -> Answer<Pairs> {
    decode_pairs(&read(guest, data, size)?).ok_or(Refusal::Status(status::PARSE_FAILURE))
}
