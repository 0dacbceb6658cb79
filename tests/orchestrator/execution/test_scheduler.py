"""The scheduler against a pool that fails by a script: which invocation of which run fails, and how."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.pool import Done, Job, Lost
from orchestrator.execution.scheduler import POLL_SECONDS, SHORTEST_SECONDS, EveryRunFailedError, Scheduler, Tally
from workers.packs import PackTrainer
from workers.prefixes import Arrival, train_prefixes
from workers.runs import Failure, Outcome, Queries, Run

Fate = Literal["memory", "system", "application", "failed"]
"""The first three lose the whole job; a failed run is an outcome, its neighbours are well."""
ERRORS = {"memory": MemoryError("too much"), "system": OSError("killed"), "application": KeyError("x")}
ALWAYS = 99
PAIR = {0: range(4), 1: range(4, 20)}
"""The rows of a small pack and of a large one."""


@dataclass
class ScriptedPool:
    """Fails as the script says: row -> (what happens, in how many of its first invocations)."""

    script: dict[int, tuple[Fate, int]] = field(default_factory=dict)
    slots: int = 2
    holds: int | None = None
    """Runs that the memory holds; a larger job is lost."""
    newest_first: bool = False
    grain: int | None = 1
    seconds: float = 2.0
    """What every job takes."""
    invocations: Counter[int] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    most_in_flight: int = 0
    cancelled: bool = False
    waits: set[float] = field(default_factory=set)
    """How long at most was waited for jobs to come back."""
    _flying: list[Job] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        self._flying.append(job)
        self.sizes.append(len(job.runs))
        self.most_in_flight = max(self.most_in_flight, len(self._flying))

    def collect(self, timeout: float) -> list[Done | Lost]:
        self.waits.add(timeout)
        job = self._flying.pop(-1 if self.newest_first else 0)
        fates = {run.row: self._invoke(run.row) for run in job.runs}
        for why in ("memory", "system", "application"):
            if why in fates.values() or (why == "memory" and self.holds and len(job.runs) > self.holds):
                return [Lost(job, why, ERRORS[why])]
        outcomes = tuple(self._train(job, fates))
        return [Done(job, outcomes, "worker", 100.0 + job.pack, self.seconds)]

    def _train(self, job: Job, fates: dict[int, Fate | None]) -> list[Outcome]:
        if job.arrival is None:
            return [outcome(row, fate) for row, fate in fates.items()]
        trainer = cast(PackTrainer, Climbing(fates, job.arrival.steps))
        return train_prefixes(trainer, job.runs, ("margin",), Queries(), job.arrival)

    def _invoke(self, row: int) -> Fate | None:
        self.invocations[row] += 1
        fate, times = self.script.get(row, (None, 0))
        return fate if self.invocations[row] <= times else None

    def cancel(self) -> None:
        self.cancelled = True
        self._flying.clear()


@dataclass
class Climbing:
    """Trains prefixes of permutations whose utility is the prefix's number, as a fate does not forbid it."""

    fates: dict[int, Fate | None]
    steps: int

    def train(self, runs: Sequence[Run], measures: Sequence[str], queries: Queries) -> list[Outcome]:
        found = [outcome(run.row, self.fates[run.row]) for run in runs]
        return [
            one if one.failure else replace(one, outputs={"margin": np.full(2, one.row % self.steps, np.float32)})
            for one in found
        ]


def outcome(row: int, fate: Fate | None) -> Outcome:
    if fate == "failed":
        return Outcome(row, failure=Failure("ValueError", "no convergence", "Traceback ..."))
    return Outcome(row, {"margin": np.full(2, row, dtype=np.float32)})


@dataclass
class Sink:
    """Keeps what is committed."""

    packs: dict[tuple[str, int], list[Outcome]] = field(default_factory=dict)
    timing: dict[tuple[str, int], tuple[str, float, float]] = field(default_factory=dict)

    def commit(
        self, design: str, pack: int, outcomes: Sequence[Outcome], *, worker: str, started: float, seconds: float
    ) -> None:
        assert (design, pack) not in self.packs, "a pack is committed once"
        self.packs[design, pack] = list(outcomes)
        self.timing[design, pack] = (worker, started, seconds)

    def failed(self) -> dict[int, str]:
        return {one.row: one.failure.message for pack in self.packs.values() for one in pack if one.failure}

    def rows(self) -> list[int]:
        return sorted(one.row for pack in self.packs.values() for one in pack)


