"""A `Pool` of workers on Ray, and single pieces of work there."""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from uuid import uuid4

import ray
import torch

from orchestrator.config.schema import RaySection
from orchestrator.execution.pool import Done, Item, Job, Lost, Result, Work
from orchestrator.execution.ray_session import nodes_room, started
from orchestrator.execution.serialization import OutcomeParcel, RunParcel
from orchestrator.execution.serving import SERVING
from workers.errors import ConfigError, CounterfactoryError
from workers.prefixes import Arrival, train_prefixes

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
"""Ray colours the traceback that it brings from a worker."""


def _train(
    key: str, shared: Mapping[str, Any], parcel: RunParcel, arrival: Arrival | None
) -> tuple[OutcomeParcel, str, float, float]:
    """Train one job's runs on this worker (runs inside a Ray worker process)."""
    import time

    started, clock = time.time(), time.perf_counter()
    served = SERVING.pool(key, lambda: ray.get(shared["work"]))
    work = served.work
    torch.set_num_threads(work.threads)
    runs = parcel.unwrap()
    if arrival is None:
        outcomes = served.trainer.train(runs, work.measures, work.queries)
    else:
        outcomes = train_prefixes(served.trainer, runs, work.measures, work.queries, arrival)
    where = f"{socket.gethostname()}/{os.getpid()}"
    return OutcomeParcel.of(outcomes), where, started, time.perf_counter() - clock


class RayPool:
    """Workers of a Ray cluster, or of this machine (`address: local`)."""

    def __init__(self, work: Work, settings: RaySection):
        self._shared = {"work": ray.put(work)}  # in a dict Ray leaves it alone, and a worker fetches it once
        self._key = uuid4().hex
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
        room = nodes_room(settings)
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
            self._flying[self._remote.remote(self._key, self._shared, parcel, job.arrival)] = job

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
        """Give up everything in flight: it is heard of no more, and ends with the session.

        It is not cancelled. Ray aborts the driver over a task whose answer comes while it is cancelled ("Tried to complete task
        that was not pending"): `ray.cancel` strikes it off the list on which its completion insists.
        """
        self._flying.clear()
        self._waiting.clear()


@contextmanager
def ray_pool(work: Work, settings: RaySection) -> Iterator[RayPool]:
    """Start Ray (or join the cluster named), and stop what was started. Raises ConfigError for impossible resources."""
    with started(settings):
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
    with started(settings):
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
        room = nodes_room(settings)
        room = settings.workers or room
        while waiting or flying:  # what is in flight when one fails ends with the session: see `RayPool.cancel`
            while waiting and len(flying) < room:
                item = waiting.popleft()
                flying[task.remote(function, once, item, threads)] = item
            ready, _ = ray.wait(list(flying), num_returns=1, timeout=1.0)
            for reference in ready:
                yield flying.pop(reference), _result(reference)


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
