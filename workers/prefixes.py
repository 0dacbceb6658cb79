"""Train prefixes of permutations, a block of each at a time, and end a permutation once it has arrived.

All permutations of a pack go forward together, so that every block is a pack for the packed engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.packs import PackTrainer
from workers.runs import Outcome, Queries, Run


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a permutation has arrived: the last prefix of a block has a utility near the full set's."""

    steps: int
    """Prefixes a permutation; row // steps is the permutation, row % steps the prefix."""
    block: int
    """Prefixes trained between two looks."""
    tolerance: float
    target: float
    """Utility of the full set."""
    measure: str
    """Whose mean over the queries is the utility."""

    def reached(self, outputs: NDArray[np.floating[Any]]) -> bool:
        """Say whether outputs (t,) of the measure are those of a prefix that has arrived."""
        return abs(self.target - utility(outputs)) <= self.tolerance

    def ended(self, outcomes: Iterable[Outcome]) -> set[int]:
        """Return the permutations of which one of the outcomes is the last of a block and has arrived."""
        return {
            outcome.row // self.steps
            for outcome in outcomes
            if self._is_looked_at(outcome.row % self.steps)
            and outcome.failure is None
            and self.reached(outcome.outputs[self.measure])
        }

    def _is_looked_at(self, prefix: int) -> bool:
        return (prefix + 1) % self.block == 0 or prefix + 1 == self.steps


def utility(outputs: NDArray[np.floating[Any]]) -> float:
    """Return the mean over the queries, in float64 so that driver and worker agree to the bit."""
    return float(outputs.astype(np.float64).mean())


def train_prefixes(
    trainer: PackTrainer, runs: Sequence[Run], measures: Sequence[str], queries: Queries, arrival: Arrival
) -> list[Outcome]:
    """Train the runs of whole permutations; return the outcomes of those that were trained, by row.

    Prefixes after the block in which their permutation arrived are left out. Raises OutOfMemory as `trainer` does.
    """
    outcomes: list[Outcome] = []
    active = {run.row // arrival.steps for run in runs}
    blocks: dict[int, list[Run]] = {}
    for run in runs:
        blocks.setdefault(run.row % arrival.steps // arrival.block, []).append(run)
    for block in sorted(blocks):
        wanted = [run for run in blocks[block] if run.row // arrival.steps in active]
        if not wanted:
            continue
        trained = trainer.train(wanted, measures, queries)
        outcomes += trained
        active -= arrival.ended(trained)
    return sorted(outcomes, key=lambda outcome: outcome.row)
