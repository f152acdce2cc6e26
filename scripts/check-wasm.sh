#!/usr/bin/env bash
# Checks the module: its size (scripts/budgets.sh), its imports, which every gateway must provide (scripts/imports.txt),
# and its version stamp. Checks that its image is reproducible and readable.
#   scripts/check-wasm.sh [MODULE]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/budgets.sh
. scripts/budgets.sh
module=${1:-dist/callbound.wasm}
python3 -B - "$module" "$MODULE_BUDGET" <<'PY'
import sys

sys.path.insert(0, "scripts")
from wasm_module import exports, imports, stamp

path, max_bytes = sys.argv[1], int(sys.argv[2]) * 1024


def pinned():
    with open("scripts/imports.txt") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line]


def crate_version():
    """The first `version` of Cargo.toml is the crate's."""
    with open("Cargo.toml") as file:
        return next(line.split('"')[1] for line in file if line.startswith("version = "))


def problems(data):
    if len(data) > max_bytes:
        yield f"has {len(data)} bytes, more than its budget of {max_bytes} (scripts/budgets.sh)"
    found, wanted = list(imports(data)), pinned()
    for line in sorted(set(found) - set(wanted)):
        yield f"imports {line}: not in scripts/imports.txt; check that Kong and APISIX provide it, then add it"
    for line in sorted(set(wanted) - set(found)):
        yield f"no longer imports {line}; remove it from scripts/imports.txt"
    found_stamp = stamp(data)
    if found_stamp.get("version") != crate_version():
        yield f"has version {found_stamp.get('version')}; expected {crate_version()} as in Cargo.toml"
    if not isinstance(found_stamp.get("policy_language"), int):
        yield "has no policy language in its stamp"
    # Hosts look for this name to choose the ABI.
    marker = "proxy_abi_version_" + str(found_stamp.get("abi")).replace(".", "_")
    if [name for name in exports(data) if name.startswith("proxy_abi_version_")] != [marker]:
        yield f"exports another ABI marker than {marker}"


with open(path, "rb") as file:
    data = file.read()
try:
    found = list(problems(data))
except (ValueError, IndexError) as error:
    sys.exit(f"{path}: {error}")
for problem in found:
    print(f"{path}: {problem}", file=sys.stderr)
print(f"{path}: {len(data)} of at most {max_bytes} bytes, {len(pinned())} imports, {stamp(data)}")
sys.exit(bool(found))
PY

images=$(mktemp -d)
trap 'rm -rf "$images"' EXIT
scripts/image.sh "$module" "$images/first.tar"
scripts/image.sh "$module" "$images/second.tar" >/dev/null
cmp "$images/first.tar" "$images/second.tar"
python3 -B scripts/check-image.py "$module" "$images/first.tar"
echo "the image: reproducible, and the module is in it"
