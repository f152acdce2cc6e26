//! A synchronous proxy-wasm ABI 0.2.1 host on wasmtime, small enough to read.
//!
//! It imitates one worker of Envoy with `allow_on_headers_stop_iteration: true`: a test can send the compiled module any
//! request, in any order of steps, and see what reached the upstream. By the table in [`host_rules`] it imitates three
//! more hosts: Envoy with its buffer filter after the module, Kong, and APISIX; nginx's own rules are in
//! `wasm_host/nginx.rs`.
//!
//! It models, with Envoy's rules and status codes:
//!
//! * Holding. Pause in the headers callback holds the headers and lets body callbacks run. Each of them reads the whole
//!   body so far from offset 0 and receives its whole size. Continue from a body or trailers callback, or
//!   `proxy_continue_stream`, releases everything that is held. Without the flag (`stop_iteration_flag: false`) Pause in
//!   the headers callback stops everything until resumed.
//! * Leaks. [`Outcome::upstream`] is the request that really reached the upstream, complete or not. A refusal that came
//!   after a release therefore shows *both* a reply and an upstream request.
//! * Local replies, from any callback or from a tick through the effective context: sent once the callback has returned,
//!   with its action overridden, and passed through the filter's own response callbacks.
//! * Header maps (first value, all pairs, writes while held, `BadArgument` after release), buffers, the 413 for a body
//!   that outgrows the buffer, properties, shared data with CAS, metrics, ticks, HTTP calls, foreign functions,
//!   environment, clock, randomness, logs.
//! * Life cycle. A new configuration is tried in a throw-away VM, then becomes a new root context in the same VM. Streams
//!   begun on the old root keep it; it is deleted with its last stream. At the end of a stream come `on_log`, `on_done`,
//!   `on_delete`, in Envoy's order.
//! * A trap kills the VM (`FAIL_CLOSED`). Envoy would answer 503; here the reply stays empty and [`Outcome::trapped`] is
//!   set, so that no test can take a crash for a refusal.
//!
//! Stricter than Envoy: after any release request headers can be neither read one by one nor written (Envoy allows it
//! when the release came from a body callback).
//!
//! The hosts in nginx are as strict: an error that ends a worker there, or writes past the module's memory, traps here.
//! Requests that nginx itself refuses (a path it cannot decode, a second `host`) get through to the module.
//!
//! Not modelled: gRPC calls and shared queues (status 12, which the SDK turns into a trap), TCP streams, response
//! trailers, gRPC-shaped local replies, the codec (header values may be any bytes, repeated headers are never joined,
//! nothing is added), routes, timers (call [`Vm::tick`]), the reload of a crashed VM, endless loops (they hang the test).
//!
//! Every host call can be counted ([`Vm::host_calls`]) and made to fail ([`Vm::fail`]).

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::{Engine, Extern, ExternType, Instance, InstancePre, Linker, Store, Val};
use wasmtime::{StoreLimits, StoreLimitsBuilder, WasmParams, WasmResults};

/// Defines imports: their names, their linking, and their functions. Arguments are `u32` unless typed; `Ok` is status 0.
macro_rules! imports {
    ($names:ident, $link:ident, $module:literal; $(
        $(#[$about:meta])*
        fn $function:ident($guest:ident $(, $arg:ident $(: $type:ty)?)*) $body:block
    )*) => {
        pub(super) const $names: &[&str] = &[$(stringify!($function)),*];

        pub(super) fn $link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
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

#[path = "wasm_host/abi.rs"]
mod abi;
#[path = "wasm_host/exchange.rs"]
mod exchange;
#[path = "wasm_host/host.rs"]
mod host;
#[path = "wasm_host/host_rules.rs"]
pub mod host_rules;
#[path = "wasm_host/nginx.rs"]
mod nginx;
#[path = "wasm_host/shared_data.rs"]
mod shared_data;
#[path = "wasm_host/stream.rs"]
mod stream;
#[path = "wasm_host/vm.rs"]
mod vm;
#[path = "wasm_host/wasi.rs"]
mod wasi;

pub use exchange::*;
pub use host_rules::HostRules;
pub use shared_data::SharedData;
pub use vm::Vm;
use vm::{text, with_status};

use abi::*;
use host::*;
use host_rules::{
    BodyCallback, Crash, EndOfStream, FromRoot, HeaderCount, HeaderRules, LonePause, MetricRules,
    PropertyRules, SharedDataRules, TickRules, Unimplemented,
};
use nginx::{Change, Nginx};
use stream::*;
use wasi::*;

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
        let refused = |reason| StartError { reason, logs: Vec::new() };
        world.host.links(&self.imports()).map_err(refused)?;
        let host = Host::new(world).map_err(refused)?;
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        let instance = match self.linked.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => {
                return Err(StartError { reason: text(error), logs: store.data().all_logs() });
            }
        };
        let mut vm = Vm {
            module: self.clone(),
            store,
            instance,
            root: 0,
            dead: None,
            crashed: None,
            generation: 0,
            is_broken: false,
            configuration: Vec::new(),
        };
        match vm.boot(config) {
            true => Ok(vm),
            false => Err(vm.refusal()),
        }
    }
}
