//! Differences between hosts, as one table: three hosts, two of them in two arrangements.
//!
//! Nothing here is a real gateway. Each line names what is imitated and its source: the file and function of the host's
//! own code, or `[U]` where it was inferred. Where the source leaves two readings the worse one is imitated: a call that
//! may crash the real host traps here.
//!
//! * Envoy: proxy-wasm-cpp-host `src/context.cc`, `src/exports.cc`, `src/shared_data.cc`; Envoy
//!   `source/extensions/common/wasm/context.cc`, `source/extensions/filters/http/buffer/buffer_filter.cc`.
//! * Kong: ngx_wasm_module `src/common/proxy_wasm/` (`ngx_proxy_wasm*.c`), `src/http/proxy_wasm/`, `src/common/shm/`,
//!   `src/wasm/wasi/ngx_wasi_preview1_host.c`; Kong's `kong/runloop/wasm.lua`, `kong/runloop/wasm/properties.lua`.
//! * APISIX: wasm-nginx-module `src/http/ngx_http_wasm_api.c`, `src/http/ngx_http_wasm_module.c`,
//!   `lib/resty/proxy-wasm.lua`; APISIX's `apisix/wasm.lua`.

/// Rules of one host.
#[derive(Debug)]
pub struct HostRules {
    pub name: &'static str,
    /// Requests go through phases, and the whole body is read before the phase that judges it. Else frame by frame.
    pub has_phases: bool,
    /// Pause from the headers callback holds the headers while body callbacks run. Else it stops everything.
    pub holds_headers: bool,
    /// A buffer filter follows this one and holds the request until it is complete.
    pub buffer_filter: bool,
    pub end_of_stream: EndOfStream,
    pub header_count: HeaderCount,
    pub body: BodyCallback,
    /// Trailers are shown and forwarded.
    pub has_trailers: bool,
    pub lone_pause: LonePause,
    pub calls: CallRules,
    pub replies: ReplyRules,
    pub shared_data: SharedDataRules,
    /// Functions that can be imported; `None`: the whole ABI.
    pub registered: Option<&'static [&'static str]>,
    /// WASI functions that can be imported; `None`: all.
    pub wasi: Option<&'static [&'static str]>,
    /// Registered functions that do nothing.
    pub unimplemented: &'static [&'static str],
    pub unimplemented_is: Unimplemented,
    pub headers: HeaderRules,
    /// A header that the filter removes still goes to the upstream, before all others.
    pub sends_removed_headers: bool,
    /// The most pairs of a header map that are shown, pseudo-headers among them.
    pub max_pairs: usize,
    /// The host answers some requests itself, before any filter, as nginx does.
    pub refuses_as_nginx: bool,
    /// The properties of Kong exist: `kong.ctx.shared.…`.
    pub has_kong_properties: bool,
    /// A body over HTTP/2 without `content-length` cannot be read.
    pub reads_h2_by_length: bool,
    pub properties: PropertyRules,
    pub metrics: MetricRules,
    pub ticks: TickRules,
    /// `proxy_on_vm_start` is called.
    pub starts_vm: bool,
    pub crash: Crash,
    /// `proxy_set_effective_context` has an effect.
    pub sets_effective_context: bool,
    /// Random bytes are fit for secrets.
    pub has_strong_random: bool,
    /// Resolution of the clock, in nanoseconds.
    pub clock_step: u64,
    /// Callbacks at the end of a stream, in order.
    pub last_calls: &'static [&'static str],
    /// The response body is shown.
    pub shows_response_body: bool,
}

/// Value of `end_of_stream` in the headers callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfStream {
    Reported,
    AlwaysFalse,
    AlwaysTrue,
}

/// Number of headers in the headers callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderCount {
    All,
    /// Headers without the pseudo-headers.
    Real,
    Zero,
}

/// Time of the body callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCallback {
    EachChunk,
    /// Once with the whole body; never for an empty one.
    WholeUnlessEmpty,
    /// Once with the whole body, even an empty one, if the property `wasm_process_req_body` was set.
    WholeIfRequested,
}

