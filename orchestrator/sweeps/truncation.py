"""Which prefixes of a permutation need no training, because the utility has already arrived at the full set's.

Decided from what the configuration and the store hold and nothing else, so that a resumed sweep decides as an undisturbed one
does, and one that is only looked at needs no task. Packs of whole permutations end them on the worker (workers/prefixes.py);
where a permutation is longer than a pack, its next pack waits here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.config.schema import Config
from orchestrator.designs import Prefixes
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.store.manifest import DesignLayout
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import context_of

if TYPE_CHECKING:
    from workers.prefixes import Arrival

Verdict = Literal["launch", "wait", "skip"]


class Truncation:
    """Truncated Monte Carlo on one design: ends a permutation after the first block whose last prefix is close enough."""

    def __init__(self, store: RunStore, layout: DesignLayout, prefixes: Prefixes, full: Sequence[str]):
        """Take the design as the store knows it, what its rows are, and the names of the designs of full runs."""
        self._store, self._layout, self._full = store, layout, full
        self._tolerance = prefixes.truncation
        self.steps = steps = prefixes.steps
        self._block = min(layout.pack, steps) if layout.pack < steps else min(prefixes.block, steps)

    @classmethod
    def of(cls, config: Config, store: RunStore, name: str) -> Truncation | None:
        """Return the truncation of a design; None for one whose rows are no prefixes of permutations."""
        prefixes = config.designs[name].prefixes(context_of(config, name, store.n))
        if prefixes is None:
            return None
        full = [one for one in store.designs if "full" in config.designs[one].serves]
        return cls(store, store.designs[name], prefixes, full)

    @cached_property
    def arrival(self) -> Arrival | None:
        """When a permutation ends early; None without truncation. Ask only when the full runs are known."""
        from workers.prefixes import Arrival, utility

        if self._tolerance is None:
            return None
        store = self._store
        outputs = [store.outputs(name, store.measures[0]) for name in self._full]
        finished = [utility(row) for rows in outputs for row in rows if np.isfinite(row).all()]
        target = float(np.mean(finished)) if finished else np.inf
        return Arrival(self.steps, self._block, self._tolerance, target, store.measures[0])

    def _full_known(self) -> bool:
        return all((self._store.states(name) != PENDING).all() for name in self._full)

    def verdict(self, pack: int) -> Verdict:
        """Say what to do with a pack: launch it, wait for others, or skip it and the rest of its permutation."""
        if self._tolerance is None:
            return "launch"
        if not self._full_known():
            return "wait"
        start = pack * self._layout.pack
        if start % self.steps == 0:
            return "launch"
        before = self._store.states(self._layout.name, start - 1, start)[0]
        if before == PENDING:
            return "wait"
        return "skip" if before == DONE and self._arrived(start - 1) else "launch"

    def _arrived(self, row: int) -> bool:
        assert self.arrival is not None
        return self.arrival.reached(self._store.outputs(self._layout.name, self._store.measures[0], row, row + 1)[0])

    def skipped(self) -> NDArray[np.bool_]:
        """Return which rows (m,) are left out for good."""
        if self._tolerance is None or not self._full_known():
            return np.zeros(self._layout.runs, dtype=np.bool_)
        # What comes after an arrival is left out. An earlier row that is missing was lost: had it ended the permutation,
        # the later one would not be there.
        ended = np.cumsum(self._arrivals().reshape(-1, self.steps), axis=1) > 0
        left_out = np.zeros_like(ended)
        left_out[:, 1:] = ended[:, :-1]
        pending: NDArray[np.bool_] = self._store.states(self._layout.name) == PENDING
        pending &= left_out.ravel()
        return pending

    def _arrivals(self) -> NDArray[np.bool_]:
        """Return which finished rows (m,) end a block and have arrived; outputs are read a pack at a time."""
        assert self.arrival is not None
        step = np.arange(self._layout.runs) % self.steps
        looked: NDArray[np.bool_] = ((step + 1) % self._block == 0) & (step < self.steps - 1)
        looked &= self._store.states(self._layout.name) == DONE
        arrived = np.zeros_like(looked)
        for pack in map(self._layout.rows, range(self._layout.packs)):
            rows = np.flatnonzero(looked[pack.start : pack.stop])
            if len(rows):
                outputs = self._store.outputs(self._layout.name, self._store.measures[0], pack.start, pack.stop)
                arrived[pack.start + rows] = [self.arrival.reached(outputs[row]) for row in rows]
        return arrived


def skipped(config: Config, store: RunStore, name: str) -> NDArray[np.bool_]:
    """Return which rows (m,) of any design are left out for good; none for a design without truncation."""
    truncation = Truncation.of(config, store, name)
    if truncation is None:
        return np.zeros(store.designs[name].runs, dtype=bool)
    with store.snapshot():  # outputs are read a pack at a time: the ledger is not looked at for every pack
        return truncation.skipped()
