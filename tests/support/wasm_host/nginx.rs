//! The hosts in nginx: a request goes through phases, its body is read whole before it is shown, and nothing is sent to
//! the upstream before the last phase. Differences between the two hosts are in the table of [`host_rules`].

use super::*;

/// State that nginx keeps of a request besides its headers.
pub(super) struct Nginx {
    pub(super) method: Vec<u8>,
    /// Path and query as they were sent: `$request_uri`.
    path: Vec<u8>,
    scheme: Vec<u8>,
    protocol: &'static str,
    /// `$args`; `None`: there is no query.
    args: Option<Vec<u8>>,
    are_args_new: bool,
    /// `r->uri`, where the filter set it.
    uri: Option<Vec<u8>>,
    variables: BTreeMap<String, Vec<u8>>,
    /// Headers that the filter removed, as the client sent them.
    removed: Pairs,
    /// The connection served another request before.
    is_later: bool,
    step: Step,
    /// The request waits for the answer to a call.
    waits: bool,
    /// The request waits without an event that could wake it.
    hangs: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Headers,
    Body,
    Proxy,
    Done,
}

/// A change of one header.
pub(super) enum Change {
    Add(Vec<u8>),
    Replace(Vec<u8>),
    Remove,
}

/// Above this `ngx_proxy_wasm_pairs_marshal` writes more than `pairs_size` counted, past what the module allocated.
const MAX_SAFE_HEADERS: usize = 95;

/// Authority of the gateway: `server_name:port`, never the client's `host`.
const SERVER: &[u8] = b"localhost:8000";

impl Nginx {
    pub(super) fn new(request: &Request, world: &World) -> Nginx {
        let pseudo = |name: &str| first(&request.headers, name).unwrap_or_default().to_vec();
        let path = pseudo(":path");
        let args = query(&path).map(<[u8]>::to_vec);
        let mut variables = world.variables.clone();
        if world.host.properties == PropertyRules::NgxWasm {
            // Kong computes it in its access phase, before the filter.
            variables.entry("upstream_uri".to_owned()).and_modify(|value| value.clone_from(&path));
        }
        Nginx {
            method: pseudo(":method"),
            scheme: pseudo(":scheme"),
            protocol: request.protocol,
            path,
            args,
            are_args_new: false,
            uri: None,
            variables,
            removed: Pairs::new(),
            is_later: request.is_later,
            step: Step::Headers,
            waits: false,
            hangs: false,
        }
    }

    /// Path and query as `proxy_pass` sends them.
    fn target(&self, rules: &HostRules) -> Vec<u8> {
        let changed = self.variables.get("upstream_uri").filter(|uri| !uri.is_empty());
        let is_changed = self.are_args_new || (self.uri.is_some() && rules.headers == HeaderRules::OpenResty);
        match (changed, is_changed) {
            (Some(uri), _) => uri.clone(),
            // `proxy_pass` without a URI sends r->unparsed_uri. Kong's does not follow `:path`.
            (None, false) => self.path.clone(),
            // ngx_http_variable_set_args, as setting `:path`, ends that (r->valid_unparsed_uri): it is built from r->uri,
            // escaped, and r->args.
            (None, true) => {
                let uri = escape(&self.uri.clone().unwrap_or_else(|| decoded(&self.path)));
                match self.args.as_deref().unwrap_or_default() {
                    b"" => uri,
                    args => [&uri, b"?".as_slice(), args].concat(),
                }
            }
        }
    }
}

/// Returns the outcome of a request that nginx ends before any filter sees it.
pub(super) fn refusal(request: &Request, rules: &HostRules) -> Option<Outcome> {
    if !rules.refuses_as_nginx {
        return None;
    }
    if request.protocol.starts_with("HTTP/2") && request.trailers.is_some() {
        return Some(Outcome { reset: true, ..Outcome::default() });
    }
    let authorizations = request.headers.iter().filter(|pair| is_called(b"authorization")(pair)).count();
    (authorizations > 1).then(|| Outcome { failed: Some(400), ..Outcome::default() })
}

fn query(path: &[u8]) -> Option<&[u8]> {
    let at = path.iter().position(|byte| *byte == b'?')?;
    path.get(at + 1..)
}

