"""Workers on Ray: the only file that knows Ray.

A pack is one plain Ray task. The task object is built once per worker process; the data set that the driver loaded goes to the
object store once, and the workers read it there.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeVar

import ray
import torch

from orchestrator.config.schema import RaySection
from orchestrator.parcels import OutcomeParcel, RunParcel
from workers import datasets
from workers.chains import Arrival, train_chains
from workers.errors import ConfigError, CounterfactoryError
from workers.loading import TaskSpec, build_task
from workers.machine import cores
from workers.packed.plan import Plan
from workers.packs import train_pack
from workers.runs import Outcome, Queries, Run
from workers.task import DifferentiableTask, Task

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """A pack, or a part of one, on its way to a worker."""

    design: str
    pack: int
    runs: tuple[Run, ...]
    arrival: Arrival | None = None
    """For whole permutations: when to end one, so that not all of the runs need come back."""
    unit: int = 1
    """Rows that stay together when the job is cut: those of one permutation, if it has an arrival."""

    def cut(self, most: int, grain: int) -> tuple[Job, Job | None]:
        """Return a first part of at least `most` runs that ends where a unit and a grain end, and the rest if there is any."""
        together = [run.row // max(self.unit, grain) for run in self.runs]
        place = next((k for k in range(most, len(together)) if together[k] != together[k - 1]), None)
        if place is None:
            return self, None
        return replace(self, runs=self.runs[:place]), replace(self, runs=self.runs[place:])


@dataclass(frozen=True)
class Done:
    """A job that came back with its outcomes."""

    job: Job
    outcomes: tuple[Outcome, ...]
    worker: str
    started: float
    """Seconds since the epoch."""
    seconds: float


@dataclass(frozen=True)
class Lost:
    """A job that came back with nothing."""

    job: Job
    why: Literal["memory", "system", "application"]
    """memory: the pack was too large; system: its worker died; application: it failed outside any single run."""
    error: Exception
    traceback: str = ""
    """The worker's own traceback, where there is one: it does not travel with `error`."""


class Pool(Protocol):
    """What the scheduler needs of the workers; tests bring one that fails by a script."""

    slots: int
    """Jobs that can run at once."""
    grain: int | None
    """Runs that workers train together: jobs are cut between them; None: not at all."""

    def submit(self, job: Job) -> None:
        """Send a job on its way."""

    def collect(self, timeout: float) -> list[Done | Lost]:
        """Return what came back within `timeout` seconds, possibly nothing."""

    def cancel(self) -> None:
        """Give up everything in flight."""


@dataclass(frozen=True)
class Work:
    """What is the same for all jobs of a sweep."""

    spec: TaskSpec
    measures: tuple[str, ...]
    queries: Queries
    device: str
    threads: int
    plan: Plan | None = None
    """How packs are trained, the same for the whole sweep; None lets every worker choose (a black box, or a GPU)."""
    folder: str = field(default_factory=os.getcwd)
    """Where the user is: file names in the user's own code mean files from here."""

    @property
    def grain(self) -> int | None:
        """Runs that a worker trains together; None where only the workers know (a GPU takes as many as it can)."""
        if self.plan is not None:
            return self.plan.width
        return 1 if self.device == "cpu" else None


@lru_cache(maxsize=1)
def _build(key: str, spec: TaskSpec) -> Task | DifferentiableTask:
    """Build the task once per worker process."""
    return build_task(spec)


_given: dict[str, Work] = {}
"""What this worker process was given, by the pool that gave it."""
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
"""Ray colours the traceback that it brings from a worker."""


def _train(
    key: str, shared: Mapping[str, Any], data: Mapping[str, Any], parcel: RunParcel, arrival: Arrival | None
) -> tuple[OutcomeParcel, str, float, float]:
    """Train one job's runs on this worker (runs inside a Ray worker process)."""
    import time

    started, clock = time.time(), time.perf_counter()
    if key not in _given:
        _accept(key, ray.get(shared["work"]), data)
    work = _given[key]
    torch.set_num_threads(work.threads)
    task = _build(key, work.spec)
    runs = parcel.unwrap()
    if arrival is None:
        outcomes = train_pack(task, runs, work.measures, work.queries, work.device, plan=work.plan)
    else:
        outcomes = train_chains(task, runs, work.measures, work.queries, work.device, arrival, work.plan)
    where = f"{socket.gethostname()}/{os.getpid()}"
    return OutcomeParcel.of(outcomes), where, started, time.perf_counter() - clock


