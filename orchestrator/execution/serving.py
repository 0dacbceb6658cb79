"""What a worker process holds of the pool that it serves: one pool at a time, replaced when another's work arrives."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import cached_property

from orchestrator.execution.pool import Work
from workers.data.shared import SharedArrays
from workers.loading import build_task
from workers.packs import PackTrainer


class Served:
    """One pool's work, with what was made of it here: the task and what trains it."""

    def __init__(self, key: str, work: Work):
        self.key, self.work = key, work

    @cached_property
    def trainer(self) -> PackTrainer:
        """The task, built once, and how its packs are trained."""
        return PackTrainer(
            build_task(self.work.spec, SharedArrays(self.work.data)), self.work.device, self.work.strategy
        )


class Serving:
    """The pool that this process serves."""

    def __init__(self) -> None:
        self._served: Served | None = None

    def pool(self, key: str, fetch: Callable[[], Work]) -> Served:
        """Return what is held of the pool with this key. Its work is fetched if it is another than the last one."""
        if self._served is None or self._served.key != key:
            self._leave()
            work = fetch()
            if os.path.isdir(work.folder):  # another node of a cluster may have no such folder
                os.chdir(work.folder)
            gc.freeze()  # as in the driver
            self._served = Served(key, work)
        return self._served

    def _leave(self) -> None:
        """Let go of all that the last pool brought, before another's comes."""
        if self._served is not None:
            self._served = None
            gc.unfreeze()
            gc.collect()


SERVING = Serving()
"""This worker process's own: Ray hands a process the next job's arguments, and nothing in which to keep what they brought."""
