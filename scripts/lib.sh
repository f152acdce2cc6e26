# shellcheck shell=bash
# What the scripts share; sourced, never run.

say() { printf 'callbound: %s\n' "$*"; }
fail() { printf 'callbound: %s\n' "$*" >&2; exit 1; }

# The toolchain that setup chose, where it is not the pinned one by name.
# shellcheck disable=SC1091
[ ! -f .tools/toolchain.env ] || . .tools/toolchain.env

# The Envoy to run: ENVOY_BIN, else the one that setup unpacked.
envoy_bin() {
  local envoy=${ENVOY_BIN:-$PWD/.tools/envoy}
  [ -x "$envoy" ] || fail "no Envoy at $envoy; run scripts/setup.sh --envoy, or set ENVOY_BIN"
  echo "$envoy"
}

# `docker compose` (v2) or `docker-compose` (v1), whichever is there.
compose_command() {
  if docker compose version >/dev/null 2>&1; then
    echo "docker compose"
  elif command -v docker-compose >/dev/null; then
    echo "docker-compose"
  else
    return 1
  fi
}

chromium_command() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}

# The command-line tool, built when it is not there. CALLBOUND_BIN overrides.
callbound_bin() {
  local tool=${CALLBOUND_BIN:-${CARGO_TARGET_DIR:-target}/debug/callbound}
  [ -x "$tool" ] || cargo build --locked --quiet --bin callbound >&2 || fail "the callbound tool does not build"
  echo "$tool"
}
