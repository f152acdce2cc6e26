#!/usr/bin/env bash
# Runs the gateway as containers and places calls through it: allowed calls reach the upstream, refused calls do not.
# Needs a Docker engine (scripts/setup.sh --docker). Removes the containers at the end; KEEP=1 leaves them running.
# GATEWAY_PORT and UPSTREAM_PORT choose the ports on 127.0.0.1; ENVOY_IMAGE another Envoy.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

compose=$(compose_command) || fail "docker compose is missing; run scripts/setup.sh --docker"
docker info >/dev/null 2>&1 || fail "no Docker engine is running; run scripts/setup.sh --docker"
tool=$(callbound_bin)
[ -f dist/callbound.wasm ] || scripts/build-wasm.sh

work=$PWD/.run/compose
rm -rf "$work" && mkdir -p "$work"
export CALLBOUND_RUN=$work/files CALLBOUND_SECRETS=$work/secrets.env CALLBOUND_MODULE=$PWD/dist/callbound.wasm
export GATEWAY_PORT=${GATEWAY_PORT:-10000} UPSTREAM_PORT=${UPSTREAM_PORT:-18080}
gateway=http://127.0.0.1:$GATEWAY_PORT
upstream=http://127.0.0.1:$UPSTREAM_PORT
passed=0
failed=0

compose() {
  $compose --project-name callbound-test --file envoy/docker-compose.yaml "$@"
}

finish() {
  local status=$?
  trap - EXIT
  if [ "$status" != 0 ] || [ "$failed" != 0 ]; then
    compose logs --no-color 2>&1 | tail -n 60 || true
  fi
  if [ "${KEEP:-}" = 1 ]; then
    say "left running: gateway $gateway, upstream $upstream; remove it with: docker rm -f \$(docker ps -q --filter name=callbound-test)"
  else
    compose down --volumes --timeout 5 >/dev/null 2>&1 || true
    rm -rf "$work"
  fi
  # The closing line, which other scripts read.
  echo "compose: $passed passed, $failed failed"
  [ "$status" = 0 ] && [ "$failed" = 0 ]
}
trap finish EXIT

# expect WHAT WANTED GOT
expect() {
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1))
    say "ok: $1"
  else
    failed=$((failed + 1))
    say "FAILED: $1: expected '$2', got '$3'"
  fi
}

# Writes a deployment of the sample policy: one team, one number and one key, made for this run.
make_policy() {
  key=$("$tool" gen-key revdesk_ 2>/dev/null)
  policy=(policies/revdesk.json "$work/deployment.json")
  cat >"$work/deployment.json" <<JSON
{
  "teams": [{"id": "compose", "kind": "organization", "numbers": ["+15551234567"]}],
  "api_keys": [{"id": "compose-backend", "team": "compose", "sha256": "$("$tool" hash-key <<<"$key")",
                "scopes": ["tokens:mint", "voice:webrtc", "calls:write"]}]
}
JSON
  local name
  for name in $("$tool" secrets "${policy[@]}"); do
    echo "$name=$("$tool" gen-secret)"
  done >"$CALLBOUND_SECRETS"
}

# call METHOD PATH CREDENTIAL BODY: sets $status and $reply.
call() {
  reply=$(curl --silent --max-time 10 --write-out '\n%{http_code}' --request "$1" "$gateway$2" \
    --header "authorization: Bearer $3" --header 'content-type: application/json' --data "$4") || true
  status=${reply##*$'\n'}
  reply=${reply%$'\n'*}
}

# arrived: prints the number of requests that the upstream received, and the body of the last.
arrived() {
  curl --silent --max-time 5 "$upstream/__records" \
    | python3 -c 'import json, sys; r = json.load(sys.stdin); print(len(r), r[-1]["body"] if r else "")'
}

# Envoy answers 500 until the policy is loaded.
wait_ready() {
  local _ code
  for _ in $(seq 150); do
    code=$(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "$gateway/") || true
    [ "$code" = 000 ] || [ "$code" = 500 ] || return 0
    sleep 0.2
  done
  return 1
}

make_policy
"$tool" envoy "${policy[@]}" --listen 0.0.0.0:10000 --admin 127.0.0.1:9901 --upstream upstream:18080 \
  --module /opt/callbound/callbound.wasm --out "$CALLBOUND_RUN" --seen-as /etc/callbound
chmod -R a+rX "$CALLBOUND_RUN"
chmod a+r "$CALLBOUND_MODULE"
envoy/image.sh
compose up -d
wait_ready || fail "the gateway does not answer"

inside='{"from_number":"+15551234567","to_number":"+15557654321"}'
outside='{"from_number":"+15551234567","to_number":"+15550009999"}'

call POST /v1/client-tokens "$key" \
  '{"from_numbers":["+15551234567"],"to_numbers":["+15557654321"],"scopes":["calls:write"],"ttl_seconds":60}'
expect "an API key mints a client token" 200 "$status"
token=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["token"])' <<<"$reply" 2>/dev/null || true)
expect "minting is answered by the gateway, not the upstream" 0 "$(arrived | cut -d' ' -f1)"

call POST /v1/calls/dial "$token" "$inside"
expect "a call inside the token's bounds is answered by the upstream" 200 "$status"
expect "and arrives unchanged" "1 $inside" "$(arrived)"

call POST /v1/calls/dial "$token" "$outside"
expect "a call to another number is refused" 403 "$status"
call POST /v1/calls/dial "" "$inside"
expect "a call without a credential is refused" 401 "$status"
expect "and the upstream received neither" "1 $inside" "$(arrived)"