/// Escapes as `ngx_escape_uri(NGX_ESCAPE_URI)` does, as far as needed here.
fn escape(uri: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| match byte {
        b'%' | b'?' | b'#' | b' ' | 0..=0x1f | 0x7f.. => format!("%{byte:02X}").into_bytes(),
        byte => vec![*byte],
    };
    uri.iter().flat_map(escaped).collect()
}

/// Returns `r->uri`: decoded, without empty segments.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut rest = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let mut out: Vec<u8> = Vec::new();
    while let Some((byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, tail) = match (byte, hex) {
            (b'%', Some(byte)) => (byte, tail.get(2..).unwrap_or_default()),
            (byte, _) => (*byte, tail),
        };
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
        rest = tail;
    }
    out
}

/// The headers as nginx keeps them: no pseudo-headers, and always a `host`.
pub(super) fn real_headers(sent: &Pairs, rules: &HostRules) -> Pairs {
    let mut headers: Pairs = sent.iter().filter(|(name, _)| !name.starts_with(b":")).cloned().collect();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"host")) {
        let host = first(sent, ":authority").unwrap_or_default().to_vec();
        headers.insert(0, (b"Host".to_vec(), host));
    }
    if rules.headers == HeaderRules::OpenResty {
        headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
    }
    headers
}

// -------------------------------------------------------------------------------------------------
// Phases
// -------------------------------------------------------------------------------------------------

impl Vm {
    /// Takes a request through its phases until it waits or ends.
    pub(super) fn advance(&mut self, id: u32) {
        while let Some(step) = self.next_step(id) {
            match step {
                Step::Headers => self.headers_step(id),
                Step::Body => self.body_step(id),
                Step::Proxy | Step::Done => self.proxy(id),
            }
        }
    }

    fn next_step(&mut self, id: u32) -> Option<Step> {
        let stream = self.store.data_mut().streams.get_mut(&id)?;
        while let Some(frame) = stream.backlog.pop_front() {
            stream.ended |= frame.ends();
            if let Frame::Body { bytes, .. } = frame {
                stream.body.extend(bytes);
            }
        }
        let (is_over, has_ended) = (stream.over(), stream.ended);
        let nginx = stream.nginx.as_ref()?;
        let waits = is_over || nginx.waits || nginx.hangs || nginx.step == Step::Done;
        let awaits_body = nginx.step == Step::Body && !has_ended;
        (!waits && !awaits_body).then_some(nginx.step)
    }

    fn set_step(&mut self, id: u32, step: Step) {
        let stream = self.store.data_mut().streams.get_mut(&id);
        if let Some(nginx) = stream.and_then(|stream| stream.nginx.as_mut()) {
            nginx.step = step;
        }
    }

    fn headers_step(&mut self, id: u32) {
        self.set_step(id, Step::Body);
        let host = self.store.data();
        let rules = host.world.host;
        let count = host.streams.get(&id).map_or(0, |stream| stream.headers.len() as u32);
        let count = if rules.header_count == HeaderCount::Zero { 0 } else { count };
        let end = u32::from(rules.end_of_stream == EndOfStream::AlwaysTrue);
        let action = self.call::<_, u32>(id, "proxy_on_request_headers", (id, count, end));
        self.after(id, action.unwrap_or(0));
    }

    fn body_step(&mut self, id: u32) {
        self.set_step(id, Step::Proxy);
        let host = self.store.data_mut();
        let rules = host.world.host;
        if host.refuse_large_body(id) {
            return self.settle();
        }
        let Some(stream) = host.streams.get(&id) else { return };
        let asked = stream.nginx.as_ref().and_then(|nginx| nginx.variables.get("wasm_process_req_body"));
        let shows = match rules.body {
            BodyCallback::WholeIfRequested => asked.is_some_and(|value| !value.is_empty()),
            _ => !stream.body.is_empty(),
        };
        if !shows {
            return;
        }
        let is_h2 = stream.nginx.as_ref().is_some_and(|nginx| nginx.protocol.starts_with("HTTP/2"));
        if rules.reads_h2_by_length && is_h2 && first(&stream.headers, "content-length").is_none() {
            if let Some(stream) = host.streams.get_mut(&id) {
                stream.failed = Some(503);
            }
            return;
        }
        if !stream.body.is_empty() {
            host.stale_body.clone_from(&stream.body);
        }
        let size = stream.body.len() as u32;
        let action = self.call::<_, u32>(id, "proxy_on_request_body", (id, size, 1));
        self.after(id, action.unwrap_or(0));
    }

