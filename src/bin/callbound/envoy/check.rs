//! `callbound check --envoy FILE`: is our filter in the one place where it guards, with the settings it needs?
//!
//! Reads Envoy's own YAML or JSON (a bootstrap, a listener, an ECDS file, a bare filter, what `/config_dump` says) without
//! its schema: it looks for what it knows by member name, in snake or camel case as Envoy does, and leaves the rest to
//! `envoy --mode validate`.

use serde_yaml_ng::Value;

use super::held::{self, Guard, Known};

/// What marks a filter as ours: in its name, root id, vm id or the module's file name.
const OURS: &str = "callbound";
const ROUTER: &str = "envoy.filters.http.router";
const CORS: &str = "envoy.filters.http.cors";
const WASM_TYPE: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING_VALUE: &str = "google.protobuf.StringValue";

/// Where a config dump has what Envoy did not take.
const REFUSED: &str = "error_state";

/// What is wrong where the policy counts on the buffer filter and none is behind ours.
const NOWHERE: &str = "the policy says `hold_headers: buffer_filter`, and no `envoy.filters.http.buffer` stands behind callbound: headers of refused requests would reach the upstream; put it between callbound and the router";
const ONLY_BEFORE: &str = "the policy says `hold_headers: buffer_filter`, and no `envoy.filters.http.buffer` stands behind callbound: headers of refused requests would reach the upstream; the one before callbound only brings whole bodies: move it between callbound and the router";

/// Filters that change what comes after them: none may stand after the verdict.
const REWRITERS: [&str; 18] = [
    "wasm",
    "lua",
    "golang",
    "dynamic_modules",
    "ext_proc",
    "ext_authz",
    "header_mutation",
    "header_to_metadata",
    "json_to_metadata",
    "grpc_json_transcoder",
    "grpc_http1_bridge",
    "grpc_http1_reverse_bridge",
    "transform",
    "credential_injector",
    "aws_request_signing",
    "decompressor",
    "dynamic_forward_proxy",
    "composite",
];

/// All problems of the documents of one Envoy configuration, each with the place and the mend. Those that are advice begin
/// with `warning: `; an empty list means that nothing was found.
pub fn check_all(documents: &[String]) -> Vec<Vec<String>> {
    let roots: Vec<Result<Value, _>> = documents.iter().map(|text| serde_yaml_ng::from_str(text)).collect();
    let known = Known::of(roots.iter().flatten());
    let check = |root: &Result<Value, serde_yaml_ng::Error>| match root {
        Ok(root) => check_one(root, &known),
        Err(error) => vec![format!("not readable as one YAML or JSON document: {error}")],
    };
    roots.iter().map(check).collect()
}

fn check_one(root: &Value, known: &Known) -> Vec<String> {
    let is_dump = get(root, "configs").is_some();
    let is_said = is_dump || root.is_sequence();
    let mut found = Report { known, is_dump, is_said, problems: Vec::new(), unguarded: Vec::new(), parts: 0 };
    found.walk(&Place::default(), root, None);
    found.others();
    if found.parts == 0 {
        found.at(&Place::default(), "no HTTP connection manager, no routes and no callbound filter found; give a bootstrap, a listener or the ECDS file");
    }
    found.problems
}

/// Whether a member of a config dump is no longer so, never was, or stands in another section as well.
pub(super) fn is_past(name: &str, value: &Value) -> bool {
    const PAST: [&str; 3] = ["draining_state", REFUSED, "static_route_configs"];
    let is_past = PAST.into_iter().any(|past| name == past || name == camel_case(past));
    is_past || name == "bootstrap" && get(value, "static_resources").is_some()
}

/// Where a value stands, as `static_resources.listeners[0]`.
#[derive(Default, Clone)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn member(&self, name: &str) -> Place {
        Place(if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) })
    }

    pub(super) fn item(&self, index: usize) -> Place {
        Place(format!("{}[{index}]", self.0))
    }
}

/// What was found so far.
pub(super) struct Report<'k> {
    pub(super) known: &'k Known,
    /// Whether this is all that an Envoy says of itself.
    is_dump: bool,
    /// Whether an Envoy says this of itself, all or in part: with listeners of all sorts in it.
    is_said: bool,
    problems: Vec<String>,
    /// Chains without our filter.
    unguarded: Vec<Place>,
    /// How many pieces there were that we know something about.
    parts: usize,
}

