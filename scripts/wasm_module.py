"""Reads imports, exports and the stamp of src/version.rs from a WebAssembly module."""

import json

HEADER = b"\0asm\1\0\0\0"
STAMP = "callbound"


def number(data, at):
    """Returns an unsigned LEB128 number and the offset after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def name(data, at):
    length, at = number(data, at)
    return data[at : at + length].decode(), at + length


def sections(data):
    """Yields (id, content) of every section."""
    if data[:8] != HEADER:
        raise ValueError("not a WebAssembly module")
    at = 8
    while at < len(data):
        kind = data[at]
        size, at = number(data, at + 1)
        yield kind, data[at : at + size]
        at += size


def stamp(data):
    """Returns the version stamp of the module."""
    found = []
    for kind, content in sections(data):
        if kind == 0:
            title, at = name(content, 0)
            if title == STAMP:
                found.append(json.loads(content[at:]))
    if len(found) != 1:
        raise ValueError(f"has {len(found)} sections `{STAMP}`, expected one: not a callbound module")
    return found[0]


VALUES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64"}


def values(content, at):
    count, at = number(content, at)
    return " ".join(VALUES.get(byte, "?") for byte in content[at : at + count]), at + count


def function_types(data):
    """Returns every function type as text, such as `(i32 i64) -> i32`."""
    types = []
    for section, content in sections(data):
        if section == 1:
            count, at = number(content, 0)
            for _ in range(count):
                parameters, at = values(content, at + 1)
                results, at = values(content, at)
                types.append(f"({parameters}) -> {results or 'nothing'}")
    return types


def imports(data):
    """Yields `module.field type` of every import. All must be functions: gateways provide no memory or tables."""
    types = function_types(data)
    for section, content in sections(data):
        if section == 2:
            count, at = number(content, 0)
            for _ in range(count):
                module, at = name(content, at)
                field, at = name(content, at)
                if content[at] != 0:
                    raise ValueError(f"imports {module}.{field}, which is not a function")
                kind, at = number(content, at + 1)
                yield f"{module}.{field} {types[kind]}"


def exports(data):
    """Yields the name of every export."""
    for section, content in sections(data):
        if section == 7:
            count, at = number(content, 0)
            for _ in range(count):
                field, at = name(content, at)
                at = number(content, at + 1)[1]
                yield field
