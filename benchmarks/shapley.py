"""Permutation Shapley and TMC on iris with GaussianNB, against pyDVL, with the same number of utility evaluations.

    python benchmarks/shapley.py [--json FILE] [--permutations 200] [--rounds 3]

pyDVL runs in one process and with joblib's two workers; ours on two Ray workers, with everything a sweep does: keys, scheduling,
hashes, a durable store. Ray's start and joblib's are both left out of the rates (`start` says what Ray's took): each side is
warm. Sides alternate, the best round of each counts. `agree` says that the values of every example lie within their joint 95%
intervals as often as they should. `bound` is what two processes reach that do nothing but fit and predict, on the same prefixes
and with no one to tell the result: no scheduler can do better, and its ratio to pyDVL is the largest there is.

The last rows are the cost of scheduling: useful training time over the time of both cores, for trainings of 1 ms and 20 ms; then
how many microseconds of a core's time an evaluation costs beside its training, and how many milliseconds of both cores a sweep
costs once (its folder, its plan, the last trainings to end), from a short sweep and a long one of 1 ms trainings.

pyDVL asks for a NumPy before 2, which it can do without; so it comes with two lines, the second of what it imports:

    pip install --no-deps pydvl==0.10.0
    pip install more-itertools pyDeprecate cvxpy cloudpickle tqdm
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from estimators.retraining_based.shapley import Shapley
from orchestrator.attribution.evidence import gather
from orchestrator.config.loading import validate
from orchestrator.config.schema import Config
from orchestrator.execution.ray_pool import ray_pool
from orchestrator.retraining.strategy import work_of
from orchestrator.stages.forecast import settle
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.sweeps.sweep import Sweep

TRAIN = 60
SHORT, LONG = 1000, 16000
"""Evaluations of the sweeps from which the cost of one is told."""
COST_GOAL = 50.0
"""Microseconds."""
TOLERANCE = 0.02
"""TMC's distance from the utility of all data; the same number on both sides."""

warnings.filterwarnings("ignore")


@dataclass(frozen=True)
class Row:
    """One comparison: utility evaluations a second, but in the last rows shares of both cores' time, and times."""

    case: str
    other: str
    ours: float
    theirs: float
    ratio: float
    agree: bool


EVALUATIONS: dict[bool, int] = {}
"""Evaluations that one pass of pyDVL makes, by whether it truncates."""


class Counting(GaussianNB):
    """Counts its fits."""

    fits = 0

    def fit(self, x: np.ndarray, y: np.ndarray) -> GaussianNB:
        type(self).fits += 1
        return super().fit(x, y)


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test halves of iris, shuffled once."""
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


class Iris:
    """The same utility as pyDVL's: accuracy of GaussianNB on the test half; that of no data is 0."""

    measures = ("correct",)

    def __init__(self) -> None:
        self.x, self.y, self.x_test, self.y_test = data()
        self.n, self.t = len(self.y), len(self.y_test)

    def train(self, subset: np.ndarray, seed: int) -> GaussianNB:
        with np.errstate(all="ignore"):  # a class of one example has no variance
            return GaussianNB().fit(self.x[subset], self.y[subset])

    def measure(self, model: GaussianNB) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return {"correct": model.predict(self.x_test) == self.y_test}

    def measure_empty(self) -> dict[str, np.ndarray]:
        return {"correct": np.zeros(self.t)}


class Sleeper:
    """Trainings that take a given time of a core, by its own clock: what is left of both cores' time is scheduling."""

    measures = ("value",)
    n, t = 50, 10

    def __init__(self, milliseconds: float = 20.0):
        self.seconds = milliseconds / 1000

    def train(self, subset: np.ndarray, seed: int) -> int:
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        return len(subset)

    def measure(self, model: int) -> dict[str, np.ndarray]:
        return {"value": np.full(self.t, float(model))}


def configuration(task: str, arguments: dict, design: dict, measure: str) -> Config:
    """Return a sweep of one design."""
    raw = {
        "name": "benchmark",
        "folder": str(Path(__file__).resolve().parent),
        "task": {"name": f"shapley.py:{task}", "arguments": arguments},
        "measures": [measure],
        "designs": {"full": {"kind": "full"}, "drawn": design},
    }
    return validate(raw, "benchmark")


