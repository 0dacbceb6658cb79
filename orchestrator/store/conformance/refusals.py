"""What a run store refuses: to be opened where it makes no sense, rows that it does not have, and what does not belong to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from orchestrator.store.conformance.trial import HELD_OUT, MEASURES, Make, N, T, Trial, planned, refused, same
from orchestrator.store.manifest import FORMAT_VERSION
from orchestrator.store.run_store import RunStore
from workers.errors import StoreError
from workers.runs import Outcome

MANIFEST = "runs.zarr/zarr.json"
PLAN = ("masks", "seeds", "subsets", "repeats")


def check_refusals(make: Make) -> None:
    """Opening nothing, a newer format or damaged metadata is refused by one line, and the folder can be opened by nobody else."""
    nothing = make()
    for write in (False, True):
        with refused(StoreError, "opening where no store is"):
            nothing.open(write=write)
    assert not nothing.keys(), f"opening where no store is has left {nothing.keys()}"
    with planned(make) as trial:
        trial.commit(range(4))
        trial.close()
        storage, good = trial.storage, trial.storage.read(MANIFEST)
        newer = json.loads(good)
        newer["attributes"]["format_version"] = FORMAT_VERSION + 1
        foreign = json.loads(good)
        foreign["attributes"]["format"] = "other"
        bad = {
            "a store of a newer format": json.dumps(newer).encode(),
            "a store of another format": json.dumps(foreign).encode(),
            "damaged metadata": good[:40],
            "empty metadata": b"",
        }
        for what, content in bad.items():
            storage.write(MANIFEST, content)
            for write in (False, True):
                with refused(StoreError, f"opening {what}"):
                    storage.open(write=write)
        storage.write(MANIFEST, good)
        trial.expect(range(4))


def check_names(make: Make) -> None:
    """Unknown designs and measures are refused, whatever is asked of them."""
    with planned(make) as trial:
        store, name = trial.store, "fitt"
        part = trial.plan(0, trial.pack)
        alone = (*PLAN, "planned", "states", "finished", "lost", "failures", "summaries", "verify")
        asked: Mapping[str, Callable[[], object]] = {
            **{what: partial(getattr(store, what), name) for what in alone},
            "outputs": lambda: store.outputs(name, "loss"),
            "checkpoints": lambda: store.checkpoints(name, 0),
            "record": lambda: store.record(name, 0),
            "write_plan": lambda: store.write_plan(name, 0, **part),
            "commit": lambda: store.commit(name, 0, [trial.outcome(0)], worker="w", started=0.0, seconds=0.0),
            "forget": lambda: store.forget(name, [0]),
            "extend": lambda: store.extend(name, 20),
        }
        for what, ask in asked.items():
            with refused(StoreError, f"`{what}` of an unknown design"):
                ask()
        with refused(StoreError, "an unknown measure"):
            store.outputs("fit", "margn")


def check_rows_that_are_not_there(make: Make) -> None:
    """Rows and packs before the first and after the last are refused: no stretch is cut, no question about them answered."""
    with planned(make) as trial:
        trial.commit(range(trial.runs))
        store, runs = trial.store, trial.runs
        for start, stop in ((0, runs + 1), (runs, runs + 2), (-1, 2), (3, 2)):
            where = f"of rows {start}..{stop - 1}"
            for what in (*PLAN, "states"):
                with refused(ValueError, f"`{what}` {where}"):
                    getattr(store, what)("fit", start, stop)
            with refused(ValueError, f"`outputs` {where}"):
                store.outputs("fit", "loss", start, stop)
        for row in (-1, runs, 10**6):
            with refused(ValueError, f"`checkpoints` of row {row}"):
                store.checkpoints("fit", row)
            with refused(ValueError, f"`forget` of row {row}"):
                store.forget("fit", [0, row])
        for pack in (store.designs["fit"].packs, -1):
            with refused(ValueError, f"`record` of pack {pack}"):
                store.record("fit", pack)
        trial.expect(range(runs))


def check_commits_that_do_not_belong(make: Make) -> None:
    """Outcomes of other rows, incomplete ones, a row twice or done, a pack that is not there: all refused, nothing changes."""
    with planned(make) as trial:
        trial.commit([0])
        trial.commit([1], fail=True)
        for what, (pack, outcomes) in _strangers(trial).items():
            _expect_refused(trial, what, "fit", pack, outcomes)
            same(trial.store.states("fit"), np.array([1, 2, *[0] * 8], np.int8), f"the states after {what} was refused")
        trial.expect([0], failed=[1])
        _expect_refused(trial, "a row of a design that has no plan", HELD_OUT.name, 0, [trial.outcome(0)])
        trial.store.commit("fit", 0, [], worker="w", started=0.0, seconds=0.0)
        trial.close()
        trial.expect([0], failed=[1])


def _expect_refused(trial: Trial, what: str, design: str, pack: int, outcomes: Sequence[Outcome]) -> None:
    with refused(ValueError, f"committing {what}"):
        trial.store.commit(design, pack, outcomes, worker="w", started=0.0, seconds=0.0)


def _strangers(trial: Trial) -> dict[str, tuple[int, list[Outcome]]]:
    """Return what a design must refuse whose row 0 is done and row 1 failed: by name, the pack and the outcomes."""
    good = trial.outcome(2)

    def with_loss(values: object) -> Outcome:
        return replace(good, outputs={**good.outputs, "loss": values})  # type: ignore[dict-item]

    def with_one(value: float) -> Outcome:
        return with_loss(np.array([0.5] * (T - 1) + [value], dtype=np.float32))

    return {
        "a row of another pack": (0, [trial.outcome(4)]),
        "a row of another pack after one that fits": (0, [good, trial.outcome(4)]),
        "a row beyond the last one": (2, [trial.outcome(10)]),
        "a row twice": (0, [good, good]),
        "a row that failed and did not": (0, [good, trial.outcome(2, fail=True)]),
        "a done row": (0, [trial.outcome(0)]),
        "a done row after one that fits": (0, [good, trial.outcome(0)]),
        "a failure of a done row": (0, [trial.outcome(0, fail=True)]),
        "too few outputs": (0, [with_loss(np.zeros(T - 1, np.float32))]),
        "too many outputs": (0, [with_loss(np.zeros(T + 1, np.float32))]),
        "outputs with one dimension more": (0, [with_loss(np.zeros((T, 1), np.float32))]),
        "outputs that are NaN": (0, [with_one(np.nan)]),
        "outputs that are infinite": (0, [with_one(np.inf)]),
        "outputs that lack a measure": (0, [replace(good, outputs={MEASURES[0]: good.outputs[MEASURES[0]]})]),
        "outputs without any measure": (0, [Outcome(2)]),
        "outputs that do not fit after ones that do": (0, [good, replace(with_one(np.nan), row=3)]),
        "to a pack beyond the last one": (3, [trial.outcome(9)]),
        "to a pack before the first one": (-1, [trial.outcome(9)]),
    }


def check_plans_that_do_not_fit(make: Make) -> None:
    """A plan of another shape or type is refused, and nothing is planned by it."""
    with planned(make) as trial:
        good: dict[str, Any] = trial.plan(0, HELD_OUT.pack)
        bad: Mapping[str, dict[str, Any]] = {
            "masks of more examples": {"masks": np.ones((HELD_OUT.pack, N + 1), dtype=bool)},
            "masks of fewer examples": {"masks": np.ones((HELD_OUT.pack, N - 1), dtype=bool)},
            "masks of fewer rows": {"masks": good["masks"][:1]},
            "seeds of more rows": {"seeds": np.arange(HELD_OUT.pack + 1, dtype=np.uint32)},
            "seeds that are negative": {"seeds": np.full(HELD_OUT.pack, -1)},
            "seeds that are too large": {"seeds": np.full(HELD_OUT.pack, 2**32)},
            "seeds that are no whole numbers": {"seeds": np.full(HELD_OUT.pack, 0.5)},
        }
        for what, wrong in bad.items():
            store: RunStore = trial.store
            with refused(ValueError, f"a plan with {what}"):
                store.write_plan(HELD_OUT.name, 0, **{**good, **wrong})
        assert not trial.store.planned(HELD_OUT.name), "plans were refused, and `planned` is true"
        trial.commit_held_out()
        same(
            trial.store.seeds(HELD_OUT.name),
            trial.plan(0, HELD_OUT.runs)["seeds"],
            "seeds planned after others were refused",
        )
