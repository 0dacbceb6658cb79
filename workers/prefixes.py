"""Train prefixes of permutations, a block of each at a time, and end a permutation once it has arrived.

All permutations of a pack go forward together, so that every block is a pack for the packed engine.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def reached(self, outputs: NDArray[np.floating[Any]]) -> bool:
        """Say whether outputs (t,) of the first measure are those of a prefix that has arrived."""
        return abs(self.target - utility(outputs)) <= self.tolerance


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
        last = min((block + 1) * arrival.block, arrival.steps) - 1
        trained = trainer.train(wanted, measures, queries)
        outcomes += trained
        active -= {
            outcome.row // arrival.steps
            for outcome in trained
            if outcome.row % arrival.steps == last
            and outcome.failure is None
            and arrival.reached(outcome.outputs[measures[0]])
        }
    return sorted(outcomes, key=lambda outcome: outcome.row)
