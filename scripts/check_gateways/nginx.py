"""Checks gateways/nginx without an nginx that has Kong's WebAssembly module, which no package registry has."""

import re

from common import callbound, check_embedded, check_headers, check_policy, check_secrets, expect, read

FOLDER = "gateways/nginx"
POLICY, NGINX, HEADERS = f"{FOLDER}/policy.json", f"{FOLDER}/nginx.conf", f"{FOLDER}/callbound-headers.conf"
CHECKED = "policy, headers and settings are correct (no nginx was run)"


def check_settings():
    """Checks that nginx would read the policy from nginx.conf, and the settings that `check --nginx` does not know."""
    config = read(NGINX)
    quoted = re.search(r"proxy_wasm callbound '((?:[^'\\]|\\.)*)';", config, re.DOTALL)[1]
    check_embedded(POLICY, NGINX, re.sub(r"\\([\\'\"])", r"\1", quoted) + "\n")
    rest = config.replace(quoted, "")
    check_secrets(POLICY, re.findall(r"^env (\w+);", rest, re.MULTILINE), NGINX)
    for line in ("tls_verify_cert on;", "tls_verify_host on;", "listen 127.0.0.1:10000;", "error_log stderr warn;",
                 'set $callbound_decision "";', "include callbound-headers.conf;"):
        expect(line in rest, f"{NGINX}: `{line}` is missing")


def check():
    check_policy(POLICY, POLICY, f"{FOLDER}/host.json")
    check_settings()
    check_headers(POLICY, HEADERS)
    callbound("check", "--strict", "--nginx", NGINX, POLICY)