impl Report<'_> {
    pub(super) fn at(&mut self, place: &Place, problem: &str) {
        let name = if place.0.is_empty() { "(top)" } else { &place.0 };
        self.problems.push(format!("{name}: {problem}"));
    }

    pub(super) fn warn(&mut self, place: &Place, problem: &str) {
        self.problems.push(format!("warning: {}: {problem}", place.0));
    }

    /// Visits every mapping and list once, outside in, and knows the chain it is in.
    fn walk(&mut self, place: &Place, value: &Value, guard: Option<&Guard>) {
        match value {
            Value::Mapping(members) => {
                let chain = self.known.guard(value);
                let routes = self.guard_of_routes(value, chain.as_ref().or(guard));
                let guard = routes.as_ref().or(chain.as_ref()).or(guard);
                self.mapping(place, value, guard);
                for (name, inside) in members {
                    let name = name.as_str().unwrap_or("?");
                    if !(self.is_dump && is_past(name, inside)) {
                        self.walk(&place.member(name), inside, guard);
                    } else if name == REFUSED || name == camel_case(REFUSED) {
                        self.warn(
                            &place.member(name),
                            "Envoy has refused something newer, and keeps what was before",
                        );
                    }
                }
            }
            Value::Sequence(items) => {
                for (index, inside) in items.iter().enumerate() {
                    self.walk(&place.item(index), inside, guard);
                }
            }
            _ => {}
        }
    }

    /// The chain that routes belong to when they do not stand in it: the one that names them, or any.
    fn guard_of_routes(&self, value: &Value, around: Option<&Guard>) -> Option<Guard> {
        if around.is_some() || get(value, "virtual_hosts").is_none() {
            return None;
        }
        let name = text(value, "name");
        let named = self.known.guards.iter().find(|guard| guard.routes.as_deref() == name && name.is_some());
        named.or_else(|| self.known.guards.first().filter(|_| !self.is_said)).cloned()
    }

    fn mapping(&mut self, place: &Place, value: &Value, guard: Option<&Guard>) {
        if let Some((name, Value::Sequence(filters))) = get(value, "http_filters") {
            self.parts += 1;
            match guard {
                Some(guard) => self.chain(&place.member(name), filters, guard, false),
                None => self.unguarded.push(place.member(name)),
            }
            if guard.is_some() || !self.is_said {
                self.manager(place, value, guard);
            }
        }
        if let Some(config) = wasm_config(value).filter(|config| is_our_module(config)) {
            self.parts += 1;
            self.module(&place.member("config"), config);
        }
        if let (Some(guard), Some(_)) = (guard, get(value, "virtual_hosts")) {
            self.parts += 1;
            self.routes(place, value, guard);
        }
        if self.is_said && guard.is_none() {
            return; // Routes and retries of others are not our business.
        }
        if let Some((name, policy)) = get(value, "retry_policy") {
            self.retries(&place.member(name), policy);
        }
        if let Some((name, overrides)) = get(value, "typed_per_filter_config") {
            self.overrides(&place.member(name), overrides, guard);
        }
    }

    /// Chains without our filter: every one is a problem, but an Envoy in a mesh has many that are not ours.
    fn others(&mut self) {
        let places = std::mem::take(&mut self.unguarded);
        if !self.is_said || self.known.guards.is_empty() {
            for place in &places {
                self.at(place, "no callbound filter in this chain; put it right before the router");
            }
        } else if let Some(first) = places.first() {
            let count = places.len();
            self.warn(
                first,
                &format!(
                    "no callbound filter in this chain: its requests are not judged (of such chains: {count})"
                ),
            );
        }
    }

    /// The order of one chain.
    fn chain(&mut self, place: &Place, filters: &[Value], guard: &Guard, is_upgrade: bool) {
        if filters.last().is_some_and(|last| !is_router(last)) {
            self.at(place, "the router is not the last filter; put it last");
        }
        let Some(ours) = self.known.place_of_ours(filters) else {
            return self.at(place, "no callbound filter in this chain; put it right before the router");
        };
        if let Some(filter) = filters.get(ours) {
            self.our_filter(&place.item(ours), filter);
        }
        for (index, filter) in filters.iter().enumerate().skip(ours + 1) {
            if !is_router(filter) && !held::is_buffer(filter) {
                let name = text(filter, "name").unwrap_or_default();
                self.at(&place.item(index), &stands_after(name, filter));
            }
        }
        let behind = filters.iter().enumerate().skip(ours + 1).find(|(_, filter)| held::is_buffer(filter));
        match behind {
            Some((index, _)) if is_upgrade => self.at(&place.item(index), "the buffer filter waits for the end of a handshake, which never comes; take it out of the chain of upgrades"),
            Some((index, filter)) => self.buffer(&place.item(index), filter, guard),
            None if guard.is_buffered == Some(true) && !is_upgrade => {
                let is_before = filters.iter().take(ours).any(held::is_buffer);
                self.at(place, if is_before { ONLY_BEFORE } else { NOWHERE });
            }
            None => {}
        }
    }

    /// The buffer filter behind ours: the policy counts on it, or it must not be there.
    fn buffer(&mut self, place: &Place, filter: &Value, guard: &Guard) {
        match guard.is_buffered {
            Some(true) => self.holds(place, filter),
            Some(false) => self.at(place, "the buffer filter stands between callbound and the router; move it before callbound, or say `hold_headers: buffer_filter` in the policy"),
            None => self.warn(place, "the buffer filter stands between callbound and the router: right only if the policy says `hold_headers: buffer_filter`; give the file with the policy as well"),
        }
    }

    /// Whether the buffer filter is one that holds headers.
    fn holds(&mut self, place: &Place, filter: &Value) {
        let limit = get(filter, "typed_config").and_then(|(_, config)| get(config, "max_request_bytes"));
        if limit.is_none_or(|(_, bytes)| bytes.as_u64().is_none_or(|bytes| bytes == 0)) {
            self.at(place, "no `max_request_bytes`; set it to what the listener may buffer (1048576)");
        }
        if flag(filter, "disabled") && !self.known.is_enabled(text(filter, "name").unwrap_or_default()) {
            self.at(
                place,
                "it is disabled, so nobody holds headers; remove `disabled`, or let every route enable it",
            );
        }
        if flag(filter, "is_optional") {
            self.at(&place.member("is_optional"), "without the filter nobody holds headers; remove it");
        }
    }

    /// How our filter is delivered.
    fn our_filter(&mut self, place: &Place, filter: &Value) {
        let is_enabled_by_routes = self.known.is_enabled(text(filter, "name").unwrap_or_default());
        for switch in ["disabled", "is_optional"] {
            match flag(filter, switch) {
                true if switch == "disabled" && is_enabled_by_routes => {
                    self.warn(&place.member(switch), "only routes that enable callbound are judged");
                }
                true => self.at(&place.member(switch), "requests pass without callbound; remove it"),
                false => {}
            }
        }
        self.delivered(place, filter);
        let Some((name, discovery)) = get(filter, "config_discovery") else {
            return self.warn(place, "not delivered by `config_discovery` (ECDS): connections that are open keep the old policy; see envoy/bootstrap.yaml");
        };
        if get(discovery, "default_config")
            .is_some_and(|(_, default)| !wasm_config(default).is_some_and(is_our_module))
        {
            self.at(
                &place.member(name).member("default_config"),
                "serves requests before the policy has come; remove it",
            );
        }
        if flag(discovery, "apply_default_config_without_warming") {
            self.at(&place.member(name), "`apply_default_config_without_warming` serves requests before the policy has come; set it to false");
        }
    }

    /// Whether what an Envoy names has come.
    fn delivered(&mut self, place: &Place, filter: &Value) {
        let name = text(filter, "name").unwrap_or_default();
        if self.known.is_delivered(name) || get(filter, "typed_config").is_some() {
            return;
        }
        if self.known.refusing.iter().any(|known| known == name) {
            self.at(place, "under this name stands a filter that refuses everything: the module could not be fetched; see the log of the proxy's agent");
        } else if self.is_dump {
            self.at(place, "nothing of callbound has been delivered under this name, so its listener serves nothing; see `extension_config_discovery` in Envoy's stats, and its log");
        }
    }

    /// The settings of the connection manager around the chain.
    fn manager(&mut self, place: &Place, manager: &Value, guard: Option<&Guard>) {
        if !flag(manager, "normalize_path") {
            self.at(
                place,
                "`normalize_path` is not true: `/a/../b` and `/b` are judged as two paths; set it",
            );
        }
        let slashes = get(manager, "path_with_escaped_slashes_action").map(|(_, value)| value);
        if !slashes.is_some_and(|value| {
            is_one_of(
                value,
                &[("REJECT_REQUEST", 2), ("UNESCAPE_AND_REDIRECT", 3), ("UNESCAPE_AND_FORWARD", 4)],
            )
        }) {
            self.at(place, "`path_with_escaped_slashes_action` leaves %2F and %5C to each upstream's taste; set it to REJECT_REQUEST");
        }
        let timeout = text(manager, "request_timeout").unwrap_or("0s");
        if timeout.trim_end_matches('s').parse().is_ok_and(|seconds: f64| seconds <= 0.0) {
            self.at(place, "no `request_timeout`: a request may be held for ever; set it (15s)");
        }
        let routes = get(manager, "rds").and_then(|(_, rds)| text(rds, "route_config_name"));
        if get(manager, "rds").is_some() && !(self.is_dump && routes.is_some()) {
            self.warn(
                place,
                "routes come by `rds`: give that file to this check as well, for its retries and overrides",
            );
        }
        self.upgrades(place, manager, guard);
    }

    /// An upgrade with a chain of its own goes round ours unless ours is in it.
    fn upgrades(&mut self, place: &Place, manager: &Value, guard: Option<&Guard>) {
        let Some((name, Value::Sequence(upgrades))) = get(manager, "upgrade_configs") else { return };
        for (index, upgrade) in upgrades.iter().enumerate() {
            if let Some((inside, Value::Sequence(filters))) = get(upgrade, "filters")
                && !filters.is_empty()
                && let Some(guard) = guard
            {
                self.chain(&place.member(name).item(index).member(inside), filters, guard, true);
            }
        }
    }

    /// The `config` of our wasm filter.
    fn module(&mut self, place: &Place, config: &Value) {
        let policy = held::policy(config);
        if let Some(host) =
            policy.as_ref().and_then(|policy| policy["host"].as_str()).filter(|host| *host != "envoy")
        {
            self.at(
                &place.member("configuration"),
                &format!("the policy is for `{host}`; write `\"host\": \"envoy\"`"),
            );
        }
        let is_buffered = policy.as_ref().is_some_and(held::is_buffered);
        if !is_buffered && !flag(config, "allow_on_headers_stop_iteration") {
            self.at(place, "`allow_on_headers_stop_iteration` is not true: a request that waits for its body would hang; set it (Envoy 1.35 or later)");
        }
        match get(config, "failure_policy").map(|(_, value)| value) {
            Some(value) if is_one_of(value, &[("FAIL_RELOAD", 1), ("FAIL_CLOSED", 2)]) => {}
            Some(value) if !is_one_of(value, &[("UNSPECIFIED", 0)]) => {
                self.at(place, "`failure_policy` is not FAIL_RELOAD or FAIL_CLOSED; set it to FAIL_RELOAD");
            }
            // That is FAIL_CLOSED.
            _ => self.warn(place, "no `failure_policy`: a worker whose module has failed answers 503 until Envoy is restarted; set it to FAIL_RELOAD where you can"),
        }
        if flag(config, "fail_open") {
            self.at(place, "`fail_open` lets every request through when the module fails; remove it");
        }
        match get(config, "configuration") {
            Some((_, value)) if type_of(value).ends_with(STRING_VALUE) => {}
            Some((name, _)) => self.at(&place.member(name), "not a google.protobuf.StringValue: duplicates and order are lost before callbound reads it; give the policy as text"),
            None => self.at(place, "no `configuration`: callbound has no policy; give it as a google.protobuf.StringValue"),
        }
    }

    /// A retry repeats what was judged once.
    fn retries(&mut self, place: &Place, policy: &Value) {
        let number = get(policy, "num_retries")
            .and_then(|(_, value)| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        let asked = text(policy, "retry_on").is_some_and(|on| !on.is_empty());
        if number.map_or(asked, |number| number > 0) {
            self.at(place, "a retry repeats a call after its verdict; set `num_retries: 0`");
        }
    }

    /// Per-route switches that take our filter out.
    fn overrides(&mut self, place: &Place, overrides: &Value, guard: Option<&Guard>) {
        let Value::Mapping(members) = overrides else { return };
        for (name, value) in members {
            let name = name.as_str().unwrap_or_default();
            let is_ours = is_our_name(name) || guard.is_some_and(|guard| guard.ours == name);
            if is_ours && held::is_switched_off(value) {
                self.at(
                    &place.member(name),
                    "this route passes without callbound; remove it and let the policy say `pass`",
                );
            }
        }
    }
}

