"""The JSON Schema of a configuration as it was drawn: it is there at once, while drawing it imports every estimator.

Where an installed package adds estimators, designs or metrics, it is drawn anew, with theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workers import plugins

FILE = Path(__file__).with_name("schema.json")
"""Written by `make pages`."""
GROUPS = ("counterfactory.estimators", "counterfactory.designs", "counterfactory.metrics")
"""What packages may add to a configuration."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file: the kept one, where nothing is installed that adds to it."""
    if any(map(plugins.offered, GROUPS)):
        from orchestrator.config import json_schema

        return json_schema.schema()
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return kept
