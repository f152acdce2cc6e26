"""What the checks of Istio and Envoy Gateway share: resources against their definitions, and an Envoy that runs the chain.

Neither control plane runs here. What it makes of our resources is written in istio.py and envoy-gateway.py after its
sources; from there on everything is real: Envoy itself, the module, and `callbound check --envoy` on what Envoy says of itself.
"""

import copy
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import yaml

from common import PROBLEMS, Once, expect, finish, read, read_json, run

BUFFER = "envoy.filters.http.buffer"
ROUTER = "envoy.filters.http.router"
WASM_TYPE = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
MODULE = "dist/callbound.wasm"


def resources(path):
    """The documents of a file, without members that stand twice."""
    return [document for document in yaml.load_all(read(path), Once) if document]


def check_definitions(packages, files, mistakes):
    """Every resource is as its definition demands; `mistakes` (file, why, change) are refused by it."""
    wrong = []
    for path, _, change in mistakes:
        changed = copy.deepcopy(resources(path))
        change(changed[0])
        wrong.append(changed)
    documents = [resources(path) for path in files] + wrong
    said = run("node", "scripts/check-gateways/crds/check.mjs", packages, stdin=json.dumps(documents, default=str))
    problems = read_json(said) if said else [[]] * len(documents)
    for path, found in zip(files, problems):
        for problem in found:
            expect(False, f"{path}: {problem}")
    for (path, why, _), found in zip(mistakes, problems[len(files) :]):
        expect(found or not said, f"{path}: the definitions take {why}")
    if PROBLEMS:
        # What is not as it must be is not read any further.
        finish("definitions", "")


def check_kustomization(folder, unlisted):
    """kustomization.yaml names files that are there, and all but those that are a choice."""
    listed = resources(f"{folder}/kustomization.yaml")[0]["resources"]
    there = {name for name in os.listdir(folder) if name.endswith(".yaml")} - {"kustomization.yaml"}
    expect(sorted(listed) == sorted(there - set(unlisted)), f"{folder}/kustomization.yaml: lists {listed} of {sorted(there)}")


def check_embedded(policy, path):
    run(sys.executable, "-B", "gateways/istio/embed.py", "--check", policy, path)


