"""Checks gateways/: files against their definitions, and the filter chains made of them on a real Envoy.

  python3 scripts/check_gateways [istio] [envoy-gateway] [kong] [nginx] [apisix]     all of them by default

Prints one line for each gateway, or its problems. A check that needs a program this machine lacks is skipped, and the
program is named with its install line; with CALLBOUND_REQUIRE=all a skipped check fails.
"""

import importlib
import os
import sys
import traceback

sys.dont_write_bytecode = True
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
import tools  # noqa: E402 (paths are relative to the repository)

GATEWAYS = ["istio", "envoy-gateway", "kong", "nginx", "apisix"]


def check(name):
    """Runs the check of one gateway, prints its result and returns (has problems, has skipped checks)."""
    import common
    common.PROBLEMS.clear()
    common.SKIPPED.clear()
    module = importlib.import_module(name.replace("-", "_"))
    try:
        module.check()
    except Exception as error:  # most often a file that cannot be read
        traceback.print_exc()
        common.expect(False, f"the check cannot go on: {error!r}")
    for problem in common.PROBLEMS:
        print(f"gateways/{name}: {problem}", file=sys.stderr)
    for missing in common.SKIPPED:
        print(f"gateways/{name}: skipped: {missing}", file=sys.stderr)
    if not common.PROBLEMS:
        print(f"gateways/{name}: ok" + (" except for skipped checks" if common.SKIPPED else f": {module.CHECKED}"))
    return bool(common.PROBLEMS), bool(common.SKIPPED)


def main():
    names = sys.argv[1:] or GATEWAYS
    if unknown := set(names) - set(GATEWAYS):
        sys.exit(f"unknown gateway `{unknown.pop()}`; expected one of {', '.join(GATEWAYS)}\n\n{__doc__}")
    is_strict = os.environ.get("CALLBOUND_REQUIRE") == "all"
    try:
        sys.path[:0] = [tools.python_packages(), "gateways", "gateways/kong"]
    except tools.Missing as missing:
        print(f"gateways: skipped: {missing}", file=sys.stderr)
        sys.exit(is_strict)
    results = [check(name) for name in names]
    sys.exit(any(has_problems or (is_strict and has_skipped) for has_problems, has_skipped in results))


if __name__ == "__main__":
    main()
