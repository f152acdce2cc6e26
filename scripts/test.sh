#!/usr/bin/env bash
# Builds the module and runs all tests: units, the corpus at all levels, the stories on a real Envoy.
#   scripts/test.sh [ARGUMENTS FOR cargo test]      e.g. --test corpus, or the name of a test
# A test that needs a missing program is skipped, and the program is named with its install line; with
# CALLBOUND_REQUIRE=all a skip is a failure. The last line is `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

log=$(mktemp -t callbound-test.XXXXXX)
running=""

# Ends the processes it started (cargo, the test binaries and their Envoys), by process group.
finish() {
  trap - EXIT INT TERM
  [ -z "$running" ] || kill -- "-$running" 2>/dev/null
  rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT TERM

# own_group COMMAND...: runs a command in its own process group and waits for it.
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

# Prints one line per test binary from cargo's output: seconds, passed, failed, skipped, name.
suites() {
  awk '
    /^ +Running / { name = $2 == "unittests" ? $3 : $2 }
    /^ +Doc-tests / { name = "documentation of " $2 }
    /^test result: / { gsub(";", ""); printf "%8.2f s %6d passed %4d failed %4d skipped  %s\n", $NF, $4, $6, $8, name }
  ' "$log"
}

# Prints the number of skipped tests for each missing program.
skips() {
  sed -nE 's/^test .* \.\.\. ignored(, | \()(.*[^)])\)?$/\2/p' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) /  \1 skipped: /'
}

total() { awk -v word="$1" '/^test result: / { for (i = 1; i < NF; i++) if ($(i + 1) ~ "^" word) sum += $i } END { print sum + 0 }' "$log"; }

begin=$SECONDS
status=0
# All that a fresh machine needs. Programs that cannot be installed are named here, and their tests are skipped below.
scripts/setup.sh --wasm --envoy || say "setup is incomplete" >&2
scripts/build-wasm.sh || say "the module did not build: the tests that need it are skipped" >&2
own_group cargo_test "$@" || status=$?

passed=$(total passed) failed=$(total failed) skipped=$(total ignored)
# A suite that did not build, or crashed, has no result line.
[ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
if [ "$skipped" -gt 0 ]; then
  printf '\n%s\n' "SKIPPED, because a program is missing:"
  skips
  [ "${CALLBOUND_REQUIRE:-}" != all ] || status=1
fi
printf '\n%s\n' "callbound: the suites, $((SECONDS - begin)) s in all"
suites
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$status" = 0 ] && [ "$failed" = 0 ]
