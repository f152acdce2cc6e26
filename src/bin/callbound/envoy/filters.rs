//! Recognition of HTTP filters: callbound's own, the buffer filter, the router.

use serde_json::Value as Json;

use super::yaml::Node;

/// Envoy's filter that holds a request until its body is complete.
pub(super) const BUFFER: &str = "envoy.filters.http.buffer";
/// Mark of our filter in its name, root id, VM id or the module's file name.
const OURS: &str = "callbound";
const ROUTER: &str = "envoy.filters.http.router";
const WASM_TYPE: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

/// Returns the `config` of a wasm filter's `typed_config`, also inside a `TypedStruct`.
pub(super) fn wasm_config<'a>(typed: &Node<'a>) -> Option<Node<'a>> {
    match typed.text("type_url") {
        Some(kind) if kind.ends_with(WASM_TYPE) => typed.get("value")?.get("config"),
        _ if typed.message_type().ends_with(WASM_TYPE) => typed.get("config"),
        _ => None,
    }
}

/// Returns the wasm configuration that a filter of a chain carries itself.
pub(super) fn own_config<'a>(filter: &Node<'a>) -> Option<Node<'a>> {
    wasm_config(&filter.get("typed_config")?)
}

/// Recognizes our filter by its name.
pub(super) fn is_our_name(name: &str) -> bool {
    name.to_ascii_lowercase().contains(OURS)
}

/// Recognizes our module by its policy, or by its names. Meshes name modules after the address they came from.
pub(super) fn is_our_module(config: &Node) -> bool {
    const SECTIONS: [&str; 3] = ["version", "host", "routes"];
    if policy(config).is_some_and(|policy| SECTIONS.iter().all(|section| policy.get(section).is_some())) {
        return true;
    }
    let vm = config.get("vm_config");
    let file = vm.as_ref().and_then(|vm| vm.get("code")?.get("local")?.text("filename"));
    let id = vm.as_ref().and_then(|vm| vm.text("vm_id"));
    [config.text("name"), config.text("root_id"), id, file].into_iter().flatten().any(is_our_name)
}

/// Recognizes the router.
pub(super) fn is_router(filter: &Node) -> bool {
    is_kind(filter, ROUTER, "http.router.v3.Router")
}

/// Recognizes the filter that holds headers until the body is complete.
pub(super) fn is_buffer(filter: &Node) -> bool {
    is_kind(filter, BUFFER, "http.buffer.v3.Buffer")
}

fn is_kind(filter: &Node, name: &str, message: &str) -> bool {
    let typed = filter.get("typed_config");
    filter.text("name") == Some(name) || typed.is_some_and(|typed| typed.message_type().ends_with(message))
}

/// Reads the policy in our filter's configuration; `None` where there is none that is JSON.
pub(super) fn policy(config: &Node) -> Option<Json> {
    serde_json::from_str(config.get("configuration")?.text("value")?).ok()
}

/// Reads from a policy whether the buffer filter holds headers instead of callbound.
pub(super) fn is_buffered(policy: &Json) -> bool {
    policy["hold_headers"] == "buffer_filter"
}

/// Reads from a route's override of a filter whether it takes the filter out.
pub(super) fn is_disabled_by(config: &Node) -> bool {
    let is_inside = config.get("config").is_some_and(|inside| is_disabled_by(&inside));
    let is_empty = config.message_type().ends_with("BufferPerRoute") && config.get("buffer").is_none();
    config.flag("disabled") || is_empty || is_inside
}
