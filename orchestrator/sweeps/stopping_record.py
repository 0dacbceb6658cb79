"""How the designs' stopping criteria went, as the sweep's folder keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

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
    """Return the curves that former calls left, by design."""
    if not sweep.paths.stopping.is_file():
        return {}
    plain = json.loads(sweep.paths.stopping.read_text(encoding="utf-8"))
    return {
        one["design"]: StoppingRecord(one["design"], one["criterion"], [Look(**look) for look in one["looks"]])
        for one in plain
    }
