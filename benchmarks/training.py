"""Trainings a second, against a well-written PyTorch loop and dattri's retraining, on the same runs, in one alternating run.

    python benchmarks/training.py [--json FILE] [--figure FILE] [--case NAME ...] [--models 48] [--rounds 4] [--data DIR]

Both sides keep two processes of one thread busy, on subsets of the same size, with the data in memory. Times are the processes'
own (which is the time passed on a machine that does nothing else), and the slower process counts. After every round each process
also times a large single-precision matrix product, so that `peak` is the fraction of the machine's speed, in that minute, that
useful arithmetic reached: forward and backward passes on the subset, and the forward pass on the queries, over all of the time.
The best round of each side counts. `agree` says that ours, in float64 and after the full recipe, gives the outputs of training
alone. `--figure` draws models a second against the number of models trained together.
Besides: training alone (a pack of one) against the same loop, and two processes of one thread against one of two, by the time
that passes. MNIST comes from `--data`, or COUNTERFACTORY_DATA, or ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers import Classification, Queries, Recipe, Run
from workers.packed.calibration import strategy_of
from workers.packs import train_pack
from workers.tasks.networks import resnet9

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


@dataclass(frozen=True)
class Case:
    """A task to train, and what one example's step costs."""

    recipe: Recipe
    module: Callable[[], nn.Module]
    data: str
    linear: tuple[int, ...] = ()
    """Widths of a chain of Linear layers, whose arithmetic is counted."""
    models: float = 1.0
    """Factor on the number of models in a round."""
    slower: float = 1.0
    """How many times fewer the other side trains in a round: it would keep us waiting."""

    def flops(self, examples: int, queries: int) -> int:
        """Multiplications and additions of one model on a subset and its queries; no gradient of the inputs is needed."""
        sizes = [a * b for a, b in pairwise(self.linear)]
        step = 2 * sizes[0] + 3 * sum(sizes[1:]) if sizes else 0
        return 2 * (step * examples * self.recipe.epochs + sum(sizes) * queries)


def chain(*widths: int, dropout: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()] + [nn.Dropout(dropout)] * (dropout > 0)
    return nn.Sequential(*layers[: -2 if dropout else -1])


def layer_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


CASES = {
    "logistic": Case(Recipe(lr=0.1, epochs=20), lambda: nn.Linear(64, 10), "digits", (64, 10), 16, 8),
    "mlp": Case(Recipe(lr=0.1, momentum=0.9, epochs=20), lambda: chain(64, 64, 10), "digits", (64, 64, 10), 16, 8),
    "mnist-mlp": Case(
        Recipe(lr=0.01, momentum=0.9, epochs=5), lambda: chain(784, 128, 64, 10), "mnist", (784, 128, 64, 10), 0.5
    ),
    "mnist-mlp-dropout": Case(
        Recipe(lr=0.01, momentum=0.9, epochs=5),
        lambda: chain(784, 128, 64, 10, dropout=0.1), "mnist", (784, 128, 64, 10), 0.5,
    ),
    "layer-norm": Case(
        Recipe(lr=0.1, momentum=0.9, epochs=20, compile=True), layer_norm, "digits", models=4, slower=8
    ),
    "cnn": Case(Recipe(lr=0.05, momentum=0.9, epochs=2), small_cnn, "images-1", models=0.1),
    "resnet9": Case(Recipe(lr=0.05, momentum=0.9, epochs=1), lambda: resnet9(3, 8, 10), "images-3", models=0.1),
}  # fmt: skip
"""Names to tasks; the dropout case is the setting of dattri's own MNIST MLP, with fewer epochs."""


class Benchmark(Classification):
    """A case as a task."""

    def __init__(self, case: Case, data: tuple[Tensor, Tensor, int], recipe: Recipe | None = None):
        inputs, targets, n = data
        self.recipe, self.make = recipe or case.recipe, case.module
        self.train_inputs, self.train_targets = inputs[:n], targets[:n]
        self.query_inputs, self.query_targets = inputs[n:], targets[n:]

    def module(self) -> nn.Module:
        """Return a new model of the case."""
        return self.make()


