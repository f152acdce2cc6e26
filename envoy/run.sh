#!/usr/bin/env bash
# Runs Envoy with the module and a policy, in the foreground, until Ctrl-C. `make envoy` calls it.
#   POLICY='policies/revdesk.json deployment.json' PORT=10000 UPSTREAM=127.0.0.1:18080 [CORS=https://app.example.com,...] envoy/run.sh
#   POLICY=... PORT=10000 envoy/run.sh update      replaces the policy of the Envoy that runs on PORT (`make policy`)
# More settings: ADMIN_PORT (PORT + 1), CONCURRENCY (2), ENVOY_BIN, MODULE (dist/callbound.wasm).
# POLICY is one file, or a platform's and a deployment's, which are merged (`callbound merge`). Its secrets are the
# environment variables that `callbound secrets POLICY` lists.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

port=${PORT:-10000}
run=$PWD/.run/$port
read -ra policy <<<"${POLICY:-policies/revdesk.json}"

# Checks the policy and writes bootstrap and filter below .run/PORT; the filter file is renamed into place.
render() {
  local cors="" origin file
  for file in "${policy[@]}"; do [ -f "$file" ] || fail "$file: no such policy; set POLICY to the path of one"; done
  for origin in ${settings[CORS]//,/ }; do cors="$cors --cors $origin"; done
  # shellcheck disable=SC2086 # a list of flags
  "$(callbound_bin)" envoy "${policy[@]}" --listen "127.0.0.1:$port" --admin "127.0.0.1:${settings[ADMIN_PORT]}" \
    --upstream "${settings[UPSTREAM]}" --module "${settings[MODULE]}" --out "$run" $cors
}

# Checks that every secret of the policy is set: the module refuses a policy without them.
require_secrets() {
  local name missing=""
  for name in $("$(callbound_bin)" secrets "${policy[@]}"); do
    [ -n "${!name:-}" ] || missing="$missing $name"
  done
  [ -z "$missing" ] || fail "${policy[*]}: secrets are not set:$missing; to try it: export NAME=\$($(callbound_bin) gen-secret)"
}

# Replaces only the policy: the running Envoy keeps its listener and upstream.
update() {
  [ -f "$run/settings" ] || fail "no Envoy was started here on port $port; run make envoy PORT=$port"
  local line
  while IFS= read -r line; do settings[${line%%=*}]=${line#*=}; done <"$run/settings"
  local before wanted _
  before=$(stat_of update_rejected) || fail "no Envoy answers on its admin port ${settings[ADMIN_PORT]}"
  render
  wanted=$(sed -n 's/^version_info: "\(.*\)".*/\1/p' "$run/ecds/filter.yaml")
  for _ in $(seq 50); do
    if [ "$(stat_of version_text)" = "\"$wanted\"" ]; then
      say "policy $wanted is in effect for the next request on every connection"
      return
    fi
    [ "$(stat_of update_rejected)" = "$before" ] || fail "Envoy refused the policy and keeps the previous one; see its log for the reason"
    sleep 0.1
  done
  fail "Envoy did not load the policy within 5 seconds; see its log"
}

# Prints one of Envoy's statistics about the delivery of our filter.
stat_of() {
  curl --silent --fail --max-time 2 "127.0.0.1:${settings[ADMIN_PORT]}/stats?filter=http_filter.callbound.$1" | sed 's/^[^ ]* //'
}

foreground() {
  local name envoy
  envoy=$(envoy_bin)
  [ -f "${settings[MODULE]}" ] || scripts/build-wasm.sh
  render
  require_secrets
  for name in "${!settings[@]}"; do echo "$name=${settings[$name]}"; done >"$run/settings"
  say "Envoy on http://127.0.0.1:$port -> ${settings[UPSTREAM]}, policy ${policy[*]}, admin 127.0.0.1:${settings[ADMIN_PORT]}"
  say "to replace the policy, also for open connections: make policy POLICY='${policy[*]}' PORT=$port"
  exec "$envoy" --config-path "$run/bootstrap.yaml" --disable-hot-restart --file-flush-interval-msec 1000 --concurrency "${CONCURRENCY:-2}" \
    --log-level warning --component-log-level wasm:info
}

declare -A settings=(
  [ADMIN_PORT]=${ADMIN_PORT:-$((port + 1))}
  [UPSTREAM]=${UPSTREAM:-127.0.0.1:18080}
  [CORS]=${CORS:-}
  [MODULE]=$(realpath -m "${MODULE:-dist/callbound.wasm}")
)
case ${1:-run} in
  run) foreground ;;
  update) update ;;
  *) fail "usage: envoy/run.sh [update]" ;;
esac
