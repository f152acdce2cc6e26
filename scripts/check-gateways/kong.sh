#!/usr/bin/env bash
# gateways/kong: what can be known without a Kong, which no package registry carries. kong.py says what that is.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/check-gateways/lib.sh
. scripts/check-gateways/lib.sh
check_gateway kong
