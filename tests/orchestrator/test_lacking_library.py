"""A sweep that names an adapter whose library is not installed is shown, and says what to install."""

import importlib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, PackageNotFoundError
from typing import Any

import pytest

from estimators import registry
from orchestrator.catalog.page import page
from orchestrator.catalog.registry import GROUPS
from orchestrator.config import kept_schema
from orchestrator.config.loading import validate
from orchestrator.store.paths import SweepPaths
from orchestrator.sweeps.absent import absent
from workers import plugins
from workers.errors import ConfigError


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Offer an adapter; the function says whether its library is there."""
    entry = EntryPoint("traker_trak", "estimators.adapters.traker_trak:TrakerTrak", registry.GROUP)
    monkeypatch.setattr(plugins, "offered", lambda group: (entry,) if group == registry.GROUP else ())
    peer = importlib.import_module("estimators.adapters.peer")

    def distribution(name: str) -> str:
        assert name == "traker"
        return name

    def lacking(name: str) -> None:
        raise PackageNotFoundError(name)

    def there(is_there: bool) -> None:
        monkeypatch.setattr(peer, "find_spec", lambda name: object() if is_there else None)
        monkeypatch.setattr(kept_schema, "distribution", distribution if is_there else lacking)
        registry.find.cache_clear()
        registry.names.cache_clear()

    yield there
    registry.find.cache_clear()
    registry.names.cache_clear()


def test_who_looks_is_told_what_to_install(tiny: Any, tmp_path: Any, offered: Any) -> None:
    offered(False)
    tiny["estimators"] = {"theirs": {"estimator": "traker_trak"}, "random": {}}
    config = validate({"folder": str(tmp_path), **tiny}, "tiny.yaml", options=False)
    assert absent(config, SweepPaths(tmp_path)) == {
        "estimators.theirs": "estimator 'traker_trak' needs traker: what it gave is kept and shown, and cannot be computed "
        "again; pip install 'counterfactory[traker]'"
    }
    with pytest.raises(ConfigError, match=r"needs traker: pip install 'counterfactory\[traker\]'"):
        validate({"folder": str(tmp_path), **tiny}, "tiny.yaml")
    offered(True)
    assert not absent(config, SweepPaths(tmp_path))


def test_the_page_of_estimators_is_the_same_with_and_without(offered: Any) -> None:
    offered(False)
    without = page("Estimators", GROUPS["estimators"])
    offered(True)
    assert "traker_trak" in GROUPS["estimators"].names()
    assert page("Estimators", GROUPS["estimators"]) == without


def test_the_schema_is_drawn_anew_only_where_the_library_is_there(offered: Any) -> None:
    offered(False)
    assert "traker_trak" not in kept_schema.schema()["properties"]["estimators"]["properties"]
    offered(True)
    drawn = kept_schema.schema()["properties"]["estimators"]["properties"]["traker_trak"]
    assert "project_dim" in str(drawn)
