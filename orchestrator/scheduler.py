"""The loop that keeps the workers busy and the store up to date. Knows no Ray: it drives any `Pool`.

In flight is bounded. A pack is committed whole when all its runs are back. A pack that comes back with nothing is divided until
the run at fault is alone; that run is recorded as failed, its neighbours are trained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from orchestrator.pool import Done, Job, Lost, Pool
from workers.errors import CounterfactoryError
from workers.runs import Failure, Outcome

POLL_SECONDS = 0.1
"""Longest wait for workers. Python hears two signals that come during one wait as one, so that a second Ctrl-C would be lost."""


class Sink(Protocol):
    """Where finished packs go: the run store."""

    def commit(
        self, design: str, pack: int, outcomes: Sequence[Outcome], *, worker: str, started: float, seconds: float
    ) -> None:
        """Write a pack's outcomes durably."""


class EveryRunFailedError(CounterfactoryError):
    """All of the first packs' runs failed alike: the sweep was stopped before wasting the rest."""


@dataclass
class Pending:
    """A pack whose parts are not all back yet."""

    missing: int
    outcomes: list[Outcome] = field(default_factory=list)
    worker: str = ""
    started: float = 0.0
    seconds: float = 0.0


@dataclass
class Tally:
    """What has happened so far in this call."""

    done: int = 0
    failed: int = 0
    splits: int = 0
    seconds: float = 0.0
    """Worker time spent in packs."""
    first_failure: Failure | None = None


@dataclass
class Scheduler:
    """Sends packs to a pool and what comes back to a sink."""

    pool: Pool
    sink: Sink
    in_flight: int = 2
    """Jobs submitted for each slot of the pool."""
    on_commit: Callable[[str, int, int], None] = lambda design, done, failed: None
    """Called after every commit with the design and its newly done and failed runs."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked before every submission: once true, nothing more is launched."""
    patience: Callable[[], bool] = lambda: True
    """Asked while draining after a stop: once false, what is in flight is given up."""
    give_up_after: int = 50
    """Stop when so many runs are back and not one succeeded."""

    def __post_init__(self) -> None:
        """Start with nothing pending."""
        self.tally = Tally()
        self._queue: deque[Job] = deque()
        self._pending: dict[tuple[str, int], Pending] = {}
        self._flying = 0
        self._largest: int | None = None

    def run(self, jobs: Iterator[Job | None]) -> Tally:
        """Train all jobs, one a pack; None among them means that nothing can be launched until something has landed.

        Returns early, everything finished committed, when `should_stop` says so.
        """
        exhausted = False
        while True:
            exhausted = exhausted or self._draw(jobs)
            if self.should_stop():
                self._queue.clear()
                if not self.patience():
                    self.pool.cancel()
                    return self.tally
            while self._queue and self._flying < self.in_flight * self.pool.slots:
                self._submit(self._queue.popleft())
            if not self._flying:
                # Nothing in flight and nothing launched: what is left waits for something that will never land.
                return self.tally
            for landed in self.pool.collect(POLL_SECONDS):
                self._flying -= 1
                self._receive(landed)

    def _draw(self, jobs: Iterator[Job | None]) -> bool:
        """Queue as many jobs as may be in flight; return whether there are no more."""
        while self._flying + len(self._queue) < self.in_flight * self.pool.slots:
            if self.should_stop():
                return True
            try:
                job = next(jobs)
            except StopIteration:
                return True
            if job is None:
                return False
            self._pending[job.design, job.pack] = Pending(len(job.runs))
            self._queue.append(job)
        return False

    def _submit(self, job: Job) -> None:
        """Send a job, or its first part when it is larger than what memory has held so far."""
        limit = self._largest or len(job.runs)
        if len(job.runs) > limit:
            self._queue.append(replace(job, runs=job.runs[limit:]))
            job = replace(job, runs=job.runs[:limit])
        self.pool.submit(job)
        self._flying += 1

    def _receive(self, landed: Done | Lost) -> None:
        if isinstance(landed, Done):
            self._add(landed.job, landed.outcomes, landed.worker, landed.started, landed.seconds)
        elif len(landed.job.runs) > 1:
            self.tally.splits += 1
            middle = len(landed.job.runs) // 2
            if landed.why == "memory":
                self._largest = min(self._largest or middle, middle)
            for part in (landed.job.runs[:middle], landed.job.runs[middle:]):
                self._queue.append(replace(landed.job, runs=part))
        else:
            if landed.why == "memory":
                self._largest = None  # it was this run, not the size of packs
            failure = _blame(landed)
            self._add(landed.job, (Outcome(landed.job.runs[0].row, failure=failure),), "", 0.0, 0.0)

    def _add(self, job: Job, outcomes: Sequence[Outcome], worker: str, started: float, seconds: float) -> None:
        """Take a part of a pack in; commit the pack when it is whole."""
        pending = self._pending[job.design, job.pack]
        pending.outcomes += outcomes
        pending.missing -= len(job.runs)
        pending.worker = worker or pending.worker
        pending.started = min(pending.started, started) if pending.started and started else pending.started or started
        pending.seconds += seconds
        if pending.missing:
            return
        del self._pending[job.design, job.pack]
        ordered = sorted(pending.outcomes, key=lambda outcome: outcome.row)
        self.sink.commit(
            job.design, job.pack, ordered, worker=pending.worker, started=pending.started, seconds=pending.seconds
        )
        self._count(job.design, ordered, pending.seconds)

    def _count(self, design: str, outcomes: Sequence[Outcome], seconds: float) -> None:
        failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
        self.tally.done += len(outcomes) - len(failures)
        self.tally.failed += len(failures)
        self.tally.seconds += seconds
        if failures and self.tally.first_failure is None:
            self.tally.first_failure = failures[0]
        self.on_commit(design, len(outcomes) - len(failures), len(failures))
        if not self.tally.done and self.tally.failed >= self.give_up_after and self.tally.first_failure:
            self.pool.cancel()
            first = self.tally.first_failure
            raise EveryRunFailedError(
                f"all of the first {self.tally.failed} runs failed, the first with {first.kind}: {first.message}"
            )


def _blame(lost: Lost) -> Failure:
    """Describe why a run that was alone brought nothing."""
    failure = Failure.of(lost.error)
    prefix = {"memory": "out of memory, alone", "system": "its worker died, alone", "application": ""}[lost.why]
    message = f"{prefix}: {failure.message}" if prefix else failure.message
    return Failure(failure.kind, message, lost.traceback or failure.traceback)
