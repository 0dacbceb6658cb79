"""What a fit will cost, before it is started: bytes read, operations, memory, and an estimate of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from estimators.lasso.collect import BLOCK, Split, blocks_of, collect
from estimators.lasso.fit import fit
from estimators.lasso.gram import add_gram
from estimators.lasso.settings import Settings
from workers.errors import ConfigError
from workers.machine import cores
from workers.wording import duration

GIB = 2**30
WALKED = 0.5
"""Fraction of a path that is walked before the held-out error has turned (measured: .4 to .5)."""
SWEEPS = 4.0
"""Coordinate sweeps a lambda takes (measured: 3.5 to 5.5 on the part of the path that is walked)."""
WORKING = 1.4
"""Size of the working set over the number of non-zeros at the chosen lambda (measured)."""
REFIT_SWEEPS = 15.0
"""Coordinate sweeps of a refit at the chosen lambda alone (measured: 10 on the same runs, up to 20 on a resample)."""
AGAIN = 2.2
"""Paths walked for one where folds, whose errors turn at different places, are walked again with more patience (measured)."""
SUMS = 24
"""Bytes a coefficient that a bootstrap adds to the peak of the fit: its sums, and one resample's solution."""
DECOMPOSITION, MATRIX_SPEED = 0.25, 10.0
"""Ridge, in the path solver's multiply-adds: the time of an eigendecomposition over n cubed, and how much faster products are."""
UNPACKED, CENTRED = 2e8, 1.5e8
"""Elements a second, on one core: of masks unpacked, converted and transposed; of a Gram matrix centred (both measured)."""
WHOLE, WHOLE_SINGULAR = 12.0, 90.0
"""Time of a whole path over one that stops: the dense end is slow, and very slow with fewer runs than examples (measured)."""
ITERATIONS = 100.0
"""FISTA iterations a lambda takes on the part of the path that is walked."""


@dataclass(frozen=True)
class Machine:
    """Sustained rates of what does the work, and its memory."""

    name: str
    cores: int
    """Threads of coordinate descent; 0 for a GPU, which wants FISTA."""
    gram_rate: float
    """Multiply-adds of 0/1 products a second, all cores."""
    float_rate: float
    """float32 multiply-adds of matrix products a second, all cores."""
    descent_rate: float
    """float32 multiply-adds of the path solver a second, all cores (coordinate descent is bound by memory)."""
    read_rate: float
    """Bytes a second from the store."""
    memory: int
    """Bytes."""


LAPTOP = Machine("a laptop", 4, 1e12, 1e11, 4e9, 5e8, 16 * GIB)
"""Assumed: four cores with VNNI; for questions whose answer does not need this machine's own rates."""


def this_machine(memory: int, threads: int | None = None) -> Machine:
    """Measure this machine's rates in a fraction of a second; `memory` is the budget in bytes."""
    rng = np.random.default_rng(0)
    masks = rng.random((4096, 1024)) < 0.5
    gram = np.zeros((1024, 1024), np.int32)
    values = masks[:1024].astype(np.float32)
    count = threads or cores()
    return Machine(
        "this machine",
        count,
        0.5 * masks.size * 1024 / _least_seconds(lambda: add_gram(gram, masks)),
        1024**3 / _least_seconds(lambda: values @ values),
        _descent_rate(count, rng),
        5e8,
        memory,
    )


def _descent_rate(threads: int, rng: np.random.Generator) -> float:
    """Return the multiply-adds a second, as they are counted here, of a small fit like many: all that is not counted is in it."""
    m, n, t = 800, 400, 16 * threads
    masks = rng.random((m, n)) < 0.5
    signal = masks @ (rng.standard_t(3, (n, t)) * (rng.random((n, t)) < 0.1))
    settings = Settings(threads=threads)
    split = Split.draw(np.arange(m), settings, 0)
    collected = collect(blocks_of(masks, signal + signal.std(0) * rng.normal(size=(m, t))), split, settings)
    nonzeros = int(np.median(fit(collected, settings).nonzeros))
    counted = fit_cost(m, n, t, settings, LAPTOP, nonzeros).path_operations
    return counted / _least_seconds(lambda: fit(collected, settings))


