"""Which prefixes of a permutation need no training, because the utility has already arrived at the full set's.

Decided from what the store holds and nothing else, so that a resumed sweep decides as an undisturbed one does. Packs of whole
permutations end them on the worker (workers/chains.py); where a permutation is longer than a pack, its next pack waits here.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.designs.permutations import Permutations
from orchestrator.plan import DesignPlan
from orchestrator.store import DONE, PENDING, RunStore
from workers.chains import Arrival, utility

Verdict = Literal["launch", "wait", "skip"]


class Truncation:
    """Truncated Monte Carlo on one design: ends a permutation after the first block whose last prefix is close enough."""

    def __init__(self, store: RunStore, plan: DesignPlan):
        assert isinstance(plan.design, Permutations)
        self._store, self._plan = store, plan
        self._tolerance = plan.design.truncation
        self.steps = len(plan.design.sizes(plan.context))
        self._block = min(plan.pack, self.steps) if plan.pack < self.steps else min(plan.design.block, self.steps)

    @cached_property
    def arrival(self) -> Arrival | None:
        """When a permutation ends early; None without truncation. Ask only when the full runs are known."""
        if self._tolerance is None:
            return None
        store = self._store
        outputs = [store.outputs(name, store.measures[0]) for name in self._full]
        finished = [utility(row) for rows in outputs for row in rows if np.isfinite(row).all()]
        return Arrival(self.steps, self._block, self._tolerance, float(np.mean(finished)) if finished else np.inf)

    @property
    def _full(self) -> list[str]:
        return [name for name, layout in self._store.designs.items() if layout.kind == "full"]

    def _full_known(self) -> bool:
        return all((self._store.states(name) != PENDING).all() for name in self._full)

    def verdict(self, pack: int) -> Verdict:
        """Say what to do with a pack: launch it, wait for others, or skip it and the rest of its permutation."""
        if self._tolerance is None:
            return "launch"
        if not self._full_known():
            return "wait"
        start = pack * self._plan.pack
        if start % self.steps == 0:
            return "launch"
        before = self._store.states(self._plan.name)[start - 1]
        if before == PENDING:
            return "wait"
        return "skip" if before == DONE and self._arrived(start - 1) else "launch"

    def _arrived(self, row: int) -> bool:
        assert self.arrival is not None
        return self.arrival.reached(self._store.outputs(self._plan.name, self._store.measures[0], row, row + 1)[0])

    def skipped(self) -> NDArray[np.bool_]:
        """Return which rows (m,) are left out for good."""
        out = np.zeros(self._plan.runs, dtype=bool)
        if self._tolerance is None or not self._full_known():
            return out
        states = self._store.states(self._plan.name)
        for first in range(0, self._plan.runs, self.steps):
            for last in range(first + self._block - 1, first + self.steps - 1, self._block):
                if states[last] == PENDING:
                    break
                if states[last] == DONE and self._arrived(last):
                    out[last + 1 : first + self.steps] = True
                    break
        out &= states == PENDING
        return out


def skipped(store: RunStore, plan: DesignPlan) -> NDArray[np.bool_]:
    """Return which rows (m,) of any design are left out for good; none for a design without truncation."""
    if isinstance(plan.design, Permutations):
        return Truncation(store, plan).skipped()
    return np.zeros(plan.runs, dtype=bool)