def ours(config: Config, pool: object) -> tuple[float, int, object]:
    """Run a whole sweep on warm workers; return seconds, evaluations, and Shapley's answer."""
    folder = Path(tempfile.mkdtemp())
    try:
        sweep, _ = settle(Sweep.of(config, folder / "sweep"))
        clock = time.perf_counter()
        with prepare(sweep) as store:
            tally = retrain(sweep, store, pool=pool)
            seconds = time.perf_counter() - clock
            made = Shapley().attribute(gather(sweep, store, "correct")) if "correct" in config.measures else None
        return seconds, tally.done, made
    finally:
        shutil.rmtree(folder)


def theirs(permutations: int, jobs: int, truncated: bool) -> tuple[float, int, np.ndarray, np.ndarray]:
    """Run pyDVL; return seconds, evaluations, values and standard errors."""
    from joblib import parallel_config
    from pydvl.valuation import (
        Dataset,
        MaxUpdates,
        ModelUtility,
        PermutationSampler,
        ShapleyValuation,
        SupervisedScorer,
    )
    from pydvl.valuation.samplers.truncation import NoTruncation, RelativeTruncation

    x, y, x_test, y_test = data()
    train, test = Dataset(x, y), Dataset(x_test, y_test)
    scorer = SupervisedScorer("accuracy", test, default=0.0, range=(0, 1))
    utility = ModelUtility(Counting(), scorer, catch_errors=False, show_warnings=False)
    truncation = RelativeTruncation(rtol=TOLERANCE) if truncated else NoTruncation()
    sampler = PermutationSampler(truncation=truncation, seed=1)
    valuation = ShapleyValuation(utility, sampler, is_done=MaxUpdates(permutations), progress=False)
    Counting.fits = 0
    with parallel_config(n_jobs=jobs):
        clock = time.perf_counter()
        valuation.fit(train)
        seconds = time.perf_counter() - clock
    result = valuation.result
    result.sort(key="index") if hasattr(result, "sort") else None
    order = np.argsort(result.indices)
    if jobs == 1:  # joblib's workers count in their own memory; the permutations are the same ones
        EVALUATIONS[truncated] = Counting.fits
    return seconds, EVALUATIONS[truncated], np.asarray(result.values)[order], np.asarray(result.stderr)[order]


def within(a: np.ndarray, a_error: np.ndarray, b: np.ndarray, b_error: np.ndarray) -> bool:
    """Say whether two estimates differ by less than their joint 95% interval as often as two estimates of one thing do."""
    inside = np.abs(a - b) <= 1.96 * np.sqrt(a_error**2 + b_error**2) + 1e-9
    return bool(inside.sum() >= binom.ppf(0.001, len(a), 0.95))


def bare(permutations: int) -> float:
    """Return how many prefixes of random permutations this process fits and predicts a second."""
    x, y, x_test, y_test = data()
    orders = [np.random.default_rng(draw).permutation(TRAIN) for draw in range(permutations)]
    clock = time.perf_counter()
    with np.errstate(all="ignore"):
        for order in orders:
            for size in range(1, TRAIN + 1):
                subset = np.sort(order[:size])
                np.mean(GaussianNB().fit(x[subset], y[subset]).predict(x_test) == y_test)
    return permutations * TRAIN / (time.perf_counter() - clock)