/// Effect of Pause without a pending call or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LonePause {
    Holds,
    /// The request waits forever.
    Hangs,
    Crashes,
}

/// Rules of HTTP calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRules {
    /// The request resumes by itself after the last answer.
    pub resumes_automatically: bool,
    /// A call is awaited although the callback returned Continue.
    pub beats_continue: bool,
    /// A call wins over an answer made in the same callback.
    pub beats_reply: bool,
    /// Most calls of a request at a time.
    pub at_once: usize,
    /// A call that cannot be made traps.
    pub traps: bool,
    /// A call needs an `:authority`.
    pub needs_authority: bool,
    /// A request waits for its call whether or not its connection was used before.
    pub holds_later_requests: bool,
    /// Most bytes of a call, head and body; a longer one is never answered.
    pub most_bytes: usize,
}

/// Rules of local replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyRules {
    /// A second reply traps.
    pub once: bool,
    /// Effect of a reply from a root context.
    pub from_root: FromRoot,
    /// Bytes added to a body.
    pub body_suffix: &'static [u8],
    /// An empty body becomes an error page.
    pub has_error_page: bool,
    /// Headers with the same name are sent once.
    pub joins_headers: bool,
}

/// Effect of a local reply from a root context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromRoot {
    /// It is sent for the effective context.
    Sent,
    Traps,
    BadArgument,
}

/// Rules of data shared by workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedDataRules {
    /// One map. Any version creates a value; version 0 overwrites any.
    Process,
    /// Zones by prefix. Only version 0 creates a value, and it overwrites none. Keys are compared by CRC-32. A reload of
    /// the gateway makes them anew.
    Zones,
}

/// Effect of calling an unimplemented function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unimplemented {
    Trap,
    Status,
}

/// Rules of request headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderRules {
    /// Names are in lower case, and all headers follow the same rules.
    Envoy,
    NgxWasm,
    OpenResty,
}

/// Rules of properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyRules {
    /// Properties are paths; values that are set become filter state.
    Envoy,
    NgxWasm,
    /// Each property is an nginx variable.
    Variables,
}

/// Rules of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricRules {
    Counted,
    /// Metrics are counted and misuse traps.
    Strict,
    Ignored,
}

/// Rules of the tick period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickRules {
    Any,
    /// A second period traps, and so does one set outside a root context.
    Once,
}

/// Effect of a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The VM is dead for every request.
    Dead,
    /// This request fails with this status; a new instance has blank contexts for the other requests.
    NewInstance(u32),
    /// This request fails with this status; the instance keeps its state.
    Kept(u32),
}

/// Envoy with `allow_on_headers_stop_iteration: true`.
pub static ENVOY: HostRules = TABLE_ENVOY;

/// Envoy without that flag, and its buffer filter between this filter and the router.
pub static BUFFER: HostRules = HostRules {
    name: "envoy, held by its buffer filter",
    // convertVmCallResultToFilterHeadersStatus: StopIteration becomes StopAllIterationAndWatermark.
    holds_headers: false,
    // BufferFilter::decodeHeaders returns StopIteration unless the headers end the request.
    buffer_filter: true,
    ..TABLE_ENVOY
};

/// Envoy with the buffer filter missing or in front: the effect of a wrong order of filters.
pub static MISPLACED: HostRules = HostRules {
    name: "envoy, its buffer filter misplaced",
    buffer_filter: false,
    holds_headers: false,
    ..TABLE_ENVOY
};

/// Envoy, showing only the first headers of a request: no known host announces more than it shows.
pub static SHORT: HostRules = HostRules { name: "envoy, showing six headers", max_pairs: 6, ..TABLE_ENVOY };

