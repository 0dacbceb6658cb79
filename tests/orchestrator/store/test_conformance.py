"""Our own store keeps every promise."""

from typing import Any

import pytest

from orchestrator.store import testing
from orchestrator.store.run_store import RunStore
from orchestrator.store.testing import Shape


def name(value: Any) -> str:
    if isinstance(value, Shape):
        return f"{value.runs} rows in packs of {value.pack}" + ", reopened" * value.reopen
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize("shape", testing.SHAPES, ids=name)
@pytest.mark.parametrize("promise", testing.PROMISES, ids=name)
def test_the_store_keeps_its_promises(promise: Any, shape: Shape, folders: Any) -> None:
    promise(folders(RunStore), shape)


@pytest.mark.parametrize("accident", testing.ACCIDENTS, ids=name)
def test_the_store_survives_accidents(accident: Any, folders: Any) -> None:
    accident(folders(RunStore))


def test_all_checks_are_run_together(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    for tuple_name in ("PROMISES", "ACCIDENTS"):
        stand_ins = tuple(lambda *given, check=check: called.append(check) for check in getattr(testing, tuple_name))
        monkeypatch.setattr(testing, tuple_name, stand_ins)
    testing.check_store(folders(RunStore))
    checks = {getattr(testing, one) for one in testing.__all__ if one.startswith("check_") and one != "check_store"}
    assert set(called) == checks
    assert len(called) == 9 * len(testing.SHAPES) + 13
