"""Runs a filter chain of Istio or Envoy Gateway on a real Envoy, with the module and `callbound check --envoy`.

Neither control plane runs here: istio.py and envoy_gateway.py build the chain as the control plane's sources do.
"""

import copy
import http.client
import http.server
import json
import os
import socket
import subprocess
import tempfile
import threading
import time

import tools
from common import callbound, expect, read, read_json

BUFFER = "envoy.filters.http.buffer"
ROUTER = "envoy.filters.http.router"
WASM_TYPE = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
STRING_VALUE = "type.googleapis.com/google.protobuf.StringValue"


def local(config):
    """Returns a wasm configuration that loads the module from a file instead of fetching it."""
    config = copy.deepcopy(config)
    config["config"]["vm_config"]["code"] = {"local": {"filename": tools.module()}}
    return config


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def typed(name, kind, **members):
    """Returns an HTTP filter of Envoy with its typed configuration."""
    kind = f"type.googleapis.com/envoy.extensions.filters.http.{name.rsplit('.', 1)[-1]}.v3.{kind}"
    return {"name": name, "typed_config": {"@type": kind, **members}}


def listener(name, port, manager, **settings):
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": {"@type": kind, **manager}}
    return {"name": name, "address": address(port), "filter_chains": [{"filters": [network]}], **settings}


def bootstrap(ports, manager, limit):
    """Returns a bootstrap with this connection manager before one upstream, and a readiness listener without our filter,
    which the proxies of both meshes have as well."""
    endpoint = {"endpoint": {"address": address(ports["upstream"])}}
    cluster = {"name": "upstream", "type": "STATIC", "connect_timeout": "2s",
               "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]}}
    ready = {"name": "ready", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}
    ready = {"stat_prefix": "ready", "route_config": {"virtual_hosts": [ready]}, "http_filters": [typed(ROUTER, "Router")]}
    listeners = [listener("gateway", ports["gateway"], manager, per_connection_buffer_limit_bytes=limit),
                 listener("ready", ports["ready"], ready)]
    return {"node": {"id": "check", "cluster": "check"}, "admin": {"address": address(ports["admin"])},
            "static_resources": {"listeners": listeners, "clusters": [cluster]}}


class Recorder(http.server.BaseHTTPRequestHandler):
    """Records each request whose headers arrive, and answers 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.recorded.append(self.headers.get("x-probe"))
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Upstream(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Recorder)
        self.recorded = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Ignores a connection that Envoy closes in the middle of a request."""

    def probes(self):
        time.sleep(0.2)
        return list(self.recorded)


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def ask(port, method, path, headers=None, body=None, wait=5):
    """Returns status and body of a reply; status 0 without a reply."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wait)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def is_ready(port, process):
    for _ in range(300):
        status, _ = ask(port, "GET", "/ready", wait=1)
        if status == 200 or process.poll() is not None:
            return status == 200
        time.sleep(0.1)
    return False


class Chain:
    """One Envoy with one chain, checked by Envoy's validation, by five requests and by `callbound check --envoy`."""

    def __init__(self, name, key):
        self.name, self.key, self.upstream = name, key, Upstream()
        self.ports = {port: free_port() for port in ("gateway", "ready", "admin")}
        self.ports["upstream"] = self.upstream.server_port
        self.folder = tempfile.TemporaryDirectory()

    def expect(self, is_so, problem):
        return expect(is_so, f"{self.name}: {problem}")

    def file(self, name, value):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(value if isinstance(value, str) else json.dumps(value, indent=1))
        return path

    def run(self, manager, limit, expectation=None):
        """Validates and starts the chain, then calls `expectation`, by default `guards`."""
        path = self.file("bootstrap.json", bootstrap(self.ports, manager, limit))
        environment = {**os.environ, "CALLBOUND_MASTER": callbound("gen-secret").strip()}
        valid = subprocess.run([tools.envoy(), "--mode", "validate", "-c", path], env=environment, capture_output=True, text=True)
        if not self.expect(valid.returncode == 0, f"envoy --mode validate: {valid.stderr[-1500:]}"):
            return
        command = [tools.envoy(), "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"]
        with open(os.path.join(self.folder.name, "log"), "w+", encoding="utf-8") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                if self.expect(is_ready(self.ports["admin"], process), f"Envoy does not start: {read(log.name)[-1500:]}"):
                    (expectation or self.guards)()
            finally:
                process.kill()
                process.wait()
                self.upstream.shutdown()
                self.upstream.server_close()

    def call(self, probe, number, chunked=False, **more):
        body = json.dumps({"from_number": number, "to_number": "+15557654321"}).encode()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json", "x-probe": probe, **more}
        return ask(self.ports["gateway"], "POST", "/v1/calls", headers, iter([body[:9], body[9:]]) if chunked else body)[0]

    def statuses(self):
        """Sends a request without a credential, a good one, a bad one, a bad one in chunks, and a bad upgrade."""
        anonymous, _ = ask(self.ports["gateway"], "POST", "/v1/calls", {"x-probe": "anonymous"}, b"{}")
        return [anonymous, self.call("good", "+15551234567"), self.call("bad", "+15550000000"),
                self.call("chunked", "+15550000000", chunked=True),
                self.call("upgrade", "+15550000000", upgrade="websocket", connection="upgrade")]

    def problems(self):
        """Returns the errors of `callbound check --envoy` on this Envoy's config dump."""
        _, dump = ask(self.ports["admin"], "GET", "/config_dump")
        done = subprocess.run([tools.callbound(), "check", "--envoy", self.file("dump.json", dump)], capture_output=True, text=True)
        self.expect(done.returncode in (0, 1), f"callbound check --envoy: {done.stderr}")
        lines = [line for line in (done.stdout + done.stderr).splitlines() if ": configs[" in line]
        return [line for line in lines if not line.startswith("warning: ")]

    def expect_outcome(self, statuses, probes):
        found = self.statuses()
        self.expect(found == statuses, f"answers {found}, expected {statuses}")
        found = self.upstream.probes()
        self.expect(found == probes, f"headers of {found} reached the upstream, expected {probes}")

    def expect_reported(self, words):
        self.expect(any(words in problem for problem in self.problems()), f"`callbound check --envoy` does not report `{words}`")

    def guards(self):
        """Expects the right decisions, nothing of a refused request upstream, and no problem reported."""
        self.expect_outcome([401, 200, 403, 403, 400], ["good"])
        for problem in self.problems():
            self.expect(False, f"callbound check --envoy: {problem}")

    def hangs(self):
        """Expects 503 for requests with a body: no filter holds headers, so callbound never gets the body."""
        self.expect_outcome([401, 503, 503, 503, 400], [])
        self.expect_reported("`allow_on_headers_stop_iteration` is not true")

    def leaks(self):
        """Expects that headers of a refused request reach the upstream, and that the wrong order is reported."""
        self.statuses()
        probes = self.upstream.probes()
        self.expect("bad" in probes, f"headers of {probes} reached the upstream, expected those of a refused request as well")
        self.expect_reported("follows callbound: headers of refused")


def with_key(path):
    """Returns a fresh API key, and the policy with its hash in place of the sample's."""
    key = callbound("gen-key", "demo_").split()[0]
    policy = read_json(read(path))
    policy["api_keys"][0]["sha256"] = callbound("hash-key", stdin=key).strip()
    return key, policy
