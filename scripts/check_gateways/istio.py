"""Checks gateways/istio, and runs the chains that Istio builds from it on a real Envoy.

The chain of a WasmPlugin and the effect of an EnvoyFilter follow Istio's sources
(pilot/pkg/networking/core/listener_builder.go, .../envoyfilter/listener_patch.go, .../extension/wasmplugin.go,
pilot/pkg/model/extensions.go, pkg/wasm/convert.go).
"""

import copy
import json

from common import (callbound, check_definitions, check_embedded, check_kustomization, check_policy, check_secrets, expect,
                    resources, unless_missing)
from envoy import ROUTER, STRING_VALUE, WASM_TYPE, Chain, local, typed, with_key

FOLDER = "gateways/istio"
POLICY, BUFFERED = f"{FOLDER}/policy.json", f"{FOLDER}/policy-buffer.json"
FLAG, BUFFER_FILTER, PLUGIN = f"{FOLDER}/envoyfilter-flag.yaml", f"{FOLDER}/envoyfilter-buffer.yaml", f"{FOLDER}/wasmplugin.yaml"
MANAGER, SERVICE = f"{FOLDER}/envoyfilter-manager.yaml", f"{FOLDER}/virtualservice.yaml"
FILES = [FLAG, BUFFER_FILTER, PLUGIN, MANAGER, SERVICE, f"{FOLDER}/serviceentry.yaml"]
CHECKED = ("resources match their definitions; Istio's chains guard on a real Envoy, and the WasmPlugin alone leaks"
           " (no Istio was run)")

# Changes that the definitions must refuse.
MISTAKES = [
    (PLUGIN, "a misspelt member", lambda plugin: plugin["spec"].update(failstrategy="FAIL_RELOAD")),
    (PLUGIN, "an unknown phase", lambda plugin: plugin["spec"].update(phase="LAST")),
    (PLUGIN, "a digest with its prefix", lambda plugin: plugin["spec"].update(sha256="sha256:" + "0" * 64)),
    (FLAG, "a misspelt patch", lambda filter: filter["spec"]["configPatches"][0].update(applyto="EXTENSION_CONFIG")),
    (FLAG, "an unknown operation", lambda filter: filter["spec"]["configPatches"][0]["patch"].update(operation="PUT")),
]


def plugin_name(plugin):
    meta = plugin["metadata"]
    return f"extensions.istio.io/wasmplugin/{meta['namespace']}.{meta['name']}"


def plugin_config(plugin):
    """convertToWasmPluginWrapper, buildVMConfig: the policy is serialized again, its members in alphabetical order."""
    spec = plugin["spec"]
    environment = {"key_values": {"ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "1"},
                   "host_env_keys": [each["name"] for each in spec["vmConfig"]["env"] if each["valueFrom"] == "HOST"]}
    policies = {"FAIL_OPEN": "FAIL_OPEN", "FAIL_CLOSE": "FAIL_CLOSED", "FAIL_RELOAD": "FAIL_RELOAD"}
    return {"@type": WASM_TYPE, "config": {
        "name": plugin_name(plugin), "root_id": spec["pluginName"], "failure_policy": policies[spec["failStrategy"]],
        "vm_config": {"runtime": "envoy.wasm.runtime.v8", "environment_variables": environment},
        "configuration": {"@type": STRING_VALUE, "value": json.dumps(spec["pluginConfig"], sort_keys=True)}}}


def own_filters():
    """Returns the filters of a gateway's chain besides plugins. Filters of Istio's own Envoy (istio.*), which look at
    headers only, are left out: a plain Envoy does not have them."""
    kinds = {"grpc_stats": "FilterConfig", "fault": "HTTPFault", "cors": "Cors"}
    return [typed(f"envoy.filters.http.{name}", kind) for name, kind in kinds.items()]


def routes():
    """Returns the routes that Istio builds from the VirtualService, named after its entries."""
    for entry in resources(SERVICE)[1]["spec"]["http"]:
        headers = [{"name": name, "present_match": True} for each in entry.get("match", []) for name in each["headers"]]
        yield {"name": entry["name"], "match": {"prefix": "/", "headers": headers},
               "route": {"cluster": "upstream", "timeout": entry["timeout"]}}


def manager(plugins):
    """buildHTTPConnectionManager for a gateway; a VirtualService with `attempts: 0` gets no retry policy."""
    filters = [{"name": plugin_name(plugin), "config_discovery": {}} for plugin in plugins]
    return {"stat_prefix": "gateway", "normalize_path": True, "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "use_remote_address": True, "upgrade_configs": [{"upgrade_type": "websocket"}], "stream_idle_timeout": "0s",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes())}]},
            "http_filters": filters + own_filters() + [typed(ROUTER, "Router")]}


def merged(old, new):
    """Merges protobuf messages as far as our patches need: members of members, the last one wins."""
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
    expect(operation == "INSERT_BEFORE" and len(places) == 1, f"{operation} at {wanted}: unknown operation or filter")
    return filters[: places[0]] + [copy.deepcopy(patch["patch"]["value"])] + filters[places[0]:]


def patch_route(result, name, value):
    found = [each for each in result["route_config"]["virtual_hosts"][0]["routes"] if each["name"] == name]
    expect(len(found) == 1, f"{SERVICE}: has no route `{name}`")
    for each in found:
        each.update(merged(each, value))


def applied(files, plugins):
    """Returns the connection manager, the filters delivered by ECDS and the listener's limit, after all patches."""
    result, delivered = manager(plugins), {plugin_name(plugin): plugin_config(plugin) for plugin in plugins}
    limit = 1048576
    for patch in (patch for path in files for patch in resources(path)[0]["spec"]["configPatches"]):
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


def run_chain(name, policy_path, files, plugins=(), leaks=False):
    """Runs the chain that Istio builds from these files, with ECDS from files."""
    key, policy = with_key(policy_path)
    chain = Chain(name, key)
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
    chain.run(result, limit, chain.leaks if leaks else None)


def check_files():
    callbound("check", POLICY)
    check_policy(BUFFERED, POLICY, f"{FOLDER}/buffer.json")
    plugin = resources(PLUGIN)[0]["spec"]
    check_embedded(BUFFERED, PLUGIN, plugin["pluginConfig"])
    check_secrets(BUFFERED, [each["name"] for each in plugin["vmConfig"]["env"]], PLUGIN)
    wasm = resources(FLAG)[0]["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"]
    check_embedded(POLICY, FLAG, wasm["configuration"]["value"])
    check_secrets(POLICY, wasm["vm_config"]["environment_variables"]["host_env_keys"], FLAG)
    for route in resources(SERVICE)[1]["spec"]["http"]:
        expect(route["retries"] == {"attempts": 0}, f"{SERVICE}: retries repeat calls; set `attempts: 0`")


def check_chains():
    run_chain("Istio, envoyfilter-flag.yaml", POLICY, [FLAG, MANAGER])
    run_chain("Istio, wasmplugin.yaml", BUFFERED, [BUFFER_FILTER, MANAGER], resources(PLUGIN))
    run_chain("Istio, wasmplugin.yaml alone", BUFFERED, [MANAGER], resources(PLUGIN), leaks=True)


def check():
    if not unless_missing(check_definitions, FILES, MISTAKES):
        return  # the checks below read members that the definitions require
    check_kustomization(FOLDER, ["wasmplugin.yaml", "envoyfilter-buffer.yaml", "serviceentry.yaml"])
    check_files()
    unless_missing(check_chains)