/// Why a filter may not stand between ours and the router.
fn stands_after(name: &str, filter: &Value) -> String {
    let kind = name.rsplit('.').next().unwrap_or_default();
    let by_type = get(filter, "typed_config").map(|(_, config)| type_of(config)).unwrap_or_default();
    let is = |known: &str| kind == known || by_type.contains(&format!(".http.{known}."));
    if name == CORS || is("cors") {
        return format!(
            "`{name}` stands after callbound: preflights and refusals go without CORS headers; move it before"
        );
    }
    if REWRITERS.into_iter().any(is) {
        return format!("`{name}` stands after callbound and can change what was judged; move it before");
    }
    format!("`{name}` stands between callbound and the router; move it before callbound")
}

/// A member by its name in snake or camel case, with the name it was found under.
pub(super) fn get<'a>(value: &'a Value, snake: &str) -> Option<(&'a str, &'a Value)> {
    let Value::Mapping(members) = value else { return None };
    let camel = camel_case(snake);
    members.iter().find_map(|(name, inside)| {
        let name = name.as_str()?;
        (name == snake || name == camel).then_some((name, inside))
    })
}

pub(super) fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    get(value, name)?.1.as_str()
}

/// A boolean member, also when written as a string or as a wrapped value.
pub(super) fn flag(value: &Value, name: &str) -> bool {
    match get(value, name) {
        Some((_, Value::Bool(on))) => *on,
        Some((_, Value::String(word))) => word == "true",
        _ => false,
    }
}

