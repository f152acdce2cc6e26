#!/usr/bin/env python3
"""Writes callbound.meta.json, what Kong knows of the filter, from the policy's schema:

  callbound schema | gateways/kong/meta.py > gateways/kong/callbound.meta.json

Kong (3.5 and later) judges a filter's `config` by `config_schema`, in draft-4 of JSON Schema, before the module sees it.
It takes the policy as text, whatever it says: that is the module's to judge. And it takes the policy as an object, by
our own schema, translated; and by two rules more, for what Lua and cjson do to an object on its way to the module:

  an empty list may become an empty object, so lists have an entry;
  a whole number of more than 14 digits becomes another one, so numbers have no more.

`metrics` (3.9 and later) tells Kong's Prometheus plugin which parts of a counter's name are labels.
"""

import json
import sys

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
# cjson writes numbers with 14 digits.
MAX_INTEGER = 99_999_999_999_999
# What says nothing about what is allowed. `default` above all: some validators would fill it in.
ANNOTATIONS = {"$schema", "$id", "title", "description", "default", "examples", "format"}
# What is the same in both drafts and holds no schemas.
SAME = {"type", "enum", "required", "pattern", "minimum", "maximum", "minItems", "maxItems", "uniqueItems", "minLength"}
SAME |= {"maxLength", "minProperties", "maxProperties"}
# What holds schemas in both.
LISTS = {"anyOf", "oneOf", "allOf"}
OBJECTS = {"properties", "patternProperties"}
SINGLE = {"items", "additionalProperties", "not"}


def translated(schema):
    """The same rules in draft-4. A keyword that is not known here ends it: leaving it out would allow more."""
    if schema is True:
        return {}
    if schema is False:
        return {"not": {}}
    schema = {name: value for name, value in schema.items() if name not in ANNOTATIONS}
    result, more = {}, []
    for name, value in schema.items():
        if name in SAME:
            # Draft-4 knows no list of nothing.
            if value != []:
                result[name] = value
        elif name in LISTS:
            result[name] = [translated(choice) for choice in value]
        elif name in OBJECTS:
            result[name] = {member: translated(child) for member, child in value.items()}
        elif name in SINGLE:
            result[name] = value if isinstance(value, bool) else translated(value)
        elif name == "const":
            result["enum"] = [value]
        elif name == "$ref":
            more.append({"$ref": value.replace("#/$defs/", "#/definitions/policy-")})
        elif name == "dependentRequired":
            result["dependencies"] = value
        elif name == "propertyNames":
            more.append(names_as_properties(value))
        elif name == "if":
            more.append({"anyOf": [{"not": translated(value)}, translated(schema["then"])]})
        elif name not in ("then", "$defs"):
            sys.exit(f"meta.py does not know `{name}`: say here what draft-4 has for it")
    if "then" in schema and ("if" not in schema or "else" in schema):
        sys.exit("meta.py knows `if` with `then` only")
    return combined(survives(result), more)


def names_as_properties(names):
    """`propertyNames` is of a later draft: every other name is refused instead."""
    if set(names) == {"pattern"}:
        return {"patternProperties": {names["pattern"]: {}}, "additionalProperties": False}
    if set(names) == {"enum"}:
        return {"properties": {name: {} for name in names["enum"]}, "additionalProperties": False}
    return sys.exit(f"meta.py does not know `propertyNames` with {sorted(names)}")


def survives(schema):
    """Only what reaches the module as it was written, where it came as an object."""
    if schema.get("type") == "array":
        schema["minItems"] = max(1, schema.get("minItems", 1))
    if schema.get("type") == "integer":
        schema["maximum"] = min(MAX_INTEGER, schema.get("maximum", MAX_INTEGER))
    return schema


def combined(schema, more):
    """What stands beside a `$ref` would not count: each becomes one of `allOf`."""
    if not more:
        return schema
    if not schema and len(more) == 1:
        return more[0]
    return {"allOf": [schema, *more] if schema else more}


def config_schema(policy):
    definitions = {f"policy-{name}": translated(schema) for name, schema in policy["$defs"].items()}
    definitions["policy"] = translated(policy)
    text = {"type": "string", "minLength": 2, "pattern": r"^\s*\{"}
    return {"$schema": DRAFT_4, "anyOf": [text, {"$ref": "#/definitions/policy"}], "definitions": definitions}


def label_patterns():
    """Lua patterns over `...route.ID.OUTCOME` and `...route.ID.deny.REASON`: the second capture is the value, and the
    metric's name ends where the first match begins. An id may have dots; a reason has no dot and at least one `_`."""
    reason = "%l+_[%l_]+"
    for end, outcome in (("%.allow$", "allow"), ("%.mint$", "mint"), ("%.answer$", "answer")):
        yield "route", f"(%.route%.)(.+){end}"
        yield "outcome", f"(%.route%..+%.)({outcome})$"
    yield "route", f"(%.route%.)(.+)%.deny%.{reason}$"
    yield "outcome", f"(%.route%..+%.)(deny)%.{reason}$"
    yield "reason", f"(%.route%..+%.deny%.)({reason})$"


def main():
    metrics = {"label_patterns": [{"label": label, "pattern": pattern} for label, pattern in label_patterns()]}
    meta = {"config_schema": config_schema(json.load(sys.stdin)), "metrics": metrics}
    json.dump(meta, sys.stdout, indent=1, ensure_ascii=True)
    print()


if __name__ == "__main__":
    main()
