#!/usr/bin/env bash
# Builds dist/callbound.wasm, the module that gateways load, with the toolchain that scripts/setup.sh chose.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
[ -f .tools/wasm.env ] || scripts/setup.sh --wasm
# shellcheck disable=SC1091 # written by setup
. .tools/wasm.env

# Panic messages name files: the same bytes wherever it is built, and nothing of the builder's folders in them.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$cargo_home/registry/src=deps --remap-path-prefix=$PWD=callbound"

target=${CARGO_TARGET_DIR:-target}
# A toolchain that builds the standard library too keeps its own folder: its artefacts fit no other.
[ -z "${CALLBOUND_BUILD_STD:-}" ] || target=$target/build-std
"${CARGO:-cargo}" build --release --locked --lib --no-default-features --target wasm32-wasip1 \
  --target-dir "$target" ${CALLBOUND_BUILD_STD:+"$CALLBOUND_BUILD_STD"}

# Renamed into place: an Envoy that reads it meanwhile sees the old one or the new one, whole.
mkdir -p dist
cp "$target/wasm32-wasip1/release/callbound.wasm" dist/.callbound.wasm
mv dist/.callbound.wasm dist/callbound.wasm
(cd dist && sha256sum callbound.wasm >callbound.wasm.sha256)
say "dist/callbound.wasm: $(($(wc -c <dist/callbound.wasm) / 1024)) KiB, $(cut -c1-64 dist/callbound.wasm.sha256)"
