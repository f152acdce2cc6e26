//! The proxy-wasm adapter: the only room that knows a host.
//!
//! It reads what the host has, asks [`crate::decision`], and carries the verdict out. It decides nothing itself but
//! this: a host call that fails is a refusal.

mod crypto;
mod fleet;
mod host;
mod http;
mod memory;
mod raw;
mod root;
mod telemetry;

use proxy_wasm::traits::RootContext;

mod entry {
    use super::{RootContext, root};

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> { Box::new(root::Root::new(id)) });
    }}
}
