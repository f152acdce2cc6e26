# shellcheck shell=bash
# What the checks of the nginx gateways share; sourced after scripts/lib.sh, never run.

# A folder with the pinned Python packages, filled when it is not.
gateway_packages() {
  local folder=$PWD/.tools/gateways wanted
  wanted=$(cat scripts/check-gateways/requirements.txt <(python3 -c 'import sys; print(sys.version_info[:2])') | sha256sum)
  if [ "$(cat "$folder/ready" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$folder" && mkdir -p "$folder"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --require-hashes --no-deps \
      --only-binary=:all: --target "$folder" -r scripts/check-gateways/requirements.txt >&2 \
      || fail "pip failed; is PyPI (or a mirror set in pip's configuration) reachable?"
    echo "$wanted" >"$folder/ready"
  fi
  echo "$folder"
}

# check_gateway NAME: runs scripts/check-gateways/NAME.py, which gets the command-line tool.
check_gateway() {
  local tool packages
  tool=$(callbound_bin)
  packages=$(gateway_packages)
  PYTHONPATH=$packages:scripts/check-gateways python3 -B "scripts/check-gateways/$1.py" "$tool"
}
