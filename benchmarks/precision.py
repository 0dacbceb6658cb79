"""What the way and the precision of training do to outputs, datamodels and the linear datamodeling score.

    python benchmarks/precision.py [--json FILE] [--fit 1000] [--score 60] [--seeds 3]

The MLP 64-64-10 on the digits (n = 1,000, 200 queries, margins) and halves of its training set, trained in every way on the same
subsets and seeds. The yardstick is the same training, alone, with other seeds: single trainings in float32 are chaotic, so two
correct ways must agree as distributions, not number by number. Per way:

- difference: root mean square difference from alone in float32, over the standard deviation between seeds (1.41 for two
  trainings that share nothing but the subset);
- bias: mean output less that of alone in float32, over queries and subsets, in its standard errors;
- LDS: of a datamodel fitted on this way's runs, against held-out runs of alone in float32, with its 95% interval;
- weights: correlation of that datamodel's weights with those fitted on alone in float32.

`agree` says that the bias is within 4 standard errors and that the LDS lies within the interval of alone's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from estimators import Datamodel
from estimators.evidence import Runs
from estimators.scores.lds import lds
from workers import Classification, Queries, Recipe, Run
from workers.packs import train_pack

N, T = 1000, 200
OTHER_SEEDS = 1 << 20


@dataclass(frozen=True)
class Way:
    """A way of training."""

    name: str
    precision: str
    method: str
    width: int | str = "auto"
    shift: int = 0
    """Added to all seeds."""


REFERENCE = Way("alone, float32", "float32", "alone")
WAYS = (
    REFERENCE,
    Way("alone, float32, other seeds", "float32", "alone", shift=OTHER_SEEDS),
    Way("resident, float32", "float32", "resident"),
    Way("lockstep, float32", "float32", "stacked", 16),
    Way("alone, bf16", "bf16", "alone"),
    Way("lockstep, bf16", "bf16", "stacked", 16),
)


@dataclass(frozen=True)
class Row:
    """What one way of training did."""

    way: str
    seconds: float
    difference: float
    bias: float
    lds: float
    low: float
    high: float
    weights: float
    agree: bool


class Digits(Classification):
    """The digits, by the MLP 64-64-10."""

    def __init__(self, recipe: Recipe):
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))[: N + T]
        inputs = torch.tensor(digits.data[order] / 16, dtype=torch.float32)
        targets = torch.tensor(digits.target[order])
        self.recipe = recipe
        self.train_inputs, self.train_targets = inputs[:N], targets[:N]
        self.query_inputs, self.query_targets = inputs[N:], targets[N:]

    def module(self) -> nn.Module:
        """Return a new network."""
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def train(way: Way, masks: NDArray[np.bool_], seeds: int) -> NDArray[np.float32]:
    """Return the margins (subsets, seeds, t) of models trained one way; row r, seed s of every way has the same seed."""
    task = Digits(Recipe(lr=0.1, momentum=0.9, epochs=20, precision=way.precision))
    runs = [
        Run(row * seeds + repeat, np.flatnonzero(mask), way.shift + row * seeds + repeat)
        for row, mask in enumerate(masks)
        for repeat in range(seeds)
    ]
    outcomes = train_pack(task, runs, ["margin"], Queries(), method=way.method, width=way.width)  # type: ignore[arg-type]
    return np.stack([outcome.outputs["margin"] for outcome in outcomes]).reshape(len(masks), seeds, -1)


def halves(rng: np.random.Generator, count: int) -> NDArray[np.bool_]:
    masks = np.zeros((count, N), dtype=bool)
    for mask in masks:
        mask[rng.permutation(N)[: N // 2]] = True
    return masks


def measure(fit: int, score: int, seeds: int) -> list[Row]:
    """Train in every way and compare."""
    rng = np.random.default_rng(1)
    fitting, scoring = halves(rng, fit), halves(rng, score)
    trained, held, seconds = {}, {}, {}
    for way in WAYS:
        started = time.perf_counter()
        trained[way.name] = train(way, fitting, 1)
        seconds[way.name] = time.perf_counter() - started
        held[way.name] = train(way, scoring, seeds)
        print(f"{way.name}: {fit + score * seeds} trainings", file=sys.stderr, flush=True)
    reference = held[REFERENCE.name]
    spread = float(np.sqrt(reference.var(axis=1, ddof=1).mean()))
    kept = np.repeat(np.arange(score), seeds)
    runs = Runs(
        design="held out", kind="subsets", measure="margin", masks=scoring[kept],
        outputs=reference.reshape(len(kept), -1), subsets=kept,
        repeats=np.tile(np.arange(seeds), score),
    )  # fmt: skip
    models = {way.name: Datamodel().fit(fitting, trained[way.name][:, 0]).coef_ for way in WAYS}
    scores = {name: lds(weights.T, runs, fitted_masks=fitting) for name, weights in models.items()}
    base = scores[REFERENCE.name]
    rows = []
    for way in WAYS:
        apart = held[way.name] - reference
        per_subset = apart.mean(axis=(1, 2))
        error = float(per_subset.std(ddof=1) / np.sqrt(score))
        bias = float(per_subset.mean() / error) if error else 0.0
        weights = float(np.corrcoef(models[way.name].ravel(), models[REFERENCE.name].ravel())[0, 1])
        found = scores[way.name]
        agree = abs(bias) < 4 and base.low <= found.value <= base.high
        difference = float(np.sqrt(np.square(apart).mean()) / spread)
        rows.append(
            Row(way.name, seconds[way.name], difference, bias, found.value, found.low, found.high, weights, agree)
        )
    return rows


def main() -> int:
    """Run the comparison, print it, and say by the exit code whether all ways agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--fit", type=int, default=1000, help="subsets the datamodel is fitted on")
    parser.add_argument("--score", type=int, default=60, help="held-out subsets")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of a held-out subset")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(asked.fit, asked.score, asked.seeds)
    print(f"{'way':<29}{'seconds':>8}{'difference':>12}{'bias':>7}{'LDS':>7}{'95% interval':>16}{'weights':>9}  agree")
    for row in rows:
        interval = f"{row.low:.3f} to {row.high:.3f}"
        print(
            f"{row.way:<29}{row.seconds:>8.1f}{row.difference:>12.3f}{row.bias:>7.1f}{row.lds:>7.3f}{interval:>16}"
            f"{row.weights:>9.3f}  {row.agree}"
        )
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.agree for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