const TABLE_ENVOY: HostRules = HostRules {
    name: "envoy",
    has_phases: false,
    // PluginConfig.allow_on_headers_stop_iteration, Envoy 1.35 and later.
    holds_headers: true,
    buffer_filter: false,
    end_of_stream: EndOfStream::Reported,
    header_count: HeaderCount::All,
    // Context::decodeData: the whole buffer so far, each time.
    body: BodyCallback::EachChunk,
    has_trailers: true,
    lone_pause: LonePause::Holds,
    // Context::httpCall: belongs to the root context, nothing resumes by itself.
    calls: CallRules {
        resumes_automatically: false,
        beats_continue: false,
        beats_reply: false,
        at_once: usize::MAX,
        traps: false,
        needs_authority: true,
        holds_later_requests: true,
        most_bytes: usize::MAX,
    },
    // Context::sendLocalResponse: deferred until the callback has returned.
    replies: ReplyRules {
        once: false,
        from_root: FromRoot::Sent,
        body_suffix: b"",
        has_error_page: false,
        joins_headers: false,
    },
    // SharedData::set.
    shared_data: SharedDataRules::Process,
    registered: None,
    wasi: None,
    unimplemented: &[],
    unimplemented_is: Unimplemented::Status,
    headers: HeaderRules::Envoy,
    sends_removed_headers: false,
    max_pairs: usize::MAX,
    refuses_as_nginx: false,
    has_kong_properties: false,
    reads_h2_by_length: false,
    properties: PropertyRules::Envoy,
    metrics: MetricRules::Counted,
    ticks: TickRules::Any,
    starts_vm: true,
    // FAIL_CLOSED.
    crash: Crash::Dead,
    sets_effective_context: true,
    has_strong_random: true,
    clock_step: 1,
    last_calls: &["proxy_on_log", "proxy_on_done", "proxy_on_delete"],
    shows_response_body: true,
};

/// Kong 3.9 with ngx_wasm_module.
pub static KONG: HostRules = TABLE_KONG;