def _least_seconds(work: Callable[[], object], times: int = 4) -> float:
    """Return the least time of a few calls: what else the machine does only adds to it."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return max(min(seconds), 1e-6)


@dataclass(frozen=True)
class FitCost:
    """The cost of one fit of m runs, n examples and t queries on a machine, its bootstrap included."""

    machine: Machine
    bytes_a_pass: int
    """Masks as bits and outputs as float32, once."""
    gram_a_pass: float
    """Integer multiply-adds of the Gram matrix of all runs (tiles on and above the diagonal)."""
    cross_a_pass: float
    """Floating multiply-adds of the cross products of all runs and queries."""
    path_operations: float
    """Multiply-adds of paths, held-out errors and refits, those of the resamples included."""
    shared_memory: int
    """Bytes that every worker needs whatever its queries: Gram matrices, held-out masks, a block of runs."""
    memory_per_query: int
    """Bytes each query adds."""
    queries: int
    """Number of queries of the fit."""
    elements_a_pass: float
    """Elements of the masks."""
    centred: float
    """Elements of all Gram matrices that are centred, once for every solve: in one block of queries."""
    resamples: int = 0
    """Resamples of the bootstrap."""
    block: int = 0
    """Queries that are fitted at a time, each block in passes of its own; 0 when all are fitted in the same passes."""

    @property
    def blocks(self) -> int:
        """Number of blocks of queries."""
        return -(-self.queries // self.block) if self.block else 1

    @property
    def passes(self) -> int:
        """How often all masks are read: once for the fit and for each resample, block by block; once before for all blocks."""
        return self.blocks * (1 + self.resamples) + bool(self.block)

    @property
    def bytes_read(self) -> int:
        """Bytes of masks and outputs that are read in all passes."""
        return self.passes * self.bytes_a_pass

    @property
    def gram_operations(self) -> float:
        """Integer multiply-adds: the fit's Gram matrix is shared by all blocks, those of the resamples are not."""
        return self.gram_a_pass * (1 + self.blocks * self.resamples)

    @property
    def cross_operations(self) -> float:
        """Floating multiply-adds of the cross products."""
        return self.cross_a_pass * (1 + self.resamples)

    @property
    def memory(self) -> int:
        """Peak bytes of a fit of all queries in one process."""
        return self.shared_memory + self.queries * self.memory_per_query

    @property
    def operations(self) -> float:
        """Multiply-adds of all kinds."""
        return self.gram_operations + self.cross_operations + self.path_operations

    @property
    def queries_per_block(self) -> int:
        """How many queries one worker can take at a time within the machine's memory; 0 when not even one."""
        return max(0, min(self.queries, (self.machine.memory - self.shared_memory) // self.memory_per_query))

    @property
    def seconds(self) -> float:
        """Estimated time: reading or computing, whichever is slower, then the paths."""
        machine = self.machine
        statistics = self.gram_operations / machine.gram_rate + self.cross_operations / machine.float_rate
        statistics += self.passes * self.elements_a_pass / UNPACKED
        paths = self.path_operations / machine.descent_rate + self.blocks * self.centred / CENTRED
        return max(self.bytes_read / machine.read_rate, statistics) + paths

    def cut(self, least: int) -> FitCost:
        """Return the cost of the fit in at least so many blocks of queries, or as many as the memory asks for."""
        return replace(self, block=min(self.queries_per_block, -(-self.queries // least)))

    def require_fits(self) -> None:
        """Raise ConfigError with the remedy when not even one query fits into the machine's memory."""
        if self.queries_per_block < 1:
            raise ConfigError(
                f"the datamodel fit needs {(self.shared_memory + self.memory_per_query) / GIB:.3g} GiB for its Gram matrices, "
                f"the memory budget is {self.machine.memory / GIB:.3g} GiB: raise memory_gb, use holdout "
                "instead of folds, or fit on fewer examples (group them)"
            )

    def lines(self) -> list[str]:
        """Return the forecast as lines of text."""
        block = self.block or self.queries_per_block
        return [
            f"on {self.machine.name}: about {duration(self.seconds)}",
            f"reads {self.bytes_read / GIB:.3g} GiB of masks and outputs"
            + f" in {self.passes} passes" * (self.passes > 1),
            f"{self.gram_operations:.2g} integer and {self.cross_operations + self.path_operations:.2g} floating multiply-adds",
            f"memory {self.memory / GIB:.3g} GiB for all {self.queries} queries at once, budget "
            f"{self.machine.memory / GIB:.3g} GiB: " + (_blocks(self.queries, block) if block else "does not fit"),
        ]


def _blocks(queries: int, block: int) -> str:
    count = -(-queries // block)
    return f"{count} block{'s' * (count > 1)} of {block} queries"


def fit_cost(m: int, n: int, t: int, settings: Settings, machine: Machine, nonzeros: int | None = None) -> FitCost:
    """Return what a fit of m runs, n examples and t queries costs, with its bootstrap where the settings ask for one.

    `nonzeros` is the typical number at the chosen lambda; by default a sixth of the smaller of m and n, at most 2,000. Memory is
    counted for masks that are unpacked a block at a time.
    """
    folds, resamples = settings.folds or 1, settings.bootstrap
    s = usual_nonzeros(m, n) if nonzeros is None else float(nonzeros)
    path, refit = _operations_per_query(m, n, s, settings)
    operations = t * (folds * path + (1 + resamples) * refit)
    if settings.penalty == "ridge":
        operations += (2 + folds + resamples) * DECOMPOSITION * float(n) ** 3
    shared, per_query = _memory(m, n, s, settings, machine.cores or 1)
    return FitCost(
        machine,
        bytes_a_pass=m * (-(-n // 8)) + 4 * m * t,
        gram_a_pass=0.5 * m * float(n) * n,
        cross_a_pass=float(m) * n * t,
        path_operations=operations,
        shared_memory=shared,
        memory_per_query=per_query,
        queries=t,
        elements_a_pass=float(m) * n,
        centred=(folds + (folds > 1) + 1 + resamples) * float(n) * n,
        resamples=resamples,
    )


def _memory(m: int, n: int, nonzeros: float, settings: Settings, threads: int) -> tuple[int, int]:
    """Return the peak bytes that all queries share, and those of each."""
    item, folds, ridge = np.dtype(settings.dtype).itemsize, settings.folds or 1, settings.penalty == "ridge"
    held = m if settings.folds else round(m * settings.holdout)
    grams = 4 * n * n * ((2 if folds == 1 else folds + 1) + 1) + (8 * 5 if ridge else item) * n * n
    block = min(BLOCK, m) * n * 4 + 1024 * n * 4 + n * held // 8
    compact = item * int(min(2 * WORKING * nonzeros, n)) ** 2
    scratch = 8 * n * held * 2 if ridge else threads * (compact + 8 * n * item)
    per_query = 8 * n * (folds + 2) + (8 + 2 * item) * n + item * n + 4 * item * held + 64 * settings.lambdas
    if settings.bootstrap:
        per_query += SUMS * n
    if ridge or not settings.by_descent:
        per_query += 8 * item * n
    return grams + block + scratch + n * held, per_query


def usual_nonzeros(m: int, n: int) -> float:
    """Return a typical number of coefficients that are not zero at the chosen lambda."""
    return min(min(m, n) / 6, 2000.0)


def _operations_per_query(m: int, n: int, nonzeros: float, settings: Settings) -> tuple[float, float]:
    """Return the multiply-adds of one query's path in one fold, and of a refit at one lambda from a solution nearby.

    Columns have half of the last one's non-zeros on the average of the part of a path that is walked.
    """
    held = m / settings.folds if settings.folds else m * settings.holdout
    length = settings.lambdas * (1.0 if settings.patience is None else WALKED)
    if settings.penalty == "ridge":
        return settings.lambdas * n * held / MATRIX_SPEED, float(n) * n / MATRIX_SPEED
    if not settings.by_descent:
        return length * (ITERATIONS * float(n) * n + n * held), ITERATIONS * float(n) * n
    half = nonzeros / 2
    path = WALKED * settings.lambdas * (1.1 * n * half + SWEEPS * half * (WORKING * half) + held * half)
    if settings.patience is None:
        path *= WHOLE if m > n else WHOLE_SINGULAR
    elif settings.folds:
        path *= AGAIN
    return path, 2.2 * n * nonzeros + REFIT_SWEEPS * nonzeros * (WORKING * nonzeros)
