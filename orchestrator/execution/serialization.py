"""How runs and outcomes travel between driver and workers: as a few arrays, as thousands of small objects take long to pickle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.runs import Checkpoint, Failure, Normalize, Order, Outcome, Run

Manner = tuple[tuple[int, ...], bool, Order, Normalize, bool]
"""How a run is trained: the epochs whose parameters are kept, whether with the optimizer's state, its order, what it is
divided by, whether it has weights."""


@dataclass(frozen=True)
class RunParcel:
    """r runs."""

    rows: NDArray[np.int64]
    """(r,)"""
    seeds: NDArray[np.uint32]
    """(r,)"""
    ends: NDArray[np.int64]
    """(r,) where each run's subset ends in `examples`."""
    examples: NDArray[np.unsignedinteger]
    """All subsets, one after another, in as few bytes as they need: what is small travels faster."""
    manners: tuple[Manner, ...]
    """How each run is trained; one alone speaks for all."""
    weights: NDArray[np.floating[Any]]
    """The weights of all runs that have some, one after another, in their subsets' order."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> RunParcel:
        """Wrap runs, at least one."""
        manners = [
            (run.checkpoint_epochs, run.optimizer_state, run.order, run.normalize, run.weights is not None)
            for run in runs
        ]
        weights = [run.weights for run in runs if run.weights is not None]
        examples = np.concatenate([run.subset for run in runs])
        return cls(
            np.array([run.row for run in runs], dtype=np.int64),
            np.array([run.seed for run in runs], dtype=np.uint32),
            np.cumsum([len(run.subset) for run in runs], dtype=np.int64),
            examples.astype(np.min_scalar_type(examples.max())),
            (manners[0],) if len(set(manners)) == 1 else tuple(manners),
            np.concatenate(weights) if weights else np.empty(0, dtype=np.float32),
        )

    def unwrap(self) -> tuple[Run, ...]:
        """Return the runs."""
        examples = self.examples.astype(
            np.int64
        )  # a copy: what comes through Ray is read-only, a task may shuffle its subset
        rows, seeds, ends = self.rows.tolist(), self.seeds.tolist(), self.ends.tolist()
        manners = self.manners * (len(rows) if len(self.manners) == 1 else 1)
        runs, taken = [], 0
        for row, start, end, seed, (epochs, state, order, normalize, weighted) in zip(
            rows, [0, *ends[:-1]], ends, seeds, manners, strict=True
        ):
            weights = self.weights[taken : taken + end - start] if weighted else None
            taken += 0 if weights is None else len(weights)
            runs.append(Run(row, examples[start:end], seed, epochs, order, normalize, weights, state))
        return tuple(runs)


@dataclass(frozen=True)
class OutcomeParcel:
    """r outcomes, of which g have outputs."""

    rows: NDArray[np.int64]
    """(r,)"""
    seconds: NDArray[np.float64]
    """(r,)"""
    outputs: dict[str, NDArray[np.float32]]
    """By measure, (g, t)."""
    checkpoints: dict[int, tuple[Checkpoint, ...]]
    """By place in `rows`, of those that have any."""
    failures: dict[int, Failure]
    """By place in `rows`, of those without outputs."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> OutcomeParcel:
        """Wrap outcomes."""
        trained = [outcome for outcome in outcomes if outcome.failure is None]
        measures = trained[0].outputs if trained else ()
        return cls(
            np.array([outcome.row for outcome in outcomes], dtype=np.int64),
            np.array([outcome.seconds for outcome in outcomes], dtype=np.float64),
            {name: np.stack([outcome.outputs[name] for outcome in trained]) for name in measures},
            {place: outcome.checkpoints for place, outcome in enumerate(outcomes) if outcome.checkpoints},
            {place: outcome.failure for place, outcome in enumerate(outcomes) if outcome.failure is not None},
        )

    def unwrap(self) -> tuple[Outcome, ...]:
        """Return the outcomes."""
        values = zip(*self.outputs.values(), strict=True)
        return tuple(
            Outcome(row, failure=self.failures[place], seconds=seconds)
            if place in self.failures
            else Outcome(
                row,
                dict(zip(self.outputs, next(values), strict=True)),
                self.checkpoints.get(place, ()),
                seconds=seconds,
            )
            for place, (row, seconds) in enumerate(zip(self.rows.tolist(), self.seconds.tolist(), strict=True))
        )
