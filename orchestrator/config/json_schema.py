"""The JSON Schema of a configuration file, for editors."""

from __future__ import annotations

from typing import Any

from estimators.reference_estimator import ReferenceEstimator
from estimators.registry import find, names
from orchestrator.config.schema import Config
from workers.errors import PluginError


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors; every installed estimator's options are in it.

    Of one that cannot be loaded it says why.
    """
    made: dict[str, Any] = Config.model_json_schema()
    common = {
        "estimator": {
            "type": "string",
            "anyOf": [{"enum": list(names())}, {"pattern": ":"}],
            "description": "by default the name above; your own is path/to/file.py:Class or module:Class",
        },
        "measure": {"type": ["string", "null"], "description": "one of the measures; by default the first"},
        "tune": {
            "type": "object",
            "additionalProperties": {"type": "array", "minItems": 2, "uniqueItems": True},
            "minProperties": 1,
            "description": "options that fitting runs choose, each with its values",
        },
        "tune_on": {
            "type": ["string", "null"],
            "description": "the fitting design that chooses; may be left out when there is one",
        },
    }
    sections: dict[str, Any] = {}
    for name in names():
        try:
            own = find(name).model_json_schema()
        except PluginError as error:
            sections[name] = {"description": str(error)}
            continue
        if "description" in own:
            own["description"] = _without_example(own["description"])
        made["$defs"].update(own.pop("$defs", {}))
        own["properties"] = {**common, **own.get("properties", {})}
        if issubclass(find(name), ReferenceEstimator):
            own["properties"]["models"] = _or_a_list(own["properties"]["models"])
        sections[name] = {"anyOf": [own, {"type": "null"}]}
    made["properties"]["estimators"].update(
        {
            "properties": sections,
            "additionalProperties": {"type": "object", "properties": common, "required": ["estimator"]},
        }
    )
    made["$defs"].pop("EstimatorSection", None)
    for optional in ("name", "folder"):
        made["required"].remove(optional)
    return {**made, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "counterfactory sweep"}


def _or_a_list(models: dict[str, Any]) -> dict[str, Any]:
    """Return what accepts a number of models, or some of them."""
    told = {key: value for key, value in models.items() if key in ("description", "default", "title")}
    one = {key: value for key, value in models.items() if key not in told}
    several = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "uniqueItems": True}
    return {**told, "anyOf": [*one.get("anyOf", [one]), several]}


def _without_example(docstring: str) -> str:
    """Return a docstring up to its example: Python helps nobody who writes YAML."""
    return docstring.partition("\n\n>>> ")[0]
