# shellcheck shell=bash disable=SC2034
# Budgets of the module and of CI; sourced by .ci/run and scripts/check-wasm.sh.

# Largest module, in KiB. It is built for speed, not for size. The masks of its shifts take 5 KiB.
MODULE_BUDGET=1456

# Seconds of each suite of .ci/run on two cores, and of the whole run.
declare -A SUITE_BUDGETS=(
  [setup]=330 [numbers]=60 [licences]=150 [lint]=420 [wasm]=150 [module]=10 [test]=1100 [gateways]=90 [demo]=120
)
TOTAL_BUDGET=1800