def jobs(packs: int, size: int, design: str = "fit") -> Iterator[Job]:
    for pack in range(packs):
        rows = range(pack * size, (pack + 1) * size)
        yield Job(design, pack, tuple(Run(row, np.arange(3), row) for row in rows))


def scheduled(pool: ScriptedPool, packs: int, size: int, **options: Any) -> tuple[Sink, Scheduler]:
    sink = Sink()
    scheduler = Scheduler(pool, sink, **options)
    scheduler.run(jobs(packs, size))
    return sink, scheduler


def test_every_pack_is_committed_once_whole_and_in_order() -> None:
    pool = ScriptedPool(newest_first=True)
    sink, scheduler = scheduled(pool, packs=5, size=4)
    assert sorted(sink.packs) == [("fit", pack) for pack in range(5)]
    for (_, pack), outcomes in sink.packs.items():
        assert [one.row for one in outcomes] == list(range(4 * pack, 4 * pack + 4))
    assert sink.timing["fit", 3] == ("worker", 103.0, pytest.approx(2.0, abs=0.5))
    assert set(pool.invocations.values()) == {1}
    assert scheduler.tally == Tally(done=20, seconds=5 * 2.0)
    assert pool.waits == {POLL_SECONDS}, "a signal is never waited for longer"


@pytest.mark.parametrize(("slots", "in_flight"), [(1, 1), (2, 2), (3, 1), (4, 3)])
def test_in_flight_is_bounded_and_filled(slots: int, in_flight: int) -> None:
    pool = ScriptedPool(slots=slots)
    drawn = []

    def watched() -> Iterator[Job]:
        for job in jobs(40, 2):
            drawn.append(job.pack)
            assert len(drawn) <= len(sink.packs) + slots * in_flight + 1, "jobs are drawn as they are needed"
            yield job

    sink = Sink()
    Scheduler(pool, sink, in_flight).run(watched())
    assert pool.most_in_flight == slots * in_flight
    assert len(sink.packs) == 40


def test_a_failed_run_is_recorded_and_its_neighbours_are_kept() -> None:
    pool = ScriptedPool({5: ("failed", ALWAYS)})
    sink, scheduler = scheduled(pool, packs=2, size=4)
    assert sink.failed() == {5: "no convergence"}
    assert sink.rows() == list(range(8))
    assert pool.invocations[5] == 1, "a run's own exception is not tried again"
    assert scheduler.tally.first_failure == outcome(5, "failed").failure


@pytest.mark.parametrize("why", ["system", "application"])
def test_a_pack_is_split_until_the_run_at_fault_is_alone(why: Fate) -> None:
    pool = ScriptedPool({5: (why, ALWAYS)})
    sink, scheduler = scheduled(pool, packs=2, size=8)
    prefix = {"system": "its worker died, alone: killed", "application": "'x'"}[why]
    assert sink.failed() == {5: prefix}
    assert sink.rows() == list(range(16))
    assert scheduler.tally.splits == 3
    # 8, 4, 2, 1: its neighbours are trained as often as they shared a job with it, the other pack once.
    assert [pool.invocations[row] for row in range(16)] == [2, 2, 2, 2, 4, 4, 3, 3] + [1] * 8


def test_a_worker_that_dies_once_costs_no_run() -> None:
    pool = ScriptedPool({2: ("system", 1)})
    sink, scheduler = scheduled(pool, packs=1, size=4)
    assert not sink.failed()
    assert sink.rows() == [0, 1, 2, 3]
    assert sink.timing["fit", 0] == ("worker", 100.0, pytest.approx(2.0, abs=0.5)), (
        "from the first half's start to the last one's end"
    )
    assert scheduler.tally.seconds == 4.0, "both halves count"


def test_a_pack_takes_from_its_first_part_s_start_to_its_last_one_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 25.0])  # when the halves are back, each after 2 s
    monkeypatch.setattr("orchestrator.execution.scheduler.time.monotonic", lambda: next(clock))
    sink, scheduler = scheduled(ScriptedPool({2: ("system", 1)}), packs=1, size=4)
    assert sink.timing["fit", 0] == ("worker", 100.0, 25.0 - 8.0)
    assert scheduler.tally.seconds == 4.0


