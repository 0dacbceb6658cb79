"""Ray, started or joined for as long as it is needed."""

from __future__ import annotations

import gc
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from orchestrator.config.schema import RaySection
from orchestrator.execution.resources import room_on
from workers.errors import ConfigError
from workers.machine import cores


@contextmanager
def started(settings: RaySection) -> Iterator[None]:
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


def nodes_room(settings: RaySection) -> int:
    """Return how many packs have room on the nodes that Ray has. Raises ConfigError as `_room` does."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return room_on(settings, nodes)
