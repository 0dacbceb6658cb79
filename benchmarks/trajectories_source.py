"""SOURCE on six checkpoints against EK-FAC on each of them: what following the training costs beside looking at single models.

A case of `benchmarks/trajectories.py`:

    python benchmarks/trajectories.py --case source [--json FILE] [--n 5000] [--t 500] [--rounds 3] [--threads 2]

The task is MNIST's MLP 784-128-64-10 (`mnist_t10k.npz`, or what $COUNTERFACTORY_DATA has), trained once for twelve epochs with
checkpoints after every second one. `source` cuts them into three segments of two; the other side is `ekfac` six times, once at
each checkpoint, with the same samples. Both are ours, in float32, with the same threads, one after the other in every round; the
median of the rounds' ratios counts, and should be at most 1.2. Seconds are those that the process had on its processors, so that
other work on the machine changes little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.ekfac import Ekfac
from estimators.gradient_based.source import Source
from workers.loading import find_data
from workers.runs import Run
from workers.tasks.mnist import Mnist
from workers.training.alone import train

EPOCHS = tuple(range(2, 13, 2))
LIMIT = 1.2
"""Largest ratio that is good."""


def evidence_of(n: int, t: int) -> Evidence:
    """Train the reference model."""
    task = Mnist(path=find_data("mnist_t10k.npz", Path.cwd()), n=n, t=t)
    task.recipe = task.recipe.model_copy(update={"epochs": EPOCHS[-1]})
    checkpoints = train(task, Run(0, np.arange(n), 0, EPOCHS))[1]
    return Evidence(n, t, "margin", references=(Reference(0, checkpoints),), task=task, seed=0)


def seconds_of(estimator: Ekfac | Source, evidence: Evidence) -> float:
    """Return the seconds on processors of one attribution."""
    start = time.process_time()
    estimator.attribute(evidence)
    return time.process_time() - start


def measured(n: int, t: int, rounds: int) -> Iterator[tuple[str, float, str]]:
    """Yield (what, how much, unit)."""
    evidence = evidence_of(n, t)
    (reference,) = evidence.references
    singles = [replace(evidence, references=(replace(reference, checkpoints=(one,)),)) for one in reference.checkpoints]
    seconds_of(Ekfac(), singles[0])  # the first pass of all pays for what is loaded
    ratios = []
    for number in range(1, rounds + 1):
        theirs = sum(seconds_of(Ekfac(), single) for single in singles)
        ours = seconds_of(Source(segments=3), evidence)
        ratios.append(ours / theirs)
        yield f"round {number}: source, 3 segments of 2 checkpoints", ours, "s on processors"
        yield f"round {number}: ekfac at each of these checkpoints", theirs, "s on processors"
    yield f"median ratio, expected at most {LIMIT}", statistics.median(ratios), "x"
