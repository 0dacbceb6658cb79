"""Which prefixes of a permutation need no training, because the utility has already arrived at the full set's.

Decided from what the store holds and nothing else, so that a resumed sweep decides as an undisturbed one does. Packs of whole
permutations end them on the worker (workers/prefixes.py); where a permutation is longer than a pack, its next pack waits here.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.designs.permutations import Permutations
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import DesignPlan
from workers.prefixes import Arrival, utility

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
        if self._tolerance is None or not self._full_known():
            return np.zeros(self._plan.runs, dtype=np.bool_)
        # What comes after an arrival is left out. An earlier row that is missing was lost: had it ended the permutation,
        # the later one would not be there.
        ended = np.cumsum(self._arrivals().reshape(-1, self.steps), axis=1) > 0
        left_out = np.zeros_like(ended)
        left_out[:, 1:] = ended[:, :-1]
        pending: NDArray[np.bool_] = self._store.states(self._plan.name) == PENDING
        pending &= left_out.ravel()
        return pending

    def _arrivals(self) -> NDArray[np.bool_]:
        """Return which finished rows (m,) end a block and have arrived; outputs are read a pack at a time."""
        assert self.arrival is not None
        step = np.arange(self._plan.runs) % self.steps
        looked: NDArray[np.bool_] = ((step + 1) % self._block == 0) & (step < self.steps - 1)
        looked &= self._store.states(self._plan.name) == DONE
        arrived = np.zeros_like(looked)
        for start, stop in (self._plan.span(pack) for pack in range(self._plan.packs)):
            rows = np.flatnonzero(looked[start:stop])
            if len(rows):
                outputs = self._store.outputs(self._plan.name, self._store.measures[0], start, stop)
                arrived[start + rows] = [self.arrival.reached(outputs[row]) for row in rows]
        return arrived


def skipped(store: RunStore, plan: DesignPlan) -> NDArray[np.bool_]:
    """Return which rows (m,) of any design are left out for good; none for a design without truncation."""
    if isinstance(plan.design, Permutations):
        return Truncation(store, plan).skipped()
    return np.zeros(plan.runs, dtype=bool)
