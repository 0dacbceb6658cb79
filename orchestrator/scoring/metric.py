"""What a metric is: the contract between whoever judges attributions and the tables that show the judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from orchestrator.scoring.table import Judged, ScoreRow

if TYPE_CHECKING:
    from orchestrator.store.run_store import RunStore
    from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True)
class Quantity:
    """One number that a metric gives, and how tables show it."""

    name: str
    """What rows have in the column `metric`, such as `lds`."""
    title: str
    """What it is, in words that a heading can take."""
    better: Literal["higher", "lower"] | None = "higher"
    """Which end is good, and stands first in tables; None where neither is."""
    has_ceiling: bool = False
    """Whether the column `ceiling` says what the noise of training lets anyone reach."""
    ceiling_needs: str = ""
    """What it takes to have a ceiling, such as "5 subsets with 2 seeds each": said where there is none."""
    no_signal: str = "models of one subset agree no more than models of different ones"
    """What it means where the ceiling cannot be told from 0."""


class Metric:
    """A way to judge attributions. A subclass says what it gives and has one of the two methods, or both.

    A metric that a sweep has no runs for, or that its configuration leaves out, returns no rows: that is no error.
    It reads the sweep and writes nothing.
    """

    quantities: ClassVar[tuple[Quantity, ...]]
    """What its rows may be about, in the order of tables."""
    place: ClassVar[int] = 100
    """Where it stands in tables: the smaller comes first. Ours have 10, 20, ...; equal ones stand as they were registered."""

    def judge(self, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        """Return the rows of one attribution, a stored one or anybody's array."""
        return []

    def judge_sweep(self, sweep: Sweep, store: RunStore) -> list[ScoreRow]:
        """Return the rows that belong to the sweep as a whole, such as a check of its runs; asked once a table."""
        return []
