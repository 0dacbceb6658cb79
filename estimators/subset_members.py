"""Members of an ensemble that are trained on random subsets, for estimators that train what they look at."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from estimators.evidence import Evidence, Reference
from workers.errors import DivergedError
from workers.runs import Outcome, Run

_STREAM = zlib.crc32(b"estimators.subset_members")


@dataclass(frozen=True)
class Member(Reference):
    """A model trained on a random subset, with its last checkpoint."""

    examples: int = 0
    """How many it was trained on."""
    seconds: float = 0.0
    """What its training took."""


def trained_on_subsets(evidence: Evidence, count: int, fraction: float, name: str) -> tuple[Member, ...]:
    """Train `count` models, each on its own round(`fraction` n) examples, drawn without repetition, with its own seed.

    Subsets and seeds come from the evidence's seed and the member's place, so that the first members are the same however many
    there are. Raises ConfigError for a task without gradients, DivergedError, in the estimator's name, where a training fails.
    """
    from workers.packed.choice import is_resident
    from workers.packs import train_pack
    from workers.task import DifferentiableTask

    recipe, task = evidence.differentiable().recipe, evidence.task
    assert task is not None
    epochs = 1 if recipe is None else recipe.epochs  # of a training that tells none, the last checkpoint is its end
    runs = [_run(evidence, place, fraction, epochs) for place in range(count)]
    # What calibration would choose may change from call to call, and the last bits with it.
    resident = isinstance(task, DifferentiableTask) and is_resident(task, "cpu")
    outcomes = train_pack(task, runs, [evidence.measure], evidence.queries, method="resident" if resident else "alone")
    return tuple(_member(run, outcome, name) for run, outcome in zip(runs, outcomes, strict=True))


def _run(evidence: Evidence, place: int, fraction: float, epochs: int) -> Run:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(evidence.seed, spawn_key=(_STREAM, place))))
    size = max(1, round(fraction * evidence.n))
    subset = np.sort(rng.choice(evidence.n, size, replace=False)).astype(np.int64)
    return Run(place, subset, int(rng.integers(2**32)), (epochs,))


def _member(run: Run, outcome: Outcome, name: str) -> Member:
    if outcome.failure is not None:
        raise DivergedError(
            f"{name}: the training of member {run.row} on {len(run.subset)} examples failed: {outcome.failure}"
        )
    return Member(run.seed, outcome.checkpoints, examples=len(run.subset), seconds=outcome.seconds)