def _accept(key: str, work: Work, data: Mapping[str, Any]) -> None:
    """Set this worker process up for the jobs of a pool."""
    if os.path.isdir(work.folder):  # another node of a cluster may have no such folder
        os.chdir(work.folder)
    datasets.provide({name: ray.get(reference) for name, reference in data.items()})
    gc.freeze()  # as in the driver
    _given[key] = work


class RayPool:
    """Workers of a Ray cluster, or of this machine (`address: local`)."""

    def __init__(self, work: Work, settings: RaySection):
        data = {name: ray.put(arrays) for name, arrays in datasets.loaded().items()}
        self._shared = {"work": ray.put(work)}  # in a dict Ray leaves it alone, and a worker fetches it once
        self._data = data
        self._key = f"{os.getpid()}-{id(self)}"
        self._remote = ray.remote(max_calls=0)(_train).options(
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus,
            memory=settings.memory,
            max_retries=settings.retries,
            retry_exceptions=False,
            name="counterfactory.pack",
        )
        self._flying: dict[Any, Job] = {}
        self._waiting: deque[Job] = deque()
        room = _nodes_room(settings)
        enough = settings.workers is None or (settings.address == "local" and room == settings.workers)
        self._most = None if enough else settings.workers
        self.grain = work.grain
        self.slots = settings.workers or room

    def submit(self, job: Job) -> None:
        """Send a job on its way; beyond `ray.workers` packs at once it waits here, as Ray has no such limit."""
        if self._most is not None and len(self._flying) >= self._most:
            self._waiting.append(job)
        else:
            parcel = RunParcel.of(job.runs)
            self._flying[self._remote.remote(self._key, self._shared, self._data, parcel, job.arrival)] = job

    def collect(self, timeout: float) -> list[Done | Lost]:
        """Return what came back within `timeout` seconds, possibly nothing."""
        if not self._flying:
            return []
        references = list(self._flying)
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout, fetch_local=True)
        if ready:  # whatever else is there already comes along
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=True)
        back = {reference: self._flying.pop(reference) for reference in ready}
        for _ in range(min(len(back), len(self._waiting))):  # first of all, so that no worker waits for what follows
            self.submit(self._waiting.popleft())
        return [self._land(reference, job) for reference, job in back.items()]

    def _land(self, reference: Any, job: Job) -> Done | Lost:
        try:
            parcel, worker, started, seconds = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            why: Literal["memory", "application"] = "memory" if isinstance(cause, MemoryError) else "application"
            return Lost(job, why, cause, _COLOR.sub("", str(error)))
        except ray.exceptions.OutOfMemoryError as error:
            return Lost(job, "memory", error)
        except ray.exceptions.RayError as error:
            return Lost(job, "system", error)
        return Done(job, parcel.unwrap(), worker, started, seconds)

    def cancel(self) -> None:
        """Give up everything in flight."""
        for reference in self._flying:
            ray.cancel(reference, force=True)
        self._flying.clear()
        self._waiting.clear()


@contextmanager
def ray_pool(work: Work, settings: RaySection) -> Iterator[RayPool]:
    """Start Ray (or join the cluster named), and stop what was started. Raises ConfigError for impossible resources."""
    with _started(settings):
        yield RayPool(work, settings)


def map_on_ray(
    function: Callable[[Any, Item], Result], shared: Any, items: Sequence[Item], settings: RaySection
) -> Iterator[tuple[Item, Result]]:
    """Yield every item with function(shared, item), in the order in which they are finished; `shared` travels once.

    Each is a Ray task with the resources of a pack, as many in flight as there is room for. Raises what the function raised,
    ConfigError when a worker's memory did not suffice, CounterfactoryError when Ray lost a task for good.
    """
    if not items:
        return
    with _started(settings):
        task = ray.remote(_apply).options(
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus,
            memory=settings.memory,
            max_retries=settings.retries,
            name="counterfactory.piece",
        )
        once, threads = ray.put(shared), max(1, int(settings.num_cpus))
        waiting = deque(items)
        flying: dict[Any, Item] = {}
        room = _nodes_room(settings)
        room = settings.workers or room
        try:
            while waiting or flying:
                while waiting and len(flying) < room:
                    item = waiting.popleft()
                    flying[task.remote(function, once, item, threads)] = item
                ready, _ = ray.wait(list(flying), num_returns=1, timeout=1.0)
                for reference in ready:
                    yield flying.pop(reference), _result(reference)
        finally:
            for reference in flying:
                ray.cancel(reference, force=True)