/// An enum's value by name or by number.
fn is_one_of(value: &Value, known: &[(&str, u64)]) -> bool {
    known.iter().any(|(name, number)| value.as_str() == Some(*name) || value.as_u64() == Some(*number))
}

pub(super) fn type_of(value: &Value) -> &str {
    text(value, "@type").unwrap_or_default()
}

/// The `config` member of a wasm filter, also inside a TypedStruct.
pub(super) fn wasm_config(value: &Value) -> Option<&Value> {
    let filter = match get(value, "type_url") {
        Some((_, kind)) if kind.as_str()?.ends_with(WASM_TYPE) => get(value, "value")?.1,
        _ if type_of(value).ends_with(WASM_TYPE) => value,
        _ => return None,
    };
    get(filter, "config").map(|(_, config)| config)
}

pub(super) fn is_our_name(name: &str) -> bool {
    name.to_ascii_lowercase().contains(OURS)
}

pub(super) fn is_our_module(config: &Value) -> bool {
    // Meshes name modules after what they were fetched from.
    if held::policy(config).is_some_and(|policy| {
        ["version", "host", "routes"].iter().all(|section| policy.get(section).is_some())
    }) {
        return true;
    }
    let vm = get(config, "vm_config").map(|(_, vm)| vm);
    let code = vm.and_then(|vm| get(get(get(vm, "code")?.1, "local")?.1, "filename")?.1.as_str());
    let names = [text(config, "name"), text(config, "root_id"), vm.and_then(|vm| text(vm, "vm_id")), code];
    names.into_iter().flatten().any(is_our_name)
}

fn is_router(filter: &Value) -> bool {
    let kind = get(filter, "typed_config").map(|(_, config)| type_of(config)).unwrap_or_default();
    text(filter, "name") == Some(ROUTER) || kind.ends_with("http.router.v3.Router")
}
