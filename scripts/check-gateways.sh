#!/usr/bin/env bash
# Checks what gateways/ holds: every scripts/check-gateways/*.sh, a line for each. `make check-gateways` calls it.
#   scripts/check-gateways.sh [NAME...]     only these, as `kong` or `istio`
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

names=("$@")
if [ $# -eq 0 ]; then
  for file in scripts/check-gateways/*.sh; do
    # Those without the mark are sourced by the others.
    [ ! -x "$file" ] || names+=("$(basename "$file" .sh)")
  done
fi

failed=""
for name in "${names[@]}"; do
  [ -x "scripts/check-gateways/$name.sh" ] || fail "no check is called $name"
  "scripts/check-gateways/$name.sh" || failed="$failed $name"
done
[ -z "$failed" ] || fail "gateways that are not as they must be:$failed"
