"""How the designs' stopping criteria went, as the sweep's folder keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from orchestrator.config.stopping_criteria import parse
from orchestrator.store.side_files import read_json
from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True)
class Look:
    """One evaluation of a criterion."""

    runs: int
    """Finished runs of the design."""
    values: dict[str, float | None]
    """Every quantity compared, by its comparison in words; None while unknown."""
    met: bool


@dataclass
class StoppingRecord:
    """A design's criterion and how it went."""

    design: str
    criterion: str
    looks: list[Look] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether the last look said stop."""
        return bool(self.looks) and self.looks[-1].met


def read_stopping(sweep: Sweep) -> dict[str, StoppingRecord]:
    """Return the curves that former calls left, by design. Raises StoreError where the file is damaged."""
    remedy = "delete it, and the criteria are evaluated anew as runs land"
    return read_json(sweep.paths.stopping, remedy, _parsed) or {}


def _parsed(plain: Any) -> dict[str, StoppingRecord]:
    records = TypeAdapter(list[StoppingRecord]).validate_python(plain)
    for one in records:
        parse(one.criterion)
    return {one.design: one for one in records}
