#!/usr/bin/env bash
# Demonstrates the gateway: a real Envoy with the module before a sample upstream. A token is minted, calls are placed,
# and calls outside the token's bounds are refused before the upstream receives anything. Then it runs until Ctrl-C.
#   scripts/demo.sh [--once] [--no-build]     --once ends by itself, --no-build uses the existing build
# Needs no root and no Docker. Each scene has an expected outcome; with any other the demo exits with 1.
# Settings: PORT, ADMIN_PORT and UPSTREAM_PORT on 127.0.0.1 (free ones from 10000 and 18080 on), ENVOY_BIN, NO_COLOR.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

once="" build=1
for argument in "$@"; do
  case $argument in
    --once) once=1 ;;
    --no-build) build="" ;;
    *) fail "usage: scripts/demo.sh [--once] [--no-build]" ;;
  esac
done

bold="" dim="" red="" green="" plain=""
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
fi

run=""
tool="" envoy=""
upstream_pid="" envoy_pid=""
scene=0 wrong=0

# --- Beginning and end ---

# Ends the processes it started, by their ids. After a failure logs are shown and kept; keys are never kept.
finish() {
  local status=$?
  trap - EXIT INT TERM
  end_process "$envoy_pid"
  end_process "$upstream_pid"
  [ -d "$run" ] || exit "$status"
  rm -f "$run/credentials" "$run/header" "$run/answer"
  if [ "$status" = 1 ]; then show_logs >&2; else rm -rf "$run"; fi
  exit "$status"
}

end_process() {
  local pid=$1 _
  [ -n "$pid" ] || return 0
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 50); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

