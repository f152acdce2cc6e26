#!/usr/bin/env bash
# Checks licences, sources and known vulnerabilities of all packages in Cargo.lock against deny.toml.
# The advisory database is downloaded. Without a network its check is skipped with a notice; with
# CALLBOUND_ADVISORIES=required that fails.
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
  fail "known vulnerabilities, or the advisory database could not be downloaded"
fi
say "############################################################################################"
say "NOT CHECKED: known vulnerabilities. The advisory database cannot be reached from this machine."
say "Before a release, run scripts/check-deps.sh on a machine with access to it."
say "############################################################################################"
