"""What batches that stay put do to the noise of leave-one-out effects.

    python benchmarks/shared_order.py [--json FILE] [--n 500] [--examples 30] [--seeds 20]

An MLP 64-32-10 on the digits, 100 queries, margins: some examples are left out one by one, with the seeds of the full runs, once
in `order: own` and once in `order: shared`. An effect is the mean over seeds of the paired difference, its standard error that of
this mean. Per order:

- effect, error: root mean squares over examples and queries. An effect without anything behind it is as large as its error;
- ratio: effect over error, with the 95% interval of a bootstrap over examples; 1 is noise alone;
- told: share of the effects beyond Student's 97.5% point of their own errors; 5% by chance;
- halves: correlation of the effects from the first half of the seeds with those from the second, over examples and queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers import Queries, Run
from workers.packs import train_pack
from workers.runs import Order
from workers.tasks.digits import Digits

ORDERS: tuple[Order, ...] = ("own", "shared")
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """What one order brought."""

    order: Order
    effect: float
    error: float
    ratio: float
    low: float
    high: float
    told: float
    halves: float


def differences(task: Digits, order: Order, left_out: NDArray[np.int64], seeds: int) -> NDArray[np.float64]:
    """Return f(all) - f(all without i) of every example left out and every seed, (examples, seeds, t)."""
    everything = np.arange(task.n)
    subsets = [everything, *(np.delete(everything, example) for example in left_out)]
    runs = [
        Run(row * seeds + seed, subset, seed, order=order)
        for row, subset in enumerate(subsets)
        for seed in range(seeds)
    ]
    outcomes = train_pack(task, runs, ["margin"], Queries(), method="resident")
    margins = np.stack([outcome.outputs["margin"] for outcome in outcomes]).astype(np.float64)
    by_subset = margins.reshape(len(subsets), seeds, -1)
    return by_subset[:1] - by_subset[1:]


def told(order: Order, found: NDArray[np.float64]) -> Row:
    """Return a row of the table, from paired differences (examples, seeds, t)."""
    examples, seeds, _ = found.shape
    effects, errors = found.mean(axis=1), found.std(axis=1, ddof=1) / np.sqrt(seeds)

    def root_mean_square(values: NDArray[np.float64]) -> float:
        return float(np.sqrt((values**2).mean()))

    rng = np.random.default_rng(0)
    drawn = [rng.integers(examples, size=examples) for _ in range(RESAMPLES)]
    ratios = [root_mean_square(effects[rows]) / root_mean_square(errors[rows]) for rows in drawn]
    first, second = found[:, : seeds // 2].mean(axis=1), found[:, seeds // 2 :].mean(axis=1)
    return Row(
        order,
        root_mean_square(effects),
        root_mean_square(errors),
        root_mean_square(effects) / root_mean_square(errors),
        *(float(end) for end in np.percentile(ratios, [2.5, 97.5])),
        float((np.abs(effects) > stats.t.ppf(0.975, seeds - 1) * errors).mean()),
        float(np.corrcoef(first.ravel(), second.ravel())[0, 1]),
    )


def main() -> None:
    """Train in both orders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    for name, default in (("n", 500), ("examples", 30), ("seeds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    task = Digits(n=given.n, t=100, hidden=32)
    left_out = np.random.default_rng(1).permutation(given.n)[: given.examples]
    rows = [told(order, differences(task, order, left_out, given.seeds)) for order in ORDERS]
    print(f"{'order':8} {'effect':>8} {'error':>8} {'ratio (95% interval)':>24} {'told':>7} {'halves':>7}")
    for row in rows:
        interval = f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"
        print(f"{row.order:8} {row.effect:8.4f} {row.error:8.4f} {interval:>24} {row.told:7.1%} {row.halves:7.2f}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