const TABLE_KONG: HostRules = HostRules {
    name: "kong",
    // ngx_http_wasm_content reads the body before the original content handler (proxy_pass) runs.
    has_phases: true,
    holds_headers: true,
    buffer_filter: false,
    // The headers callback's end_of_stream is always 0.
    end_of_stream: EndOfStream::AlwaysFalse,
    // ngx_wasm_list_nelts(headers).
    header_count: HeaderCount::Real,
    // ngx_wasm_ops_on_request_body_handler: "received empty body" is no callback.
    body: BodyCallback::WholeUnlessEmpty,
    // No NGX_HTTP_PROXY_WASM step for request trailers; nginx sends none on.
    has_trailers: false,
    // action2rc: NGX_AGAIN, and no timer.
    lone_pause: LonePause::Hangs,
    // ngx_http_proxy_wasm_dispatch_resume_handler; run_step takes the returned Continue over the call's Pause;
    // dispatch: no :method, no :path, a bad host are NGX_ERROR, a trap.
    calls: CallRules {
        resumes_automatically: true,
        beats_continue: false,
        beats_reply: false,
        at_once: usize::MAX,
        traps: true,
        needs_authority: false,
        holds_later_requests: true,
        // ngx_wasm_module sends `Connection: close`; Webdis 0.1.9 answers only what comes in one read.
        most_bytes: 4_096,
    },
    // ngx_proxy_wasm_host.c, proxy_send_local_response: "local response already stashed"; in a root context rctx is NULL
    // [U: the worker ends]; the body's length is body_len + sizeof(LF); ngx_http_wasm_set_resp_header in mode SET.
    replies: ReplyRules {
        once: true,
        from_root: FromRoot::Traps,
        body_suffix: b"\n",
        has_error_page: false,
        joins_headers: true,
    },
    // ngx_proxy_wasm_host.c, get/set_shared_data; ngx_wa_shm_kv.c: cas != (n == NULL ? 0 : n->cas) is a mismatch.
    shared_data: SharedDataRules::Zones,
    // ngx_proxy_wasm_hfuncs[]. proxy_get_log_level has another arity there.
    registered: Some(KONG_FUNCTIONS),
    // ngx_wasi_preview1_host.c, the whole table.
    wasi: Some(KONG_WASI),
    // ngx_proxy_wasm_hfuncs_nop: NGX_WAVM_NYI, a trap.
    unimplemented: KONG_UNIMPLEMENTED,
    unimplemented_is: Unimplemented::Trap,
    // ngx_proxy_wasm_maps.c, ngx_http_wasm_headers_request.c.
    headers: HeaderRules::NgxWasm,
    // ngx_http_wasm_headers.c sets the hash of a removed header to 0; ngx_http_proxy_create_request sends every header of
    // the list and uses the hash only to look up names of `proxy_set_header`. Seen with 9136e463 in nginx 1.25.3.
    sends_removed_headers: true,
    // NGX_HTTP_WASM_MAX_REQ_HEADERS.
    max_pairs: 100,
    // ngx_http_request.c, ngx_http_headers_in: `authorization` is a unique header since 1.23; ngx_http_v2.c: trailers of
    // a request end the connection. Seen in nginx 1.25.3.
    refuses_as_nginx: true,
    // kong/runloop/wasm/properties.lua.
    has_kong_properties: true,
    reads_h2_by_length: false,
    // ngx_proxy_wasm_properties.c; kong/runloop/wasm/properties.lua.
    properties: PropertyRules::NgxWasm,
    // ngx_wa_metrics.c.
    metrics: MetricRules::Strict,
    // ngx_proxy_wasm_host.c, proxy_set_tick_period_milliseconds: "tick_period already set".
    ticks: TickRules::Once,
    starts_vm: true,
    // ngx_http_proxy_wasm_ecode; get_instance makes a new one, on_configure is called again, on_vm_start is not.
    crash: Crash::NewInstance(500),
    // ngx_proxy_wasm_host.c: proxy_set_effective_context is OK and does nothing.
    sets_effective_context: false,
    // ngx_wasi_preview1_host.c, random_get: ngx_random(), which is random().
    has_strong_random: false,
    // ngx_wasm_wall_time and ngx_wasm_monotonic_time: milliseconds.
    clock_step: 1_000_000,
    // ngx_proxy_wasm.c: the log phase calls proxy_on_done, then proxy_on_log; its end proxy_on_delete.
    last_calls: &["proxy_on_done", "proxy_on_log", "proxy_on_delete"],
    shows_response_body: true,
};

/// nginx with ngx_wasm_module and without Kong: the filter runs in the content phase.
pub static NGINX: HostRules = HostRules {
    name: "nginx",
    // After the first request of a connection the content phase goes on although the filter paused for its call. Seen with
    // 9136e463 in nginx 1.25.3: a token with one use passed two to four times.
    calls: CallRules { holds_later_requests: false, ..TABLE_KONG.calls },
    has_kong_properties: false,
    ..TABLE_KONG
};

