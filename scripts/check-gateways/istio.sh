#!/usr/bin/env bash
# gateways/istio: resources against Istio's definitions, and the chains that Istio makes of them on a real Envoy.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/check-gateways/lib.sh
. scripts/check-gateways/lib.sh
# shellcheck source=scripts/check-gateways/mesh-lib.sh
. scripts/check-gateways/mesh-lib.sh
check_mesh istio