def test_several_runs_at_fault_are_all_found() -> None:
    pool = ScriptedPool({0: ("system", ALWAYS), 3: ("application", ALWAYS), 6: ("failed", ALWAYS)})
    sink, _ = scheduled(pool, packs=1, size=7)
    assert set(sink.failed()) == {0, 3, 6}
    assert sink.rows() == list(range(7))


def test_out_of_memory_halves_the_pack_and_is_remembered() -> None:
    pool = ScriptedPool(holds=3, slots=1)
    sink, scheduler = scheduled(pool, packs=4, size=12, in_flight=1)
    assert sink.rows() == list(range(48))
    assert not sink.failed()
    assert scheduler.tally.splits == 2, "12 and then 6 did not fit; nothing larger than 3 was tried again"
    assert pool.sizes[:3] == [12, 6, 3]
    assert max(pool.sizes[3:]) == 3


def test_a_run_that_alone_is_too_large_has_failed() -> None:
    sink, _ = scheduled(ScriptedPool({1: ("memory", ALWAYS)}), packs=1, size=2)
    assert sink.failed() == {1: "out of memory, alone: too much"}
    sink, _ = scheduled(ScriptedPool({0: ("memory", ALWAYS)}), packs=1, size=1)
    assert sink.timing["fit", 0] == ("", 0.0, 0.0), "of a pack that brought nothing nobody knows when it was begun"


def test_a_larger_pack_in_flight_does_not_take_back_what_a_smaller_one_showed() -> None:
    pool, sink = ScriptedPool(holds=2, slots=2), Sink()
    small, large = (Job("fit", k, tuple(Run(row, np.arange(3), row) for row in rows)) for k, rows in PAIR.items())
    scheduler = Scheduler(pool, sink, 1)
    scheduler.run(iter([small, large]))
    assert pool.sizes[:2] == [4, 16]
    assert max(pool.sizes[2:]) == 2
    assert scheduler.tally.splits == 2


def test_a_run_that_fits_in_no_memory_says_nothing_of_packs() -> None:
    pool = ScriptedPool({0: ("memory", ALWAYS)}, slots=1)
    sink, _ = scheduled(pool, packs=3, size=8, in_flight=1)
    assert list(sink.failed()) == [0]
    assert pool.sizes[-2:] == [8, 8], "the packs after it are whole"


def test_only_the_runs_of_a_job_are_asked_for() -> None:
    pool, sink = ScriptedPool({6: ("system", ALWAYS)}), Sink()
    pending = Job("fit", 3, tuple(Run(row, np.arange(3), row) for row in (4, 6, 7)))
    Scheduler(pool, sink).run(iter([pending]))
    assert [one.row for one in sink.packs["fit", 3]] == [4, 6, 7]
    assert set(pool.invocations) == {4, 6, 7}


def test_packs_of_two_designs_are_kept_apart() -> None:
    sink = Sink()
    Scheduler(ScriptedPool({1: ("system", 1)}), sink).run(iter([*jobs(2, 4), *jobs(2, 4, "heldout")]))
    assert sorted(sink.packs) == [(design, pack) for design in ("fit", "heldout") for pack in range(2)]


def test_a_stop_launches_nothing_new_and_commits_what_is_in_flight() -> None:
    pool, sink = ScriptedPool(slots=2), Sink()
    Scheduler(pool, sink, 2, should_stop=lambda: len(sink.packs) >= 3).run(jobs(50, 2))
    assert len(sink.packs) == 3 + 3, "four were in flight, one of them was the third to be committed"
    assert not pool.cancelled
    assert set(pool.invocations.values()) == {1}


def test_a_stop_before_the_start_launches_nothing() -> None:
    pool = ScriptedPool()
    sink, _ = scheduled(pool, packs=3, size=2, should_stop=lambda: True)
    assert not sink.packs
    assert not pool.sizes


