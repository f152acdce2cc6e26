#!/usr/bin/env bash
# Builds dist/callbound.wasm, the module that gateways load, with the toolchain that scripts/setup.sh chose. The last step
# masks its shifts, for APISIX's engine (scripts/mask-shifts/src/lib.rs).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
[ -f .tools/wasm.env ] || scripts/setup.sh --wasm

# A native tool: built before the settings of the wasm toolchain apply.
cargo build --locked --package callbound-mask-shifts
mask_shifts=${CARGO_TARGET_DIR:-target}/debug/callbound-mask-shifts
# shellcheck disable=SC1091 # written by setup
. .tools/wasm.env

# Panic messages contain file names. Remapped, the bytes are the same on every machine and show no folder of the builder.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$cargo_home/registry/src=deps --remap-path-prefix=$PWD=callbound"

target=${CARGO_TARGET_DIR:-target}
# A toolchain that also builds the standard library needs its own folder: no other one can use its artefacts.
[ -z "${CALLBOUND_BUILD_STD:-}" ] || target=$target/build-std
"${CARGO:-cargo}" build --release --locked --lib --no-default-features --target wasm32-wasip1 \
  --target-dir "$target" ${CALLBOUND_BUILD_STD:+"$CALLBOUND_BUILD_STD"}

# Renamed into place, so that Envoy never reads half a module.
mkdir -p dist
"$mask_shifts" "$target/wasm32-wasip1/release/callbound.wasm" dist/.callbound.wasm
mv dist/.callbound.wasm dist/callbound.wasm
(cd dist && sha256sum callbound.wasm >callbound.wasm.sha256)
say "dist/callbound.wasm: $(($(wc -c <dist/callbound.wasm) / 1024)) KiB, $(cut -c1-64 dist/callbound.wasm.sha256)"
