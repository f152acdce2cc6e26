#!/usr/bin/env python3
"""Writes callbound.meta.json, Kong's metadata of the filter, from the policy's schema:

  callbound schema | gateways/kong/meta.py > gateways/kong/callbound.meta.json

Kong (3.5 and later) validates a filter's `config` by `config_schema`, in draft-4 of JSON Schema, before the module sees
it. A policy given as text is accepted unread, because the module validates it. A policy given as an object must match our
own schema, translated, with two more rules for the changes that Lua and cjson make to an object on its way to the module:

  a list needs an entry, because an empty list may become an empty object;
  a whole number has at most 14 digits, because a longer one is rounded.

`metrics` (3.9 and later) defines for Kong's Prometheus plugin which parts of a counter's name are labels.
"""

import json
import sys

DRAFT_4 = "http://json-schema.org/draft-04/schema#"
# cjson writes numbers with 14 digits.
MAX_INTEGER = 99_999_999_999_999
# Keywords that allow or refuse nothing. Some validators would fill in a `default`.
ANNOTATIONS = {"$schema", "$id", "title", "description", "default", "examples", "format"}
# Keywords without a schema inside, the same in both drafts.
SAME = {"type", "enum", "required", "pattern", "minimum", "maximum", "minItems", "maxItems", "uniqueItems", "minLength"}
SAME |= {"maxLength", "minProperties", "maxProperties"}
# Keywords with schemas inside, the same in both drafts.
LISTS = {"anyOf", "oneOf", "allOf"}
OBJECTS = {"properties", "patternProperties"}
SINGLE = {"items", "additionalProperties", "not"}


def translated(schema):
    """Translates a schema to draft-4. An unknown keyword is an error: leaving it out would allow more."""
    if schema is True:
        return {}
    if schema is False:
        return {"not": {}}
    schema = {name: value for name, value in schema.items() if name not in ANNOTATIONS}
    result, more = {}, []
    for name, value in schema.items():
        if name in SAME:
            # Draft-4 has no empty lists.
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
            raise ValueError(f"meta.py cannot translate `{name}`; add its draft-4 form there")
    if "then" in schema and ("if" not in schema or "else" in schema):
        raise ValueError("meta.py can translate `if` only with `then` and without `else`")
    return combined(survives(result), more)


def names_as_properties(names):
    """Translates `propertyNames`, which draft-4 lacks, by refusing every other name."""
    if set(names) == {"pattern"}:
        return {"patternProperties": {names["pattern"]: {}}, "additionalProperties": False}
    if set(names) == {"enum"}:
        return {"properties": {name: {} for name in names["enum"]}, "additionalProperties": False}
    raise ValueError(f"meta.py cannot translate `propertyNames` with {sorted(names)}")


def survives(schema):
    """Refuses values that Lua and cjson would change on their way to the module."""
    if schema.get("type") == "array":
        schema["minItems"] = max(1, schema.get("minItems", 1))
    if schema.get("type") == "integer":
        schema["maximum"] = min(MAX_INTEGER, schema.get("maximum", MAX_INTEGER))
    return schema


def combined(schema, more):
    """Combines schemas by `allOf`, because draft-4 ignores the members next to a `$ref`."""
    if not more:
        return schema
    if not schema and len(more) == 1:
        return more[0]
    return {"allOf": [schema, *more] if schema else more}


def config_schema(policy):
    definitions = {f"policy-{name}": translated(schema) for name, schema in policy["$defs"].items()}
    definitions["policy"] = translated(policy)
    as_text = {"type": "string", "minLength": 2, "pattern": r"^\s*\{"}
    return {"$schema": DRAFT_4, "anyOf": [as_text, {"$ref": "#/definitions/policy"}], "definitions": definitions}


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


def text(schema):
    """Returns callbound.meta.json for the text of a policy's schema."""
    metrics = {"label_patterns": [{"label": label, "pattern": pattern} for label, pattern in label_patterns()]}
    meta = {"config_schema": config_schema(json.loads(schema)), "metrics": metrics}
    return json.dumps(meta, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(sys.stdin.read()))
