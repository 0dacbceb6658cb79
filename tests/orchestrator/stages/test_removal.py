from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from orchestrator.config.schema import RaySection
from orchestrator.stages import removal
from orchestrator.stages.plan import prepare
from orchestrator.stages.removal import Removed, train_removals
from orchestrator.stages.retrain import retrain
from orchestrator.store.attributions import Attributes, StoredAttribution, write_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]
N = 10


@pytest.fixture
def sweep(game: Raw, make_sweep: Callable[[Raw], Sweep]) -> Sweep:
    """A sweep with one attribution, which asks for the removal curves of it and of a random order."""
    game["task"]["arguments"] = {"n": N}
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 20}}
    game["estimators"] = {"difference_in_means": {}}
    game["scores"] = {
        "removal": {"estimators": ["difference_in_means"], "fractions": [0, 0.3], "seeds": 2, "better": "higher"}
    }
    made = make_sweep(game)
    prepare(made).close()
    utility = (0.9 ** np.arange(N)).astype(np.float32)
    told = Attributes(estimator="difference_in_means", measure="worth", fitted_on=("fit",))
    values = np.tile(utility[:, None], (1, 3))
    write_attribution(made.paths, "difference_in_means", StoredAttribution(values, told, utility=utility))
    return made


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of Ray, which is not really started."""
    seen: list[str] = []

    @contextmanager
    def started(settings: RaySection) -> Iterator[None]:
        seen.append("started")
        yield
        seen.append("stopped")

    monkeypatch.setattr(removal, "started", started)
    return seen


def test_every_curve_is_trained_and_ray_is_started_once_and_only_for_work(
    sweep: Sweep, starts: list[str], inline_pool: Any
) -> None:
    def train(nested: Sweep, store: RunStore) -> None:
        assert starts == ["started"]
        retrain(nested, store, pool=inline_pool(nested))

    stands = train_removals(sweep, train)
    assert stands == [Removed("game-removal-difference_in_means", 8, 0, 0), Removed("game-removal-random", 4, 0, 0)]
    assert starts == ["started", "stopped"]
    starts.clear()
    assert train_removals(sweep, lambda nested, store: None) == stands
    assert starts == [], "nothing is left to train"


def test_what_is_not_trained_is_counted_as_pending(sweep: Sweep, starts: list[str]) -> None:
    assert [one.pending for one in train_removals(sweep, lambda nested, store: None)] == [8, 4]
    assert starts == ["started", "stopped"]


def test_failed_runs_are_work_only_when_they_are_to_be_trained_again(
    sweep: Sweep, starts: list[str], inline_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(nested: Sweep, store: RunStore) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(type(nested.task), "train", None)
            retrain(nested, store, pool=inline_pool(nested))

    assert [one.failed for one in train_removals(sweep, train)] == [8, 4]
    starts.clear()
    train_removals(sweep, lambda nested, store: None)
    assert starts == []
    train_removals(sweep, lambda nested, store: None, retry_failed=True)
    assert starts == ["started", "stopped"]


def test_it_needs_no_terminal(sweep: Sweep, ray_started: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert [(one.done, one.failed, one.pending) for one in train_removals(sweep)] == [(8, 0, 0), (4, 0, 0)]
    assert capfd.readouterr().out == ""


def test_without_removal_curves_nothing_happens(game: Raw, make_sweep: Callable[[Raw], Sweep]) -> None:
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 5}}
    sweep = make_sweep(game)
    assert train_removals(sweep) == []
    assert not sweep.paths.root.exists()