show_logs() {
  local log
  for log in "$run/upstream.log" "$run/envoy.log"; do
    [ -s "$log" ] || continue
    printf '\n--- last lines of %s\n' "$log"
    tail -n 30 "$log"
  done
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Preparation ---

prepare() {
  local name
  for name in curl python3; do
    command -v "$name" >/dev/null || fail "$name: missing. Install it with: sudo apt-get install -y $name"
  done
  if [ -n "$build" ]; then
    say "step 1 of 3: the toolchain and Envoy (the first time: two downloads)"
    scripts/setup.sh --wasm --envoy
    # shellcheck disable=SC1091 # written by setup
    . .tools/toolchain.env
    say "step 2 of 3: the module and the native tools (the first time: a few minutes)"
    scripts/build-wasm.sh
    cargo build --locked --bins
    say "step 3 of 3: keys, secrets, the upstream and Envoy"
  fi
  envoy=$(envoy_bin)
  tool=${CARGO_TARGET_DIR:-target}/debug/callbound
  for name in "$tool" "$tool-upstream" dist/callbound.wasm; do
    [ -f "$name" ] || fail "$name: not built; run without --no-build"
  done
}

# free_port FIRST: prints the first free port from FIRST on.
free_port() {
  local port
  for port in $(seq "$1" $(($1 + 200))); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  fail "no free port between $1 and $(($1 + 200))"
}

# wanted_port NAME PORT FIRST: prints PORT, which must be free, or a free port if PORT is empty.
wanted_port() {
  [ -n "$2" ] || { free_port "$3"; return; }
  (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && fail "$1=$2: the port is in use"
  echo "$2"
}

choose_ports() {
  port=$(wanted_port PORT "${PORT:-}" 10000)
  admin_port=$(wanted_port ADMIN_PORT "${ADMIN_PORT:-}" $((port + 1)))
  upstream_port=$(wanted_port UPSTREAM_PORT "${UPSTREAM_PORT:-}" 18080)
  gateway=http://127.0.0.1:$port
  upstream=http://127.0.0.1:$upstream_port
  run=.run/demo-$port
}

# Makes keys and a master secret. The policy has only the keys' digests, and only Envoy's environment has the secret.
make_policy() {
  rm -rf "$run"
  (umask 077 && mkdir -p "$run")
  where=(--listen "127.0.0.1:$port" --admin "127.0.0.1:$admin_port" --upstream "127.0.0.1:$upstream_port" --out "$run")
  key=$("$tool" gen-key revdesk_ 2>/dev/null)
  customer_key=$("$tool" gen-key revdesk_ 2>/dev/null)
  west_key=$("$tool" gen-key revdesk_ 2>/dev/null)
  CALLBOUND_MASTER=$("$tool" gen-secret)
  export CALLBOUND_MASTER
  studio_key=$("$tool" gen-key dct_ 2>/dev/null)
  agency_key=$("$tool" gen-key dct_ 2>/dev/null)
  write_keys
  write_other_teams
  set_policy policies/revdesk.json policies/examples/revdesk-tenants.json "$run/keys.json"
  (umask 077 && printf '%s\n' "KEY=$key" "CUSTOMER_KEY=$customer_key" "WEST_KEY=$west_key" >"$run/credentials")
}

# Writes the keys of the deployment.
write_keys() {
  cat >"$run/keys.json" <<JSON
{"api_keys": [
  {"id": "backend", "team": "acme", "sha256": "$("$tool" hash-key <<<"$key")", "revoked": false,
   "scopes": ["tokens:mint", "voice:webrtc", "calls:write"]},
  {"id": "customer-7", "team": "acme", "sha256": "$("$tool" hash-key <<<"$customer_key")",
   "scopes": ["tokens:mint", "voice:webrtc", "calls:write"], "ceiling": {"to": ["+15557654321"]}},
  {"id": "west", "team": "acme-west", "sha256": "$("$tool" hash-key <<<"$west_key")", "scopes": ["calls:write"]}
]}
JSON
}

# Writes a team for each of the two other platforms.
write_other_teams() {
  cat >"$run/studio.json" <<JSON
{"teams": [{"id": "studio", "kind": "organization"}],
 "api_keys": [{"id": "backend", "team": "studio", "sha256": "$("$tool" hash-key <<<"$studio_key")"}]}
JSON
  cat >"$run/agency.json" <<JSON
{"teams": [{"id": "agency", "kind": "organization"}, {"id": "rival", "kind": "organization"}],
 "endpoints": [
   {"id": "front-desk", "team": "agency", "features": {"webrtc": true}},
   {"id": "back-office", "team": "rival", "features": {"webrtc": true}}],
 "api_keys": [{"id": "site", "team": "agency", "sha256": "$("$tool" hash-key <<<"$agency_key")",
               "scopes": ["CREATE_CALL_TOKEN"]}]}
JSON
}

# set_policy POLICY...: sets the files that are rendered from now on.
set_policy() { policy=("$@"); }

# Writes Envoy's two files. A running Envoy loads the second one, the policy, when it is replaced.
render() {
  "$tool" envoy "${policy[@]}" "${where[@]}"
}

start() {
  "$tool-upstream" --listen "127.0.0.1:$upstream_port" >"$run/upstream.log" 2>&1 </dev/null &
  upstream_pid=$!
  "$envoy" --config-path "$run/bootstrap.yaml" --disable-hot-restart --concurrency 2 --file-flush-interval-msec 200 \
    --log-level warning --component-log-level wasm:info >"$run/access.log" 2>"$run/envoy.log" </dev/null &
  envoy_pid=$!
  wait_for "the upstream" upstream_answers
  wait_for "the gateway" gateway_judges
}

# wait_for WHAT CHECK: waits until CHECK succeeds; fails if a process has ended, the policy was refused, or after 30
# seconds.
wait_for() {
  local _
  for _ in $(seq 300); do
    ! "$2" || return 0
    kill -0 "$upstream_pid" 2>/dev/null || fail "the upstream has ended; see its log below"
    kill -0 "$envoy_pid" 2>/dev/null || fail "Envoy has ended; see its log below"
    ! grep -q 'policy refused' "$run/envoy.log" || fail "the module refused the policy; see the log below"
    sleep 0.1
  done
  fail "$1 is not ready after 30 seconds; see the logs below"
}

upstream_answers() { curl --silent --fail --max-time 2 --output /dev/null "$upstream/__stats"; }

# Before its first policy Envoy answers 500, although `/ready` already returns LIVE.
gateway_judges() {
  local code
  code=$(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "$gateway/") || true
  [ "$code" = 404 ]
}

# True once Envoy has loaded the version in the file.
policy_is_live() {
  local wanted
  wanted=$(sed -n 's/^version_info: \("[^"]*"\).*/\1/p' "$run/ecds/filter.yaml")
  curl --silent --max-time 2 "127.0.0.1:$admin_port/stats?filter=http_filter.callbound.version_text" \
    | grep -qF "$wanted"
}

# --- Output ---

title() {
  scene=$((scene + 1))
  printf '\n%s%d. %s%s\n' "$bold" "$scene" "$1" "$plain"
}

# Shortens credentials to their first characters.
shorten() {
  sed -E 's/((rdc|ek|call)_[A-Za-z0-9_-]{10}|eyJ[A-Za-z0-9_-]{10})[A-Za-z0-9_.-]+/\1.../g
          s/((revdesk|dct)_[0-9a-f]{4})[0-9a-f]{28}/\1.../g'
}

unexpected() {
  wrong=$((wrong + 1))
  printf '%sUNEXPECTED: %s%s\n' "$red" "$1" "$plain"
}

# expect WHAT WANTED GOT
expect() { [ "$2" = "$3" ] || unexpected "$1: expected '$2', got '$3'"; }

# Text before a credential in a request, by platform.
carrier="authorization: Bearer "

# post PATH CREDENTIAL BODY STATUS DECISION: sends a request and shows it, its answer, the upstream's view and our log line
# (`allow` has none). Checks the status, the beginning of the log line, and that the upstream received the request or not.
post() {
  local path=$1 credential=$2 body=$3 wanted=$4 decision=$5
  show_command "$path" "$credential" "$body"
  curl --silent --request DELETE --output /dev/null "$upstream/__records"
  printf '%s%s' "$carrier" "$credential" >"$run/header"
  status=$(curl --silent --max-time 10 --output "$run/answer" --dump-header "$run/head" --write-out '%{http_code}' \
    "$gateway$path" --header @"$run/header" --header 'content-type: application/json' --data "$body") || true
  reply=$(cat "$run/answer" 2>/dev/null) || true
  show_answer "$wanted"
  show_upstream "POST $path $body" "$decision"
  [ "$decision" = allow ] || show_log "$decision"
}

# socket PATH CREDENTIAL-PARAMETER STATUS DECISION: sends a WebSocket handshake as a browser does, with the credential in
# the query. The upstream receives the path without it.
socket() {
  local path=$1 credential=$2 wanted=$3 decision=$4
  printf "%s\$ wscat --connect 'ws://%s%s&%s'%s\n" "$dim" "${gateway#http://}" "$path" "$credential" "$plain" | shorten
  curl --silent --request DELETE --output /dev/null "$upstream/__records"
  printf 'url = "%s%s&%s"\n' "$gateway" "$path" "$credential" >"$run/header"
  : >"$run/answer"
  # An accepted socket stays open until curl times out.
  status=$(curl --silent --http1.1 --max-time 1 --output "$run/answer" --dump-header "$run/head" --write-out '%{http_code}' \
    --header 'connection: Upgrade' --header 'upgrade: websocket' --header 'sec-websocket-version: 13' \
    --header 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==' --config "$run/header") || true
  reply=$(tr -d '\0-\037\200-\377' <"$run/answer" 2>/dev/null) || true
  show_answer "$wanted"
  show_upstream "GET $path " "$decision"
  [ "$decision" = allow ] || show_log "$decision"
}

show_command() {
  {
    printf "%s\$ curl %s%s \\\\\n" "$dim" "$gateway" "$1"
    printf "    -H '$carrier%s' -H 'content-type: application/json' \\\\\n" "$2"
    printf "    -d '%s'%s\n" "$3" "$plain"
  } | shorten
}

show_answer() {
  local colour=$green
  [ "$status" -lt 400 ] || colour=$red
  printf '%s%s%s %s\n' "$colour" "$status" "$plain" "$reply" | shorten
  expect "the status" "$1" "$status"
}

# Shows the record of the upstream: nothing, or the request line with the headers that only the gateway can set.
show_upstream() {
  local line=$1 decision=$2 seen
  seen=$(curl --silent --max-time 5 "$upstream/__records" | python3 -c '
import json, sys
for request in json.load(sys.stdin):
    print(request["method"], request["path"], request["body"])
    names = [name for name, _ in request["headers"]]
    for name, value in request["headers"]:
        if name.startswith("x-callbound-"):
            print(f"                 {name}: {value}")
    if "authorization" in names:
        print("                 authorization: (the credential!)")
') || true
  printf '  upstream saw   %s\n' "${seen:-nothing}"
  if [ "$decision" = allow ]; then
    expect "the request at the upstream" "$line" "${seen%%$'\n'*}"
    grep -q 'x-callbound-key: ' <<<"$seen" || unexpected "the upstream got no header with the caller"
    ! grep -q 'authorization: ' <<<"$seen" || unexpected "the upstream got the credential"
  else
    expect "the request at the upstream" "" "$seen"
  fi
}

# Shows our line in Envoy's log, found by the request id in the answer.
show_log() {
  local id line="" _
  id=$(tr -d '\r' <"$run/head" | sed -n 's/^x-request-id: //Ip')
  for _ in $(seq 20); do
    line=$(grep -F "request_id=$id" "$run/envoy.log" | sed -n 's/.*\(decision=\)/\1/p') || true
    [ -z "$line" ] || break
    sleep 0.1
  done
  printf '  gateway logged %s\n' "${line:-nothing}"
  [[ $line == "decision=$1 "* ]] || unexpected "the log line: expected it to begin with 'decision=$1'"
}

# member_of_reply NAME: prints a text member of the last answer.
member_of_reply() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$reply"; }

# --- The scenes ---

owned=+15551234567 allowed=+15557654321 other=+15550009999

scene_mint() {
  title "A backend mints a token from its API key: one caller ID, one destination, five minutes"
  post /v1/client-tokens "$key" \
    "{\"from_numbers\":[\"$owned\"],\"to_numbers\":[\"$allowed\"],\"scopes\":[\"calls:write\"],\"ttl_seconds\":300}" \
    200 mint
  token=$(member_of_reply token)
  printf 'TOKEN=%s\n' "$token" >>"$run/credentials"
}

scene_inside() {
  title "A call inside these bounds is allowed, and the upstream gets the caller in headers"
  post /v1/calls/dial "$token" "{\"from_number\":\"$owned\",\"to_number\":\"$allowed\"}" 200 allow
}

scene_to_outside() {
  title "The same token, another destination"
  post /v1/calls/dial "$token" "{\"from_number\":\"$owned\",\"to_number\":\"$other\"}" 403 "deny reason=to_denied"
}

scene_from_outside() {
  title "The same token, another caller ID of the same organisation"
  post /v1/calls/dial "$token" "{\"from_number\":\"+15552000001\",\"to_number\":\"$allowed\"}" \
    403 "deny reason=from_denied"
}

scene_token_mints() {
  title "A token tries to mint a token"
  post /v1/client-tokens "$token" "{\"from_numbers\":[\"$owned\"]}" 403 "deny reason=credential_not_accepted"
}

scene_emergency() {
  title "An emergency number, by the unbounded API key itself"
  post /v1/calls/dial "$key" "{\"from_number\":\"$owned\",\"to_number\":\"911\"}" 403 "deny reason=number_emergency"
}

scene_ceiling() {
  title "A customer's key with a ceiling: a direct call beyond it"
  post /v1/calls/dial "$customer_key" "{\"from_number\":\"$owned\",\"to_number\":\"$other\"}" \
    403 "deny reason=to_ceiling"
  title "... and no token can be minted beyond it either"
  post /v1/client-tokens "$customer_key" "{\"from_numbers\":[\"$owned\"],\"to_numbers\":[\"$other\"]}" \
    403 "deny reason=to_ceiling"
}

scene_premium() {
  local open_token
  title "A token without a destination list may call anyone ..."
  post /v1/client-tokens "$key" "{\"from_numbers\":[\"$owned\"],\"scopes\":[\"calls:write\"]}" 200 mint
  open_token=$(member_of_reply token)
  title "... but no premium-rate number that is not listed"
  post /v1/calls/dial "$open_token" "{\"from_number\":\"$owned\",\"to_number\":\"+19002345678\"}" \
    403 "deny reason=to_premium"
}

scene_sibling() {
  title "A sub-entity's key with its sibling's number as caller ID"
  post /v1/calls/dial "$west_key" "{\"from_number\":\"+15553000001\",\"to_number\":\"$allowed\"}" \
    403 "deny reason=from_not_owned"
}

scene_forged() {
  title "The token with another destination written into it"
  post /v1/calls/dial "$(forge "$token")" "{\"from_number\":\"$owned\",\"to_number\":\"$other\"}" \
    401 "deny reason=token_signature"
}

forge() {
  python3 -c '
import base64, sys
header, claims, signature = sys.argv[1].split(".")
claims = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).replace(sys.argv[2].encode(), sys.argv[3].encode())
print(header, base64.urlsafe_b64encode(claims).rstrip(b"=").decode(), signature, sep=".")
' "$1" "$allowed" "$other"
}

# set_revoked FROM TO: edits the deployment's file, renders again, and waits until Envoy has loaded it.
set_revoked() {
  sed -i "s/\"revoked\": $1/\"revoked\": $2/" "$run/keys.json"
  render
  wait_for "the new policy" policy_is_live
}

scene_revoked() {
  title "The API key is revoked: the policy is rendered again while Envoy runs ..."
  printf "%s\$ sed -i 's/\"revoked\": false/\"revoked\": true/' %s\n" "$dim" "$run/keys.json"
  printf "\$ callbound envoy %s \\\\\n    %s%s\n" "${policy[*]}" "${where[*]}" "$plain"
  set_revoked false true
  printf '  Envoy loaded   policy %s\n' "$(sed -n 's/^version_info: "\([^"]*\)".*/\1/p' "$run/ecds/filter.yaml")"
  title "... and the same token is refused at once"
  post /v1/calls/dial "$token" "{\"from_number\":\"$owned\",\"to_number\":\"$allowed\"}" 401 "deny reason=key_revoked"
}

# Changes to another platform by its policy file; Envoy, the module and the upstream keep running.
become() {
  local name=$1
  shift
  title "The running gateway becomes another platform: $name, by its policy file alone"
  set_policy "$@"
  printf "%s\$ callbound envoy %s \\\\\n    %s%s\n" "$dim" "${policy[*]}" "${where[*]}" "$plain"
  render
  wait_for "the new policy" policy_is_live
}

scene_realtime_video() {
  local minted
  become Decart policies/decart.json "$run/studio.json"
  carrier="x-api-key: "
  title "A backend mints a token for one model, at most ten seconds a session"
  post /v1/client/tokens "$studio_key" \
    '{"allowedModels":["lucy-2.5"],"constraints":{"realtime":{"maxSessionDuration":10}}}' 200 mint
  minted=$(member_of_reply apiKey)
  title "A browser opens that model; the upstream gets no credential, and Envoy the deadline"
  socket "/v1/stream?model=lucy-2.5" "api_key=$minted" 101 allow
  title "The same token, another model"
  socket "/v1/stream?model=lucy-restyle-2" "api_key=$minted" 403 "deny reason=bound_denied"
}

scene_call_tokens() {
  local minted
  become TelAPI policies/telapi.json "$run/agency.json"
  carrier="x-api-key: "
  title "A backend mints a call token for one endpoint and one session"
  post /api/v1/sessions/token "$agency_key" '{"endpointId":"front-desk","mode":"text"}' 200 mint
  minted=$(member_of_reply wsToken)
  local session
  session=$(member_of_reply sessionId)
  title "The client opens its session; the upstream gets the endpoint in a header"
  socket "/ws/session?sessionId=$session" "token=$minted" 101 allow
  title "The same token again: it was valid for one call"
  socket "/ws/session?sessionId=$session" "token=$minted" 401 "deny reason=token_spent"
  title "The same token, the session of another client"
  socket "/ws/session?sessionId=0b0f6a52-6a0b-4f1e-9d3c-0f6d1a2b3c4d" "token=$minted" 403 "deny reason=bound_denied"
  title "Another team's endpoint does not exist"
  post /v1/call-tokens "$agency_key" '{"endpointId":"back-office"}' 400 "deny reason=endpoint_unknown"
}

# --- After the scenes ---

stay() {
  set_policy policies/revdesk.json policies/examples/revdesk-tenants.json "$run/keys.json"
  set_revoked true false
  cat <<TEXT

${bold}It runs until Ctrl-C (the key is valid again). In another terminal, in this folder:$plain

  . $run/credentials    # KEY, CUSTOMER_KEY, WEST_KEY, and TOKEN (for five minutes)
  curl $gateway/v1/calls/dial -H "authorization: Bearer \$TOKEN" -H 'content-type: application/json' \\
    -d '{"from_number":"$owned","to_number":"$allowed"}'
  curl $gateway/v1/client-tokens -H "authorization: Bearer \$KEY" -H 'content-type: application/json' \\
    -d '{"from_numbers":["$owned"]}'
  $tool inspect "\$TOKEN"

The requests at the upstream, one counter per route and outcome, and the two logs:

  curl $upstream/__records
  curl '127.0.0.1:$admin_port/stats?filter=wasmcustom.callbound'
  tail -f $run/envoy.log $run/access.log

TEXT
  trap 'echo; exit 0' INT TERM
  wait -n "$upstream_pid" "$envoy_pid" || true
  fail "a process has ended; see its log below"
}

prepare
choose_ports
make_policy
render
start
say "Envoy on $gateway, the sample upstream on $upstream"
scene_mint
scene_inside
scene_to_outside
scene_from_outside
scene_token_mints
scene_emergency
scene_ceiling
scene_premium
scene_sibling
scene_forged
scene_revoked
scene_realtime_video
scene_call_tokens
echo
[ "$wrong" = 0 ] || fail "$wrong outcomes were not as expected; see the logs below"
say "$scene scenes, all as expected"
[ -n "$once" ] || stay
