"""The many-query LASSO against scikit-learn, celer and skglm, on the same data in one process.

    python benchmarks/datamodels.py [--json FILE] [--case 1000,500,100 ...] [--part pipeline ...] [--sample 6] [--rounds 2]
                                    [--threads N] [--large]

Every alternative is looped over queries and credited with perfect use of all cores: its one-process time is divided by
`--threads` (the cores, by default), which is what ours runs on. It runs on `--sample` of the queries, and its time is scaled to
all of them. Ours and theirs alternate, the least time of each counts. All stop at a duality gap of 1e-4 of the objective at
w = 0 (skglm has no gap: it stops on the optimality conditions, at a bound that makes its gaps about as small).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from celer import celer_path
from skglm.datafits import Quadratic as SkglmQuadratic
from skglm.penalties import L1
from skglm.solvers import AndersonCD
from sklearn.linear_model import LassoCV, lasso_path

from estimators.lasso.collect import Split, blocks_of, collect
from estimators.lasso.fit import Fit
from estimators.lasso.gram import add_gram
from estimators.lasso.path import solve_paths
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings
from estimators.lasso.solution import Paths
from workers.machine import cores

GAP = 1e-4
CASES = ((1000, 500, 100), (2000, 1000, 100), (4000, 2000, 200), (1000, 2000, 100))
PathSolver = Callable[["Design", np.ndarray, np.ndarray], np.ndarray]
"""(design, centred y (m,), lambdas (L,)) -> coefficients (n, L)."""


@dataclass
class Row:
    """One comparison; times in seconds."""

    case: str
    other: str
    ours: float
    theirs: float
    ratio: float
    agree: bool


class Design:
    """Centred masks of some runs and their Gram matrix, as the alternatives want them: float32 is their fastest."""

    def __init__(self, masks: np.ndarray, dtype: type = np.float32):
        self.means = masks.mean(0, dtype=np.float64)
        self.x = np.asfortranarray((masks - self.means).astype(dtype))
        self.gram = self.x.T @ self.x


def by_sklearn(design: Design, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    y = y.astype(design.x.dtype)
    return lasso_path(
        design.x, y, alphas=penalties, precompute=design.gram, Xy=design.x.T @ y, tol=GAP / 2, max_iter=100_000
    )[1]


def by_celer(design: Design, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    return celer_path(
        design.x, y.astype(design.x.dtype), "lasso", alphas=penalties.astype(design.x.dtype), tol=GAP / 2
    )[1]


def by_skglm(design: Design, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """skglm stops on the violation of the optimality conditions; this bound leads to gaps a little below the others'."""
    y = y.astype(design.x.dtype)
    solver = AndersonCD(tol=0.003 * float(penalties[-1]), fit_intercept=False)
    return solver.path(design.x, y, SkglmQuadratic(), L1(1.0), alphas=penalties)[1]


PATH_SOLVERS: dict[str, PathSolver] = {"scikit-learn": by_sklearn, "celer": by_celer, "skglm": by_skglm}


