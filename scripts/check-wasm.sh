#!/usr/bin/env bash
# Holds the module to its budget: its size, exactly the imports that every gateway provides (scripts/imports.txt), and the
# stamp that says which version it is. And its image to being the same twice, and readable.
#   scripts/check-wasm.sh [MODULE]
set -euo pipefail
cd "$(dirname "$0")/.."
module=${1:-dist/callbound.wasm}
python3 -B - "$module" <<'PY'
import sys

sys.path.insert(0, "scripts")
from wasm_module import exports, imports, stamp

MAX_BYTES = 1440 * 1024


def pinned():
    with open("scripts/imports.txt") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line]


def crate_version():
    """The first `version` of Cargo.toml is the crate's."""
    with open("Cargo.toml") as file:
        return next(line.split('"')[1] for line in file if line.startswith("version = "))


def problems(data):
    if len(data) > MAX_BYTES:
        yield f"{len(data)} bytes; at most {MAX_BYTES} are allowed"
    found, wanted = list(imports(data)), pinned()
    for line in sorted(set(found) - set(wanted)):
        yield f"imports {line}: not in scripts/imports.txt; is it in the tables of Kong and of APISIX?"
    for line in sorted(set(wanted) - set(found)):
        yield f"does not import {line} any more: take it out of scripts/imports.txt"
    said = stamp(data)
    if said.get("version") != crate_version():
        yield f"says that it is version {said.get('version')}; Cargo.toml says {crate_version()}"
    if not isinstance(said.get("policy_language"), int):
        yield "does not say which policy language it understands"
    # Envoy and others look for this name to learn how to call the module.
    marker = "proxy_abi_version_" + str(said.get("abi")).replace(".", "_")
    if [name for name in exports(data) if name.startswith("proxy_abi_version_")] != [marker]:
        yield f"does not export {marker}, or another beside it"


path = sys.argv[1]
with open(path, "rb") as file:
    data = file.read()
try:
    found = list(problems(data))
except (ValueError, IndexError) as error:
    sys.exit(f"{path}: {error}")
for problem in found:
    print(f"{path}: {problem}", file=sys.stderr)
print(f"{path}: {len(data)} of at most {MAX_BYTES} bytes, {len(pinned())} imports, {stamp(data)}")
sys.exit(bool(found))
PY

images=$(mktemp -d)
trap 'rm -rf "$images"' EXIT
scripts/image.sh "$module" "$images/first.tar"
scripts/image.sh "$module" "$images/second.tar" >/dev/null
cmp "$images/first.tar" "$images/second.tar"
python3 -B scripts/check-image.py "$module" "$images/first.tar"
echo "the image: the same twice, and the module in it"
