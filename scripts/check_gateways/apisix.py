"""Checks gateways/apisix without an APISIX, which no package registry has.

APISIX's rules for a Wasm plugin are copied from its sources (apisix/cli/schema.lua, apisix/wasm.lua), as far as they
are used here.
"""

import re

from common import check_embedded, check_policy, check_secrets, check_shape, expect, read, resources, shape

FOLDER = "gateways/apisix"
POLICY, CONFIG_FILE, ROUTES_FILE = f"{FOLDER}/policy.json", f"{FOLDER}/config.yaml", f"{FOLDER}/apisix.yaml"
CHECKED = "policy, settings and route are correct (no APISIX was run)"
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}

PLUGIN = shape(
    ["name", "file", "priority", "http_request_phase"],
    name={"const": "callbound"},
    file={"type": "string", "pattern": r"\.wasm$"},
    priority=NUMBER,
    http_request_phase={"enum": ["access", "rewrite"]},
)
CONFIG = shape(
    ["apisix", "deployment", "nginx_config", "wasm"],
    apisix={"type": "object"},
    deployment=shape(
        ["role", "role_data_plane"],
        role={"const": "data_plane"},
        role_data_plane=shape(["config_provider"], config_provider={"enum": ["yaml", "xds", "control_plane"]}),
    ),
    nginx_config={"type": "object"},
    wasm=shape(["plugins"], plugins={"type": "array", "minItems": 1, "maxItems": 1, "items": PLUGIN}),
)
ROUTE = shape(
    ["id", "uri", "plugins", "upstream"],
    id=TEXT,
    uri=TEXT,
    plugins=shape(["callbound"], callbound=shape(["conf"], conf={"type": "string", "minLength": 1})),
    upstream=shape(["type", "nodes", "retries"], type=TEXT, nodes={"type": "object"}, retries={"const": 0}),
    enable_websocket={"type": "boolean"},
)
ROUTES = shape(["routes"], routes={"type": "array", "minItems": 1, "items": ROUTE})


def check_config():
    config = resources(CONFIG_FILE)[0]
    if not check_shape(CONFIG_FILE, config, CONFIG):
        return
    nginx = config["nginx_config"]
    level = nginx.get("error_log_level")
    expect(level == "warn", f"{CONFIG_FILE}: error_log_level {level}: `info` and below put credentials into error.log")
    check_secrets(POLICY, nginx.get("envs", []), CONFIG_FILE)
    snippet = nginx.get("http_server_configuration_snippet", "")
    expect('set $callbound "";' in snippet, f"{CONFIG_FILE}: $callbound is not declared")
    size = str(nginx.get("http", {}).get("client_max_body_size", "0"))
    expect(re.fullmatch(r"[1-9]\d*[km]", size), f"{CONFIG_FILE}: client_max_body_size {size}: bodies have no limit")
    log = nginx.get("http", {}).get("access_log_format", "")
    expect("$callbound" in log, f"{CONFIG_FILE}: the access log has no decision")
    for variable in ("$request ", "$request_uri", "$args", "$query_string", "$http_authorization"):
        expect(variable not in log + " ", f"{CONFIG_FILE}: {variable} would put credentials into the access log")


def check_routes():
    routes = resources(ROUTES_FILE)[0]
    if not check_shape(ROUTES_FILE, routes, ROUTES):
        return
    for route in routes["routes"]:
        check_embedded(POLICY, ROUTES_FILE, route["plugins"]["callbound"]["conf"])
    expect(read(ROUTES_FILE).rstrip().endswith("\n#END"), f"{ROUTES_FILE}: APISIX reads it only with #END at its end")


def check():
    check_policy(POLICY, POLICY, f"{FOLDER}/host.json")
    check_config()
    check_routes()