    /// Applies the action that a callback returned.
    fn after(&mut self, id: u32, action: u32) {
        let host = self.store.data_mut();
        let rules = host.world.host;
        let awaits = host.http_calls.values().any(|call| call.stream == Some(id));
        if awaits && rules.calls.beats_reply {
            host.deferred.retain(|deferred| !deferred.is_of(id));
        }
        self.settle();
        let Some(stream) = self.store.data_mut().streams.get_mut(&id).filter(|stream| !stream.over()) else {
            return;
        };
        let pauses = action != 0;
        let Some(nginx) = &mut stream.nginx else { return };
        let holds = rules.calls.holds_later_requests || !nginx.is_later;
        if awaits && (pauses || rules.calls.beats_continue) {
            nginx.waits = holds;
        } else if pauses && rules.lone_pause == LonePause::Crashes {
            self.fail_stream(id, "Pause without a call: the worker crashes");
        } else {
            nginx.hangs = pauses;
        }
    }

    pub(super) fn go_on_after_call(&mut self, id: u32) {
        let host = self.store.data_mut();
        let awaits = host.http_calls.values().any(|call| call.stream == Some(id));
        let stream = host.streams.get_mut(&id).filter(|stream| !awaits && !stream.over());
        if let Some(nginx) = stream.and_then(|stream| stream.nginx.as_mut()) {
            nginx.waits = false;
            self.advance(id);
        }
    }

    /// Implements `proxy_continue_stream`: only a hanging request is woken.
    pub(super) fn wake(&mut self, id: u32) {
        let host = self.store.data_mut();
        let may = host.world.host.lone_pause == LonePause::Hangs;
        if let Some(nginx) = host.streams.get_mut(&id).and_then(|stream| stream.nginx.as_mut()) {
            nginx.hangs &= !may;
            self.advance(id);
        }
    }

    fn proxy(&mut self, id: u32) {
        self.set_step(id, Step::Done);
        let host = self.store.data_mut();
        let rules = host.world.host;
        let Some(stream) = host.streams.get_mut(&id) else { return };
        let Some(nginx) = &stream.nginx else { return };
        let mut headers = pairs([(":method", nginx.method.clone()), (":path", nginx.target(rules))]);
        if rules.sends_removed_headers {
            headers.extend(pairs(nginx.removed.clone()));
        }
        headers.extend(pairs(stream.headers.clone()));
        let body = stream.body.clone();
        stream.upstream = Some(Upstream { headers, body, trailers: None, complete: true });
    }
}

// -------------------------------------------------------------------------------------------------
// Headers
// -------------------------------------------------------------------------------------------------

impl Host {
    /// The request's headers as `proxy_get_header_map_pairs` shows them.
    pub(super) fn nginx_headers(&mut self) -> Answer<Option<Pairs>> {
        let HostRules { headers: rules, max_pairs, .. } = *self.world.host;
        let Some(stream) = self.stream() else { return Ok(None) };
        let Some(nginx) = &stream.nginx else { return Ok(None) };
        let (path, method, scheme) = (nginx.path.clone(), nginx.method.clone(), nginx.scheme.clone());
        if rules == HeaderRules::OpenResty {
            let pseudo = pairs([(":scheme", scheme), (":path", path), (":method", method)]);
            let shown = stream.headers.iter().take(max_pairs - pseudo.len()).cloned();
            return Ok(Some(shown.chain(pseudo).collect()));
        }
        if stream.headers.len() > MAX_SAFE_HEADERS {
            return Err(trap("so many headers are written past what the module allocated"));
        }
        let args = nginx.args.as_ref().map(|args| [b"?", args.as_slice()].concat()).unwrap_or_default();
        let path = [nginx.uri.clone().unwrap_or_else(|| decoded(&path)), args].concat();
        let server = SERVER.to_vec();
        let mut shown =
            pairs([(":path", path), (":method", method), (":scheme", scheme), (":authority", server)]);
        shown.extend(stream.headers.clone());
        shown.truncate(max_pairs);
        Ok(Some(shown))
    }

