"""Checks gateways/apisix without an APISIX.

Neither APISIX nor its schemas are in a package registry. What it demands of a Wasm plugin is written here after its
sources (apisix/cli/schema.lua, apisix/wasm.lua) and said to be no more than that.
"""

import re
import sys

from common import check_policy, check_shape, embedded, expect, finish, read, read_yaml, shape

FOLDER = "gateways/apisix"
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


def check_config(secrets):
    path = f"{FOLDER}/config.yaml"
    config = read_yaml(path)
    if not check_shape(path, config, CONFIG):
        return
    nginx = config["nginx_config"]
    expect(sorted(nginx.get("envs", [])) == sorted(secrets), f"{path}: names other variables than {secrets}")
    expect('set $callbound "";' in nginx.get("http_server_configuration_snippet", ""), f"{path}: $callbound is not declared")
    size = str(nginx.get("http", {}).get("client_max_body_size", "0"))
    expect(re.fullmatch(r"[1-9]\d*[km]", size), f"{path}: client_max_body_size {size}: bodies have no limit")
    log = nginx.get("http", {}).get("access_log_format", "")
    expect("$callbound" in log, f"{path}: the access log has no decision")
    for variable in ("$request ", "$request_uri", "$args", "$query_string", "$http_authorization"):
        expect(variable not in log + " ", f"{path}: {variable} would put credentials into the access log")


def check_routes(text):
    path = f"{FOLDER}/apisix.yaml"
    routes = read_yaml(path)
    embedded(f"{FOLDER}/policy.json", path)
    if not check_shape(path, routes, ROUTES):
        return
    for route in routes["routes"]:
        expect(route["plugins"]["callbound"]["conf"] == text, f"{path}: YAML reads another policy than policy.json")
    expect(read(path).rstrip().endswith("\n#END"), f"{path}: without #END at its end APISIX does not read it")


def main():
    text, secrets = check_policy(sys.argv[1], FOLDER)
    check_config(secrets)
    check_routes(text)
    finish("gateways/apisix", "policy, settings and route are as they must be (no APISIX was run: none is to be had here)")


if __name__ == "__main__":
    main()
