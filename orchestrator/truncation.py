"""Which prefixes of a permutation need no training, because the utility has already arrived at the full set's.

Decided from what the store holds and nothing else, so that a resumed sweep decides as an undisturbed one does.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.designs.permutations import Permutations
from orchestrator.plan import DesignPlan
from orchestrator.store import DONE, PENDING, RunStore

Verdict = Literal["launch", "wait", "skip"]


class Truncation:
    """Truncated Monte Carlo on one design: ends a permutation after the first pack whose last prefix is close enough."""

    def __init__(self, store: RunStore, plan: DesignPlan):
        assert isinstance(plan.design, Permutations)
        self._store, self._plan = store, plan
        self._tolerance = plan.design.truncation
        self.steps = len(plan.design.sizes(plan.context))

    @cached_property
    def _full(self) -> float:
        """Utility of the full set: mean over its runs, once all of them are finished."""
        store = self._store
        full = [name for name, layout in store.designs.items() if layout.kind == "full"]
        return float(np.mean([np.nanmean(store.outputs(name, store.measures[0])) for name in full]))

    def _full_known(self) -> bool:
        store = self._store
        full = [name for name, layout in store.designs.items() if layout.kind == "full"]
        return all((store.states(name) != PENDING).all() for name in full)

    def verdict(self, pack: int) -> Verdict:
        """Say what to do with a pack: launch it, wait for the one before it, or skip it and the rest of its permutation."""
        start = pack * self._plan.pack
        if self._tolerance is None or start % self.steps == 0:
            return "launch"
        before = self._store.states(self._plan.name)[start - 1]
        if before == PENDING or not self._full_known():
            return "wait"
        return "skip" if before == DONE and self._arrived(start - 1) else "launch"

    def _arrived(self, row: int) -> bool:
        assert self._tolerance is not None
        utility = float(self._store.outputs(self._plan.name, self._store.measures[0], row, row + 1).mean())
        return abs(self._full - utility) <= self._tolerance

    def skipped(self) -> NDArray[np.bool_]:
        """Return which rows (m,) are left out for good."""
        out = np.zeros(self._plan.runs, dtype=bool)
        states = self._store.states(self._plan.name)
        if self._tolerance is None or not self._full_known():
            return out
        for first in range(0, self._plan.runs, self.steps):
            for last in range(first + self._plan.pack - 1, first + self.steps - 1, self._plan.pack):
                if states[last] == PENDING:
                    break
                if states[last] == DONE and self._arrived(last):
                    out[last + 1 : first + self.steps] = True
                    break
        return out


def skipped(store: RunStore, plan: DesignPlan) -> NDArray[np.bool_]:
    """Return which rows (m,) of any design are left out for good; none for a design without truncation."""
    if isinstance(plan.design, Permutations):
        return Truncation(store, plan).skipped()
    return np.zeros(plan.runs, dtype=bool)