    /// Changes one of the request's headers.
    pub(super) fn change_nginx_header(&mut self, name: &[u8], change: Change) -> Answer {
        let (callback, rules) = (self.callback, self.world.host.headers);
        let stream = self.stream().ok_or(BAD_ARGUMENT)?;
        let in_time =
            matches!(callback, Callback::RequestHeaders | Callback::RequestBody | Callback::CallResponse)
                && stream.response.is_none();
        match rules {
            HeaderRules::NgxWasm if !in_time => {
                Err(trap("can only set request headers before response is produced"))
            }
            HeaderRules::NgxWasm => stream.change_ngx_wasm(name, change),
            _ => stream.change_open_resty(name, change),
        }
    }
}

impl StreamState {
    fn change_ngx_wasm(&mut self, name: &[u8], change: Change) -> Answer {
        let Some(nginx) = &mut self.nginx else { return Err(BAD_ARGUMENT) };
        match (name, change) {
            (b":path" | b":method", Change::Remove) => Err(trap("a pseudo-header is set to NULL")),
            (b":path", Change::Add(value) | Change::Replace(value)) if value.contains(&b'?') => {
                Err(trap("NYI - cannot set request path with querystring"))
            }
            (b":path", Change::Add(value) | Change::Replace(value)) => {
                nginx.uri = Some(value);
                Ok(())
            }
            (b":method", Change::Add(value) | Change::Replace(value)) => {
                nginx.method = value;
                Ok(())
            }
            // Read-only: logged, and OK.
            (b":scheme" | b":authority", _) => Ok(()),
            (name, change) => {
                change_ngx_wasm(&mut self.headers, &mut nginx.removed, name, change);
                Ok(())
            }
        }
    }

    fn change_open_resty(&mut self, name: &[u8], change: Change) -> Answer {
        let Some(nginx) = &mut self.nginx else { return Err(BAD_ARGUMENT) };
        let is_bad = |byte: &u8| matches!(byte, 0..=8 | 10..=31 | 127);
        match (name, change) {
            (b":path" | b":method", Change::Remove) => return Err(BAD_ARGUMENT),
            (b":path", Change::Add(value) | Change::Replace(value)) => {
                if value.iter().any(is_bad) {
                    return Err(BAD_ARGUMENT);
                }
                nginx.uri = Some(value);
            }
            (b":method", Change::Add(value) | Change::Replace(value)) => {
                if !value.iter().all(u8::is_ascii_alphabetic) {
                    return Err(BAD_ARGUMENT);
                }
                nginx.method = value;
            }
            (name, Change::Add(value)) => self.headers.push((name.to_vec(), value)),
            (name, change) => {
                self.headers.retain(|(other, _)| other != name);
                // An empty value is a removal.
                if let Change::Replace(value) = change
                    && !value.is_empty()
                {
                    self.headers.push((name.to_vec(), value));
                }
            }
        }
        Ok(())
    }
}

fn is_called(name: &[u8]) -> impl Fn(&(Vec<u8>, Vec<u8>)) -> bool + '_ {
    move |(other, _)| other.eq_ignore_ascii_case(name)
}

/// `ngx_http_wasm_headers.c`: a removal only hides headers from the filter, and a replacement changes the first of several.
fn change_ngx_wasm(headers: &mut Pairs, removed: &mut Pairs, name: &[u8], change: Change) {
    match (change, headers.iter().position(is_called(name))) {
        (Change::Remove, _) => removed.extend(headers.extract_if(.., |pair| is_called(name)(pair))),
        (Change::Replace(value), Some(at)) => headers[at].1 = value,
        (Change::Add(value) | Change::Replace(value), _) => headers.push((name.to_vec(), value)),
    }
}

// -------------------------------------------------------------------------------------------------
// Properties, buffers, replies, calls
// -------------------------------------------------------------------------------------------------

