"""The kept schema is the one that the code draws, and what packages add is in the one that is shown."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from orchestrator.config import json_schema, kept_schema
from workers import plugins


def ours(node: Any) -> Any:
    """Return what of a schema comes from this project: keys, defaults, descriptions. How pydantic writes types is its own."""
    if isinstance(node, dict):
        kept = {key: ours(value) for key, value in node.items() if isinstance(value, dict | list)}
        return {**kept, **{key: node[key] for key in ("default", "description", "const") if key in node}}
    return [ours(one) for one in node if isinstance(one, dict | list)] if isinstance(node, list) else node


def test_the_kept_schema_is_the_one_that_the_code_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "offered", lambda group: ())
    assert ours(kept_schema.schema()) == ours(json_schema.schema()), "`make pages` writes it anew"


def test_what_a_package_adds_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("one", "package:One", "counterfactory.metrics")
    monkeypatch.setattr(plugins, "offered", lambda group: (entry,) if group == entry.group else ())
    monkeypatch.setattr(json_schema, "schema", lambda: {"drawn": True})
    assert kept_schema.schema() == {"drawn": True}


def test_the_groups_are_those_that_the_registries_read() -> None:
    from estimators import registry as estimators
    from orchestrator.designs import registry as designs
    from orchestrator.scoring import registry as metrics

    assert set(kept_schema.GROUPS) == {estimators.GROUP, designs.GROUP, metrics.GROUP}


def test_nothing_is_imported_for_it_that_it_does_not_need() -> None:
    asked = (
        "import sys; from orchestrator.config import kept_schema; kept_schema.schema(); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
