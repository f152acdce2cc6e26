#!/usr/bin/env bash
# Holds the module to its budget: its size, and nothing imported that some host lacks.
#   scripts/check-wasm.sh [MODULE]
set -euo pipefail
cd "$(dirname "$0")/.."
python3 - "${1:-dist/callbound.wasm}" <<'PY'
import sys

MAX_BYTES = 1408 * 1024
WASI = {"args_get", "args_sizes_get", "clock_time_get", "environ_get", "environ_sizes_get", "fd_write", "proc_exit", "random_get"}
# Registered nowhere or with another signature on some nginx hosts: importing one is enough to be refused there.
FORBIDDEN = {"proxy_get_metric", "proxy_get_log_level"}


def number(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def name(data, at):
    length, at = number(data, at)
    return data[at : at + length].decode(), at + length


def limits(data, at):
    flags, at = number(data, at)
    _, at = number(data, at)
    return number(data, at)[1] if flags & 1 else at


def imports(data):
    at = 8
    while at < len(data):
        section, at = data[at], at + 1
        size, at = number(data, at)
        if section != 2:
            at += size
            continue
        count, at = number(data, at)
        for _ in range(count):
            module, at = name(data, at)
            field, at = name(data, at)
            kind, at = data[at], at + 1
            if kind == 0:
                at = number(data, at)[1]
            elif kind == 1:
                at = limits(data, at + 1)
            elif kind == 2:
                at = limits(data, at)
            else:
                at += 2
            yield module, field, kind
        return


path = sys.argv[1]
data = open(path, "rb").read()
if data[:8] != b"\0asm\1\0\0\0":
    sys.exit(f"{path}: not a WebAssembly module")
problems = []
if len(data) > MAX_BYTES:
    problems.append(f"{len(data)} bytes; at most {MAX_BYTES} are allowed")
found = list(imports(data))
for module, field, kind in found:
    host = module == "env" and field.startswith("proxy_") and field not in FORBIDDEN
    if kind != 0 or not (host or module == "wasi_snapshot_preview1" and field in WASI):
        problems.append(f"imports {module}.{field}, which not every host provides")
for problem in problems:
    print(f"{path}: {problem}", file=sys.stderr)
print(f"{path}: {len(data)} of at most {MAX_BYTES} bytes, {len(found)} imports")
sys.exit(bool(problems))
PY