impl Host {
    /// Reads a property; see `ngx_proxy_wasm_properties.c`.
    pub(super) fn ngx_wasm_property(&mut self, path: &str) -> Answer<Vec<u8>> {
        let constant = self.world.properties.get(path).cloned();
        let Some(stream) = self.stream() else { return Err(outside_a_request(path)) };
        let Some(nginx) = &stream.nginx else { return Err(NOT_FOUND) };
        match path {
            "request\0path" | "ngx\0request_uri" => Ok(nginx.path.clone()),
            "request\0url_path" => Ok(decoded(&nginx.path)),
            "ngx\0connection_requests" => Ok(if nginx.is_later { b"2".to_vec() } else { b"1".to_vec() }),
            "request\0protocol" => Ok(nginx.protocol.into()),
            "request\0method" => Ok(nginx.method.clone()),
            "request\0scheme" => Ok(nginx.scheme.clone()),
            // $hostname: the machine's name.
            "request\0host" => Ok(b"machine".to_vec()),
            "request\0query" | "ngx\0args" => nginx.args.clone().ok_or(NOT_FOUND),
            path if path.starts_with("kong\0ctx\0shared\0") => {
                stream.properties.get(path).cloned().ok_or(NOT_FOUND)
            }
            path => {
                let variable = path.strip_prefix("ngx\0").and_then(|name| nginx.variables.get(name).cloned());
                variable.or(constant).ok_or(NOT_FOUND)
            }
        }
    }

    pub(super) fn set_ngx_wasm_property(&mut self, path: &str, value: Vec<u8>) -> Answer {
        if path.starts_with("kong\0") && !self.world.host.has_kong_properties {
            return Err(NOT_FOUND);
        }
        let Some(stream) = self.stream() else { return Err(outside_a_request(path)) };
        let Some(nginx) = &mut stream.nginx else { return Err(NOT_FOUND) };
        match path {
            "request\0query" | "ngx\0args" => {
                (nginx.args, nginx.are_args_new) = (Some(value), true);
                Ok(())
            }
            path if path.starts_with("kong\0ctx\0shared\0") => {
                stream.properties.insert(path.to_owned(), value);
                Ok(())
            }
            // Not changeable.
            path if path.starts_with("request\0") || path.starts_with("source\0") => Err(INTERNAL_FAILURE),
            path => {
                let variable = path.strip_prefix("ngx\0").and_then(|name| nginx.variables.get_mut(name));
                *variable.ok_or(NOT_FOUND)? = value;
                Ok(())
            }
        }
    }

    /// Reads an nginx variable; see `ngx_http_wasm_api.c`.
    pub(super) fn nginx_variable(&mut self, name: &str) -> Answer<Vec<u8>> {
        let constant = self.world.properties.get(name).cloned();
        let nginx = self.stream().ok_or(BAD_ARGUMENT)?.nginx.as_ref().ok_or(BAD_ARGUMENT)?;
        match name {
            "args" => nginx.args.clone().ok_or(NOT_FOUND),
            "request_uri" => Ok(nginx.path.clone()),
            "uri" => Ok(decoded(&nginx.path)),
            "request_method" => Ok(nginx.method.clone()),
            "server_protocol" => Ok(nginx.protocol.into()),
            name => nginx.variables.get(name).cloned().or(constant).ok_or(NOT_FOUND),
        }
    }

