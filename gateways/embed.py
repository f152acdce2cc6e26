#!/usr/bin/env python3
"""Puts a policy into the file that a gateway reads it from, character for character.

  gateways/embed.py POLICY FILE            writes FILE anew, the policy in its place
  gateways/embed.py --check POLICY FILE    says whether it stands there already

FILE is YAML with `config: |` (Kong) or `conf: |` (APISIX), or an nginx.conf with `proxy_wasm callbound '...'`. The policy is
text in all of them: what a gateway reads as an object it writes anew before the module gets it, and loses something then.
"""

import re
import sys

# nginx reads its configuration in pieces of this size, and a parameter must fit into one.
NGINX_PARAMETER = 4096

# What YAML takes for the end of a line, or for nothing at all.
UNSAFE = set("\t\r\x85\u2028\u2029\ufeff")

BLOCK = re.compile(r"^( *)(?:- )?(?:config|conf): \|\n((?:\1 +.*\n|\n)*)", re.MULTILINE)
DIRECTIVE = re.compile(r"(proxy_wasm callbound )'((?:[^'\\]|\\.)*)';", re.DOTALL)


def in_yaml(text, policy):
    """A block scalar: no character of it means anything to YAML. It ends with one line feed, as the policy does."""
    def block(match):
        indent = " " * (len(match[1]) + 2)
        lines = [indent + line if line else "" for line in policy.rstrip("\n").split("\n")]
        after = match[2][len(match[2].rstrip("\n")) + 1 :]
        return match[0][: match.start(2) - match.start()] + "\n".join(lines) + "\n" + after

    return BLOCK.subn(block, text)


def in_nginx(text, policy):
    """A parameter in single quotes: a backslash stands before a quote and before itself, `$` means nothing."""
    quoted = policy.strip().replace("\\", "\\\\").replace("'", "\\'")
    if len(quoted.encode()) + 2 > NGINX_PARAMETER:
        sys.exit(f"the policy has {len(quoted.encode())} bytes; nginx takes parameters of {NGINX_PARAMETER} only")
    return DIRECTIVE.subn(lambda match: f"{match[1]}'{quoted}';", text)


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
    if policy[:1] != "{" or set(policy) & UNSAFE:
        sys.exit(f"{policy_path}: must begin with its brace and have no tabs and no line ends but line feeds")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    embed = in_nginx if path.endswith("nginx.conf") else in_yaml
    wanted, places = embed(text, policy)
    if places != 1:
        sys.exit(f"{path}: {places} places for a policy; there must be one")
    if is_check:
        if wanted != text:
            sys.exit(f"{path}: does not hold {policy_path}; run gateways/embed.py {policy_path} {path}")
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(wanted)


if __name__ == "__main__":
    main()