def synthetic(m: int, n: int, t: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw halves of the examples, a tenth with heavy-tailed effects and all with small ones, and as much noise as signal."""
    rng = np.random.default_rng(seed)
    masks = np.argsort(rng.random((m, n), np.float32), axis=1) < n // 2
    weights = rng.standard_t(2.5, (n, t)) * (rng.random((n, t)) < 0.1) + 0.05 * rng.normal(size=(n, t))
    signal = masks.astype(np.float32) @ weights.astype(np.float32)
    return masks, signal + (rng.normal(size=(m, t)) * signal.std(0) + 2).astype(np.float32)


def objective_and_gap(design: Design, y: np.ndarray, w: np.ndarray, penalty: float) -> tuple[float, float]:
    """Return objective and duality gap relative to the objective at w = 0, densely in float64."""
    x, m = design.x.astype(np.float64), len(y)
    residual = y - x @ w
    scale = min(1.0, penalty * m / max(np.abs(x.T @ residual).max(), 1e-300))
    primal = residual @ residual / (2 * m) + penalty * np.abs(w).sum()
    dual = scale * (y @ residual) / m - scale**2 * (residual @ residual) / (2 * m)
    null = y @ y / (2 * m)
    return primal / null, (primal - dual) / null


def timed(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@dataclass
class Case:
    """One data set, its split, and the queries that the alternatives run."""

    m: int
    n: int
    t: int
    masks: np.ndarray
    outputs: np.ndarray
    split: Split
    sample: np.ndarray
    threads: int

    @classmethod
    def of(cls, m: int, n: int, t: int, sample: int, threads: int) -> Case:
        """Draw a data set and split it."""
        masks, outputs = synthetic(m, n, t)
        split = Split.draw(np.arange(m), Settings(), 0)
        return cls(m, n, t, masks, outputs, split, np.arange(min(sample, t)), threads)

    @property
    def name(self) -> str:
        """Its sizes."""
        return f"m={self.m} n={self.n} t={self.t}"

    @property
    def held(self) -> np.ndarray:
        """Which runs are held out."""
        return self.split.parts == 0

    def credited(self, seconds: float) -> float:
        """Scale the time of the sample to all queries on all cores."""
        return seconds * self.t / len(self.sample) / self.threads

    def fit(self, settings: Settings) -> Fit:
        """Run our whole pipeline."""
        return fit_blocks(lambda: blocks_of(self.masks, self.outputs), self.split.subsets, settings, 0)

    def y(self, q: int, rows: np.ndarray) -> np.ndarray:
        """Return a query's outputs, centred."""
        y = self.outputs[rows, q].astype(np.float64)
        return y - y.mean()


def pipeline(case: Case, solver: PathSolver) -> tuple[float, list[tuple[int, np.ndarray]]]:
    """Run an alternative's whole pipeline; return its credited time, and (position, refit) of the sampled queries."""
    fixed, designs = timed(lambda: (Design(case.masks[~case.held]), Design(case.masks)))
    fitting, whole = designs
    started = time.perf_counter()
    held = case.masks[case.held].astype(np.float32) - fitting.means.astype(np.float32)
    found = []
    for q in case.sample:
        y = case.y(q, ~case.held)
        penalties = np.abs(fitting.x.T @ y.astype(np.float32)).max() / len(y) * Settings().grid()
        path = solver(fitting, y, penalties)
        residual = held @ path - (case.outputs[case.held, q] - case.outputs[~case.held, q].mean())[:, None]
        best = int(np.square(residual).mean(0).argmin())
        found.append((best, solver(whole, case.y(q, np.full(case.m, True)), penalties[[best]])[:, 0]))
    return fixed / case.threads + case.credited(time.perf_counter() - started), found


def lasso_cv(case: Case) -> tuple[float, list[tuple[int, np.ndarray]]]:
    """Run scikit-learn's own selection and refit on the same split."""
    rows = [(np.flatnonzero(~case.held), np.flatnonzero(case.held))]
    x, found = case.masks.astype(np.float32), []
    started = time.perf_counter()
    for q in case.sample:
        y = case.outputs[:, q]
        penalties = _grid(case, q)
        model = LassoCV(alphas=penalties, cv=rows, precompute=True, tol=GAP / 2, max_iter=100_000).fit(x, y)
        found.append((int(np.abs(penalties - model.alpha_).argmin()), model.coef_))
    return case.credited(time.perf_counter() - started), found


def _grid(case: Case, q: int) -> np.ndarray:
    x = case.masks[~case.held].astype(np.float64)
    y = case.y(q, ~case.held)
    return np.abs((x - x.mean(0)).T @ y).max() / len(y) * Settings().grid()


def agrees(case: Case, ours: Fit, theirs: list[tuple[int, np.ndarray]]) -> bool:
    """Compare lambdas (at most one query of the sample one step off), our gaps, and the objectives at equal lambdas."""
    whole = Design(case.masks, np.float64)
    off = [abs(int(ours.positions[q]) - best) for q, (best, _) in zip(case.sample, theirs, strict=True)]
    good = sum(off) <= max(1, len(off) // 50)
    for q, (best, w) in zip(case.sample, theirs, strict=True):
        y = case.y(q, np.full(case.m, True))
        here, gap = objective_and_gap(whole, y, ours.coefficients[q].astype(np.float64), ours.penalties[q])
        good = good and gap <= GAP
        if best == ours.positions[q]:
            there, _ = objective_and_gap(whole, y, w.astype(np.float64), ours.penalties[q])
            good = good and abs(here - there) <= 2 * GAP
    return bool(good)


def compare_pipelines(case: Case, rounds: int) -> Iterator[Row]:
    """Time the whole pipeline of ours and of every alternative, alternating."""
    settings = Settings(threads=case.threads)
    others: dict[str, Callable[[], tuple[float, list[tuple[int, np.ndarray]]]]] = {
        f"{name} path": lambda solver=solver: pipeline(case, solver) for name, solver in PATH_SOLVERS.items()
    }
    others["LassoCV"] = lambda: lasso_cv(case)
    ours, theirs, fits, solutions = np.inf, dict.fromkeys(others, np.inf), None, {}
    for _ in range(rounds):
        for name, run in others.items():
            seconds, fits = timed(lambda: case.fit(settings))
            ours = min(ours, seconds)
            seconds, solutions[name] = run()
            theirs[name] = min(theirs[name], seconds)
    assert isinstance(fits, Fit)
    for name in others:
        yield Row(
            f"pipeline {case.name}", name, ours, theirs[name], theirs[name] / ours, agrees(case, fits, solutions[name])
        )


def compare_solvers(case: Case, rounds: int, length: int, label: str) -> Iterator[Row]:
    """Time the solvers alone on the same lambdas: statistics are given to all, nothing is held out."""
    settings = Settings(threads=case.threads)
    design = Design(case.masks[~case.held])
    problem = next(collect(blocks_of(case.masks, case.outputs), case.split, settings).rest.quadratics(np.float32))
    penalties = problem.largest_penalty()[:, None] * settings.grid()[:length]
    ours, theirs, paths = np.inf, dict.fromkeys(PATH_SOLVERS, np.inf), {}
    for _ in range(rounds):
        for name, solver in PATH_SOLVERS.items():
            seconds, found = timed(lambda: solve_paths(problem, penalties, settings))
            ours = min(ours, seconds)
            seconds, paths[name] = timed(
                lambda solver=solver: [solver(design, case.y(q, ~case.held), penalties[q]) for q in case.sample]
            )
            theirs[name] = min(theirs[name], case.credited(seconds))
    for name in PATH_SOLVERS:
        agree = same_objectives(case, design, found, paths[name], penalties[:, -1])
        yield Row(f"{label} {case.name}", name, ours, theirs[name], theirs[name] / ours, agree)


def same_objectives(case: Case, design: Design, ours: Paths, theirs: list[np.ndarray], penalties: np.ndarray) -> bool:
    """Compare the objectives at the last lambda, and our gaps on the whole path."""
    good = ours.gaps.max() <= GAP
    for q, path in zip(case.sample, theirs, strict=True):
        w = np.zeros(case.n)
        w[ours.columns[q].index] = ours.columns[q].values
        y = case.y(q, ~case.held)
        here, there = (objective_and_gap(design, y, v.astype(np.float64), penalties[q])[0] for v in (w, path[:, -1]))
        good = good and abs(here - there) <= 2 * GAP
    return bool(good)


def compare_stopping(case: Case) -> Row:
    """Compare the lambdas of stopped paths with those of full ones; `agree` is 99% of the queries."""
    runs = [
        timed(lambda p=p: case.fit(p))
        for p in (Settings(threads=case.threads), Settings(threads=case.threads, patience=None))
    ]
    (ours, stopped), (theirs, full) = runs
    same = float((stopped.positions == full.positions).mean())  # type: ignore[attr-defined]
    return Row(
        f"early stop {case.name}: same lambda for {same:.1%}", "full path", ours, theirs, theirs / ours, same >= 0.99
    )


def compare_gram(m: int, n: int, rounds: int) -> Row:
    """Time integer products against float32 ones, conversion from bool included, on the same threads."""
    masks = np.random.default_rng(0).random((m, n)) < 0.5
    total, ours, theirs = np.zeros((n, n), np.int32), np.inf, np.inf
    for _ in range(rounds + 1):
        total[:] = 0
        ours = min(ours, timed(lambda: add_gram(total, masks))[0])
        seconds, dense = timed(lambda: (x := torch.from_numpy(masks).float()).T @ x)
        theirs = min(theirs, seconds)
    return Row(
        f"Gram m={m} n={n}", "float32 product", ours, theirs, theirs / ours, bool((total == dense.numpy()).all())
    )  # type: ignore[attr-defined]


def large(m: int = 20_000, n: int = 5_000, t: int = 1_000, limit: float = 4.0) -> Row:
    """Fit from a Zarr store of 1-bit masks, chunk by chunk; `agree` is a peak of this process below 4 GiB."""
    import zarr
    from numcodecs.zarr3 import PackBits

    rows, rng = 1000, np.random.default_rng(0)
    weights = (rng.standard_t(2.5, (n, t)) * (rng.random((n, t)) < 0.02)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        store = zarr.open_group(folder, mode="w")
        masks = store.create_array("masks", shape=(m, n), chunks=(rows, n), dtype=bool, filters=[PackBits()])
        outputs = store.create_array("outputs", shape=(m, t), chunks=(rows, t), dtype="float32")
        for start in range(0, m, rows):
            block = rng.random((rows, n), np.float32) < 0.5
            signal = block.astype(np.float32) @ weights
            masks[start : start + rows] = block
            outputs[start : start + rows] = signal + rng.normal(size=(rows, t)) * signal.std(0)

        def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, m, rows):
                yield masks[start : start + rows], outputs[start : start + rows]

        seconds, found = timed(lambda: fit_blocks(blocks, np.arange(m), Settings(), 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(found.summary())  # type: ignore[attr-defined]
    return Row(
        f"out of core m={m} n={n} t={t}: {peak:.2f} GiB", f"{limit} GiB", seconds, seconds, limit / peak, peak < limit
    )


PARTS: dict[str, Callable[[Case, int], Iterable[Row]]] = {
    "pipeline": compare_pipelines,
    "truncated": lambda case, rounds: compare_solvers(case, rounds, 18, "truncated path"),
    "full": lambda case, rounds: compare_solvers(case, 1, 40, "full path"),
    "stopping": lambda case, rounds: [compare_stopping(case)],
}
"""Name -> rows of a case; the parts of the largest case can so be run one after the other."""


def show(row: Row, rows: list[Row]) -> None:
    rows.append(row)
    verdict = "agree" if row.agree else "DIFFER"
    print(f"{row.case:<52} {row.other:<18} {row.ours:9.3f} {row.theirs:9.3f} {row.ratio:8.2f}x  {verdict}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--case", action="append", help="m,n,t; the four sizes by default")
    parser.add_argument("--part", action="append", choices=PARTS, help="what is compared; everything by default")
    parser.add_argument("--sample", type=int, default=6, help="queries the alternatives run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=cores(), help="threads of ours, and the alternatives' credit")
    parser.add_argument("--large", action="store_true", help="only the out-of-core fit, in this process")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    print(f"{'case':<52} {'other':<18} {'ours s':>9} {'theirs s':>9} {'ratio':>9}")
    if options.large:
        show(large(), rows)
    else:
        warm = Case.of(60, 20, 3, 2, options.threads)  # compile everything first
        for _ in (*compare_pipelines(warm, 1), *compare_solvers(warm, 1, 10, "")):
            pass
        if not options.part:
            show(compare_gram(4000, 2000, 10), rows)  # milliseconds each: what else runs would otherwise decide
        sizes = [tuple(map(int, text.split(","))) for text in options.case] if options.case else CASES
        for m, n, t in sizes:
            case = Case.of(m, n, t, options.sample, options.threads)
            for part in options.part or PARTS:
                for row in PARTS[part](case, options.rounds):
                    show(row, rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if all(row.agree for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
