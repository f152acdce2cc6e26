"""What the checks of the nginx gateways share: problems are collected, and all of them are said."""

import json
import subprocess
import sys

import jsonschema
import yaml

PROBLEMS = []


def expect(is_so, problem):
    if not is_so:
        PROBLEMS.append(problem)
    return is_so


def finish(name, checked):
    """Says what was checked, or every problem."""
    for problem in PROBLEMS:
        print(f"{name}: {problem}", file=sys.stderr)
    if not PROBLEMS:
        print(f"{name}: {checked}")
    sys.exit(bool(PROBLEMS))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def once(pairs):
    """No member twice: which of the two counts depends on who reads it."""
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a member stands twice: {names}")
    return dict(pairs)


def read_json(text):
    return json.loads(text, object_pairs_hook=once)


class Once(yaml.SafeLoader):
    """YAML in which no member may stand twice."""

    def construct_mapping(self, node, deep=False):
        return once([(self.construct_object(key, deep=True), self.construct_object(value, deep=True)) for key, value in node.value])


Once.add_constructor("tag:yaml.org,2002:map", Once.construct_mapping)


def read_yaml(path):
    return yaml.load(read(path), Once)


def run(*command, stdin=None):
    """What a command prints; its failure is a problem."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    expect(done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def check_policy(tool, folder):
    """The policy is good, and is what the README says it was made of: any policy, and host.json over it."""
    path = f"{folder}/policy.json"
    run(tool, "check", path)
    merged = read_json(run(tool, "merge", path, f"{folder}/host.json") or "null")
    expect(merged == read_json(read(path)), f"{path} is not as host.json has it")
    return read(path), run(tool, "secrets", path).split()


def embedded(policy, path):
    run(sys.executable, "-B", "gateways/embed.py", "--check", policy, path)


def check_shape(what, value, schema):
    """What the gateway demands of its own configuration, as far as we use it; every other member is refused here."""
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(value))
    for error in errors:
        expect(False, f"{what}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}")
    return not errors


def shape(required, **members):
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}
