"""What it costs to differentiate a whole training: `unrolled` on the literature's MLP 784-128-64-10 on MNIST.

    python benchmarks/trajectories.py [--json FILE] [--case unrolled source] [--n 5000] [--t 500] [--threads 2] [--epochs 1]

The data are `mnist_t10k.npz` (looked for as the configurations do, also in $COUNTERFACTORY_DATA); the recipe is that of
configs/mnist_mlp.yaml. Three tables:

- arithmetic: operations of matrix products, counted, of one step back for t queries, in those of a step of the training, a query;
  and the two times that every step is replayed, spread over the queries. At most four trainings a query are allowed.
- memory: what the process takes at its highest with one query, over trainings of 1, 4 and 9 epochs, and what all moments of
  such a training would take. It grows with the root of the steps.
- time: what `unrolled` foresees for a training of `--epochs` epochs beside what it then takes; and what it foresees for the whole
  recipe. Seconds are those that pass, so that they are worth nothing on a machine that does other things; the seconds that the
  process had on a processor are given too.

The case `source` is SOURCE beside EK-FAC (`trajectories_source.py`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from trajectories_source import measured

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.unrolled import Unrolled
from estimators.trajectories.pull_back import PullBack
from estimators.trajectories.step_graph import StepGraph, Twin
from estimators.trajectories.walk import Asked, Walk
from workers.loading import find_data
from workers.runs import Run
from workers.tasks.mnist import Mnist
from workers.training.alone import train
from workers.training.replay import Replay

EPOCHS = (1, 4, 9)
MOST = 4.0
"""Trainings' arithmetic a query that are allowed."""


@dataclass(frozen=True)
class Row:
    """One figure."""

    case: str
    what: str
    value: float
    unit: str


def task_of(n: int, t: int, epochs: int | None = None) -> Mnist:
    task = Mnist(path=find_data("mnist_t10k.npz", Path.cwd()), n=n, t=t)
    if epochs is not None:
        task.recipe = task.recipe.model_copy(update={"epochs": epochs})
    return task


def evidence_of(task: Mnist, trained: bool) -> Evidence:
    epochs = task.recipe.epochs
    kept = train(task, Run(0, np.arange(task.n), 0, (epochs,)))[1] if trained else ()
    references = (Reference(0, kept),) if trained else ()
    return Evidence(task.n, task.t, "margin", references=references, task=task)


def arithmetic(n: int, t: int) -> list[Row]:
    """Count the operations of one step, forward and back."""
    task = task_of(n, t, 1)
    run = Run(0, np.arange(n), 0, (1,))
    kept = train(task, run)[1]
    replay, twin = Replay(task, run, kept), Twin(task, run, "unrolled")
    walk = Walk(replay, twin, kept[-1], "hessian")
    queries = task.examples("task").to(torch.float32)
    worth = walk.at_the_end(Asked(task.objective("margin"), lambda where: queries.read(torch.arange(t)[where]), t))
    replay.begin(0)
    moment = replay.course.moment()
    with FlopCounterMode(display=False) as forward:
        feeds = replay.advance()
    with FlopCounterMode(display=False) as back:
        graph = StepGraph(twin, moment.state, feeds, "hessian")
        walk.take_back(graph, PullBack(walk.recipe, walk.undecayed, moment, graph.gradients, walk.recipe.lr), worth, t)
    one = forward.get_total_flops()
    each = (back.get_total_flops() + 2 * one) / t / one
    return [
        Row("arithmetic", "a step of the training", one / 1e6, "million operations"),
        Row("arithmetic", f"{t} queries, replays included", each, "trainings a query"),
        Row("arithmetic", "allowed", MOST, "trainings a query"),
    ]


def highest(n: int, epochs: int, channel: Any) -> None:
    """Send what this process takes at its highest before and after one query was unrolled (MiB), and the steps."""
    torch.set_num_threads(1)
    task = task_of(n, 1, epochs)
    evidence = evidence_of(task, trained=True)
    Unrolled().attribute(evidence_of(task_of(n, 1, 1), trained=True))  # what is imported and allocated once
    Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew
    before = resident("VmRSS")
    made = Unrolled().attribute(evidence)
    channel.send((before, resident("VmHWM"), made.details["steps"]))


def resident(key: str) -> float:
    """Return what this process takes now (`VmRSS`) or took at its highest (`VmHWM`), in MiB; Linux tells it."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(key))
    return int(line.split()[1]) / 1024


def memory(n: int) -> list[Row]:
    """Measure trainings of several lengths, each in a process of its own."""
    rows = []
    one = 2 * 4 * sum(value.numel() for value in task_of(n, 1).module().parameters()) / 2**20  # with its momentum
    for epochs in EPOCHS:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=highest, args=(n, epochs, theirs))
        process.start()
        before, after, steps = ours.recv()
        process.join()
        rows += [
            Row("memory", f"{steps} steps: more than training", after - before, "MiB"),
            Row("memory", f"{steps} steps: all moments", steps * one, "MiB"),
        ]
    return rows


def duration(n: int, t: int, epochs: int) -> list[Row]:
    """Hold what is foreseen against what is taken, for a short training, and foresee the whole."""
    task = task_of(n, t, epochs)
    evidence = evidence_of(task, trained=True)
    foreseen = Unrolled().foresee(evidence)
    clock, own = time.perf_counter(), time.process_time()
    made = Unrolled().attribute(evidence)
    taken, busy = time.perf_counter() - clock, time.process_time() - own
    whole = task_of(n, t)
    steps = len(whole.recipe.learning_rates(n))
    forecast = Unrolled().foresee(evidence_of(whole, trained=False))
    assert foreseen is not None
    assert forecast is not None
    return [
        Row("time", f"{made.details['steps']} steps, {t} queries: foreseen", foreseen, "s"),
        Row("time", f"{made.details['steps']} steps, {t} queries: taken", taken, "s"),
        Row("time", f"{made.details['steps']} steps, {t} queries: on a processor", busy, "s"),
        Row("time", f"{steps} steps, {t} queries: foreseen", forecast / 60, "min"),
        Row(
            "time", f"{steps} steps, {t} queries: by what was taken", taken / made.details["steps"] * steps / 60, "min"
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", nargs="+", choices=["unrolled", "source"], default=["unrolled", "source"])
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--t", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows: list[Row] = []
    parts: dict[str, list[Callable[[], Iterable[Row]]]] = {
        "unrolled": [
            lambda: arithmetic(chosen.n, chosen.t),
            lambda: memory(chosen.n),
            lambda: duration(chosen.n, chosen.t, chosen.epochs),
        ],
        "source": [lambda: (Row("source", *one) for one in measured(chosen.n, chosen.t, chosen.rounds))],
    }
    for part in (part for case in chosen.case for part in parts[case]):
        for row in part():
            rows.append(row)
            print(f"{row.case:12} {row.what:50} {row.value:12.2f} {row.unit}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
