"""Checks gateways/envoy-gateway, and runs the chains that Envoy Gateway builds from it on a real Envoy.

The chains follow Envoy Gateway's sources (internal/xds/translator/wasm.go, request_buffer.go, httpfilters.go,
listener.go, jsonpatch.go, and the expected results of their tests).
"""

import copy
import json
import re

from common import (check_definitions, check_embedded, check_kustomization, check_policy, check_secrets, expect, resources,
                    unless_missing)
from envoy import BUFFER, ROUTER, STRING_VALUE, WASM_TYPE, Chain, local, typed, with_key

FOLDER = "gateways/envoy-gateway"
POLICY, EXTENSION, PROXY = f"{FOLDER}/policy.json", f"{FOLDER}/extensionpolicy.yaml", f"{FOLDER}/envoyproxy.yaml"
CLIENT, BACKEND = f"{FOLDER}/clienttrafficpolicy.yaml", f"{FOLDER}/backendtrafficpolicy.yaml"
PATCH, ROUTES, WEBSOCKET = f"{FOLDER}/envoypatchpolicy.yaml", f"{FOLDER}/routes.yaml", f"{FOLDER}/websocket.yaml"
CHECKED = ("resources match their definitions; Envoy Gateway's chains guard on a real Envoy, and its own order of filters"
           " leaks (no Envoy Gateway was run)")
FILES = [EXTENSION, PROXY, CLIENT, BACKEND, PATCH, ROUTES, WEBSOCKET]

# Changes that the definitions must refuse.
MISTAKES = [
    (EXTENSION, "a misspelt member", lambda policy: policy["spec"]["wasm"][0].update(failopen=False)),
    (EXTENSION, "a misspelt source", lambda policy: policy["spec"]["wasm"][0]["code"].update(type="Oci")),
    (PROXY, "a filter that cannot be ordered",
     lambda proxy: proxy["spec"]["filterOrder"].append({"name": "envoy.filters.http.bufer", "after": "envoy.filters.http.wasm"})),
    (CLIENT, "an unknown path action", lambda policy: policy["spec"]["path"].update(escapedSlashesAction="REJECT_REQUEST")),
    (BACKEND, "a misspelt buffer", lambda policy: policy["spec"].update(requestbuffer={"limit": "1Mi"})),
    (PATCH, "an unknown operation", lambda patch: patch["spec"]["jsonPatches"][0]["operation"].update(op="set")),
]

# newOrderedHTTPFilter, for the filters that are used here.
ORDER = {"envoy.filters.http.cors": 3, BUFFER: 12, "envoy.filters.http.wasm": 200, "envoy.filters.http.local_ratelimit": 302,
         "envoy.filters.http.grpc_stats": 306, ROUTER: 310}


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi)", text).groups()
    return int(number) * {"Ki": 1 << 10, "Mi": 1 << 20}[unit]


def wasm_name():
    meta = resources(EXTENSION)[0]["metadata"]
    return f"envoyextensionpolicy/{meta['namespace']}/{meta['name']}/wasm/0"


def wasm_filter(policy):
    """wasmConfig: disabled in the chain, enabled by each route; no failure policy is set, which means closed."""
    wasm = resources(EXTENSION)[0]["spec"]["wasm"][0]
    config = {"name": wasm["name"], "root_id": wasm["rootID"], "fail_open": wasm["failOpen"],
              "vm_config": {"vm_id": wasm_name(), "runtime": "envoy.wasm.runtime.v8",
                            "environment_variables": {"host_env_keys": wasm["env"]["hostKeys"]}},
              "configuration": {"@type": STRING_VALUE, "value": json.dumps(policy, sort_keys=True)}}
    return {"name": f"envoy.filters.http.wasm/{wasm_name()}", "disabled": True,
            "typed_config": local({"@type": WASM_TYPE, "config": config})}


def buffer_filter():
    """patchHCM of request_buffer.go: disabled, and enabled by the routes."""
    limit = quantity(resources(BACKEND)[0]["spec"]["requestBuffer"]["limit"])
    return {**typed(BUFFER, "Buffer", max_request_bytes=limit), "disabled": True}


def ordered(filters, positions):
    """sortHTTPFilters: the built-in order, then each line of `filterOrder`."""
    def is_a(each, kind):
        return each["name"].startswith(kind)

    filters = sorted(filters, key=lambda each: next(place for kind, place in ORDER.items() if is_a(each, kind)))
    for position in positions:
        moved = [each for each in filters if is_a(each, position["name"])]
        rest = [each for each in filters if each not in moved]
        places = [index for index, each in enumerate(rest) if is_a(each, position.get("before") or position["after"])]
        if moved and places:
            index = places[0] if "before" in position else places[-1] + 1
            filters = rest[:index] + moved + rest[index:]
    return filters


