"""What the scheduler knows of workers: jobs go out, and come back done or lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from workers.data.shared import Arrays
    from workers.loading import TaskSpec
    from workers.packed.strategy import Strategy
    from workers.prefixes import Arrival
    from workers.runs import Outcome, Queries, Run

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
    """Rows whose outcomes decide together which of them are trained: those of one permutation, if it has an arrival."""
    rest: tuple[Run, ...] = ()
    """More runs of the unit that `runs` are of, to be sent once those are back, if the permutation has not ended by then."""
    ahead: int | None = None
    """Runs, about, that its design should have in flight, for it may be stopped at any moment; None: as many as may be."""

    def cut(self, least: int, grain: int) -> tuple[Job, Job | None]:
        """Return a first part of at least so many runs that ends where a unit ends, or a grain if units are single rows.

        And what is left, if there is anything.
        """
        place = next((end for end in self._ends(self.unit if self.unit > 1 else grain) if end >= least), len(self.runs))
        return self._divided(place)

    def within(self, most: int) -> tuple[Job, Job | None]:
        """Return a first part of at most so many runs, and what is left beside it.

        It ends where a unit ends. One that is larger is cut, and its own rest waits in the part.
        """
        ends = list(self._ends(self.unit))
        part, beside = self._divided(max((end for end in ends if end <= most), default=ends[0]))
        return replace(part, runs=part.runs[:most], rest=part.runs[most:] + part.rest), beside

    def follower(self, outcomes: Sequence[Outcome]) -> Job | None:
        """Return what is to be sent after these outcomes of the job's runs: its rest, unless its permutation has ended."""
        if not self.rest or (self.arrival is not None and self.arrival.ended(outcomes)):
            return None
        return replace(self, runs=self.rest, rest=())

    def _ends(self, size: int) -> Iterator[int]:
        """Yield where in `runs` groups of `size` consecutive rows end."""
        groups = [run.row // size for run in self.runs]
        yield from (k for k in range(1, len(groups)) if groups[k] != groups[k - 1])
        yield len(groups)

    def _divided(self, place: int) -> tuple[Job, Job | None]:
        if place == len(self.runs):
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
    strategy: Strategy | None = None
    """How packs are trained, the same for the whole sweep; None lets every worker choose (a black box, or a GPU)."""
    data: Mapping[str, Arrays] = field(default_factory=dict, repr=False, compare=False)
    """The data sets that the task was built from in the driver, by key (workers/data/shared.py): workers read no file of them."""
    folder: str = field(default_factory=os.getcwd)
    """Where the user is: file names in the user's own code mean files from here."""

    @property
    def grain(self) -> int | None:
        """Runs that a worker trains together; None where only the workers know (a GPU takes as many as it can)."""
        if self.strategy is not None:
            return self.strategy.width
        return 1 if self.device == "cpu" else None