/// APISIX with wasm-nginx-module.
pub static APISIX: HostRules = HostRules {
    name: "apisix",
    has_phases: true,
    holds_headers: true,
    buffer_filter: false,
    // proxy-wasm.lua, on_http_request: num_headers 0, end_of_stream 1.
    end_of_stream: EndOfStream::AlwaysTrue,
    header_count: HeaderCount::Zero,
    // apisix/wasm.lua, http_request_wrapper: ctx.var.wasm_process_req_body ~= "".
    body: BodyCallback::WholeIfRequested,
    has_trailers: false,
    // ngx_http_wasm_handle_rc_before_proxy: RC_NEED_HTTP_CALL without a callout [U: the worker crashes].
    lone_pause: LonePause::Crashes,
    // ngx_http_wasm_handle_rc_before_proxy looks at ctx->callout first; proxy_http_call: a second one is
    // PROXY_RESULT_INTERNAL_FAILURE; after the callback rc 0 goes on.
    calls: CallRules {
        resumes_automatically: true,
        beats_continue: true,
        beats_reply: true,
        at_once: 1,
        traps: false,
        needs_authority: false,
        holds_later_requests: true,
        most_bytes: usize::MAX,
    },
    // proxy_send_http_response; an empty body is no ngx.print, and ngx.exit makes nginx's page.
    replies: ReplyRules {
        once: false,
        from_root: FromRoot::BadArgument,
        body_suffix: b"",
        has_error_page: true,
        joins_headers: false,
    },
    // Never reached: the functions are missing.
    shared_data: SharedDataRules::Process,
    // host_apis[]. proxy_get_log_level is not in it; proxy_get_metric is, with another type.
    registered: Some(APISIX_FUNCTIONS),
    // wasmtime's own WASI.
    wasi: None,
    // PROXY_RESULT_UNIMPLEMENTED in ngx_http_wasm_api.c.
    unimplemented: APISIX_UNIMPLEMENTED,
    unimplemented_is: Unimplemented::Status,
    // ngx_http_wasm_api.c, proxy_get_header_map_pairs and ngx_http_wasm_set_req_header.
    headers: HeaderRules::OpenResty,
    sends_removed_headers: false,
    // ngx_http_wasm_api.c asks lua-nginx-module for at most 100. Seen with 0b4b31d in OpenResty 1.25.3.
    max_pairs: 100,
    // As for Kong.
    refuses_as_nginx: true,
    has_kong_properties: false,
    // lua-nginx-module, ngx_http_lua_req_body.c: "http2 requests are not supported without content-length header".
    reads_h2_by_length: true,
    // ngx_http_wasm_api.c, proxy_get_property, proxy_set_property.
    properties: PropertyRules::Variables,
    // proxy_define_metric and the others return OK and write nothing.
    metrics: MetricRules::Ignored,
    ticks: TickRules::Any,
    // apisix/wasm.lua: a plugin's context is made and configured at its first request; no proxy_on_vm_start.
    starts_vm: false,
    // ngx_http_wasm_handle_rc_before_proxy: rc < 0, Lua answers 503; the instance is the plugin's for its life.
    crash: Crash::Kept(503),
    sets_effective_context: false,
    has_strong_random: true,
    clock_step: 1,
    // The pool's clean-up: proxy_on_done, proxy_on_delete; proxy_on_log is never called.
    last_calls: &["proxy_on_done", "proxy_on_delete"],
    // apisix/wasm.lua: only with wasm_process_resp_body.
    shows_response_body: false,
};

const KONG_FUNCTIONS: &[&str] = &[
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_clear_route_cache",
    "proxy_close_stream",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_buffer_bytes",
    "proxy_get_configuration",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_get_metric",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_register_shared_queue",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_resolve_shared_queue",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

const KONG_WASI: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "path_open",
    "proc_exit",
    "random_get",
];

const KONG_UNIMPLEMENTED: &[&str] = &[
    "proxy_call_foreign_function",
    "proxy_clear_route_cache",
    "proxy_close_stream",
    "proxy_done",
    "proxy_get_log_level",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_resolve_shared_queue",
];

const APISIX_FUNCTIONS: &[&str] = &[
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_clear_route_cache",
    "proxy_close_stream",
    "proxy_continue_request",
    "proxy_continue_response",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_buffer_bytes",
    "proxy_get_configuration",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_register_shared_queue",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_resolve_shared_queue",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

const APISIX_UNIMPLEMENTED: &[&str] = &[
    "proxy_call_foreign_function",
    "proxy_clear_route_cache",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_set_buffer_bytes",
    "proxy_set_header_map_pairs",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

impl HostRules {
    /// Fails unless the host links a module with these imports, each `module.name`.
    pub fn links(&self, imports: &[String]) -> Result<(), String> {
        for import in imports {
            let known = match import.split_once('.') {
                Some(("env", name)) => self.registered.is_none_or(|known| known.contains(&name)),
                Some((_, name)) => self.wasi.is_none_or(|known| known.contains(&name)),
                None => true,
            };
            if !known {
                return Err(format!("{}: no function is registered as `{import}`", self.name));
            }
        }
        Ok(())
    }
}
