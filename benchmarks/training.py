"""Trainings a second, against a well-written PyTorch loop and dattri's retraining, on the same runs, in one alternating run.

    python benchmarks/training.py [--json FILE] [--figure FILE] [--case NAME ...] [--models 48] [--rounds 4] [--data DIR]
    python benchmarks/training.py --from-disk --case resnet9-bn-8 text mnist-mlp [--rounds 4] [--data DIR]

Both sides keep two processes of one thread busy, on subsets of the same size, with the data in memory. Times are the processes'
own (which is the time passed on a machine that does nothing else), and the slower process counts. After every round each process
also times a large single-precision matrix product, so that `peak` is the fraction of the machine's speed, in that minute, that
useful arithmetic reached: forward and backward passes on the subset, and the forward pass on the queries, over all of the time.
The sides alternate, and rates and ratio are the medians of the rounds. `agree` says that ours, in float64 and after the full
recipe, gives the outputs of training alone. `--figure` draws models a second against the number of models trained together.
Besides: training alone (a pack of one) against the same loop, and two processes of one thread against one of two, by the time
that passes. `--from-disk` instead trains one run of every case alone, with its examples in a mapped .npy and in Zarr, in
alternation with memory. Published data come from `--data`, or COUNTERFACTORY_DATA, or ../shared/data beside the checkout; a
row says where noise of their shape stands for them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_cases import CASES, Case, benchmark, half_runs, load, plain
from training_disk import Read, from_disk

from workers import DifferentiableTask, Queries, Run
from workers.packed.calibration import strategy_of
from workers.packed.strategy import Strategy
from workers.packs import train_pack

PROCESSES = 2
PEAK_SIZE = 1024
WIDTHS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Row:
    """One comparison; models a second by all processes."""

    case: str
    other: str
    ours: float
    theirs: float
    ratio: float
    agree: bool
    peak: float | None
    """Useful floating-point operations a second over those of a large matrix product; None where they are not counted."""
    strategy: str
    """How ours trained."""
    data: str
    """What it was trained on."""


def ours(task: DifferentiableTask, runs: Sequence[Run], **options: object) -> list[np.ndarray]:
    outcomes = train_pack(task, runs, ["margin"], Queries(), **options)  # type: ignore[arg-type]
    for outcome in outcomes:
        if outcome.failure is not None:
            raise RuntimeError(outcome.failure.traceback)
    return [outcome.outputs["margin"] for outcome in outcomes]


def alone(task: DifferentiableTask, runs: Sequence[Run]) -> list[np.ndarray]:
    """One model after another, the plain way of ours: what a pack of one costs."""
    return ours(task, runs, method="alone")


def dattri(task: DifferentiableTask, runs: Sequence[Run]) -> list[np.ndarray]:
    """dattri's own retraining as it ships: its loop over subsets, its training function, its data loader."""
    from dattri.benchmark.datasets.mnist.mnist_mlp import train_mnist_mlp
    from dattri.model_util.retrain import retrain_lds

    data = torch.utils.data.TensorDataset(task.train_inputs, task.train_targets)
    loader = torch.utils.data.DataLoader(data, batch_size=task.recipe.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        retrain_lds(train_mnist_mlp, loader, folder, num_subsets=len(runs), seed=0, epoch_num=task.recipe.epochs)
    return []


LOOP, SERIAL, BY_HAND = "PyTorch loop", "dattri retrain_lds", "dattri retrain_lds x 2 by hand"
OURS, ALONE = "ours", "ours, a pack of one"
THREADS = "ours by one process of two threads"
SIDES = {OURS: ours, ALONE: alone, LOOP: plain, SERIAL: dattri, BY_HAND: dattri}
"""dattri's retraining is a serial loop; started twice by hand, with a part of the subsets each, it keeps both cores busy."""


def gemm_flops() -> float:
    """Return the floating-point operations a second of a large single-precision matrix product, the best of a few."""
    a, b = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
    best = float("inf")
    for _ in range(8):
        started = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - started)
    return 2 * PEAK_SIZE**3 / best


