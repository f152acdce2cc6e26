# shellcheck shell=bash
# Functions that the scripts share; sourced, never run.

say() { printf 'callbound: %s\n' "$*"; }
fail() { printf 'callbound: %s\n' "$*" >&2; exit 1; }

# The toolchain that setup chose, if not the pinned one.
# shellcheck disable=SC1091
[ ! -f .tools/toolchain.env ] || . .tools/toolchain.env

# Prints the Envoy to run: ENVOY_BIN, else the one that setup installed.
envoy_bin() {
  local envoy=${ENVOY_BIN:-$PWD/.tools/envoy}
  [ -x "$envoy" ] || fail "no Envoy at $envoy; run scripts/setup.sh --envoy, or set ENVOY_BIN"
  echo "$envoy"
}

# Prints `docker compose` (v2) or `docker-compose` (v1), if one is installed.
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

# Prints the command-line tool: CALLBOUND_BIN, else the debug build, which is built if missing.
callbound_bin() {
  local tool=${CALLBOUND_BIN:-${CARGO_TARGET_DIR:-target}/debug/callbound}
  [ -x "$tool" ] || cargo build --locked --quiet --bin callbound >&2 || fail "the callbound tool does not build"
  echo "$tool"
}