def test_a_stop_does_not_go_on_splitting() -> None:
    pool, sink = ScriptedPool({0: ("system", ALWAYS)}, slots=1), Sink()
    Scheduler(pool, sink, 1, should_stop=lambda: bool(pool.invocations)).run(jobs(5, 4))
    assert pool.sizes == [4]
    assert not sink.packs, "half of a pack is not committed"


# Designs that may be stopped


def may_stop(packs: int, size: int, ahead: int) -> Iterator[Job]:
    return (replace(job, ahead=ahead) for job in jobs(packs, size))


@pytest.mark.parametrize(("slots", "in_flight"), [(1, 1), (2, 2), (8, 2), (16, 2)])
def test_of_a_design_that_may_be_stopped_little_is_in_flight(slots: int, in_flight: int) -> None:
    pool, sink = ScriptedPool(slots=slots), Sink()
    Scheduler(pool, sink, in_flight).run(may_stop(6, 32, 32), 6 * 32)
    most = -(-32 // (slots * in_flight))
    assert max(pool.sizes) == most, "from the first one on"
    assert pool.most_in_flight == slots * in_flight, "and no worker waits"
    assert [len(outcomes) for outcomes in sink.packs.values()] == [32] * 6
    assert set(pool.invocations.values()) == {1}


def test_runs_that_are_trained_together_stay_together_in_a_design_that_may_be_stopped() -> None:
    for grain, sizes in ((16, {16}), (None, {32})):
        pool = ScriptedPool(grain=grain)
        Scheduler(pool, Sink(), 2).run(may_stop(6, 32, 32), 6 * 32)
        assert set(pool.sizes) == sizes


def test_once_a_design_is_over_only_what_is_in_flight_is_trained() -> None:
    pool, sink = ScriptedPool(slots=2), Sink()
    over = lambda design: design == "fit" and len(sink.packs) >= 2  # noqa: E731
    scheduler = Scheduler(pool, sink, 2, is_over=over)
    sent: list[int] = []
    scheduler.on_commit = lambda *_: sent.append(sum(pool.sizes))
    scheduler.run(iter([*may_stop(50, 16, 16), *jobs(1, 4, "other")]))
    fit = [one.row for (design, _), pack in sink.packs.items() if design == "fit" for one in pack]
    assert len(fit) == sent[1], "nothing of it was sent after the second commit"
    assert 32 <= len(fit) < 48
    assert sorted(fit) == list(range(len(fit))), "what was in flight is kept, in a pack that is not whole"
    assert len(sink.packs["other", 0]) == 4, "other designs go on"


def test_runs_that_are_not_sent_are_no_part_of_what_is_left() -> None:
    """Towards the end packs go out in shares of what is left; a design that is over has no runs among that."""
    alone, beside = ScriptedPool(), ScriptedPool()
    Scheduler(alone, Sink(), 1).run(jobs(4, 16), 64)
    over = lambda design: design == "over"  # noqa: E731
    Scheduler(beside, Sink(), 1, is_over=over).run(iter([*jobs(3, 16, "over"), *jobs(4, 16)]), 48 + 64)
    assert beside.sizes == alone.sizes
    assert min(alone.sizes) == 1


def test_a_lost_pack_of_a_design_that_is_over_is_not_divided() -> None:
    pool, sink = ScriptedPool({1: ("system", ALWAYS)}, slots=1), Sink()
    Scheduler(pool, sink, 1, is_over=lambda design: bool(pool.invocations)).run(jobs(1, 4))
    assert pool.sizes == [4]
    assert not sink.packs


def test_parts_that_wait_for_another_part_are_dropped_with_it() -> None:
    """Of two permutations of 8 runs memory holds half a one: when the first half is back, one and a half are dropped."""
    pool, sink = ScriptedPool(holds=4, slots=1), Sink()
    over = lambda design: design == "fit" and pool.invocations[8] >= 2  # noqa: E731
    fit = permutations(2, 8, arrived=7, block=2)
    Scheduler(pool, sink, 1, is_over=over).run(iter([fit, *jobs(4, 4, "other")]), 16 + 16)
    assert [(design, len(outcomes)) for (design, _), outcomes in sink.packs.items()] == [
        ("fit", 4),
        *[("other", 4)] * 4,
    ], "what is back of a design that is over is committed at once"
    assert pool.sizes == [16, 8, 4, *[4] * 4], "the others are whole: what is left is counted without what was dropped"


def test_nothing_is_cut_before_it_is_known_how_long_a_run_takes() -> None:
    pool = ScriptedPool()
    Scheduler(pool, Sink(), 2).run(jobs(1, 8), 8)
    assert pool.sizes == [8]


def test_packs_as_large_as_memory_holds_go_out_in_parts_at_the_end_too() -> None:
    pool = ScriptedPool(holds=4, slots=1)
    Scheduler(pool, Sink(), 2).run(jobs(4, 8), 32)
    lost, whole, last = [8, 8], [4] * 7, [2, 1, 1]
    assert pool.sizes == lost + whole + last, (
        "half of what is left each time, 32 at first, the lost ones among them again"
    )


def test_a_job_that_cannot_be_launched_yet_is_launched_when_something_has_landed() -> None:
    pool, sink = ScriptedPool(slots=1), Sink()
    first, second = jobs(2, 4)
    Scheduler(pool, sink, 2).run(iter([first, None, second]))
    assert list(sink.packs) == [("fit", 0), ("fit", 1)]
    assert pool.most_in_flight == 1, "not before"


def test_impatience_gives_up_what_is_in_flight() -> None:
    pool, sink = ScriptedPool(slots=2), Sink()
    stopping = lambda: len(sink.packs) >= 3  # noqa: E731
    Scheduler(pool, sink, 2, should_stop=stopping, patience=lambda: False).run(jobs(50, 2))
    assert pool.cancelled
    assert len(sink.packs) == 3
    assert all(len(outcomes) == 2 for outcomes in sink.packs.values())


def test_when_every_run_fails_the_sweep_is_stopped() -> None:
    pool = ScriptedPool(dict.fromkeys(range(400), ("failed", ALWAYS)), slots=1)
    sink = Sink()
    with pytest.raises(
        EveryRunFailedError, match="all of the first 56 runs failed, the first with ValueError: no conv"
    ):
        Scheduler(pool, sink, 1).run(jobs(50, 8))
    assert len(sink.rows()) == 56, "the failures are kept"
    assert not pool.cancelled, "nothing is in flight"


@pytest.mark.parametrize("runs", [49, 50])
def test_so_many_failures_are_given_up_after(runs: int) -> None:
    pool, sink = ScriptedPool(dict.fromkeys(range(runs), ("failed", ALWAYS)), slots=1), Sink()
    with pytest.raises(EveryRunFailedError) if runs >= 50 else nullcontext():
        Scheduler(pool, sink, 1).run(jobs(1, runs))
    assert len(sink.rows()) == runs


def test_when_every_run_fails_what_is_in_flight_lands_first() -> None:
    pool, sink = ScriptedPool(dict.fromkeys(range(400), ("failed", ALWAYS)), slots=2), Sink()
    with pytest.raises(EveryRunFailedError, match="all of the first 80 runs failed"):
        Scheduler(pool, sink, 2).run(jobs(50, 8))
    assert len(sink.rows()) == 80, "seven packs are too many failures, three more were in flight"
    assert not pool.cancelled


def test_a_run_in_flight_that_succeeds_lets_the_sweep_go_on() -> None:
    script: dict[int, tuple[Fate, int]] = dict.fromkeys(range(79), ("failed", ALWAYS))
    sink = Sink()
    Scheduler(ScriptedPool(script, slots=2), sink, 2).run(jobs(50, 8))
    assert len(sink.rows()) == 400


def test_what_does_not_land_when_every_run_fails_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, sink = ScriptedPool(dict.fromkeys(range(400), ("failed", ALWAYS)), slots=2), Sink()
    collect = pool.collect
    monkeypatch.setattr("orchestrator.execution.scheduler.LANDING_SECONDS", 0.05)
    monkeypatch.setattr(pool, "collect", lambda timeout: [] if len(sink.packs) >= 7 else collect(timeout))
    with pytest.raises(EveryRunFailedError, match="all of the first 56 runs failed"):
        Scheduler(pool, sink, 2).run(jobs(50, 8))
    assert pool.cancelled


def test_one_run_that_succeeds_lets_the_sweep_go_on() -> None:
    script: dict[int, tuple[Fate, int]] = dict.fromkeys(range(1, 200), ("failed", ALWAYS))
    _, scheduler = scheduled(ScriptedPool(script), packs=20, size=10)
    assert (scheduler.tally.done, scheduler.tally.failed) == (1, 199)


def test_commits_are_told_to_the_watcher() -> None:
    told: list[tuple[str, int, int]] = []
    scheduled(ScriptedPool({3: ("failed", 1)}), 2, 2, on_commit=lambda *said: told.append(said))
    assert sorted(told) == [("fit", 1, 1), ("fit", 2, 0)]


def test_packs_near_the_end_go_out_in_parts_and_are_committed_whole() -> None:
    pool, sink = ScriptedPool(), Sink()
    Scheduler(pool, sink, 2).run(jobs(10, 64), 640)
    assert pool.sizes[:5] == [64] * 5, "far from the end packs are whole"
    assert pool.sizes[-4:] == [1] * 4, "no worker waits for more than a run at the end"
    assert len(pool.sizes) < 40, "a share of what is left each time, not run by run"
    assert [len(outcomes) for outcomes in sink.packs.values()] == [64] * 10
    assert set(pool.invocations.values()) == {1}


@pytest.mark.parametrize(("grain", "divisor"), [(16, 16), (None, 64)])
def test_runs_that_are_trained_together_stay_together(grain: int | None, divisor: int) -> None:
    pool, sink = ScriptedPool(grain=grain), Sink()
    Scheduler(pool, sink, 2).run(jobs(10, 64), 640)
    assert len(sink.rows()) == 640
    assert not any(size % divisor for size in pool.sizes)


def test_runs_that_take_no_time_are_not_sent_one_by_one() -> None:
    pool, sink = ScriptedPool(seconds=SHORTEST_SECONDS / 4), Sink()
    Scheduler(pool, sink, 2).run(jobs(10, 64), 640)
    assert pool.sizes == [64] * 10, "a pack takes a quarter of what is worth sending"


def test_parts_that_are_back_are_kept_when_the_rest_is_given_up() -> None:
    pool, sink = ScriptedPool(), Sink()
    Scheduler(pool, sink, 1, should_stop=lambda: len(pool.sizes) >= 5).run(jobs(4, 8), 32)
    assert pool.sizes == [8, 8, 8, 4, 2]
    assert sink.rows() == list(range(30)), "every run that was sent is committed, in a pack that is not whole"
    assert len(sink.packs["fit", 3]) == 6


def test_a_job_is_cut_between_whole_permutations() -> None:
    job = Job("fit", 2, tuple(Run(row, np.arange(3), row) for row in [*range(40, 60), 62, 63, *range(70, 80)]), unit=20)
    sizes = []
    rest: Job | None = job
    while rest is not None:
        part, rest = rest.cut(3, grain=1)
        sizes.append([run.row // 20 for run in part.runs])
    assert sizes == [[2] * 20, [3] * 12]
    assert job.cut(21, grain=1)[1] is None


def permutations(count: int, steps: int, arrived: int, block: int) -> Job:
    """Return a job of whole permutations that end after the first block that ends at or after the prefix `arrived`."""
    arrival = Arrival(steps, block, steps - 1 - arrived, steps - 1, "margin")
    runs = tuple(Run(row, np.arange(3), row) for row in range(count * steps))
    return Job("fit", 0, runs, arrival, unit=steps)


def prefixes_committed(pool: ScriptedPool, job: Job, **options: Any) -> list[int]:
    sink = Sink()
    tally = Scheduler(pool, sink, **options).run(iter([job]), len(job.runs))
    assert list(sink.packs) == [("fit", 0)]
    assert tally.done + tally.failed == len(sink.rows())
    return sink.rows()


@pytest.mark.parametrize("holds", [None, 9, 8, 7, 4, 3, 1])
def test_what_is_trained_of_permutations_does_not_depend_on_memory(holds: int | None) -> None:
    pool = ScriptedPool(holds=holds)
    assert prefixes_committed(pool, permutations(2, 8, arrived=1, block=2)) == [0, 1, 8, 9]


def test_a_permutation_that_is_cut_goes_on_until_it_arrives() -> None:
    pool = ScriptedPool(holds=3)
    assert prefixes_committed(pool, permutations(1, 8, arrived=4, block=2)) == [0, 1, 2, 3, 4, 5]
    assert prefixes_committed(ScriptedPool(holds=3), permutations(1, 8, arrived=7, block=2)) == list(range(8))


def test_a_run_at_fault_ends_no_permutation() -> None:
    for why in ("system", "application", "memory"):
        pool = ScriptedPool({1: (why, ALWAYS)})
        assert prefixes_committed(pool, permutations(2, 8, arrived=1, block=2)) == [0, 1, 2, 3, 8, 9], why


def test_a_permutation_that_was_begun_is_cut_where_it_ends() -> None:
    job = permutations(2, 8, arrived=1, block=2)
    begun = replace(job, runs=job.runs[2:])
    assert prefixes_committed(ScriptedPool(holds=4), begun) == [2, 3, 8, 9]


@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.data(),
    st.integers(1, 12),
    st.none() | st.integers(1, 4),
    st.dictionaries(
        st.integers(0, 26), st.tuples(st.sampled_from(["memory", "system"]), st.integers(1, 2)), max_size=4
    ),
)
def test_permutations_end_where_they_would_in_any_memory(
    count: int, steps: int, data: st.DataObject, holds: int, grain: int | None, script: dict[int, tuple[Fate, int]]
) -> None:
    job = permutations(count, steps, data.draw(st.integers(0, steps - 1)), data.draw(st.integers(1, steps)))
    undisturbed = prefixes_committed(ScriptedPool(), job)
    pool = ScriptedPool(script, holds=holds, grain=grain)
    sink = Sink()
    Scheduler(pool, sink).run(iter([job]), len(job.runs))
    if not sink.failed():  # a failed run does not tell that its permutation has arrived
        assert sink.rows() == undisturbed


def test_a_job_is_cut_between_permutations_whatever_is_trained_together() -> None:
    job = permutations(6, 8, arrived=1, block=2)
    part, rest = job.cut(10, grain=12)
    assert rest is not None
    assert (len(part.runs), len(rest.runs)) == (16, 32)


fates: st.SearchStrategy[tuple[Fate, int]] = st.tuples(
    st.sampled_from(["memory", "system", "application", "failed"]), st.sampled_from([1, 2, ALWAYS])
)


@given(
    st.dictionaries(st.integers(0, 23), fates, max_size=6),
    st.integers(1, 6),
    st.integers(1, 3),
    st.none() | st.integers(1, 5),
    st.booleans(),
    st.none() | st.integers(1, 3),
)
def test_every_run_is_done_or_failed_and_none_without_cause(
    script: dict[int, tuple[Fate, int]],
    packs: int,
    slots: int,
    holds: int | None,
    newest_first: bool,
    grain: int | None,
) -> None:
    pool, sink = ScriptedPool(script, slots, holds, newest_first, grain), Sink()
    scheduler = Scheduler(pool, sink, give_up_after=1000)
    scheduler.run(jobs(packs, 4), 4 * packs)
    assert sink.rows() == list(range(4 * packs))
    assert len(sink.packs) == packs
    assert pool.most_in_flight <= 2 * slots
    failed = set(sink.failed())
    present = {row: fate for row, fate in script.items() if row < 4 * packs}
    assert {row for row, (_, times) in present.items() if times == ALWAYS} <= failed
    assert failed <= set(present)
    assert scheduler.tally.done + scheduler.tally.failed == 4 * packs


@dataclass
class LosingPool(ScriptedPool):
    """Loses every job to one error."""

    error: Exception = field(default_factory=Exception)
    told: str = ""
    """The worker's own traceback."""

    def collect(self, timeout: float) -> list[Done | Lost]:
        return [Lost(self._flying.pop(), "application", self.error, self.told)]


@pytest.mark.parametrize("told", ["Traceback on the worker", ""])
def test_a_run_that_was_lost_alone_says_what_and_where(told: str) -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        sink, _ = scheduled(LosingPool(slots=1, error=error, told=told), 1, 1)
    (failure,) = [one.failure for one in sink.packs["fit", 0]]
    assert failure is not None
    assert failure.kind == "KeyError"
    assert failure.traceback == told or (not told and 'raise KeyError("x")' in failure.traceback)