def work(job: tuple[str, str, Path, int]) -> tuple[float, float]:
    """Train some runs of a case one way, in a worker process; return the seconds, and the process's peak."""
    side, name, folder, count = job
    task = benchmark(CASES[name], load(CASES[name].data, folder))
    runs = half_runs(task.n, count)
    started = time.process_time()
    SIDES[side](task, runs)
    return time.process_time() - started, gemm_flops()


def rows_of(name: str, folder: Path, models: int, rounds: int) -> Iterator[Row]:
    """Yield the comparisons of a case."""
    others = (LOOP, SERIAL, BY_HAND) if name == "mnist-mlp-dropout" else (LOOP,)
    for other in others:
        yield compare(name, OURS, other, folder, models, rounds)
    yield compare(name, ALONE, LOOP, folder, models, rounds)
    yield compare_threads(name, folder, models, rounds)


def compare(name: str, side: str, other: str, folder: Path, models: int, rounds: int) -> Row:
    """Time a way of ours and another in alternation, and check ours."""
    case = CASES[name]
    data = load(case.data, folder)
    task = benchmark(case, data)
    strategy = strategy_of(task, "cpu") if side == OURS else Strategy("alone", 1, False, "as asked for")
    count = max(1, round(models * case.models / PROCESSES))
    slow = max(1, round(count / case.slower))
    counts = {side: count if side == OURS else slow, other: slow}
    processes = {side: PROCESSES, other: 1 if other == SERIAL else PROCESSES}
    rates: dict[str, list[float]] = {way: [] for way in processes}
    fractions = []
    with multiprocessing.get_context("spawn").Pool(PROCESSES, torch.set_num_threads, (1,)) as pool:
        for turn in range(rounds + 1):
            for way, busy in processes.items():
                done = pool.map(work, [(way, name, folder, counts[way] if turn else 1)] * busy, chunksize=1)
                if turn:
                    rates[way].append(busy * counts[way] / max(seconds for seconds, _ in done))
                if turn and way == side:
                    useful = [case.flops(task.n // 2, task.t) * counts[way] / seconds for seconds, _ in done]
                    fractions.append(sum(useful) / sum(peak for _, peak in done))
    return Row(
        name if side == OURS else f"{name}, alone", other, *_medians(rates[side], rates[other]),
        agrees(case, folder, strategy), float(np.median(fractions)) if case.linear else None,
        f"{strategy.method}: {strategy.reason}", data.told,
    )  # fmt: skip


def _medians(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the rates and their ratio: what stands side by side was timed one after the other."""
    ratios = np.divide(ours, theirs)
    return float(np.median(ours)), float(np.median(theirs)), float(np.median(ratios))


def compare_threads(name: str, folder: Path, models: int, rounds: int) -> Row:
    """Time ours by two processes of one thread, and by one of two; here the time that passes counts."""
    case = CASES[name]
    count = max(1, round(models * case.models / PROCESSES))
    rates: dict[int, list[float]] = {1: [], PROCESSES: []}
    pools = {
        processes: multiprocessing.get_context("spawn").Pool(
            processes, torch.set_num_threads, (PROCESSES // processes,)
        )
        for processes in rates
    }
    try:
        for turn in range(rounds + 1):
            for processes, pool in pools.items():
                started = time.perf_counter()
                pool.map(train, [(name, folder, count if turn else 1)] * processes, chunksize=1)
                if turn:
                    rates[processes].append(processes * count / (time.perf_counter() - started))
    finally:
        for pool in pools.values():
            pool.terminate()
    data = load(case.data, folder)
    strategy = strategy_of(benchmark(case, data), "cpu")
    told = f"{strategy.method}: {strategy.reason}"
    medians = _medians(rates[PROCESSES], rates[1])
    return Row(name, THREADS, *medians, agrees(case, folder, strategy), None, told, data.told)


def train(job: tuple[str, Path, int]) -> None:
    """Train some runs of a case, in a worker process with threads of its own."""
    name, folder, count = job
    task = benchmark(CASES[name], load(CASES[name].data, folder))
    ours(task, half_runs(task.n, count))


@cache
def agrees(case: Case, folder: Path, strategy: Strategy) -> bool:
    """Whether our way gives, in float64 and after the recipe on a few batches, the outputs of training alone."""
    recipe = case.recipe.model_copy(update={"precision": "float64", "epochs": 2})
    data = load(case.data, folder)
    task = benchmark(case, data.cut(queries=20), recipe)
    runs = [Run(0, np.arange(100), 1), Run(1, np.arange(10), 2)]
    options = {"method": strategy.method, "width": min(2, strategy.width)}
    pairs = zip(ours(task, runs, **options), ours(task, runs, method="alone"), strict=True)
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in pairs)


def draw(file: Path, folder: Path) -> None:
    """Draw models a second, by one process, against the number of models in lockstep, beside the other ways."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for axis, (name, epochs) in zip(axes, (("logistic", 4), ("mlp", 4), ("mnist-mlp", 1), ("cnn", 1)), strict=True):
        case = CASES[name]
        task = benchmark(case, load(case.data, folder), case.recipe.model_copy(update={"epochs": epochs}))
        widths = [width for width in WIDTHS if name != "cnn" or width <= 8]
        stacked = [rate(task, width, method="stacked", width=width) for width in widths]
        axis.plot(widths, stacked, "o-", label="lockstep (torch.func)")
        axis.axhline(rate(task, 4, method="alone"), color="gray", linestyle=":", label="alone")
        if case.linear:
            axis.axhline(rate(task, 16, method="resident"), color="tab:red", label="resident kernels")
        axis.set(title=name, xlabel="models together, K", xscale="log", yscale="log")
        axis.set_xticks(widths, [str(width) for width in widths], minor=False)
        axis.minorticks_off()
    axes[0].set_ylabel("models a second, one core")
    axes[2].legend(fontsize=8)
    figure.savefig(file)


def rate(task: DifferentiableTask, count: int, **options: object) -> float:
    runs = half_runs(task.n, count)
    ours(task, runs, **options)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        ours(task, runs, **options)
        best = min(best, time.process_time() - started)
    return count / best


def _printed(name: str, comparisons: Iterable[Read]) -> bool:
    """Print what reading from disk costs; return whether it changed no bit."""
    same = True
    for read in comparisons:
        same &= read.same
        print(
            f"{name:24} {read.disk:9.2f}/s  from {read.place}, from memory {read.memory:8.2f}/s  {read.ratio:6.3f}x"
            f"  same bits {read.same}  on {read.data}",
            flush=True,
        )
    return same


def main() -> int:
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--figure", type=Path, help="draw models a second against the width into this file")
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--from-disk", action="store_true", help="what reading by batches from disk costs")
    parser.add_argument("--models", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--data", type=Path, default=os.environ.get("COUNTERFACTORY_DATA", here / "../shared/data"))
    options = parser.parse_args()
    folder = Path(options.data)
    torch.set_num_threads(1)
    rows = []
    for name in options.case:
        if CASES[name].data == "mnist" and not (folder / "mnist_t10k.npz").exists():
            print(f"{name}: skipped, {folder} has no mnist_t10k.npz (see --data)")
            continue
        if options.from_disk:
            if not _printed(name, from_disk(name, folder, options.rounds)):
                return 1
            continue
        for row in rows_of(name, folder, options.models, options.rounds):
            rows.append(row)
            peak = "" if row.peak is None else f"  {row.peak:.2f} of peak"
            print(
                f"{row.case:24} {row.ours:9.1f}/s  {row.other} {row.theirs:8.1f}/s  {row.ratio:6.2f}x"
                f"  agree {row.agree}{peak}  on {row.data}  ({row.strategy})",
                flush=True,
            )
    if options.figure:
        draw(options.figure, folder)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.agree for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
