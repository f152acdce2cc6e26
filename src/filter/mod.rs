//! proxy-wasm adapter, the only module that calls a host.
//!
//! It reads what the host offers, asks [`crate::decision`] and enforces the decision. It decides one thing by itself: a
//! host call that fails denies the request.

mod callout;
mod crypto;
mod exchange;
mod held;
mod host;
mod http;
mod load;
mod raw;
mod root;
mod sessions;
mod shared;
mod store;
mod sync;
mod telemetry;
mod transition;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