def bound(permutations: int, rounds: int) -> float:
    """Return the best rate that two processes reached with nothing but the work itself."""
    with ProcessPoolExecutor(2) as processes:
        list(processes.map(bare, [2, 2]))
        return max(sum(processes.map(bare, [permutations // 2] * 2)) for _ in range(rounds))


def compare(permutations: int, rounds: int, pool: object, truncated: bool, at_most: float) -> list[Row]:
    """Alternate ours, theirs in one process and theirs in two."""
    design = {"kind": "permutations", "permutations": permutations}
    if truncated:
        design["truncation"] = TOLERANCE
    config = configuration("Iris", {}, design, "correct")
    best = {"ours": 0.0, 1: 0.0, 2: 0.0}
    made, found = None, {}
    for _ in range(rounds):
        seconds, evaluations, made = ours(config, pool)
        best["ours"] = max(best["ours"], evaluations / seconds)
        for jobs in (1, 2):
            seconds, evaluations, values, errors = theirs(permutations, jobs, truncated)
            best[jobs] = max(best[jobs], evaluations / seconds)
            found[jobs] = (values, errors)
    case = "tmc" if truncated else "permutations"
    limits = [
        Row(case, "bound, two processes", best["ours"], at_most, best["ours"] / at_most, True),
        Row("bound, two processes", "pyDVL, 2 workers", at_most, best[2], at_most / best[2], True),
    ]
    return [
        Row(
            case,
            f"pyDVL, {jobs} worker{'s' if jobs > 1 else ''}",
            best["ours"],
            best[jobs],
            best["ours"] / best[jobs],
            within(made.utility, made.utility_standard_error, *found[jobs]),
        )
        for jobs in (1, 2)
    ] + ([] if truncated else limits)


def overhead(milliseconds: float, runs: int, pool_of: object) -> Row:
    """Return the useful share of both cores' time for trainings of a given length."""
    design = {"kind": "bernoulli", "subsets": runs}
    config = configuration("Sleeper", {"milliseconds": milliseconds}, design, "value")
    with pool_of(config) as pool:
        ours(configuration("Sleeper", {"milliseconds": milliseconds}, {**design, "subsets": 64}, "value"), pool)
        seconds, done, _ = ours(config, pool)
    useful = done * milliseconds / 1000 / pool.slots / seconds
    return Row(f"{milliseconds:g} ms trainings", "the cores' own time", useful, 1.0, useful, True)


def costs(rounds: int, pool_of: object) -> list[Row]:
    """Return what an evaluation costs beside its training, and what a sweep costs once."""
    arguments = {"milliseconds": 1.0}
    sweeps = {
        runs: configuration("Sleeper", arguments, {"kind": "bernoulli", "subsets": runs}, "value")
        for runs in (SHORT, LONG)
    }
    lost = dict.fromkeys(sweeps, np.inf)
    with pool_of(sweeps[SHORT]) as pool:
        ours(sweeps[SHORT], pool)
        for _ in range(rounds):
            for runs, config in sweeps.items():
                seconds, done, _ = ours(config, pool)
                lost[runs] = min(lost[runs], seconds * pool.slots - done * arguments["milliseconds"] / 1000)
    slope = (lost[LONG] - lost[SHORT]) / (LONG - SHORT)
    once, each = 1e3 * (lost[SHORT] - slope * SHORT) / pool.slots, 1e6 * slope
    return [
        Row("us an evaluation", "the goal", each, COST_GOAL, each / COST_GOAL, True),
        Row("ms a sweep", "a second", once, 1000.0, once / 1000.0, True),
    ]


def warm_pool(config: Config):
    """Return two warm Ray workers for a configuration."""
    sweep = Sweep.of(config.model_copy(update={"ray": config.ray.model_copy(update={"workers": 2})}), Path("unused"))
    return ray_pool(work_of(sweep), sweep.config.ray)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    rows: list[Row] = []
    at_most = bound(asked.permutations, asked.rounds)
    small = configuration("Iris", {}, {"kind": "permutations", "permutations": 8}, "correct")
    clock = time.perf_counter()
    with warm_pool(small) as pool:
        ours(small, pool)
        print(f"start: {time.perf_counter() - clock:.1f} s for Ray, its workers and their imports", flush=True)
        for truncated in (False, True):
            rows += compare(asked.permutations, asked.rounds, pool, truncated, at_most)
    rows += [overhead(1.0, 8000, warm_pool), overhead(20.0, 600, warm_pool), *costs(asked.rounds, warm_pool)]
    print(f"{'case':<22}{'other':<24}{'ours':>12}{'theirs':>12}{'ratio':>8}  agree")
    for row in rows:
        print(f"{row.case:<22}{row.other:<24}{row.ours:>12.3f}{row.theirs:>12.3f}{row.ratio:>8.2f}  {row.agree}")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    sys.exit(0 if all(row.agree for row in rows) else 1)


if __name__ == "__main__":
    main()
