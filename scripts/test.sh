#!/usr/bin/env bash
# Every test there is: the module built, the units, the corpus at all its levels, the stories on a real Envoy.
#   scripts/test.sh [ARGUMENTS FOR cargo test]      e.g. --test corpus, or the name of a test
# What is missing on this machine is named with its install line and counted as skipped; with CALLBOUND_REQUIRE=all a
# skip is a failure. Ends with one line: `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

log=$(mktemp -t callbound-test.XXXXXX)
running=""

# Ends what was started, by the id of its process group: cargo, the test binaries and their Envoys.
finish() {
  trap - EXIT INT TERM
  [ -z "$running" ] || kill -- "-$running" 2>/dev/null
  rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT TERM

# own_group COMMAND...: runs it in a process group of its own and waits for it.
own_group() {
  local status=0
  set -m
  "$@" </dev/null &
  running=$!
  set +m
  wait "$running" || status=$?
  kill -- "-$running" 2>/dev/null
  running=""
  return "$status"
}

cargo_test() { cargo test --locked --no-fail-fast "$@" > >(tee "$log") 2>&1; }

# One line per test binary, from cargo's own words: seconds, passed, failed, skipped, name.
suites() {
  awk '
    /^ +Running / { name = $2 == "unittests" ? $3 : $2 }
    /^ +Doc-tests / { name = "documentation of " $2 }
    /^test result: / { gsub(";", ""); printf "%8.2f s %6d passed %4d failed %4d skipped  %s\n", $NF, $4, $6, $8, name }
  ' "$log"
}

# The tests that were skipped for want of something, by what they want.
skips() {
  sed -nE 's/^test .* \.\.\. ignored(, | \()(.*[^)])\)?$/\2/p' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) /  \1 skipped: /'
}

total() { awk -v word="$1" '/^test result: / { for (i = 1; i < NF; i++) if ($(i + 1) ~ "^" word) sum += $i } END { print sum + 0 }' "$log"; }

begin=$SECONDS
status=0
# A fresh machine needs nothing more than this; what cannot be had is named, and skipped below.
scripts/setup.sh --wasm --envoy || say "set-up is not complete" >&2
scripts/build-wasm.sh || say "the module did not build: the tests that need it are skipped" >&2
own_group cargo_test "$@" || status=$?

passed=$(total passed) failed=$(total failed) skipped=$(total ignored)
# A suite that did not build, or died, has no result line to count.
[ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
if [ "$skipped" -gt 0 ]; then
  printf '\n%s\n' "SKIPPED, because something is missing here:"
  skips
  [ "${CALLBOUND_REQUIRE:-}" != all ] || status=1
fi
printf '\n%s\n' "callbound: the suites, $((SECONDS - begin)) s in all"
suites
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$status" = 0 ] && [ "$failed" = 0 ]
