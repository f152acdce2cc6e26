#!/usr/bin/env bash
# gateways/apisix: what can be known without an APISIX, which no package registry carries. apisix.py says what that is.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/check-gateways/lib.sh
. scripts/check-gateways/lib.sh
check_gateway apisix
