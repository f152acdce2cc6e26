"""Checks gateways/kong without a Kong.

Neither Kong nor its schemas are in a package registry. What Kong demands of a filter chain and of a filter's metadata is
written here after its sources (kong/db/schema/entities/filter_chains.lua, kong/runloop/wasm.lua,
kong/plugins/prometheus/wasmx.lua) and said to be no more than that.
"""

import copy
import re
import sys

import jsonschema
from common import check_policy, check_shape, embedded, expect, finish, read, read_json, read_yaml, run, shape

FOLDER = "gateways/kong"
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
DECLARATIVE = shape(
    ["_format_version", "services"],
    _format_version={"const": "3.0"},
    services={"type": "array", "items": SERVICE},
    plugins={"type": "array", "items": PLUGIN},
)
PATTERN = shape(["label", "pattern"], label={"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}, pattern=TEXT)
METRICS = shape(["label_patterns"], label_patterns={"type": "array", "items": PATTERN})
META = shape(["config_schema", "metrics"], config_schema={"type": "object"}, metrics=METRICS)

# What of the sample is changed, and what Kong must say of it when it comes as an object.
CHANGES = [
    ("misspelt", False, lambda policy: policy.update(hots="kong")),
    ("misspelt below", False, lambda policy: policy["routes"][0].update(acept=["api_key"])),
    ("one of two that go together", False, lambda policy: policy["routes"][1]["bounds"].pop("to")),
    ("a status that is none", False, lambda policy: policy["refusals"].update(codes={"200": "x"})),
    ("a status", True, lambda policy: policy["refusals"].update(codes={"400": "x"})),
    ("a reason that is none", False, lambda policy: policy["refusals"].update(reasons={"bad_luck": {"code": "x"}})),
    ("a value that no answer has", False, lambda policy: policy["refusals"]["envelope"].update(x="$luck")),
    ("an empty list", False, lambda policy: policy["api_keys"][0].update(scopes=[])),
    ("a number of 15 digits", False, lambda policy: policy.update(hold_seconds=100_000_000_000_000)),
]


def check_meta(tool, text):
    """callbound.meta.json is of today's schema, is draft-4, and tells a policy from what is none."""
    path = f"{FOLDER}/callbound.meta.json"
    made = run(sys.executable, "-B", f"{FOLDER}/meta.py", stdin=run(tool, "schema"))
    expect(made == read(path), f"{path} is old: callbound schema | {FOLDER}/meta.py > {path}")
    meta = read_json(made)
    if not check_shape(path, meta, META):
        return []
    schema = meta["config_schema"]
    jsonschema.Draft4Validator.check_schema(schema)
    takes = jsonschema.Draft4Validator(schema).is_valid
    policy = read_json(text)
    expect(takes(text) and takes(policy), f"{path} does not take the sample")
    for nothing in (None, "", "{", "x", [], {}, 7):
        expect(not takes(nothing), f"{path} takes {nothing!r}")
    for name, is_good, change in CHANGES:
        changed = copy.deepcopy(policy)
        change(changed)
        expect(takes(changed) == is_good, f"{path}: {name}: taken is {not is_good}")
    return meta["metrics"]["label_patterns"]


def as_regex(pattern):
    """The few words of Lua's patterns that meta.py uses, in Python's."""
    expect(re.fullmatch(r"(%[.l]|\[%l_\]|[a-z_.+$()])+", pattern), f"not read here: {pattern}")
    return re.compile(pattern.replace("[%l_]", "[a-z_]").replace("%l", "[a-z]").replace("%.", r"\."))


def labels(patterns, metric):
    """What Kong's Prometheus plugin makes of a counter: its name and its labels."""
    found, start = [], len(metric)
    for pattern in patterns:
        match = as_regex(pattern["pattern"]).search(metric)
        if match:
            found.append((pattern["label"], match[2]))
            start = min(start, match.start())
    return metric[:start], found


def check_labels(tool, patterns):
    """Every counter that the module can make (src/filter/telemetry.rs) gets each label once."""
    reasons = [line.split()[0] for line in run(tool, "reasons").splitlines() if re.match(r"[a-z_]+\s", line)]
    expect(len(reasons) > 50, f"only {len(reasons)} reasons were found")
    ends = [(outcome, None) for outcome in ("allow", "mint", "answer")] + [("deny", reason) for reason in reasons]
    for route in ("none", "calls.dial-v2", "x.deny", "x.allow"):
        for outcome, reason in ends:
            metric = ".".join(filter(None, ["pw.callbound.callbound.route", route, outcome, reason]))
            wanted = [("route", route), ("outcome", outcome)] + ([("reason", reason)] if reason else [])
            name, found = labels(patterns, metric)
            expect(name == "pw.callbound.callbound" and sorted(found) == sorted(wanted), f"{metric}: {name} {found}")


def check_declarative(text):
    path = f"{FOLDER}/kong.yml"
    config = read_yaml(path)
    embedded(f"{FOLDER}/policy.json", path)
    if not check_shape(path, config, DECLARATIVE):
        return
    for service in config["services"]:
        for chain in service["filter_chains"]:
            expect(chain["filters"][0]["config"] == text, f"{path}: YAML reads another policy than policy.json")


def check_settings(secrets):
    """kong.env: nothing is missing without which less is guarded."""
    path = f"{FOLDER}/kong.env"
    lines = [line for line in read(path).splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    expect(len(settings) == len(lines), f"{path}: a setting stands twice")
    expect(settings.get("KONG_WASM") == "on", f"{path}: without wasm")
    zone = settings.get("KONG_NGINX_WASM_SHM_KV_CALLBOUND", "")
    expect(re.fullmatch(r"\d+m eviction=none", zone), f"{path}: the zone `callbound`: {zone!r}")
    sizes = [settings.get(f"KONG_NGINX_HTTP_CLIENT_{name}_SIZE") for name in ("MAX_BODY", "BODY_BUFFER")]
    expect(sizes[0] and sizes[0] == sizes[1], f"{path}: bodies: {sizes}")
    for check in ("CERT", "HOST"):
        expect(settings.get(f"KONG_NGINX_WASM_TLS_VERIFY_{check}") == "on", f"{path}: TLS is not verified")
    named = settings.get("KONG_NGINX_MAIN_ENV", "").split("; env ")
    expect(sorted(named) == sorted(secrets), f"{path}: names {named}; the policy needs {secrets}")


def check_nginx(text, secrets):
    """nginx.conf: what nginx would read of it is the policy, and what a guarded location needs is there."""
    path = f"{FOLDER}/nginx.conf"
    embedded(f"{FOLDER}/policy.json", path)
    config = read(path)
    quoted = re.search(r"proxy_wasm callbound '((?:[^'\\]|\\.)*)';", config, re.DOTALL)[1]
    expect(re.sub(r"\\([\\'\"])", r"\1", quoted) == text.strip(), f"{path}: nginx reads another policy than policy.json")
    rest = config.replace(quoted, "")
    named = re.findall(r"^env (\w+);", rest, re.MULTILINE)
    expect(sorted(named) == sorted(secrets), f"{path}: names {named}; the policy needs {secrets}")
    sizes = re.findall(r"client_(?:max_body|body_buffer)_size (\w+);", rest)
    expect(len(sizes) == 2 and sizes[0] == sizes[1], f"{path}: bodies: {sizes}")
    for line in ("shm_kv callbound 16m eviction=none;", "tls_verify_cert on;", "tls_verify_host on;",
                 "set $upstream_uri $request_uri;", "$upstream_uri;"):
        expect(line in rest, f"{path}: `{line}` is missing")
    for line in re.findall(r"^\s*(return|satisfy|rewrite)\s", rest, re.MULTILINE):
        expect(False, f"{path}: `{line}` may answer before callbound does")


def main():
    tool = sys.argv[1]
    text, secrets = check_policy(tool, FOLDER)
    patterns = check_meta(tool, text)
    check_labels(tool, patterns)
    check_declarative(text)
    check_settings(secrets)
    check_nginx(text, secrets)
    finish("gateways/kong", "policy, metadata, labels and settings are as they must be (no Kong was run: none is to be had here)")


if __name__ == "__main__":
    main()