    pub(super) fn set_nginx_variable(&mut self, name: &str, value: Vec<u8>) -> Answer {
        let is_constant = self.world.properties.contains_key(name);
        let stream = self.stream().ok_or(BAD_ARGUMENT)?;
        let nginx = stream.nginx.as_mut().ok_or(BAD_ARGUMENT)?;
        match name {
            "args" => (nginx.args, nginx.are_args_new) = (Some(value), true),
            "request_uri" | "uri" | "request_method" | "server_protocol" => return Err(INTERNAL_FAILURE),
            _ if is_constant => return Err(INTERNAL_FAILURE),
            name => {
                *nginx.variables.get_mut(name).ok_or(NOT_FOUND)? = value.clone();
                stream.properties.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    /// Returns a buffer as hosts in nginx do; `None`: OK, and nothing is written.
    pub(super) fn nginx_buffer(&mut self, kind: u32, start: u32, length: u32) -> Answer<Option<Vec<u8>>> {
        let (start, length) = (start as usize, length as usize);
        match self.world.host.headers {
            HeaderRules::NgxWasm => self.ngx_wasm_buffer(kind, length),
            _ if kind == 7 => self.buffer(kind).ok_or(NOT_FOUND).map(Some),
            _ if kind > 4 => Err(UNIMPLEMENTED),
            _ => {
                // A body callback without a body leaves the previous body in its place.
                let bytes = if kind == 0 { Some(self.stale_body.clone()) } else { self.buffer(kind) };
                let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(NOT_FOUND)?;
                let is_size = |number: usize| i32::try_from(number).is_ok();
                if !is_size(start) || length == 0 || !is_size(length) || !is_size(start + length) {
                    return Err(BAD_ARGUMENT);
                }
                let rest = bytes.get(start..).filter(|rest| !rest.is_empty()).ok_or(BAD_ARGUMENT)?;
                Ok(Some(rest.iter().take(length).copied().collect()))
            }
        }
    }

    /// Reads a buffer; `start` is ignored.
    fn ngx_wasm_buffer(&mut self, kind: u32, length: usize) -> Answer<Option<Vec<u8>>> {
        let (callback, in_memory) = (self.callback, self.world.memory_limit);
        let mut bytes = self.buffer(kind).ok_or(NOT_FOUND)?;
        if kind == 0 {
            match callback {
                Callback::RequestBody | Callback::Log => {}
                Callback::RequestHeaders => return Err(NOT_FOUND),
                _ => return Err(trap("can only get request body during on_request_body")),
            }
            // "cannot read request body buffered to file".
            if bytes.len() > in_memory {
                return Err(NOT_FOUND);
            }
            if bytes.len() > length {
                return Err(trap("a body in several buffers is copied past what was asked for"));
            }
        }
        bytes.truncate(length);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Adapts a local reply to the host; `None`: it is not sent.
    pub(super) fn nginx_reply(&mut self, mut reply: Reply, grpc_status: i32) -> Answer<Option<Reply>> {
        let rules = self.world.host.replies;
        let (context, callback) = (self.context(), self.callback);
        let is_stashed =
            self.deferred.iter().any(|old| matches!(old, Deferred::Reply(id, _) if *id == context));
        let Some(stream) = self.stream() else {
            return match rules.from_root {
                FromRoot::BadArgument => Err(BAD_ARGUMENT),
                _ => Err(trap("a local reply without a request")),
            };
        };
        if rules.once {
            let in_time = !matches!(callback, Callback::Log | Callback::Other);
            if !in_time || is_stashed || stream.response.is_some() {
                return Err(trap("local response already stashed, or too late"));
            }
            if grpc_status != -1 {
                return Err(trap("grpc_status"));
            }
            if !(100..=999).contains(&reply.status) {
                return Err(BAD_ARGUMENT);
            }
        } else if reply.status < 100 {
            return Ok(None);
        }
        if rules.joins_headers {
            let all = std::mem::take(&mut reply.headers);
            for (name, value) in all {
                reply.headers.retain(|(other, _)| *other != name);
                reply.headers.push((name, value));
            }
        }
        if rules.has_error_page && reply.body.is_empty() && reply.status >= 300 {
            reply.body = format!("<html><title>{}</title></html>", reply.status).into_bytes();
            reply.headers.push((b"content-type".to_vec(), b"text/html".to_vec()));
        }
        if !reply.body.is_empty() {
            reply.body.extend_from_slice(rules.body_suffix);
        }
        self.deferred.retain(|old| !old.is_of(context));
        Ok(Some(reply))
    }

    /// Fails unless a call to this address may be made now.
    pub(super) fn check_nginx_call(&mut self, address: &str) -> Answer {
        let rules = self.world.host.calls;
        let (callback, context) = (self.callback, self.context());
        let is_request = self.streams.contains_key(&context);
        let may = match callback {
            Callback::RequestHeaders | Callback::RequestBody => true,
            Callback::CallResponse => true,
            Callback::Tick => rules.traps,
            _ => false,
        };
        let is_address = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-');
        if !may || (!is_request && !rules.traps) || address.is_empty() || !address.bytes().all(is_address) {
            return Err(if rules.traps { trap("bad step or host of a call") } else { BAD_ARGUMENT });
        }
        let under_way = self.http_calls.values().filter(|call| call.stream == Some(context)).count();
        if under_way >= rules.at_once { Err(INTERNAL_FAILURE) } else { Ok(()) }
    }
}

/// Returns the error for a property in a root context: scoped ones fail; a plugin's own name is looked up in an empty
/// list.
fn outside_a_request(path: &str) -> Refusal {
    match path {
        path if path.contains('\0') => INTERNAL_FAILURE,
        "plugin_name" | "plugin_root_id" => trap("pwctx->pwexecs is empty"),
        _ => NOT_FOUND,
    }
}