def check_secrets(tool, policy, named, where):
    wanted = run(tool, "secrets", policy).split()
    expect(sorted(named) == sorted(wanted), f"{where}: names {named}; {policy} needs {wanted}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def local(config):
    """What fetches the module gives Envoy a file."""
    config = copy.deepcopy(config)
    vm = config["config"]["vm_config"]
    vm["code"] = {"local": {"filename": os.path.abspath(MODULE)}}
    return config


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def router(**settings):
    return {"name": ROUTER,
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", **settings}}


def listener(name, port, manager, **settings):
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": {"@type": kind, **manager}}
    return {"name": name, "address": address(port), "filter_chains": [{"filters": [network]}], **settings}


def bootstrap(ports, manager, limit):
    """A listener with this connection manager, before one upstream; and one that says whether the proxy is ready, as the
    proxies of both meshes have it, with nothing of ours in it."""
    endpoint = {"endpoint": {"address": address(ports["upstream"])}}
    cluster = {"name": "upstream", "type": "STATIC", "connect_timeout": "2s",
               "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]}}
    ready = {"name": "ready", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}
    ready = {"stat_prefix": "ready", "route_config": {"virtual_hosts": [ready]}, "http_filters": [router()]}
    listeners = [listener("gateway", ports["gateway"], manager, per_connection_buffer_limit_bytes=limit),
                 listener("ready", ports["ready"], ready)]
    return {"node": {"id": "check", "cluster": "check"}, "admin": {"address": address(ports["admin"])},
            "static_resources": {"listeners": listeners, "clusters": [cluster]}}


class Upstream:
    """A service that writes down each request whose headers reach it, and answers 200."""

    def __init__(self, port):
        self.code = (
            "import http.server, sys\n"
            "class H(http.server.BaseHTTPRequestHandler):\n"
            "    protocol_version = 'HTTP/1.1'\n"
            "    def do_POST(self):\n"
            "        print(self.headers.get('x-probe'), flush=True)\n"
            "        self.rfile.read(int(self.headers.get('content-length') or 0))\n"
            "        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()\n"
            "    def log_message(self, *a): pass\n"
            "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
        )
        self.seen = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([sys.executable, "-c", self.code, str(port)], stdout=self.seen,
                                        stderr=subprocess.DEVNULL)

    def probes(self):
        time.sleep(0.2)
        self.seen.seek(0)
        return self.seen.read().split()

    def end(self):
        self.process.kill()
        self.process.wait()


def ask(port, method, path, headers=None, body=None, wait=5):
    """The status and the body of an answer; 0 where none came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def until_it_answers(port, process):
    for _ in range(300):
        status, _ = ask(port, "GET", "/ready", wait=1)
        if status == 200 or process.poll() is not None:
            return status == 200
        time.sleep(0.1)
    return False


class Chain:
    """One Envoy with one chain: what Envoy, our own check and five requests say of it."""

    def __init__(self, name, tools, key):
        self.name, self.tools, self.key = name, tools, key
        self.ports = {what: free_port() for what in ("gateway", "ready", "admin", "upstream")}
        self.folder = tempfile.TemporaryDirectory()

    def file(self, name, value):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(value if isinstance(value, str) else json.dumps(value, indent=1))
        return path

    def run(self, manager, limit, meets=None):
        """Validates, starts, asks and checks the chain; `meets` is called with what was seen."""
        path = self.file("bootstrap.json", bootstrap(self.ports, manager, limit))
        environment = {**os.environ, "CALLBOUND_MASTER": run(self.tools["callbound"], "gen-secret").strip()}
        valid = subprocess.run([self.tools["envoy"], "--mode", "validate", "-c", path], env=environment, capture_output=True,
                               text=True)
        if not expect(valid.returncode == 0, f"{self.name}: envoy --mode validate: {valid.stderr[-1500:]}"):
            return
        upstream = Upstream(self.ports["upstream"])
        with open(os.path.join(self.folder.name, "log"), "w+", encoding="utf-8") as log:
            command = [self.tools["envoy"], "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"]
            envoy = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                is_up = until_it_answers(self.ports["admin"], envoy)
                if expect(is_up, f"{self.name}: Envoy does not start: {read(log.name)[-1500:]}"):
                    (meets or self.guards)(upstream)
            finally:
                envoy.kill()
                envoy.wait()
                upstream.end()

    def call(self, probe, number, chunked=False, **more):
        body = json.dumps({"from_number": number, "to_number": "+15557654321"}).encode()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json", "x-probe": probe, **more}
        parts = iter([body[:9], body[9:]]) if chunked else body
        return ask(self.ports["gateway"], "POST", "/v1/calls", headers, parts)

    def statuses(self):
        """A request without a credential, a good one, a bad one, a bad one in chunks, and one that asks for an upgrade."""
        anonymous, _ = ask(self.ports["gateway"], "POST", "/v1/calls", {"x-probe": "anonymous"}, b"{}")
        return [anonymous, self.call("good", "+15551234567")[0], self.call("bad", "+15550000000")[0],
                self.call("chunked", "+15550000000", chunked=True)[0],
                self.call("upgrade", "+15550000000", upgrade="websocket", connection="upgrade")[0]]

    def guards(self, upstream):
        """The verdicts are right, nothing of a refused request reaches the upstream, and our check finds nothing wrong."""
        found = self.statuses()
        expect(found == [401, 200, 403, 403, 400], f"{self.name}: answers {found}")
        probes = upstream.probes()
        expect(probes == ["good"], f"{self.name}: headers of these requests reached the upstream: {probes}")
        for problem in self.problems():
            expect(False, f"{self.name}: callbound check --envoy: {problem}")

    def sticks(self, upstream):
        """Nobody holds headers, so no body is handed over: requests with one end in 503, and nothing gets out."""
        found = self.statuses()
        expect(found == [401, 503, 503, 503, 400], f"{self.name}: answers {found}")
        probes = upstream.probes()
        expect(not probes, f"{self.name}: headers of these requests reached the upstream: {probes}")
        is_seen = any("`allow_on_headers_stop_iteration` is not true" in problem for problem in self.problems())
        expect(is_seen, f"{self.name}: `callbound check --envoy` does not see that it sticks")

    def leaks(self, upstream):
        """A chain in the wrong order: headers of a refused request get out, and our check says so."""
        self.statuses()
        probes = upstream.probes()
        expect("bad" in probes, f"{self.name}: expected to leak, and did not: {probes}")
        is_seen = any("stands behind callbound: headers of refused" in problem for problem in self.problems())
        expect(is_seen, f"{self.name}: `callbound check --envoy` does not see that it leaks")

    def problems(self):
        """What `callbound check --envoy` finds wrong with what this Envoy says of itself."""
        _, dump = ask(self.ports["admin"], "GET", "/config_dump")
        command = [self.tools["callbound"], "check", "--envoy", self.file("dump.json", dump)]
        said = subprocess.run(command, capture_output=True, text=True)
        expect(said.returncode in (0, 1), f"{self.name}: {command}: {said.stderr}")
        lines = [line for line in (said.stdout + said.stderr).splitlines() if ": configs[" in line]
        return [line for line in lines if not line.startswith("warning: ")]


def with_key(tool, path):
    """The policy with a fresh API key in place of the sample's hash."""
    key = run(tool, "gen-key", "demo_").split()[0]
    policy = read_json(read(path))
    policy["api_keys"][0]["sha256"] = run(tool, "hash-key", stdin=key).strip()
    return key, policy
