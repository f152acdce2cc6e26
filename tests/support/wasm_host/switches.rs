//! What differs between hosts, as one table: three hosts, one of them in two arrangements.
//!
//! Nothing here is a real gateway. Each line says what is imitated and where it was read: the file and function of the
//! host's own source, or `[U]` where it was inferred. What a line cannot know is made the worse of two: a call that may
//! crash the real host traps here.
//!
//! * Envoy: proxy-wasm-cpp-host `src/context.cc`, `src/exports.cc`, `src/shared_data.cc`; Envoy
//!   `source/extensions/common/wasm/context.cc`, `source/extensions/filters/http/buffer/buffer_filter.cc`.
//! * Kong: ngx_wasm_module `src/common/proxy_wasm/` (`ngx_proxy_wasm*.c`), `src/http/proxy_wasm/`, `src/common/shm/`,
//!   `src/wasm/wasi/ngx_wasi_preview1_host.c`; Kong's `kong/runloop/wasm.lua`, `kong/runloop/wasm/properties.lua`.
//! * APISIX: wasm-nginx-module `src/http/ngx_http_wasm_api.c`, `src/http/ngx_http_wasm_module.c`,
//!   `lib/resty/proxy-wasm.lua`; APISIX's `apisix/wasm.lua`.

/// One host's rules.
#[derive(Debug)]
pub struct Switches {
    pub name: &'static str,
    /// Whether a request goes through phases, its whole body read before the one that judges it. Else frame by frame.
    pub phases: bool,
    /// Whether Pause from the headers callback holds them while body callbacks run; else it stops everything.
    pub holds_headers: bool,
    /// Whether a buffer filter stands behind this one, which holds what it is given until the request is complete.
    pub buffer_filter: bool,
    pub end: End,
    pub counts: Counts,
    pub body: Body,
    /// Whether trailers are shown and sent on.
    pub has_trailers: bool,
    pub lone_pause: LonePause,
    pub calls: Calls,
    pub replies: Replies,
    pub sharing: Sharing,
    /// The functions that can be imported at all; `None`: all of the ABI.
    pub registered: Option<&'static [&'static str]>,
    pub wasi: Option<&'static [&'static str]>,
    /// Functions that are there and do nothing, and what calling them does.
    pub missing: &'static [&'static str],
    pub missing_is: Missing,
    pub headers: Headers,
    pub properties: Properties,
    pub metrics: Metering,
    pub ticks: Ticks,
    /// Whether `proxy_on_vm_start` is called.
    pub starts_vm: bool,
    pub crash: Crash,
    /// Whether `proxy_set_effective_context` does anything.
    pub switches_context: bool,
    /// Whether random bytes are fit for secrets.
    pub is_random: bool,
    /// The clock's step, in nanoseconds.
    pub clock_step: u64,
    /// What is called at the end of a stream, in order.
    pub last_calls: &'static [&'static str],
    /// Whether the body of a response is shown.
    pub shows_response_body: bool,
}

/// What `end_of_stream` says in the headers callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Told,
    AlwaysNo,
    AlwaysYes,
}

/// What the number of headers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    All,
    /// Without pseudo-headers.
    Real,
    Zero,
}

/// When the body callback comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    EachChunk,
    /// Once, with all of it; not at all for an empty one.
    WholeUnlessEmpty,
    /// Once, with all of it, be it empty, if the property `wasm_process_req_body` was set.
    WholeIfAsked,
}

/// What Pause does when no call is under way and nothing was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LonePause {
    Holds,
    /// For ever: nothing wakes the request.
    Hangs,
    Crashes,
}

/// HTTP calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Whether the request goes on by itself after the last answer.
    pub resumes_automatically: bool,
    /// Whether a call is awaited although the callback returned Continue.
    pub beats_continue: bool,
    /// Whether a call wins over an answer made in the same callback.
    pub beats_reply: bool,
    /// How many at once.
    pub at_once: usize,
    /// Whether one that cannot be made traps.
    pub traps: bool,
    /// Whether it needs an `:authority`.
    pub needs_authority: bool,
}

/// Local replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replies {
    /// Whether a second one traps.
    pub once: bool,
    /// What one from a root context comes to.
    pub from_root: FromRoot,
    /// What is added to a body.
    pub ending: &'static [u8],
    /// Whether an empty one becomes an error page.
    pub fills_empty: bool,
    /// Whether a header that is named twice is sent once.
    pub joins_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromRoot {
    /// It goes to the effective context.
    Sent,
    Traps,
    BadArgument,
}

/// Data that workers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One map, any version over nothing, 0 over anything.
    Process,
    /// Zones by prefix; 0 only over nothing, and nothing but 0 over nothing; keys are their CRC-32.
    Zones,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Trap,
    Status,
}

