"""Checks gateways/istio, and runs on a real Envoy the chains that Istio makes of it.

What Istio makes of a WasmPlugin, and how it applies an EnvoyFilter, is written here after its sources
(pilot/pkg/networking/core/listener_builder.go, .../envoyfilter/listener_patch.go, .../extension/wasmplugin.go,
pilot/pkg/model/extensions.go, pkg/wasm/convert.go).
"""

import copy
import json
import sys

from common import expect, finish, read, read_json, run
from mesh import (WASM_TYPE, Chain, check_definitions, check_embedded, check_kustomization, check_secrets, local,
                  resources, router, with_key)

FOLDER = "gateways/istio"
FLAG, BUFFER_FILTER, PLUGIN = f"{FOLDER}/envoyfilter-flag.yaml", f"{FOLDER}/envoyfilter-buffer.yaml", f"{FOLDER}/wasmplugin.yaml"
MANAGER = f"{FOLDER}/envoyfilter-manager.yaml"
FILES = [FLAG, BUFFER_FILTER, PLUGIN, MANAGER, f"{FOLDER}/virtualservice.yaml", f"{FOLDER}/serviceentry.yaml"]

# Where the definitions must say no.
MISTAKES = [
    (PLUGIN, "a misspelt member", lambda plugin: plugin["spec"].update(failstrategy="FAIL_RELOAD")),
    (PLUGIN, "a phase that does not exist", lambda plugin: plugin["spec"].update(phase="LAST")),
    (PLUGIN, "a digest with its prefix", lambda plugin: plugin["spec"].update(sha256="sha256:" + "0" * 64)),
    (FLAG, "a misspelt patch", lambda filter: filter["spec"]["configPatches"][0].update(applyto="EXTENSION_CONFIG")),
    (FLAG, "an operation that does not exist",
     lambda filter: filter["spec"]["configPatches"][0]["patch"].update(operation="PUT")),
]


def plugin_name(plugin):
    meta = plugin["metadata"]
    return f"extensions.istio.io/wasmplugin/{meta['namespace']}.{meta['name']}"


