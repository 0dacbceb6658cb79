"""SOURCE on six checkpoints against EK-FAC on each of them: what following the training costs beside looking at single models.

    python benchmarks/trajectories_source.py [--json FILE] [--n 5000] [--t 500] [--rounds 3] [--threads 2]

The task is MNIST's MLP 784-128-64-10 (`mnist_t10k.npz`, or what $COUNTERFACTORY_DATA has), trained once for twelve epochs with
checkpoints after every second one. `source` cuts them into three segments of two; the other side is `ekfac` six times, once at
each checkpoint, with the same samples. Both are ours, in float32, with the same threads, one after the other in every round; the
median of the rounds' ratios counts, and should be at most 1.2. Seconds are those that the process had on its processors, so that
other work on the machine changes little; those that passed are printed beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

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


def seconds_of(estimator: Ekfac | Source, evidence: Evidence) -> np.ndarray:
    """Return the seconds of one attribution: on processors, and those that passed."""
    start = time.process_time(), time.perf_counter()
    estimator.attribute(evidence)
    return np.array([time.process_time(), time.perf_counter()]) - start


def main() -> None:
    """Measure, print, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--t", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    evidence = evidence_of(given.n, given.t)
    (reference,) = evidence.references
    singles = [replace(evidence, references=(replace(reference, checkpoints=(one,)),)) for one in reference.checkpoints]
    seconds_of(Ekfac(), singles[0])  # the first pass of all pays for what is loaded
    rows = []
    for number in range(given.rounds):
        theirs, theirs_passed = np.sum([seconds_of(Ekfac(), single) for single in singles], axis=0).tolist()
        ours, passed = seconds_of(Source(segments=3), evidence).tolist()
        rows.append({"source": ours, "six ekfac": theirs, "ratio": ours / theirs})
        print(
            f"round {number + 1}: source {ours:.1f} s, six ekfac {theirs:.1f} s, ratio {ours / theirs:.2f}; "
            f"passed {passed:.1f} s and {theirs_passed:.1f} s",
            flush=True,
        )
    ratio = statistics.median(row["ratio"] for row in rows)
    print(f"median ratio {ratio:.2f}, expected at most {LIMIT}: {'good' if ratio <= LIMIT else 'too slow'}")
    if given.json:
        given.json.write_text(json.dumps({"n": given.n, "t": given.t, "rounds": rows, "ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
