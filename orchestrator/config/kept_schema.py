"""The JSON Schema of a configuration as it was drawn: it is there at once, while drawing it imports every estimator.

Where an installed package adds estimators, designs or metrics, it is drawn anew, with theirs.
"""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from workers import plugins

FILE = Path(__file__).with_name("schema.json")
"""Written by `make pages`."""
GROUPS = ("counterfactory.estimators", "counterfactory.designs", "counterfactory.metrics")
"""What packages may add to a configuration."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file: the kept one, where nothing is installed that adds to it."""
    if any(_adds(entry) for group in GROUPS for entry in plugins.offered(group)):
        from orchestrator.config import json_schema

        return json_schema.schema()
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return kept


def _adds(entry: EntryPoint) -> bool:
    """Say whether an entry point adds something: an adapter of ours does where the library is installed that it is named by."""
    if not entry.value.startswith("estimators.adapters."):
        return True
    try:
        distribution(entry.name.partition("_")[0])
    except PackageNotFoundError:
        return False
    return True
