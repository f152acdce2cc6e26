#!/usr/bin/env bash
# Checks the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

cargo fmt --all --check
cargo clippy --locked --quiet --workspace --all-targets --all-features -- -D warnings
# Debian's packages have no clippy for the wasm target; the build has to do there.
if grep -q BUILD_STD .tools/wasm.env 2>/dev/null; then
  say "clippy for wasm32-wasip1: skipped, Debian's packages do not have it"
else
  cargo clippy --locked --quiet --target wasm32-wasip1 --lib --no-default-features -- -D warnings
fi
RUSTDOCFLAGS=-Dwarnings cargo doc --locked --quiet --workspace --no-deps
for script in scripts/*.sh envoy/*.sh .ci/run; do bash -n "$script"; done
python3 -c 'import ast, sys; [ast.parse(open(path).read(), path) for path in sys.argv[1:]]' \
  scripts/*.py scripts/*/*.py gateways/*.py gateways/*/*.py
python3 -B scripts/check_words.py --self-test
python3 -B scripts/check_words.py
if command -v shellcheck >/dev/null; then
  shellcheck -x scripts/*.sh envoy/*.sh .ci/run
else
  say "shellcheck: skipped, not installed (scripts/setup.sh --shellcheck)"
fi
