"""The loop that keeps the workers busy and the store up to date. Knows no Ray: it drives any `Pool`.

In flight is bounded. A pack is committed whole when all its runs are back. A pack that comes back with nothing is divided until
the run at fault is alone; that run is recorded as failed, its neighbours are trained. Permutations that end early stay whole
where they can be; the parts of one that cannot are trained one after the other, so that it ends where it would have.

Towards the end packs go out in parts, each a share of what is left (guided self-scheduling, Polychronopoulos & Kuck 1987), so
that no worker is idle while another trains the last pack. Those of a design that may be stopped go out in parts all along, so
that little is in flight when it is; what is not sent by then never is.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.execution.pool import Done, Job, Lost, Pool
from workers.errors import CounterfactoryError
from workers.runs import Failure, Outcome

POLL_SECONDS = 0.1
"""Longest wait for workers. Python hears two signals that come during one wait as one, so that a second Ctrl-C would be lost."""
LANDING_SECONDS = 5.0
"""How long what is in flight may take to land when all runs fail: runs that fail at once end at any moment, and one that
succeeds lets the sweep go on."""
SHORTEST_SECONDS = 0.05
"""What a part of a pack should take at least: long beside the cost of sending it."""


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
    started: float = math.inf
    """Unix time of the first part's start."""
    first: float = math.inf
    last: float = 0.0
    """When the first part began and the last one was back, by this process's clock, which cannot jump."""
    seconds: float = 0.0
    """Worker time of all parts."""


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
    is_over: Callable[[str], bool] = lambda design: False
    """Asked before every submission: once true, nothing more of that design is launched."""
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
        self._unsent: int | None = None
        self._seconds_a_run: float | None = None

    def run(self, jobs: Iterator[Job | None], runs: int | None = None) -> Tally:
        """Train all jobs, one a pack; None among them means that nothing can be launched until something has landed.

        `runs` is how many they have together, at most; without it no pack goes out in parts. Returns early, everything finished
        committed, when `should_stop` says so.
        """
        self._unsent = runs
        self._train(jobs)
        for (design, pack), pending in self._pending.items():
            self._commit(design, pack, pending)
        self._pending.clear()
        return self.tally

    def _train(self, jobs: Iterator[Job | None]) -> None:
        while True:
            self._drop_what_is_over()
            self._draw(jobs)
            if self.should_stop():
                self._queue.clear()
                if not self.patience():
                    self.pool.cancel()
                    return
            while self._queue and self._flying < self.in_flight * self.pool.slots:
                self._submit(self._queue.popleft())
            if not self._flying:
                # Nothing in flight and nothing launched: what is left waits for something that will never land.
                return
            self._collect()
            if self._hopeless():
                self._give_up()

    def _collect(self) -> None:
        for landed in self.pool.collect(POLL_SECONDS):
            self._flying -= 1
            self._receive(landed)

    def _hopeless(self) -> bool:
        return not self.tally.done and self.tally.failed >= self.give_up_after

    def _give_up(self) -> None:
        """Let what is in flight land; then raise EveryRunFailedError, unless a run succeeded meanwhile."""
        until = time.monotonic() + LANDING_SECONDS
        while self._flying and self._hopeless() and time.monotonic() < until:
            self._collect()
        if not self._hopeless():
            return
        if self._flying:
            self.pool.cancel()
        first = self.tally.first_failure
        assert first is not None, "runs failed"
        raise EveryRunFailedError(
            f"all of the first {self.tally.failed} runs failed, the first with {first.kind}: {first.message}"
        )

    def _draw(self, jobs: Iterator[Job | None]) -> None:
        """Queue as many jobs as may be in flight and can be launched now."""
        while self._flying + len(self._queue) < self.in_flight * self.pool.slots and not self.should_stop():
            job = next(jobs, None)
            if job is None:
                return
            if self.is_over(job.design):
                self._sent(len(job.runs))
                continue
            self._pending[job.design, job.pack] = Pending(len(job.runs))
            self._queue.append(job)

    def _drop_what_is_over(self) -> None:
        """Wait no more for parts that were not sent yet of designs that are stopped: what is back of their packs is kept."""
        queued, self._queue = self._queue, deque()
        for job in queued:
            if not self.is_over(job.design):
                self._queue.append(job)
                continue
            left = len(job.runs) + len(job.rest)
            self._sent(left)
            self._settle(job, left)

    def _sent(self, runs: int) -> None:
        if self._unsent is not None:
            self._unsent -= runs

    def _submit(self, job: Job) -> None:
        """Send a job, or its first part; the rest is next."""
        part, rest = self._part(job)
        if rest is not None:
            self._queue.appendleft(rest)
        self._sent(len(part.runs))
        self.pool.submit(part)
        self._flying += 1

    def _part(self, job: Job) -> tuple[Job, Job | None]:
        """Divide a job that is larger than what memory has held so far, or than its share of what is to be in flight."""
        limit = self._largest
        if limit is not None and len(job.runs) > limit:
            return job.within(limit)
        left = self._unsent if self._seconds_a_run is not None else None
        bounds = [runs for runs in (left, job.ahead) if runs is not None]
        if not bounds or self.pool.grain is None:
            return job, None
        share = math.ceil(min(bounds) / (self.in_flight * self.pool.slots))
        shortest = 1 if self._seconds_a_run is None else math.ceil(SHORTEST_SECONDS / max(self._seconds_a_run, 1e-6))
        return job.cut(max(share, shortest), self.pool.grain)

    def _receive(self, landed: Done | Lost) -> None:
        if isinstance(landed, Done):
            self._seconds_a_run = landed.seconds / len(landed.job.runs)
            self._time(landed)
            self._add(landed.job, landed.outcomes)
        elif len(landed.job.runs) > 1:
            self.tally.splits += 1
            self._sent(-len(landed.job.runs))  # they are to be sent again
            middle = len(landed.job.runs) // 2
            if landed.why == "memory":
                self._largest = min(self._largest or middle, middle)
            self._queue.extend(part for part in landed.job.within(middle) if part is not None)
        else:
            if landed.why == "memory":
                self._largest = None  # it was this run, not the size of packs
            self._add(landed.job, (Outcome(landed.job.runs[0].row, failure=_blame(landed)),))

    def _follow(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """Send what waited for a part of a permutation next, or leave it out for good."""
        if not job.rest:
            return
        follower = job.follower(outcomes)
        if follower is not None:
            self._queue.appendleft(follower)
            return
        self._sent(len(job.rest))
        self._settle(job, len(job.rest))

    def _time(self, done: Done) -> None:
        """Note who trained a part of a pack, and when; a run that was lost alone has nothing of that to tell."""
        pending, back = self._pending[done.job.design, done.job.pack], time.monotonic()
        pending.worker = done.worker
        pending.started = min(pending.started, done.started)
        pending.first, pending.last = min(pending.first, back - done.seconds), max(pending.last, back)
        pending.seconds += done.seconds

    def _add(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """Take a part of a pack in, and send what waited for it."""
        self._pending[job.design, job.pack].outcomes += outcomes
        self._settle(job, len(job.runs))
        self._follow(job, outcomes)

    def _settle(self, job: Job, runs: int) -> None:
        """Wait no more for so many runs of a job's pack; commit it when it is whole."""
        pending = self._pending[job.design, job.pack]
        pending.missing -= runs
        if not pending.missing:
            del self._pending[job.design, job.pack]
            self._commit(job.design, job.pack, pending)

    def _commit(self, design: str, pack: int, pending: Pending) -> None:
        """Hand over what is back of a pack, which is less than the whole only when the rest was given up."""
        if not pending.outcomes:
            return
        ordered = sorted(pending.outcomes, key=lambda outcome: outcome.row)
        started = pending.started if pending.worker else 0.0
        elapsed = pending.last - pending.first if pending.worker else 0.0
        self.sink.commit(design, pack, ordered, worker=pending.worker, started=started, seconds=elapsed)
        self._count(design, ordered, pending.seconds)

    def _count(self, design: str, outcomes: Sequence[Outcome], seconds: float) -> None:
        failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
        self.tally.done += len(outcomes) - len(failures)
        self.tally.failed += len(failures)
        self.tally.seconds += seconds
        if failures and self.tally.first_failure is None:
            self.tally.first_failure = failures[0]
        self.on_commit(design, len(outcomes) - len(failures), len(failures))


def _blame(lost: Lost) -> Failure:
    """Describe why a run that was alone brought nothing."""
    failure = Failure.of(lost.error)
    prefix = {"memory": "out of memory, alone", "system": "its worker died, alone", "application": ""}[lost.why]
    message = f"{prefix}: {failure.message}" if prefix else failure.message
    return Failure(failure.kind, message, lost.traceback or failure.traceback)