def _apply(function: Callable[[Any, Any], Any], shared: Any, item: Any, threads: int) -> Any:
    """Do one item (runs inside a Ray worker process)."""
    torch.set_num_threads(threads)
    return function(shared, item)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CounterfactoryError):
            raise error.cause from None
        raise CounterfactoryError(f"a worker failed: {_COLOR.sub('', str(error)).strip().splitlines()[-1]}") from error
    except ray.exceptions.OutOfMemoryError as error:
        raise ConfigError("a worker ran out of memory: lower memory_gb, or give a task more (ray.memory)") from error
    except ray.exceptions.RayError as error:
        raise CounterfactoryError(
            f"a worker was lost, and Ray gave up: {str(error).strip().splitlines()[0]}"
        ) from error


@contextmanager
def _started(settings: RaySection) -> Iterator[None]:
    """Start Ray or join the cluster named, and stop what was started."""
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="counterfactory-") as empty:
        _start(settings, empty)
        gc.freeze()  # all that is imported stays: a full collection need not look through it while workers wait
        try:
            yield
        finally:
            gc.unfreeze()
            ray.shutdown()


def _start(settings: RaySection, empty: str) -> None:
    """Start or join, from the folder `empty`, which must outlive the workers: they live in it.

    Ray puts the driver's working directory first on every worker's module path. Our packages have common names, so from a
    user's folder with a `workers.py` of its own the workers would import that one; from an empty folder they cannot.
    """
    local = settings.address == "local"
    here = os.getcwd()
    on_terminate = signal.getsignal(signal.SIGTERM)  # ray.init puts its own in place, which would end us at once
    os.chdir(empty)
    try:
        with _quiet():
            ray.init(
                address=settings.address,
                num_cpus=cores() if local else None,
                include_dashboard=False if local else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"ray.address: cannot use {settings.address!r}: {error}") from error
    finally:
        os.chdir(here)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)


@contextmanager
def _quiet() -> Iterator[None]:
    """Give Ray its environment for the time of its start: it reads these once, and they are not ours to keep changed."""
    wanted = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # By default Ray starts a task that was killed for its memory again, for ever; here its pack is halved instead.
        "RAY_task_oom_retries": "0",
    }
    former = {key: os.environ.get(key) for key in wanted}
    os.environ.update({key: os.environ.get(key, value) for key, value in wanted.items()})
    try:
        yield
    finally:
        for key, value in former.items():
            if value is None:
                del os.environ[key]


def refuse_impossible(settings: RaySection) -> None:
    """Raise ConfigError when this machine could never run one pack, before anything is started or written."""
    if settings.address != "local":
        return
    node = {"CPU": float(cores()), "GPU": float(torch.cuda.device_count()), "memory": float(_memory())}
    _room(settings, [node])


def _memory() -> int:
    """Return this machine's memory in bytes: the most that a pack can ask for."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _nodes_room(settings: RaySection) -> int:
    """Return how many packs have room on the nodes that Ray has. Raises ConfigError as `_room` does."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return _room(settings, nodes)


def _room(settings: RaySection, nodes: list[dict[str, float]]) -> int:
    """Return how many packs nodes have room for. Raises ConfigError, naming what is lacking, for none or fewer than asked."""
    asked = {"CPU": settings.num_cpus, "GPU": settings.num_gpus, "memory": float(settings.memory or 0)}

    def fits(node: Mapping[str, float]) -> int:
        return min(int(node.get(kind, 0) // amount) for kind, amount in asked.items() if amount)

    slots = sum(fits(node) for node in nodes)
    if slots == 0:
        best = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind, amount in asked.items() if amount}
        want = ", ".join(f"{kind} {amount:g}" for kind, amount in asked.items() if amount)
        have = ", ".join(f"{kind} {amount:g}" for kind, amount in best.items())
        raise ConfigError(f"ray: a pack asks for {want}, but the largest node has {have}; ask for less or add a node")
    if settings.workers is not None and settings.workers > slots:
        raise ConfigError(f"ray.workers: {settings.workers} packs at once do not fit, the nodes have room for {slots}")
    return slots


def resolve_device(settings: RaySection) -> str:
    """Return the device a pack trains on: cuda when it is there and a share of it is asked for."""
    if settings.device != "auto":
        return settings.device
    return "cuda" if settings.num_gpus and torch.cuda.is_available() else "cpu"
