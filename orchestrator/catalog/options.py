"""The fields of a pydantic model as options in words: what each takes, its default, what it means."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from orchestrator.catalog.entry import Option

_TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def options_of(model: type[BaseModel], without: Collection[str] = ()) -> tuple[Option, ...]:
    """Return a model's options in the order of its fields."""
    schema = model.model_json_schema()
    required, definitions = schema.get("required", ()), schema.get("$defs", {})
    return tuple(
        Option(
            name,
            ", or ".join(dict.fromkeys(_alternatives(one, definitions))),
            "required" if name in required else _yaml(one.get("default")),
            next((part["description"] for part in (one, *one.get("anyOf", ())) if "description" in part), ""),
        )
        for name, one in schema.get("properties", {}).items()
        if name not in without
    )


def _alternatives(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a part of a JSON Schema accepts, in words."""
    if "$ref" in schema:
        yield from _alternatives(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _alternatives(one, definitions)
    elif "enum" in schema or "const" in schema:
        yield " or ".join(f"`{_yaml(one)}`" for one in schema.get("enum", [schema.get("const")]))
    elif schema.get("type") == "array":
        yield _array(schema, definitions)
    else:
        bounds = [f"{words} {schema[key]:g}" for key, words in _BOUNDS.items() if key in schema]
        yield _TYPES.get(schema.get("type", ""), "anything") + (f" of {' and '.join(bounds)}" if bounds else "")


def _array(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return what a list accepts: any number of the same, or so many."""
    each = schema.get("prefixItems") or [schema.get("items", {})]
    words = list(dict.fromkeys(" or ".join(_alternatives(one, definitions)) for one in each))
    length = f"{len(each)} " if "prefixItems" in schema else ""
    return f"list of {length}{' and '.join(words)}"


def _yaml(value: Any) -> str:
    """Return a value on one line, as a configuration has it."""
    return value if isinstance(value, str) else json.dumps(value)