def plugin_config(plugin):
    """convertToWasmPluginWrapper, buildVMConfig: the policy becomes JSON text anew, its members in alphabetical order."""
    spec = plugin["spec"]
    policy = json.dumps(spec["pluginConfig"], sort_keys=True)
    environment = {"key_values": {"ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "1"},
                   "host_env_keys": [each["name"] for each in spec["vmConfig"]["env"] if each["valueFrom"] == "HOST"]}
    policies = {"FAIL_OPEN": "FAIL_OPEN", "FAIL_CLOSE": "FAIL_CLOSED", "FAIL_RELOAD": "FAIL_RELOAD"}
    return {"@type": WASM_TYPE, "config": {
        "name": plugin_name(plugin), "root_id": spec["pluginName"], "failure_policy": policies[spec["failStrategy"]],
        "vm_config": {"runtime": "envoy.wasm.runtime.v8", "environment_variables": environment},
        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": policy}}}


def own_filters():
    """What stands in a gateway's chain besides plugins. Filters of Istio's own Envoy (istio.*) are left out: a plain Envoy
    has none; they look at headers only."""
    types = {"grpc_stats": "FilterConfig", "fault": "HTTPFault", "cors": "Cors"}
    return [{"name": f"envoy.filters.http.{name}",
             "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{name}.v3.{kind}"}}
            for name, kind in types.items()]


def routes():
    """What a VirtualService becomes: routes by the names of its entries."""
    made = []
    for entry in resources(f"{FOLDER}/virtualservice.yaml")[1]["spec"]["http"]:
        headers = [{"name": name, "present_match": True} for each in entry.get("match", []) for name in each["headers"]]
        made.append({"name": entry["name"], "match": {"prefix": "/", "headers": headers},
                     "route": {"cluster": "upstream", "timeout": entry["timeout"]}})
    return made


def manager(plugins):
    """buildHTTPConnectionManager for a gateway; a VirtualService with `attempts: 0` writes no retry policy."""
    filters = [{"name": plugin_name(plugin), "config_discovery": {}} for plugin in plugins] + own_filters() + [router()]
    return {"stat_prefix": "gateway", "normalize_path": True, "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "use_remote_address": True, "upgrade_configs": [{"upgrade_type": "websocket"}], "stream_idle_timeout": "0s",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes()}]},
            "http_filters": filters}


def merged(old, new):
    """A merge of protobuf messages, as far as our patches need it: members of members, the last one wins."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    return {**old, **{name: merged(old.get(name), value) for name, value in new.items()}}


def patched_filters(filters, patch):
    """patchHTTPFilters: one patch after the other."""
    wanted = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
    operation = patch["patch"]["operation"]
    if operation == "REMOVE":
        return [each for each in filters if each["name"] != wanted]
    places = [index for index, each in enumerate(filters) if each["name"] == wanted]
    expect(operation == "INSERT_BEFORE" and len(places) == 1, f"{operation} at {wanted}: not known here, or no such filter")
    return filters[: places[0]] + [copy.deepcopy(patch["patch"]["value"])] + filters[places[0] :]


def patch_route(result, name, value):
    found = [each for each in result["route_config"]["virtual_hosts"][0]["routes"] if each["name"] == name]
    expect(len(found) == 1, f"{FOLDER}: no route is called {name}")
    for each in found:
        each.update(merged(each, value))


def applied(files, plugins=()):
    """The connection manager, what is delivered by ECDS, and the listener's limit, after all patches."""
    result, delivered = manager(plugins), {plugin_name(plugin): plugin_config(plugin) for plugin in plugins}
    limit = 1048576
    for path in files:
        for patch in resources(path)[0]["spec"]["configPatches"]:
            value = patch["patch"].get("value", {})
            if patch["applyTo"] == "EXTENSION_CONFIG":
                delivered[value["name"]] = value["typed_config"]
            elif patch["applyTo"] == "HTTP_FILTER":
                result["http_filters"] = patched_filters(result["http_filters"], patch)
            elif patch["applyTo"] == "HTTP_ROUTE":
                patch_route(result, patch["match"]["routeConfiguration"]["vhost"]["route"]["name"], value)
            elif patch["applyTo"] == "NETWORK_FILTER":
                result = merged(result, {name: each for name, each in value["typed_config"].items() if name != "@type"})
            else:
                limit = value["per_connection_buffer_limit_bytes"]
    return result, delivered, limit


def run_chain(name, files, tools, key, policy, plugins=(), wrong=False):
    """Runs what Istio makes of these files; ECDS comes from files instead of Istio."""
    chain = Chain(name, tools, key)
    result, delivered, limit = applied(files, plugins)
    for index, each in enumerate(result["http_filters"]):
        if "config_discovery" not in each:
            continue
        config = local(delivered[each["name"]])
        config["config"]["configuration"]["value"] = json.dumps(policy)
        path = chain.file(f"ecds-{index}.json", {"version_info": "1", "resources": [
            {"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": each["name"],
             "typed_config": config}]})
        types = each["config_discovery"].get("type_urls", [WASM_TYPE])
        source = {"resource_api_version": "V3", "path_config_source": {"path": path}}
        each["config_discovery"] = {"config_source": source, "type_urls": types}
    chain.run(result, limit, chain.leaks if wrong else None)


def check_files(tool):
    for policy, path in ((f"{FOLDER}/policy.json", FLAG), (f"{FOLDER}/policy-buffer.json", PLUGIN)):
        run(tool, "check", policy)
        check_embedded(policy, path)
    buffered = run(tool, "merge", f"{FOLDER}/policy.json", f"{FOLDER}/buffer.json")
    expect(read_json(buffered or "null") == read_json(read(f"{FOLDER}/policy-buffer.json")),
           f"{FOLDER}/policy-buffer.json is not policy.json with buffer.json")
    plugin = resources(PLUGIN)[0]["spec"]
    expect(plugin["pluginConfig"] == read_json(read(f"{FOLDER}/policy-buffer.json")), f"{PLUGIN}: YAML reads another policy")
    wasm = resources(FLAG)[0]["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"]
    expect(wasm["configuration"]["value"] == read(f"{FOLDER}/policy.json"), f"{FLAG}: YAML reads another policy")
    check_secrets(tool, f"{FOLDER}/policy.json", wasm["vm_config"]["environment_variables"]["host_env_keys"], FLAG)
    check_secrets(tool, f"{FOLDER}/policy-buffer.json", [each["name"] for each in plugin["vmConfig"]["env"]], PLUGIN)
    for route in resources(f"{FOLDER}/virtualservice.yaml")[1]["spec"]["http"]:
        expect(route["retries"] == {"attempts": 0}, f"{FOLDER}/virtualservice.yaml: retries repeat calls")


def main():
    tool, packages, envoy = sys.argv[1:4]
    check_definitions(packages, FILES, MISTAKES)
    check_kustomization(FOLDER, ["wasmplugin.yaml", "envoyfilter-buffer.yaml", "serviceentry.yaml"])
    check_files(tool)
    tools = {"envoy": envoy, "callbound": tool}
    plugins = resources(PLUGIN)
    key, policy = with_key(tool, f"{FOLDER}/policy.json")
    run_chain("Istio, envoyfilter-flag.yaml", [FLAG, MANAGER], tools, key, policy)
    key, policy = with_key(tool, f"{FOLDER}/policy-buffer.json")
    run_chain("Istio, wasmplugin.yaml", [BUFFER_FILTER, MANAGER], tools, key, policy, plugins)
    run_chain("Istio, wasmplugin.yaml alone", [MANAGER], tools, key, policy, plugins, wrong=True)
    finish(FOLDER, "resources are as their definitions demand; the chains that Istio makes of them guard on a real Envoy, and"
                   " the WasmPlugin alone is seen to leak (no Istio was run: none is to be had here)")


if __name__ == "__main__":
    main()