/// How request headers are shown and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// Names in lower case, all alike.
    Envoy,
    NgxWasm,
    OpenResty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Properties {
    /// Paths; whatever is set becomes filter state.
    Envoy,
    NgxWasm,
    /// One nginx variable each.
    Variables,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metering {
    Counted,
    /// Counted; misuse traps.
    Strict,
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticks {
    Any,
    /// A second period traps, and so does one that is asked for outside a root context.
    Once,
}

/// What a trap leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// A VM that is dead for all.
    Dead,
    /// This request's failure with this status and a new instance, in which other requests have blank contexts.
    NewInstance(u32),
    /// This request's failure, and the instance as it stood in that moment.
    Kept(u32),
}

/// Envoy with `allow_on_headers_stop_iteration: true`.
pub static ENVOY: Switches = TABLE_ENVOY;

/// Envoy without that flag, and its buffer filter between this filter and the router.
pub static BUFFER: Switches = Switches {
    name: "envoy, held by its buffer filter",
    // convertVmCallResultToFilterHeadersStatus: StopIteration becomes StopAllIterationAndWatermark.
    holds_headers: false,
    // BufferFilter::decodeHeaders returns StopIteration unless the headers end the request.
    buffer_filter: true,
    ..TABLE_ENVOY
};

/// That, with the buffer filter missing or in front: what a wrong order of filters does.
pub static MISPLACED: Switches = Switches {
    name: "envoy, its buffer filter misplaced",
    buffer_filter: false,
    holds_headers: false,
    ..TABLE_ENVOY
};

const TABLE_ENVOY: Switches = Switches {
    name: "envoy",
    phases: false,
    // PluginConfig.allow_on_headers_stop_iteration, Envoy 1.35 and later.
    holds_headers: true,
    buffer_filter: false,
    end: End::Told,
    counts: Counts::All,
    // Context::decodeData: the whole buffer so far, each time.
    body: Body::EachChunk,
    has_trailers: true,
    lone_pause: LonePause::Holds,
    // Context::httpCall: belongs to the root context, nothing resumes by itself.
    calls: Calls {
        resumes_automatically: false,
        beats_continue: false,
        beats_reply: false,
        at_once: usize::MAX,
        traps: false,
        needs_authority: true,
    },
    // Context::sendLocalResponse: deferred until the callback has returned.
    replies: Replies {
        once: false,
        from_root: FromRoot::Sent,
        ending: b"",
        fills_empty: false,
        joins_headers: false,
    },
    // SharedData::set.
    sharing: Sharing::Process,
    registered: None,
    wasi: None,
    missing: &[],
    missing_is: Missing::Status,
    headers: Headers::Envoy,
    properties: Properties::Envoy,
    metrics: Metering::Counted,
    ticks: Ticks::Any,
    starts_vm: true,
    // FAIL_CLOSED.
    crash: Crash::Dead,
    switches_context: true,
    is_random: true,
    clock_step: 1,
    last_calls: &["proxy_on_log", "proxy_on_done", "proxy_on_delete"],
    shows_response_body: true,
};

/// Kong 3.9 with ngx_wasm_module.
pub static KONG: Switches = Switches {
    name: "kong",
    // ngx_http_wasm_content reads the body before the original content handler (proxy_pass) runs.
    phases: true,
    holds_headers: true,
    buffer_filter: false,
    // The headers callback's end_of_stream is always 0.
    end: End::AlwaysNo,
    // ngx_wasm_list_nelts(headers).
    counts: Counts::Real,
    // ngx_wasm_ops_on_request_body_handler: "received empty body" is no callback.
    body: Body::WholeUnlessEmpty,
    // No NGX_HTTP_PROXY_WASM step for request trailers; nginx sends none on.
    has_trailers: false,
    // action2rc: NGX_AGAIN, and no timer.
    lone_pause: LonePause::Hangs,
    // ngx_http_proxy_wasm_dispatch_resume_handler; run_step takes the returned Continue over the call's Pause;
    // dispatch: no :method, no :path, a bad host are NGX_ERROR, a trap.
    calls: Calls {
        resumes_automatically: true,
        beats_continue: false,
        beats_reply: false,
        at_once: usize::MAX,
        traps: true,
        needs_authority: false,
    },
    // ngx_proxy_wasm_host.c, proxy_send_local_response: "local response already stashed"; in a root context rctx is NULL
    // [U: the worker ends]; the body's length is body_len + sizeof(LF); ngx_http_wasm_set_resp_header in mode SET.
    replies: Replies {
        once: true,
        from_root: FromRoot::Traps,
        ending: b"\n",
        fills_empty: false,
        joins_headers: true,
    },
    // ngx_proxy_wasm_host.c, get/set_shared_data; ngx_wa_shm_kv.c: cas != (n == NULL ? 0 : n->cas) is a mismatch.
    sharing: Sharing::Zones,
    // ngx_proxy_wasm_hfuncs[]. proxy_get_log_level stands there with another arity.
    registered: Some(KONG_FUNCTIONS),
    // ngx_wasi_preview1_host.c, the whole table.
    wasi: Some(KONG_WASI),
    // ngx_proxy_wasm_hfuncs_nop: NGX_WAVM_NYI, a trap.
    missing: KONG_MISSING,
    missing_is: Missing::Trap,
    // ngx_proxy_wasm_maps.c, ngx_http_wasm_headers_request.c.
    headers: Headers::NgxWasm,
    // ngx_proxy_wasm_properties.c; kong/runloop/wasm/properties.lua.
    properties: Properties::NgxWasm,
    // ngx_wa_metrics.c.
    metrics: Metering::Strict,
    // ngx_proxy_wasm_host.c, proxy_set_tick_period_milliseconds: "tick_period already set".
    ticks: Ticks::Once,
    starts_vm: true,
    // ngx_http_proxy_wasm_ecode; get_instance makes a new one, on_configure is called again, on_vm_start is not.
    crash: Crash::NewInstance(500),
    // ngx_proxy_wasm_host.c: proxy_set_effective_context is OK and does nothing.
    switches_context: false,
    // ngx_wasi_preview1_host.c, random_get: ngx_random(), which is random().
    is_random: false,
    // ngx_wasm_wall_time and ngx_wasm_monotonic_time: milliseconds.
    clock_step: 1_000_000,
    // ngx_proxy_wasm.c: the log phase calls proxy_on_done, then proxy_on_log; its end proxy_on_delete.
    last_calls: &["proxy_on_done", "proxy_on_log", "proxy_on_delete"],
    shows_response_body: true,
};

/// APISIX with wasm-nginx-module.
pub static APISIX: Switches = Switches {
    name: "apisix",
    phases: true,
    holds_headers: true,
    buffer_filter: false,
    // proxy-wasm.lua, on_http_request: num_headers 0, end_of_stream 1.
    end: End::AlwaysYes,
    counts: Counts::Zero,
    // apisix/wasm.lua, http_request_wrapper: ctx.var.wasm_process_req_body ~= "".
    body: Body::WholeIfAsked,
    has_trailers: false,
    // ngx_http_wasm_handle_rc_before_proxy: RC_NEED_HTTP_CALL without a callout [U: the worker crashes].
    lone_pause: LonePause::Crashes,
    // ngx_http_wasm_handle_rc_before_proxy looks at ctx->callout first; proxy_http_call: a second one is
    // PROXY_RESULT_INTERNAL_FAILURE; after the callback rc 0 goes on.
    calls: Calls {
        resumes_automatically: true,
        beats_continue: true,
        beats_reply: true,
        at_once: 1,
        traps: false,
        needs_authority: false,
    },
    // proxy_send_http_response; an empty body is no ngx.print, and ngx.exit makes nginx's page.
    replies: Replies {
        once: false,
        from_root: FromRoot::BadArgument,
        ending: b"",
        fills_empty: true,
        joins_headers: false,
    },
    // Never reached: the functions are missing.
    sharing: Sharing::Process,
    // host_apis[]. proxy_get_log_level is not in it; proxy_get_metric is, with another type.
    registered: Some(APISIX_FUNCTIONS),
    // wasmtime's own WASI.
    wasi: None,
    // PROXY_RESULT_UNIMPLEMENTED in ngx_http_wasm_api.c.
    missing: APISIX_MISSING,
    missing_is: Missing::Status,
    // ngx_http_wasm_api.c, proxy_get_header_map_pairs and ngx_http_wasm_set_req_header.
    headers: Headers::OpenResty,
    // ngx_http_wasm_api.c, proxy_get_property, proxy_set_property.
    properties: Properties::Variables,
    // proxy_define_metric and the others return OK and write nothing.
    metrics: Metering::Ignored,
    ticks: Ticks::Any,
    // apisix/wasm.lua: a plugin's context is made and configured at its first request; no proxy_on_vm_start.
    starts_vm: false,
    // ngx_http_wasm_handle_rc_before_proxy: rc < 0, Lua answers 503; the instance is the plugin's for its life.
    crash: Crash::Kept(503),
    switches_context: false,
    is_random: true,
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

const KONG_MISSING: &[&str] = &[
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

const APISIX_MISSING: &[&str] = &[
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

impl Switches {
    /// Whether the host links a module with these imports, each `module.name`.
    pub fn links(&self, imports: &[String]) -> Result<(), String> {
        for import in imports {
            let known = match import.split_once('.') {
                Some(("env", name)) => self.registered.is_none_or(|known| known.contains(&name)),
                Some((_, name)) => self.wasi.is_none_or(|known| known.contains(&name)),
                None => true,
            };
            if !known {
                return Err(format!("{}: nothing is registered as `{import}`", self.name));
            }
        }
        Ok(())
    }
}
