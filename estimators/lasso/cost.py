"""What a fit will cost, before it is started: bytes read, operations, memory, and an estimate of time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from estimators.lasso.collect import BLOCK
from estimators.lasso.gram import add_gram
from estimators.lasso.jit import cores
from estimators.lasso.settings import Settings
from workers.errors import ConfigError

GIB = 2**30
WALKED = 0.5
"""Fraction of a path that is walked before the held-out error has turned (measured: .4 to .5)."""
SWEEPS = 4.0
"""Coordinate sweeps a lambda takes (measured: 3.5 to 5.5 on the part of the path that is walked)."""
WORKING = 1.4
"""Size of the working set over the number of non-zeros at the chosen lambda (measured)."""
REFIT_SWEEPS = 10.0
"""Coordinate sweeps of a refit at the chosen lambda alone (measured: 8 to 12)."""
SUMS = 24
"""Bytes a coefficient that a bootstrap adds to the peak of the fit: its sums, and one resample's solution."""
DECOMPOSITION, MATRIX_SPEED = 10.0, 10.0
"""Ridge: multiply-adds of an eigendecomposition over n cubed, and how much faster than those matrix products run."""
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


LAPTOP = Machine("a laptop", 4, 1e12, 1e11, 8e9, 5e8, 16 * GIB)
"""Assumed: four cores with VNNI; for questions whose answer does not need this machine's own rates."""
NODE_64 = Machine("one 64-core node, 512 GiB", 64, 2e13, 1.5e12, 6e10, 1e9, 512 * GIB)
"""Assumed: AVX-512 VNNI at a third of its peak, DDR5 at 250 GB/s for coordinate descent."""
GPU_80 = Machine("one GPU of 80 GiB", 0, 1e14, 8e12, 8e12, 2e9, 80 * GIB)
"""Assumed: an A100's int8 tensor cores at a third of their 312 T multiply-adds, float32 at 8 T multiply-adds."""


def this_machine(memory: int, threads: int | None = None) -> Machine:
    """Measure this machine's rates in about a tenth of a second; `memory` is the budget in bytes."""
    rng = np.random.default_rng(0)
    masks = rng.random((1024, 1024)) < 0.5
    gram = np.zeros((1024, 1024), np.int32)
    values = masks.astype(np.float32)
    matrix = _rate(lambda: values @ values, 1024**3)
    count = threads or cores()
    return Machine(
        "this machine", count, _rate(lambda: add_gram(gram, masks), 1024**3 / 2), matrix, 2e9 * count, 5e8, memory
    )


def _rate(work: object, operations: float) -> float:
    assert callable(work)
    work()
    started = time.perf_counter()
    work()
    return operations / max(time.perf_counter() - started, 1e-6)


@dataclass(frozen=True)
class Forecast:
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
        return max(self.bytes_read / machine.read_rate, statistics) + self.path_operations / machine.descent_rate

    def cut(self, least: int) -> Forecast:
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


def duration(seconds: float) -> str:
    """Return a time in one unit."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def forecast(m: int, n: int, t: int, settings: Settings, machine: Machine, nonzeros: int | None = None) -> Forecast:
    """Return what a fit of m runs, n examples and t queries costs, with its bootstrap where the settings ask for one.

    `nonzeros` is the typical number at the chosen lambda; by default a sixth of the smaller of m and n, at most 2,000. Memory is
    counted for masks that are unpacked a block at a time.
    """
    item = np.dtype(settings.dtype).itemsize
    folds = settings.folds or 1
    held = round(m * settings.holdout) if settings.folds is None else m
    s = usual_nonzeros(m, n) if nonzeros is None else float(nonzeros)
    ridge = settings.penalty == "ridge"
    solver = 8 * 5 * n * n if ridge else item * n * n
    grams = 4 * n * n * ((2 if folds == 1 else folds + 1) + 1) + solver
    block = min(BLOCK, m) * n * 4 + 1024 * n * 4 + n * held // 8
    threads = machine.cores or 1
    scratch = 8 * n * held * 2 if ridge else threads * (item * int(min(2 * WORKING * s, n)) ** 2 + 8 * n * item)
    cross = 8 * n * (folds + 2) + (8 + 2 * item) * n
    per_query = cross + item * n + 4 * item * held + 64 * settings.lambdas
    if settings.bootstrap:
        per_query += SUMS * n
    if ridge or not settings.by_descent:
        per_query += 8 * item * n
    walk, again = _operations_per_query(n, held / folds, s, settings)
    return Forecast(
        machine,
        bytes_a_pass=m * (-(-n // 8)) + 4 * m * t,
        gram_a_pass=0.5 * m * float(n) * n,
        cross_a_pass=float(m) * n * t,
        path_operations=t * (folds * walk + again * (1 + settings.bootstrap))
        + ridge * (2 + folds + settings.bootstrap) * DECOMPOSITION * float(n) ** 3,
        shared_memory=grams + block + scratch + n * held,
        memory_per_query=per_query,
        queries=t,
        resamples=settings.bootstrap,
    )


def usual_nonzeros(m: int, n: int) -> float:
    """Return a typical number of coefficients that are not zero at the chosen lambda."""
    return min(min(m, n) / 6, 2000.0)


def _operations_per_query(n: int, held: float, nonzeros: float, settings: Settings) -> tuple[float, float]:
    """Return the multiply-adds of one query's path in one fold, and of a refit at one lambda from a solution nearby.

    Columns have half of the last one's non-zeros on a path's average.
    """
    length = settings.lambdas * (1.0 if settings.patience is None else WALKED)
    if settings.penalty == "ridge":
        return settings.lambdas * n * held / MATRIX_SPEED, float(n) * n / MATRIX_SPEED
    if not settings.by_descent:
        return length * (ITERATIONS * float(n) * n + n * held), ITERATIONS * float(n) * n
    half = nonzeros / 2
    each = 1.1 * n * half + SWEEPS * half * (WORKING * half) + held * half
    return length * each, 2.2 * n * nonzeros + REFIT_SWEEPS * nonzeros * (WORKING * nonzeros)
