//! What the rest of a configuration says of our filter: which filters are ours by what they load, and who holds headers
//! back under the policy that one of them has.
//!
//! The chain names a filter, its policy may stand elsewhere: in an ECDS file, or in another section of a config dump.

use serde_yaml_ng::Value;

use super::check::{flag, get, is_our_module, is_our_name, text, type_of, wasm_config};

/// Envoy's own, which holds a request until its end.
pub(super) const BUFFER: &str = "envoy.filters.http.buffer";

/// What was found of our filter anywhere.
#[derive(Default)]
pub(super) struct Known {
    /// Names under which it is delivered.
    pub(super) names: Vec<String>,
    /// Whether the buffer filter holds headers, by each policy that was found.
    buffered: Vec<bool>,
    /// Names of filters that some route switches on.
    pub(super) enabled: Vec<String>,
    /// Whether some route has the buffer filter on that is off elsewhere.
    holds_by_route: bool,
    /// Whether some route has ours on, and not the buffer filter.
    has_open_route: bool,
}

impl Known {
    /// Collects from one document.
    pub(super) fn learn(&mut self, value: &Value) {
        match value {
            Value::Mapping(members) => {
                self.mapping(value);
                members.values().for_each(|inside| self.learn(inside));
            }
            Value::Sequence(items) => items.iter().for_each(|inside| self.learn(inside)),
            _ => {}
        }
    }

    fn mapping(&mut self, value: &Value) {
        let delivered = get(value, "typed_config").and_then(|(_, config)| wasm_config(config));
        if let (Some(config), Some(name)) = (delivered, text(value, "name"))
            && is_our_module(config)
        {
            self.names.push(name.to_owned());
        }
        if let Some(config) = wasm_config(value).filter(|config| is_our_module(config)) {
            self.buffered.extend(policy(config).map(|policy| is_buffered(&policy)));
        }
        if let Some((_, Value::Mapping(overrides))) = get(value, "typed_per_filter_config") {
            let on = overrides.iter().filter(|(_, config)| {
                type_of(config).ends_with("route.v3.FilterConfig") && !flag(config, "disabled")
            });
            self.enabled.extend(on.filter_map(|(name, _)| name.as_str().map(str::to_owned)));
            let holds = overrides
                .iter()
                .any(|(name, config)| name.as_str() == Some(BUFFER) && get(config, "buffer").is_some());
            let is_ours = overrides.iter().any(|(name, _)| name.as_str().is_some_and(is_our_name));
            self.holds_by_route |= holds;
            self.has_open_route |= is_ours && !holds && !is_handshake(value);
        }
    }

    /// Whether the buffer filter holds headers; `None` where no policy was found, or they differ.
    pub(super) fn is_buffered(&self) -> Option<bool> {
        let first = self.buffered.first()?;
        self.buffered.iter().all(|other| other == first).then_some(*first)
    }
}

/// The policy in the configuration of our filter.
pub(super) fn policy(config: &Value) -> Option<serde_json::Value> {
    let (_, configuration) = get(config, "configuration")?;
    serde_json::from_str(get(configuration, "value")?.1.as_str()?).ok()
}

/// Whether a policy leaves headers to the buffer filter.
pub(super) fn is_buffered(policy: &serde_json::Value) -> bool {
    policy["held_by"] == "buffer_filter"
}

/// Whether a filter is the one that holds headers.
pub(super) fn is_buffer(filter: &Value) -> bool {
    let kind = get(filter, "typed_config").map(|(_, config)| type_of(config)).unwrap_or_default();
    text(filter, "name") == Some(BUFFER) || kind.ends_with("http.buffer.v3.Buffer")
}

/// What is wrong with the buffer filter behind ours, by its place among the filters; `None` where there is none.
pub(super) fn buffer_problem(known: &Known, filters: &[Value], ours: usize) -> Option<(usize, &'static str)> {
    let (index, buffer) = filters.iter().enumerate().skip(ours + 1).find(|(_, filter)| is_buffer(filter))?;
    let problem = match (flag(buffer, "disabled"), known.holds_by_route, known.has_open_route) {
        (false, ..) | (true, true, false) => "",
        (true, true, true) => {
            "it is disabled, and a route that enables callbound does not enable it: nobody holds its headers"
        }
        (true, false, _) => "it is disabled, so nobody holds headers; remove `disabled`",
    };
    Some((index, problem))
}

/// Whether a route takes the buffer filter out, and is not for handshakes only.
pub(super) fn opens_buffer(route: &Value) -> bool {
    let overrides = get(route, "typed_per_filter_config").map(|(_, overrides)| overrides);
    let Some(Value::Mapping(overrides)) = overrides else { return false };
    let is_off = |config: &Value| {
        flag(config, "disabled")
            || get(config, "buffer").is_none() && type_of(config).ends_with("BufferPerRoute")
    };
    let opens = overrides.iter().any(|(name, config)| name.as_str() == Some(BUFFER) && is_off(config));
    opens && !is_handshake(route)
}

/// Whether a route matches only what asks for an upgrade.
fn is_handshake(route: &Value) -> bool {
    let headers = get(route, "match").and_then(|(_, matched)| get(matched, "headers"));
    let Some((_, Value::Sequence(headers))) = headers else { return false };
    headers.iter().any(|header| {
        text(header, "name").is_some_and(|name| name.eq_ignore_ascii_case("upgrade"))
            && !flag(header, "invert_match")
            && (flag(header, "present_match") || get(header, "string_match").is_some())
    })
}
