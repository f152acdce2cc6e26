#!/usr/bin/env python3
"""Embeds a policy in the file that a gateway reads it from, character for character.

  gateways/embed.py POLICY FILE            replaces the policy in FILE
  gateways/embed.py --check POLICY FILE    fails if FILE has another policy

FILE is an nginx.conf with `proxy_wasm callbound '...'`, or YAML with the policy below one of these members:

  config: |  conf: |  value: |     text (Kong, APISIX, an EnvoyFilter of Istio), which reaches the module unchanged
  pluginConfig:  config:           an object (a WasmPlugin of Istio, an EnvoyExtensionPolicy): JSON is YAML
"""

import re
import sys

# nginx reads its configuration in blocks of this size, and a parameter must fit into one.
NGINX_PARAMETER = 4096

# Characters that YAML reads as the end of a line, or not at all.
UNSAFE = set("\t\r\x85\u2028\u2029\ufeff")
# Escapes that only JSON combines into one character.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

MEMBER = re.compile(r"^( *)((?:config|conf|value): \||(?:pluginConfig|config):)\n(\1 +\{.*\n(?:\1 +.*\n|\n)*)", re.MULTILINE)
DIRECTIVE = re.compile(r"(proxy_wasm callbound )'((?:[^'\\]|\\.)*)';", re.DOTALL)


def in_yaml(text, policy):
    """Indents the lines of the policy below the member, where no character of them has a meaning to YAML."""
    def replaced(match):
        if not match[2].endswith("|") and SURROGATE.search(policy):
            raise ValueError("the policy may have no \\uD800 to \\uDFFF where YAML reads it as an object")
        lines = [match[1] + "  " + line if line else "" for line in policy.rstrip("\n").split("\n")]
        blank = match[3][len(match[3].rstrip("\n")) + 1:]
        return f"{match[1]}{match[2]}\n" + "\n".join(lines) + "\n" + blank

    return MEMBER.subn(replaced, text)


def in_nginx(text, policy):
    """Quotes the policy: a backslash before each single quote and each backslash; `$` has no meaning there."""
    quoted = policy.strip().replace("\\", "\\\\").replace("'", "\\'")
    if len(quoted.encode()) + 2 > NGINX_PARAMETER:
        raise ValueError(f"the policy has {len(quoted.encode())} bytes; nginx accepts {NGINX_PARAMETER - 2} at most")
    return DIRECTIVE.subn(lambda match: f"{match[1]}'{quoted}';", text)


def embedded(policy_path, path):
    """Returns the text of a file now, and with the policy in it. Raises ValueError where that cannot be done."""
    with open(policy_path, encoding="utf-8") as file:
        policy = file.read()
    if policy[:1] != "{" or set(policy) & UNSAFE:
        raise ValueError(f"{policy_path}: expected text that begins with `{{`, without tabs, and with line feeds as line ends")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    wanted, places = (in_nginx if path.endswith("nginx.conf") else in_yaml)(text, policy)
    if places != 1:
        raise ValueError(f"{path}: has {places} places with a policy; expected one")
    return text, wanted


def problem(policy_path, path):
    """Describes why a file does not have the policy; None if it does."""
    try:
        text, wanted = embedded(policy_path, path)
    except ValueError as error:
        return str(error)
    return None if text == wanted else f"{path}: differs from {policy_path}; run gateways/embed.py {policy_path} {path}"


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    if len(arguments) != 2:
        sys.exit(__doc__)
    if "--check" in sys.argv:
        sys.exit(problem(*arguments))
    try:
        _, wanted = embedded(*arguments)
    except ValueError as error:
        sys.exit(str(error))
    with open(arguments[1], "w", encoding="utf-8") as file:
        file.write(wanted)


if __name__ == "__main__":
    main()
