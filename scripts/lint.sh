#!/usr/bin/env bash
# Everything that reads the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

cargo fmt --check
cargo clippy --locked --quiet --all-targets --all-features -- -D warnings
# Where the wasm target came from Debian's packages there is no clippy for it; the build itself then has to do.
if grep -q BUILD_STD .tools/wasm.env 2>/dev/null; then
  say "clippy for wasm32-wasip1: skipped, this machine's target is Debian's"
else
  cargo clippy --locked --quiet --target wasm32-wasip1 --lib --no-default-features -- -D warnings
fi
RUSTDOCFLAGS=-Dwarnings cargo doc --locked --quiet --no-deps
for script in scripts/*.sh scripts/check-gateways/*.sh envoy/*.sh .ci/run; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then
  shellcheck -x scripts/*.sh scripts/check-gateways/*.sh envoy/*.sh .ci/run
else
  say "shellcheck: skipped, not installed (scripts/setup.sh --shellcheck)"
fi
