# shellcheck shell=bash
# What the checks of Istio and Envoy Gateway share; sourced after lib.sh, never run.

# A folder with the pinned npm packages that hold the resource definitions, filled when it is not.
definition_packages() {
  local folder=$PWD/.tools/definitions source=scripts/check-gateways/crds wanted
  command -v npm >/dev/null || fail "npm is needed, and node 20 or later"
  wanted=$(cat "$source/package-lock.json" <(node --version) | sha256sum)
  if [ "$(cat "$folder/ready" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$folder" && mkdir -p "$folder"
    cp "$source/package.json" "$source/package-lock.json" "$folder"
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent) >&2 \
      || fail "npm ci failed; is the npm registry (or a mirror set in npm's configuration) reachable?"
    echo "$wanted" >"$folder/ready"
  fi
  echo "$folder"
}

# check_mesh NAME: runs scripts/check-gateways/NAME.py, which gets the command-line tool, the definitions and Envoy.
check_mesh() {
  local tool packages definitions envoy
  tool=$(callbound_bin)
  packages=$(gateway_packages)
  definitions=$(definition_packages)
  envoy=$(envoy_bin)
  [ -f dist/callbound.wasm ] || scripts/build-wasm.sh
  PYTHONPATH=$packages:scripts/check-gateways python3 -B "scripts/check-gateways/$1.py" "$tool" "$definitions" "$envoy"
}