def route(names, is_upgrade):
    """patchRoute of both: the overrides of a route; that of websocket.yaml has no buffer."""
    limit = quantity(resources(BACKEND)[0]["spec"]["requestBuffer"]["limit"])
    enabled = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
    overrides = {f"envoy.filters.http.wasm/{wasm_name()}": enabled}
    if BUFFER in names and not is_upgrade:
        overrides[BUFFER] = {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
                             "buffer": {"max_request_bytes": limit}}
    match = resources(WEBSOCKET)[0]["spec"]["rules"][0]["matches"][0]["headers"][0]
    header = {"name": match["name"], "string_match": {"safe_regex": {"regex": match["value"]}}}
    return {"match": {"prefix": "/", "headers": [header] if is_upgrade else []},
            "route": {"cluster": "upstream", "timeout": "30s",
                      "upgrade_configs": [{"upgrade_type": "websocket"}]},
            "typed_per_filter_config": overrides}


def manager(filters):
    """buildXdsListener with the ClientTrafficPolicy."""
    client = resources(CLIENT)[0]["spec"]
    actions = {"RejectRequest": "REJECT_REQUEST", "UnescapeAndRedirect": "UNESCAPE_AND_REDIRECT"}
    windows = {"initial_stream_window_size": quantity(client["http2"]["initialStreamWindowSize"]),
               "initial_connection_window_size": quantity(client["http2"]["initialConnectionWindowSize"])}
    names = [each["name"] for each in filters]
    hosts = [{"name": "all", "domains": ["*"], "routes": [route(names, True), route(names, False)]}]
    return {"stat_prefix": "http", "normalize_path": True, "merge_slashes": not client["path"]["disableMergeSlashes"],
            "path_with_escaped_slashes_action": actions[client["path"]["escapedSlashesAction"]],
            "common_http_protocol_options": {
                "headers_with_underscores_action": actions[client["headers"]["withUnderscoresAction"]]},
            "http2_protocol_options": {"max_concurrent_streams": 100, **windows}, "use_remote_address": True,
            "server_header_transformation": "PASS_THROUGH",
            "request_timeout": client["timeout"]["http"]["requestReceivedTimeout"],
            "stream_idle_timeout": client["timeout"]["http"]["streamIdleTimeout"],
            "route_config": {"virtual_hosts": hosts}, "http_filters": filters}


def patched(filters):
    """processJSONPatches, for patches of one filter by its name."""
    filters = copy.deepcopy(filters)
    gateway = next(each for each in resources(ROUTES) if each["kind"] == "Gateway")
    meta = gateway["metadata"]
    listener = f"{meta['namespace']}/{meta['name']}/{gateway['spec']['listeners'][0]['name']}"
    for patch in resources(PATCH)[0]["spec"]["jsonPatches"]:
        operation = patch["operation"]
        expect(patch["name"] == listener, f"{PATCH}: patches {patch['name']}, expected {listener}")
        name = re.fullmatch(r"\.\.http_filters\[\?\(@\.name=='([^']*)'\)\]\.typed_config\.config", operation["jsonPath"])[1]
        found = [each for each in filters if each["name"] == name]
        expect(len(found) == 1 and operation["op"] == "add", f"{PATCH}: has no filter `{name}`")
        for each in found:
            each["typed_config"]["config"][operation["path"]] = operation["value"]
    return filters


def check_chains():
    """Both ways to hold headers guard; Envoy Gateway's own order of filters leaks."""
    limit = quantity(resources(CLIENT)[0]["spec"]["connection"]["bufferLimit"])
    positions = resources(PROXY)[0]["spec"]["filterOrder"]
    others = [typed("envoy.filters.http.cors", "Cors"), typed("envoy.filters.http.grpc_stats", "FilterConfig"),
              typed(ROUTER, "Router", suppress_envoy_headers=True)]
    key, policy = with_key(POLICY)
    filters = [*others, wasm_filter(policy), buffer_filter()]
    Chain("Envoy Gateway, requestBuffer", key).run(manager(ordered(filters, positions)), limit)
    chain = Chain("Envoy Gateway without filterOrder", key)
    chain.run(manager(ordered(filters, [])), limit, chain.leaks)
    del policy["hold_headers"]
    policy["hold_seconds"] = 1
    filters = ordered([*others, wasm_filter(policy)], positions)
    chain = Chain("Envoy Gateway without its patch", key)
    chain.run(manager(filters), limit, chain.hangs)
    Chain("Envoy Gateway, envoypatchpolicy.yaml", key).run(manager(patched(filters)), limit)


def check_files():
    check_policy(POLICY, POLICY, f"{FOLDER}/buffer.json")
    wasm = resources(EXTENSION)[0]["spec"]["wasm"][0]
    check_embedded(POLICY, EXTENSION, wasm["config"])
    check_secrets(POLICY, wasm["env"]["hostKeys"], EXTENSION)
    container = resources(PROXY)[0]["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"]
    check_secrets(POLICY, [each["name"] for each in container["env"]], PROXY)
    expect("retry" not in resources(BACKEND)[0]["spec"], f"{BACKEND}: retries repeat calls; remove `retry`")
    websocket = resources(WEBSOCKET)[1]["spec"]
    expect("requestBuffer" not in websocket and "mergeType" not in websocket, f"{WEBSOCKET}: handshakes would be held")


def check():
    if not unless_missing(check_definitions, FILES, MISTAKES):
        return  # the checks below read members that the definitions require
    check_kustomization(FOLDER, ["websocket.yaml", "envoypatchpolicy.yaml"])
    check_files()
    unless_missing(check_chains)
