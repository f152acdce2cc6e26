#!/usr/bin/env python3
"""Puts a policy into the Kubernetes resource that brings it to Envoy, character for character.

  gateways/istio/embed.py POLICY FILE            writes FILE anew, the policy in its place
  gateways/istio/embed.py --check POLICY FILE    says whether it stands there already

FILE is YAML. Below `pluginConfig:` (WasmPlugin) or `config:` (EnvoyExtensionPolicy) stands the policy as an object, which
is what these take: JSON is YAML. Below `value: |` (EnvoyFilter) it stands as text, which is better: it arrives as it is.
"""

import re
import sys

# What YAML takes for the end of a line or for nothing, and escapes that only JSON reads as one character.
UNSAFE = re.compile("[\t\r\x85\u2028\u2029\ufeff]|\\\\u[dD][89a-fA-F]")

PLACE = re.compile(r"^( *)(?:pluginConfig:|config:|value: \|)\n(\1 +\{.*\n(?:\1 +.*\n|\n)*)", re.MULTILINE)


def embed(text, policy):
    """The lines of the policy, indented below the member: a block scalar, or an object in braces."""
    def place(match):
        indent = " " * (len(match[1]) + 2)
        lines = [indent + line if line else "" for line in policy.rstrip("\n").split("\n")]
        blank = match[2][len(match[2].rstrip("\n")) + 1 :]
        return match[0][: match.start(2) - match.start()] + "\n".join(lines) + "\n" + blank

    return PLACE.subn(place, text)


def main():
    arguments = sys.argv[1:]
    is_check = arguments[:1] == ["--check"]
    if is_check:
        arguments.pop(0)
    if len(arguments) != 2:
        sys.exit(__doc__)
    policy_path, path = arguments
    with open(policy_path, encoding="utf-8") as file:
        policy = file.read()
    if policy[:1] != "{" or UNSAFE.search(policy):
        sys.exit(f"{policy_path}: must begin with its brace and have no tabs, no line ends but line feeds, no \\uD800 to \\uDFFF")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    wanted, places = embed(text, policy)
    if places != 1:
        sys.exit(f"{path}: {places} places for a policy; there must be one, with a policy in it")
    if is_check:
        if wanted != text:
            sys.exit(f"{path}: does not hold {policy_path}; run gateways/istio/embed.py {policy_path} {path}")
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(wanted)


if __name__ == "__main__":
    main()
