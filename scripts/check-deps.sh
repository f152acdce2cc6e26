#!/usr/bin/env bash
# Licences, sources and known vulnerabilities of everything that Cargo.lock names (deny.toml says what is allowed).
# The advisory database is fetched from the network. Where that is not to be reached this says so and goes on, unless
# CALLBOUND_ADVISORIES=required.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
[ -x .tools/cargo-deny ] || scripts/setup.sh --deny

.tools/cargo-deny --locked check bans licenses sources
status=0
answer=$(timeout 120 .tools/cargo-deny --locked check advisories 2>&1) || status=$?
[ "$status" != 0 ] || { echo "$answer"; exit 0; }
if ! grep -q 'failed to fetch advisory database' <<<"$answer" || [ "${CALLBOUND_ADVISORIES:-}" = required ]; then
  echo "$answer" >&2
  fail "known vulnerabilities, or the advisory database was not to be had"
fi
say "############################################################################################"
say "NOT CHECKED: known vulnerabilities. The advisory database cannot be reached from this machine."
say "Run scripts/check-deps.sh where it can be, before a release."
say "############################################################################################"
