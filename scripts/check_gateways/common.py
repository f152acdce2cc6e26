"""Functions that all checks share. Problems are collected, so that one run shows all of them."""

import copy
import json
import os
import subprocess

import jsonschema
import yaml

import embed
import tools
from tools import read

PROBLEMS = []
SKIPPED = []


def expect(is_so, problem):
    """Adds a problem unless `is_so`, and returns `is_so`."""
    if not is_so:
        PROBLEMS.append(problem)
    return is_so


def unless_missing(check, *arguments):
    """Runs part of a check and returns its result; the part is skipped where a program it needs is missing."""
    try:
        return check(*arguments)
    except tools.Missing as missing:
        SKIPPED.append(str(missing))
        return True


def once(pairs):
    """Refuses a repeated member: which of the two counts depends on the reader."""
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a member is repeated: {names}")
    return dict(pairs)


def read_json(text):
    return json.loads(text, object_pairs_hook=once)


class Once(yaml.SafeLoader):
    """YAML in which no member may be repeated."""

    def construct_mapping(self, node, deep=False):
        return once([(self.construct_object(key, deep=True), self.construct_object(value, deep=True)) for key, value in node.value])


Once.add_constructor("tag:yaml.org,2002:map", Once.construct_mapping)


def resources(path):
    """Reads the documents of a YAML file."""
    return [document for document in yaml.load_all(read(path), Once) if document]


def run(*command, stdin=None):
    """Returns the output of a command; its failure is a problem."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    expect(done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def callbound(*arguments, stdin=None):
    return run(tools.callbound(), *arguments, stdin=stdin)


def check_policy(policy, base, patch):
    """Checks a policy, and that it is `base` with `patch` merged over it. Returns its text."""
    callbound("check", policy)
    merged = callbound("merge", base, patch)
    expect(read_json(merged or "null") == read_json(read(policy)), f"{policy}: differs from {base} with {patch} merged over it")
    return read(policy)


def check_embedded(policy, path, found):
    """Checks that a file has the policy's text, and that its reader finds the same policy."""
    problem = embed.problem(policy, path)
    expect(not problem, problem)
    text = read(policy)
    wanted = text if isinstance(found, str) else read_json(text)
    expect(found == wanted, f"{path}: the policy in it reads as another one than {policy}")


def check_headers(policy, path):
    """Checks that a file has the headers that nginx drops for a policy, as the tool prints them."""
    expect(callbound("nginx-headers", policy) == read(path),
           f"{path}: out of date; run `callbound nginx-headers {policy} > {path}`")


def check_secrets(policy, named, path):
    """Checks that a file passes on the environment variables of a policy's secrets, and no others."""
    wanted = callbound("secrets", policy).split()
    expect(sorted(named) == sorted(wanted), f"{path}: names {named}; {policy} needs {wanted}")


def check_kustomization(folder, unlisted):
    """Checks that kustomization.yaml lists the files of its folder, except those that are a choice."""
    listed = resources(f"{folder}/kustomization.yaml")[0]["resources"]
    files = {name for name in os.listdir(folder) if name.endswith(".yaml")} - {"kustomization.yaml"}
    expect(sorted(listed) == sorted(files - set(unlisted)), f"{folder}/kustomization.yaml: lists {listed} of {sorted(files)}")


def check_definitions(files, mistakes):
    """Checks resources against their definitions, which must also refuse each of `mistakes`: (file, name, change)."""
    wrong = []
    for path, _, change in mistakes:
        changed = copy.deepcopy(resources(path))
        change(changed[0])
        wrong.append(changed)
    documents = [resources(path) for path in files] + wrong
    output = run("node", f"{tools.HERE}/crds/check.mjs", tools.definitions(), stdin=json.dumps(documents, default=str))
    if not output:
        return False
    found = read_json(output)
    good = [expect(False, f"{path}: {problem}") for path, each in zip(files, found) for problem in each]
    bad = [expect(each, f"{path}: the definitions accept {name}")
           for (path, name, _), each in zip(mistakes, found[len(files):])]
    return not good and all(bad)


def check_shape(path, value, schema):
    """Checks a gateway's own configuration, as far as it is used here; every other member is refused."""
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(value))
    for error in errors:
        expect(False, f"{path}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}")
    return not errors


def shape(required, **members):
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}