@cache
def load(name: str, folder: Path) -> tuple[Tensor, Tensor, int]:
    """Return inputs, targets and the number of training examples; "images" are noise of the shape of MNIST's or CIFAR's."""
    if name == "digits":
        digits = load_digits()
        return torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target), 1000
    if name == "mnist":
        file = np.load(folder / "mnist_t10k.npz")
        inputs = torch.tensor(file["x"][:5500].reshape(-1, 784) / 255, dtype=torch.float32)
        return inputs, torch.tensor(file["y"][:5500].astype(np.int64)), 5000
    shape = (1, 28, 28) if name == "images-1" else (3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(900, *shape, generator=generator), torch.randint(10, (900,), generator=generator), 800


def half_runs(n: int, count: int) -> list[Run]:
    rng = np.random.default_rng(0)
    return [Run(row, np.sort(rng.permutation(n)[: n // 2]), row) for row in range(count)]


def plain(task: Benchmark, runs: Sequence[Run]) -> list[np.ndarray]:
    """One model after another, as one writes it by hand with care; returns the margins of the queries."""
    found = []
    for run in runs:
        torch.manual_seed(run.seed)
        model = task.module()
        optimizer = torch.optim.SGD(model.parameters(), task.recipe.lr, task.recipe.momentum)
        x, y = task.train_inputs[run.subset], task.train_targets[run.subset]
        for _ in range(task.recipe.epochs):
            for batch in torch.randperm(len(x)).split(task.recipe.batch_size):
                loss = F.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            found.append(task.measurement("margin")(model(task.query_inputs), task.query_targets).numpy())
    return found


def ours(task: Benchmark, runs: Sequence[Run], **options: object) -> list[np.ndarray]:
    outcomes = train_pack(task, runs, ["margin"], Queries(), **options)  # type: ignore[arg-type]
    for outcome in outcomes:
        if outcome.failure is not None:
            raise RuntimeError(outcome.failure.traceback)
    return [outcome.outputs["margin"] for outcome in outcomes]


def alone(task: Benchmark, runs: Sequence[Run]) -> list[np.ndarray]:
    """One model after another, the plain way of ours: what a pack of one costs."""
    return ours(task, runs, method="alone")


def dattri(task: Benchmark, runs: Sequence[Run]) -> list[np.ndarray]:
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
    task = Benchmark(CASES[name], load(CASES[name].data, folder))
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
    task = Benchmark(case, load(case.data, folder))
    count = max(1, round(models * case.models / PROCESSES))
    slow = max(1, round(count / case.slower))
    counts = {side: count if side == OURS else slow, other: slow}
    processes = {side: PROCESSES, other: 1 if other == SERIAL else PROCESSES}
    best = dict.fromkeys(processes, float("inf"))
    fraction = 0.0
    with multiprocessing.get_context("spawn").Pool(PROCESSES, torch.set_num_threads, (1,)) as pool:
        for turn in range(rounds + 1):
            for way, busy in processes.items():
                done = pool.map(work, [(way, name, folder, counts[way] if turn else 1)] * busy, chunksize=1)
                if turn:
                    best[way] = min(best[way], max(seconds for seconds, _ in done))
                if turn and way == side:
                    useful = [case.flops(task.n // 2, task.t) * counts[way] / seconds for seconds, _ in done]
                    fraction = max(fraction, sum(useful) / sum(peak for _, peak in done))
    rates = {way: busy * counts[way] / best[way] for way, busy in processes.items()}
    strategy = strategy_of(task, "cpu")
    return Row(
        name if side == OURS else f"{name}, alone", other, rates[side], rates[other], rates[side] / rates[other],
        agrees(case, folder), fraction if case.linear else None,
        f"{strategy.method}: {strategy.reason}" if side == OURS else "alone: as asked for",
    )  # fmt: skip


def compare_threads(name: str, folder: Path, models: int, rounds: int) -> Row:
    """Time ours by two processes of one thread, and by one of two; here the time that passes counts."""
    case = CASES[name]
    count = max(1, round(models * case.models / PROCESSES))
    rates = {1: 0.0, PROCESSES: 0.0}
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
                    rates[processes] = max(rates[processes], processes * count / (time.perf_counter() - started))
    finally:
        for pool in pools.values():
            pool.terminate()
    ratio = rates[PROCESSES] / rates[1]
    strategy = strategy_of(Benchmark(case, load(case.data, folder)), "cpu")
    return Row(
        name,
        THREADS,
        rates[PROCESSES],
        rates[1],
        ratio,
        agrees(case, folder),
        None,
        f"{strategy.method}: {strategy.reason}",
    )


def train(job: tuple[str, Path, int]) -> None:
    """Train some runs of a case, in a worker process with threads of its own."""
    name, folder, count = job
    task = Benchmark(CASES[name], load(CASES[name].data, folder))
    ours(task, half_runs(task.n, count))


def agrees(case: Case, folder: Path) -> bool:
    """Whether our choice of path gives, in float64 and after the recipe on a few batches, the outputs of training alone."""
    recipe = case.recipe.model_copy(update={"precision": "float64", "epochs": 2})
    inputs, targets, n = load(case.data, folder)
    task = Benchmark(case, (inputs[: n + 20], targets[: n + 20], n), recipe)
    runs = [Run(0, np.arange(100), 1), Run(1, np.arange(10), 2)]
    pairs = zip(ours(task, runs), ours(task, runs, method="alone"), strict=True)
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in pairs)


def draw(file: Path, folder: Path) -> None:
    """Draw models a second, by one process, against the number of models in lockstep, beside the other ways."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for axis, (name, epochs) in zip(axes, (("logistic", 4), ("mlp", 4), ("mnist-mlp", 1), ("cnn", 1)), strict=True):
        case = CASES[name]
        data = load(case.data, folder)
        task = Benchmark(case, data, case.recipe.model_copy(update={"epochs": epochs}))
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


def rate(task: Benchmark, count: int, **options: object) -> float:
    runs = half_runs(task.n, count)
    ours(task, runs, **options)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        ours(task, runs, **options)
        best = min(best, time.process_time() - started)
    return count / best


def main() -> int:
    here = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--figure", type=Path, help="draw models a second against the width into this file")
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
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
        for row in rows_of(name, folder, options.models, options.rounds):
            rows.append(row)
            peak = "" if row.peak is None else f"  {row.peak:.2f} of peak"
            print(
                f"{row.case:24} {row.ours:9.1f}/s  {row.other} {row.theirs:8.1f}/s  {row.ratio:6.2f}x"
                f"  agree {row.agree}{peak}  ({row.strategy})",
                flush=True,
            )
    if options.figure:
        draw(options.figure, folder)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.agree for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
