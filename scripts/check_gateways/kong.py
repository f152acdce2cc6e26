"""Checks gateways/kong without a Kong, which no package registry has.

Kong's rules for a filter chain and for a filter's metadata are copied from its sources
(kong/db/schema/entities/filter_chains.lua, kong/runloop/wasm.lua, kong/plugins/prometheus/wasmx.lua), as far as they
are used here.
"""

import copy
import re

import jsonschema
import meta as kong_meta

from common import (callbound, check_embedded, check_headers, check_policy, check_secrets, check_shape, expect, read, read_json, resources,
                    shape)

FOLDER = "gateways/kong"
POLICY, SCHEMA, CHAINS = f"{FOLDER}/policy.json", f"{FOLDER}/callbound.meta.json", f"{FOLDER}/kong.yml"
SETTINGS, HEADERS, PRE_FUNCTION = f"{FOLDER}/kong.env", f"{FOLDER}/callbound-headers.conf", f"{FOLDER}/pre-function.yml"
CHECKED = "policy, metadata, labels and settings are correct (no Kong was run)"
TEXT, FLAG = {"type": "string"}, {"type": "boolean"}

FILTER = shape(["name"], name={"const": "callbound"}, enabled={"const": True}, config=TEXT)
CHAIN = shape(["filters"], name=TEXT, enabled={"const": True}, filters={"type": "array", "minItems": 1, "items": FILTER})
ROUTE = shape(["paths", "strip_path"], name=TEXT, paths={"type": "array"}, strip_path={"const": False})
SERVICE = shape(
    ["name", "url", "filter_chains"],
    name=TEXT,
    url=TEXT,
    retries={"const": 0},
    routes={"type": "array", "items": ROUTE},
    filter_chains={"type": "array", "minItems": 1, "maxItems": 1, "items": CHAIN},
)
PLUGIN = shape(["name"], name=TEXT, config={"type": "object"})
PRE_FUNCTIONS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": shape(
        ["name", "config"],
        name={"const": "pre-function"},
        config=shape(["access"], access={"type": "array", "minItems": 1, "maxItems": 1, "items": TEXT}),
    ),
}
DECLARATIVE = shape(
    ["_format_version", "services"],
    _format_version={"const": "3.0"},
    services={"type": "array", "items": SERVICE},
    plugins={"type": "array", "items": PLUGIN},
)
PATTERN = shape(["label", "pattern"], label={"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}, pattern=TEXT)
METRICS = shape(["label_patterns"], label_patterns={"type": "array", "items": PATTERN})
META = shape(["config_schema", "metrics"], config_schema={"type": "object"}, metrics=METRICS)

# Changes of the sample, and whether Kong must accept the result as an object.
CHANGES = [
    ("misspelt", False, lambda policy: policy.update(hots="kong")),
    ("misspelt below", False, lambda policy: policy["routes"][-1].update(acept=["api_key"])),
    ("one of two members that belong together", False, lambda policy: policy["routes"][-1]["bounds"].pop("to")),
    ("an unknown status", False, lambda policy: policy["refusals"].update(codes={"200": "x"})),
    ("a status", True, lambda policy: policy["refusals"].update(codes={"400": "x"})),
    ("an unknown reason", False, lambda policy: policy["refusals"].update(reasons={"bad_luck": {"code": "x"}})),
    ("an unknown placeholder", False, lambda policy: policy["refusals"]["envelope"].update(x="$luck")),
    ("an empty list", False, lambda policy: policy["api_keys"][0].update(scopes=[])),
    ("a number of 15 digits", False, lambda policy: policy.update(hold_seconds=100_000_000_000_000)),
]


def check_meta(text):
    """Checks that callbound.meta.json is of the current schema, is draft-4, and accepts only policies. Returns its label
    patterns."""
    made = kong_meta.text(callbound("schema"))
    expect(made == read(SCHEMA), f"{SCHEMA}: out of date; run `callbound schema | {FOLDER}/meta.py > {SCHEMA}`")
    meta = read_json(made)
    if not check_shape(SCHEMA, meta, META):
        return []
    jsonschema.Draft4Validator.check_schema(meta["config_schema"])
    accepts = jsonschema.Draft4Validator(meta["config_schema"]).is_valid
    policy = read_json(text)
    expect(accepts(text) and accepts(policy), f"{SCHEMA}: refuses the sample")
    for wrong in (None, "", "{", "x", [], {}, 7):
        expect(not accepts(wrong), f"{SCHEMA}: accepts {wrong!r}")
    for name, is_good, change in CHANGES:
        changed = copy.deepcopy(policy)
        change(changed)
        expect(accepts(changed) == is_good, f"{SCHEMA}: {'refuses' if is_good else 'accepts'} {name}")
    return meta["metrics"]["label_patterns"]


def as_regex(pattern):
    """Translates the part of Lua's pattern language that meta.py uses."""
    expect(re.fullmatch(r"(%[.l]|\[%l_\]|[a-z_.+$()])+", pattern), f"{SCHEMA}: this check cannot read the pattern {pattern}")
    return re.compile(pattern.replace("[%l_]", "[a-z_]").replace("%l", "[a-z]").replace("%.", r"\."))


def labels(patterns, metric):
    """Returns name and labels that Kong's Prometheus plugin makes of a counter."""
    found, start = [], len(metric)
    for pattern in patterns:
        match = as_regex(pattern["pattern"]).search(metric)
        if match:
            found.append((pattern["label"], match[2]))
            start = min(start, match.start())
    return metric[:start], found


def check_labels(patterns):
    """Checks that every counter of the module (src/filter/telemetry.rs) gets each label once."""
    reasons = [line.split()[0] for line in callbound("reasons").splitlines() if re.match(r"[a-z_]+\s", line)]
    expect(len(reasons) > 50, f"callbound reasons: printed only {len(reasons)} reasons")
    ends = [(outcome, None) for outcome in ("allow", "mint", "answer")] + [("deny", reason) for reason in reasons]
    for route in ("none", "calls.dial-v2", "x.deny", "x.allow"):
        for outcome, reason in ends:
            metric = ".".join(filter(None, ["pw.callbound.callbound.route", route, outcome, reason]))
            wanted = [("route", route), ("outcome", outcome)] + ([("reason", reason)] if reason else [])
            name, found = labels(patterns, metric)
            expect(name == "pw.callbound.callbound" and sorted(found) == sorted(wanted), f"{metric}: becomes {name} {found}")


def check_declarative():
    config = resources(CHAINS)[0]
    if not check_shape(CHAINS, config, DECLARATIVE):
        return
    for chain in (chain for service in config["services"] for chain in service["filter_chains"]):
        check_embedded(POLICY, CHAINS, chain["filters"][0]["config"])


def check_settings():
    """Checks kong.env for the settings without which less is guarded."""
    lines = [line for line in read(SETTINGS).splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    expect(len(settings) == len(lines), f"{SETTINGS}: a setting is repeated")
    zone = settings.get("KONG_NGINX_WASM_SHM_KV_CALLBOUND", "")
    expect(re.fullmatch(r"\d+m eviction=none", zone), f"{SETTINGS}: the zone `callbound` is {zone!r}, expected eviction=none")
    sizes = [settings.get(f"KONG_NGINX_HTTP_CLIENT_{name}_SIZE") for name in ("MAX_BODY", "BODY_BUFFER")]
    expect(sizes[0] and sizes[0] == sizes[1], f"{SETTINGS}: body sizes {sizes} differ")
    for name in ("WASM", "NGINX_WASM_TLS_VERIFY_CERT", "NGINX_WASM_TLS_VERIFY_HOST"):
        expect(settings.get(f"KONG_{name}") == "on", f"{SETTINGS}: KONG_{name} is not on")
    expect(settings.get("KONG_NGINX_LOCATION_INCLUDE") == "/kong/callbound-headers.conf",
           f"{SETTINGS}: callbound-headers.conf is not included")
    expect(settings.get("KONG_LOG_LEVEL") == "warn", f"{SETTINGS}: the level `info` and below put credentials into error.log")
    check_secrets(POLICY, settings.get("KONG_NGINX_MAIN_ENV", "").split("; env "), SETTINGS)


def check_pre_function():
    """Checks that pre-function.yml takes out the headers that callbound reserves (src/header.rs)."""
    plugin = resources(PRE_FUNCTION)[0]
    if not check_shape(PRE_FUNCTION, plugin, PRE_FUNCTIONS):
        return
    code = plugin[0]["config"]["access"][0]
    rules = read("src/header.rs").split("#[cfg(test)]")[0]
    reserved = {name for name in re.findall(r'"(x-[a-z-]+)"', rules) if not name.endswith("-")}
    expect(len(reserved) > 5, "src/header.rs: this check finds no reserved names")
    named = set(re.findall(r'\["([a-z-]+)"\] = true', code))
    expect(named == reserved, f"{PRE_FUNCTION}: names {sorted(named)}; callbound reserves {sorted(reserved)}")
    expect('plain:sub(1, 12) == "x-callbound-"' in code, f"{PRE_FUNCTION}: leaves headers with our prefix")


def check():
    text = check_policy(POLICY, POLICY, f"{FOLDER}/host.json")
    check_labels(check_meta(text))
    check_declarative()
    check_settings()
    check_headers(POLICY, HEADERS)
    check_pre_function()
