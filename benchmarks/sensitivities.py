"""What sensitivities cost beside the training that they are recorded in, and how well they foretell the test loss.

    python benchmarks/sensitivities.py [--json FILE] [--n 5000] [--t 2000] [--epochs 50] [--every 5] [--rounds 3] [--damping 0.03]

The task is the MLP 784-128-64-10 on MNIST (`mnist_t10k.npz`, or what $COUNTERFACTORY_DATA has; without it on random images,
which is said). In every round the same training runs plain, then watched after every `every`-th epoch: with the diagonal of the
Gauss-Newton matrix and with K-FAC (SGD), and with Adam's own moments (the same recipe with adam). `share` is the time that
looking took over that of the plain training, the median of the rounds. Both trainings must end at the same bits.
`correlation` is that of the leave-one-out loss with the loss of t test images over the recorded epochs, after the first; beside
it that of the training loss, which foretells no overfitting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from estimators.sensitivity.recorder import KnownRow, SensitivityRecorder
from workers.errors import DataError
from workers.loading import find_data
from workers.runs import Queries, Run
from workers.task import Classification
from workers.tasks.mnist import RECIPES, Mnist
from workers.tasks.networks import mlp
from workers.training import alone
from workers.training.watching import Glimpse


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    case: str
    training: float
    """Seconds of the plain training."""
    looking: float
    """Seconds of all looks, summed."""
    looks: int
    share: float
    same_bits: bool
    correlation: float
    of_training_loss: float


class _Watched(SensitivityRecorder):
    """Also measures the test loss, outside of what is timed."""

    test_losses: list[float]

    def look(self, glimpse: Glimpse) -> None:
        """Record, and measure."""
        super().look(glimpse)
        glimpse.module.eval()
        task = self._task
        assert isinstance(task, Classification)
        found = alone.measure(task, glimpse.module, ["loss"], Queries())["loss"]
        self.test_losses.append(float(found.mean()))
        glimpse.module.train()


class _Random(Classification):
    """Random images, where there are none to read."""

    def __init__(self, n: int, t: int) -> None:
        rng = torch.Generator().manual_seed(0)
        self.recipe = RECIPES["mlp"]
        self.train_inputs, self.query_inputs = (torch.randn(count, 784, generator=rng) for count in (n, t))
        self.train_targets, self.query_targets = (torch.randint(0, 10, (count,), generator=rng) for count in (n, t))

    def module(self) -> torch.nn.Module:
        """Return the MLP."""
        return mlp(784, [128, 64], 10, 0.1)


def _task(n: int, t: int) -> Classification:
    try:
        return Mnist(path=find_data("mnist_t10k.npz", Path.cwd()), n=n, t=t)
    except DataError:
        print("no MNIST here: random images instead")
        return _Random(n, t)


def _rounds(task: Classification, row: KnownRow, epochs: Sequence[int], rounds: int, damping: float) -> Row:
    run = Run(0, np.arange(task.n), 0)
    plain, looked, same = [], [], True
    correlation = of_training = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        module, _ = alone.train(task, run)
        plain.append(time.perf_counter() - started)
        recorder = _Watched(task, task.recipe.weight_decay + damping, row, epochs=epochs)
        recorder.test_losses = []
        watched, _ = alone.train(task, run, watcher=recorder)
        looked.append(sum(one.seconds for one in recorder.records))
        pairs = zip(module.parameters(), watched.parameters(), strict=True)
        same &= all(torch.equal(one, other) for one, other in pairs)
        without = [one.left_out_loss for one in recorder.records]
        fitted = [one.training_loss for one in recorder.records]
        correlation, of_training = (
            float(np.corrcoef(one[1:], recorder.test_losses[1:])[0, 1]) for one in (without, fitted)
        )
    share = statistics.median(one / other for one, other in zip(looked, plain, strict=True))
    times = statistics.median(plain), statistics.median(looked)
    return Row(row, *times, len(epochs), share, same, correlation, of_training)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    for name, value in (("n", 5000), ("t", 2000), ("epochs", 50), ("every", 5), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--damping", type=float, default=0.03)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    task = _task(asked.n, asked.t)
    epochs = range(asked.every, asked.epochs + 1, asked.every)
    rows = []
    changes: dict[KnownRow, dict[str, object]] = {
        "newton": {},
        "kfac": {},
        "adam": {"optimizer": "adam", "lr": 0.001, "momentum": 0.0},
    }
    for row, changed in changes.items():
        task.recipe = RECIPES["mlp"].model_copy(update={"epochs": asked.epochs, **changed})
        rows.append(_rounds(task, row, epochs, asked.rounds, asked.damping))
    for one in rows:
        print(
            f"{one.case:18} training {one.training:6.2f} s, {one.looks} looks {one.looking:6.2f} s, share {one.share:.3f}, "
            f"same bits {one.same_bits}, correlation with the test loss {one.correlation:.3f} (training loss "
            f"{one.of_training_loss:.3f})"
        )
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in rows], indent=1))


if __name__ == "__main__":
    main()
