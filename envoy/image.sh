#!/usr/bin/env bash
# Builds the two container images from local binaries, so that no image registry is needed:
#   callbound-envoy:local      only Envoy (.tools/envoy or ENVOY_BIN) and its libraries
#   callbound-upstream:local   the sample upstream, likewise
# ENVOY_IMAGE names an image to use instead of the first (for example envoyproxy/envoy:v1.36-latest).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

# image NAME BINARY: builds an image FROM scratch with BINARY as its entry point, imported as one layer.
image() {
  local name=$1 binary=$2 root entry library before
  entry=/usr/local/bin/$(basename "$binary")
  root=$(mktemp -d)
  mkdir -p "$root/usr/local/bin" "$root/tmp" "$root/etc"
  chmod 755 "$root"
  chmod 1777 "$root/tmp"
  cp -L "$binary" "$root$entry"
  echo 'nobody:x:65534:65534::/:/none' >"$root/etc/passwd"
  # `ldd` prints NAME => PATH (address), and the loader as a bare PATH (address).
  for library in $(ldd "$binary" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
  before=$(docker image ls --quiet "$name")
  tar -C "$root" --owner=0 --group=0 --numeric-owner -c . \
    | docker import --change "ENTRYPOINT [\"$entry\"]" --change "USER 65534:65534" - "$name" >/dev/null
  rm -rf "$root"
  # The previous image of that name has no name now.
  [ -z "$before" ] || docker image rm "$before" >/dev/null 2>&1 || true
  say "image $name: $(($(docker image inspect --format '{{.Size}}' "$name") / 1048576)) MiB"
}

docker info >/dev/null 2>&1 || fail "no Docker engine is running; run scripts/setup.sh --docker"
if [ -z "${ENVOY_IMAGE:-}" ]; then
  envoy=$(envoy_bin)
  image callbound-envoy:local "$(realpath "$envoy")"
fi
upstream=${CARGO_TARGET_DIR:-target}/debug/callbound-upstream
cargo build --locked --quiet --bin callbound-upstream
image callbound-upstream:local "$upstream"
