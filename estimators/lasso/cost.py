"""What a fit will cost, before it is started: bytes read, operations, memory, and an estimate of time."""

from __future__ import annotations

import time
from dataclasses import dataclass

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
    """The cost of one fit of m runs, n examples and t queries on a machine."""

    machine: Machine
    bytes_read: int
    """Masks as bits and outputs as float32, once."""
    gram_operations: float
    """Integer multiply-adds of the Gram matrix (tiles on and above the diagonal)."""
    cross_operations: float
    """Floating multiply-adds of the cross products."""
    path_operations: float
    """Multiply-adds of paths, held-out errors and refit."""
    shared_memory: int
    """Bytes that every worker needs whatever its queries: Gram matrices, held-out masks, a block of runs."""
    memory_per_query: int
    """Bytes each query adds."""
    queries: int
    """Number of queries of the fit."""

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
        block = self.queries_per_block
        blocks = -(-self.queries // block) if block else 0
        return [
            f"on {self.machine.name}: about {_duration(self.seconds)}",
            f"reads {self.bytes_read / GIB:.3g} GiB of masks and outputs",
            f"{self.gram_operations:.2g} integer and {self.cross_operations + self.path_operations:.2g} floating multiply-adds",
            f"memory {self.memory / GIB:.3g} GiB for all {self.queries} queries at once, budget "
            f"{self.machine.memory / GIB:.3g} GiB: "
            + (f"{blocks} block{'s' * (blocks > 1)} of {block} queries" if block else "does not fit"),
        ]


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def forecast(m: int, n: int, t: int, settings: Settings, machine: Machine, nonzeros: int | None = None) -> Forecast:
    """Return what a fit of m runs, n examples and t queries costs.

    `nonzeros` is the typical number at the chosen lambda; by default a sixth of the smaller of m and n, at most 2,000. Memory is
    counted for masks that are unpacked a block at a time.
    """
    item = np.dtype(settings.dtype).itemsize
    folds = settings.folds or 1
    held = round(m * settings.holdout) if settings.folds is None else m
    s = float(nonzeros or min(min(m, n) / 6, 2000))
    grams = 4 * n * n * ((2 if folds == 1 else folds + 1) + 1) + item * n * n
    block = min(BLOCK, m) * n * 4 + 1024 * n * 4 + n * held // 8
    threads = machine.cores or 1
    scratch = threads * (item * int(min(2 * WORKING * s, n)) ** 2 + 8 * n * item)
    cross = 8 * n * (folds + 2) + (8 + 2 * item) * n
    per_query = cross + item * n + 4 * item * held + 64 * settings.lambdas
    if not settings.by_descent:
        per_query += 8 * item * n
    return Forecast(
        machine,
        bytes_read=m * (-(-n // 8)) + 4 * m * t,
        gram_operations=0.5 * m * float(n) * n,
        cross_operations=float(m) * n * t,
        path_operations=t * folds * _path_operations(n, held / folds, s, settings),
        shared_memory=grams + block + scratch + n * held,
        memory_per_query=per_query,
        queries=t,
    )


def _path_operations(n: int, held: float, nonzeros: float, settings: Settings) -> float:
    """Return the multiply-adds of one query's path in one fold; its columns have half of the last one's non-zeros on average."""
    length = settings.lambdas * (1.0 if settings.patience is None else WALKED)
    if not settings.by_descent:
        return length * (ITERATIONS * float(n) * n + n * held)
    gradient = 1.1 * n * nonzeros / 2
    sweeps = SWEEPS * (nonzeros / 2) * (WORKING * nonzeros / 2)
    return length * (gradient + sweeps + held * nonzeros / 2)
