//! What a configuration says of our filter: which filters are ours by what they load, in which chains they stand, and who
//! holds headers back under the policy that each has.
//!
//! The chain names a filter; its policy may stand elsewhere, in an ECDS file or in another section of a config dump, and
//! so may the routes that switch filters on and off.

use serde_yaml_ng::Value;

use super::check::{flag, get, is_our_module, is_our_name, is_past, text, type_of, wasm_config};

/// Envoy's own filter that holds a request until its end.
pub(super) const BUFFER: &str = "envoy.filters.http.buffer";

/// What was found of our filter anywhere.
#[derive(Default)]
pub(super) struct Known {
    /// Names under which our module is delivered, each with whether the buffer filter holds headers by its policy.
    modules: Vec<(String, Option<bool>)>,
    /// The same of modules that stand without a name.
    buffered: Vec<bool>,
    /// Names under which Istio's agent delivers a refusal of everything, for want of the module.
    pub(super) refusing: Vec<String>,
    /// Names of filters that some route switches on.
    enabled: Vec<String>,
    /// The chains that have our filter.
    pub(super) guards: Vec<Guard>,
}

/// A chain with our filter, as far as its routes are concerned.
#[derive(Clone)]
pub(super) struct Guard {
    /// The name of the routes, where they come on their own.
    pub(super) routes: Option<String>,
    /// The name of our filter.
    pub(super) ours: String,
    /// Whether only routes that enable it are judged.
    pub(super) is_off: bool,
    /// The buffer filter behind ours: its name, and whether only routes that enable it are held.
    pub(super) buffer: Option<(String, bool)>,
    /// Whether the policy counts on it; `None` where no policy was found.
    pub(super) is_buffered: Option<bool>,
}

impl Known {
    /// Everything in these documents.
    pub(super) fn of<'a>(documents: impl Iterator<Item = &'a Value> + Clone) -> Self {
        let mut known = Self::default();
        documents.clone().for_each(|document| known.modules(document));
        documents.for_each(|document| known.chains(document));
        known
    }

    fn modules(&mut self, value: &Value) {
        self.module(value);
        each_inside(value, |inside| self.modules(inside));
    }

    fn module(&mut self, value: &Value) {
        let name = text(value, "name");
        let typed = get(value, "typed_config").map(|(_, config)| config);
        if let (Some(config), Some(name)) = (typed.and_then(wasm_config), name)
            && is_our_module(config)
        {
            self.modules.push((name.to_owned(), policy(config).map(|policy| is_buffered(&policy))));
        } else if let Some(config) = wasm_config(value).filter(|config| is_our_module(config)) {
            self.buffered.extend(policy(config).map(|policy| is_buffered(&policy)));
        } else if let (Some(config), Some(name)) = (typed, name)
            && type_of(config).ends_with("http.rbac.v3.RBAC")
        {
            self.refusing.push(name.to_owned());
        }
        if let Some((_, Value::Mapping(overrides))) = get(value, "typed_per_filter_config") {
            let on = overrides.iter().filter(|(_, config)| !is_switched_off(config));
            self.enabled.extend(on.filter_map(|(name, _)| name.as_str().map(str::to_owned)));
        }
    }

    fn chains(&mut self, value: &Value) {
        self.guards.extend(self.guard(value));
        each_inside(value, |inside| self.chains(inside));
    }

    /// The chain of a connection manager, if our filter is in it.
    pub(super) fn guard(&self, manager: &Value) -> Option<Guard> {
        let (_, Value::Sequence(filters)) = get(manager, "http_filters")? else { return None };
        let index = self.place_of_ours(filters)?;
        let ours = filters.get(index)?;
        let buffer = filters.iter().skip(index + 1).find(|filter| is_buffer(filter));
        let rds = get(manager, "rds").map(|(_, rds)| rds);
        Some(Guard {
            routes: rds.and_then(|rds| text(rds, "route_config_name")).map(str::to_owned),
            ours: text(ours, "name").unwrap_or_default().to_owned(),
            is_off: flag(ours, "disabled"),
            buffer: buffer
                .map(|filter| (text(filter, "name").unwrap_or(BUFFER).to_owned(), flag(filter, "disabled"))),
            is_buffered: self.is_buffered(ours),
        })
    }

    /// Where our filter stands in a chain: the last of several.
    pub(super) fn place_of_ours(&self, filters: &[Value]) -> Option<usize> {
        let is_named = |filter: &Value| text(filter, "name").is_some_and(|name| self.is_delivered(name));
        let is_here = |filter: &Value| own_config(filter).is_some_and(is_our_module);
        let is_ours = |filter: &Value| text(filter, "name").is_some_and(is_our_name);
        filters.iter().rposition(|filter| is_named(filter) || is_here(filter) || is_ours(filter))
    }

    /// Whether our module is delivered under a name.
    pub(super) fn is_delivered(&self, name: &str) -> bool {
        self.modules.iter().any(|(known, _)| known == name)
    }

    /// Whether some route switches a filter on.
    pub(super) fn is_enabled(&self, name: &str) -> bool {
        self.enabled.iter().any(|known| known == name)
    }

    /// Whether the buffer filter holds headers, by the policy of one filter of a chain; `None` where it was not found.
    fn is_buffered(&self, filter: &Value) -> Option<bool> {
        if let Some(policy) = own_config(filter).and_then(policy) {
            return Some(is_buffered(&policy));
        }
        let name = text(filter, "name").unwrap_or_default();
        if let Some((_, found)) = self.modules.iter().find(|(known, _)| known == name) {
            return *found;
        }
        let named = self.modules.iter().filter_map(|(_, found)| *found);
        let mut all = named.chain(self.buffered.iter().copied());
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }
}

/// Calls for each member or item, but not for what Envoy only remembers.
fn each_inside(value: &Value, mut visit: impl FnMut(&Value)) {
    match value {
        Value::Mapping(members) => {
            let live =
                members.iter().filter(|(name, inside)| !is_past(name.as_str().unwrap_or_default(), inside));
            live.for_each(|(_, inside)| visit(inside));
        }
        Value::Sequence(items) => items.iter().for_each(visit),
        _ => {}
    }
}

/// The configuration of a wasm filter that stands in the chain itself.
fn own_config(filter: &Value) -> Option<&Value> {
    get(filter, "typed_config").and_then(|(_, config)| wasm_config(config))
}

/// The policy in the configuration of our filter.
pub(super) fn policy(config: &Value) -> Option<serde_json::Value> {
    let (_, configuration) = get(config, "configuration")?;
    serde_json::from_str(get(configuration, "value")?.1.as_str()?).ok()
}

/// Whether a policy leaves headers to the buffer filter.
pub(super) fn is_buffered(policy: &serde_json::Value) -> bool {
    policy["hold_headers"] == "buffer_filter"
}

/// Whether a filter is the one that holds headers.
pub(super) fn is_buffer(filter: &Value) -> bool {
    let kind = get(filter, "typed_config").map(|(_, config)| type_of(config)).unwrap_or_default();
    text(filter, "name") == Some(BUFFER) || kind.ends_with("http.buffer.v3.Buffer")
}

/// Whether what a route says of a filter takes it out.
pub(super) fn is_switched_off(config: &Value) -> bool {
    let inside = get(config, "config").is_some_and(|(_, inside)| is_switched_off(inside));
    let is_empty = type_of(config).ends_with("BufferPerRoute") && get(config, "buffer").is_none();
    flag(config, "disabled") || is_empty || inside
}
