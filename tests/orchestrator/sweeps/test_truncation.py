import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators.retraining_based.shapley import Shapley
from orchestrator.attribution.evidence import gather, load_runs
from orchestrator.retraining.counts import finished
from orchestrator.retraining.watch import Watch
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.ledger import DONE, PENDING
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.truncation import skipped

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
N = 32


@pytest.fixture(params=[4, 64], ids=["long permutations", "whole permutations"])
def truncated(request: pytest.FixtureRequest, game: Raw) -> Raw:
    """Six permutations that arrive, within 0.01 of the full set, at their seventh prefix: 1 - 2^-7."""
    game["task"]["arguments"] = {"n": N}
    game["measures"] = ["saturating", "worth"]
    game["pack"] = request.param
    game["designs"] = {
        "orders": {"kind": "permutations", "permutations": 6, "truncation": 0.01, "block": 4},
        "everything": {"kind": "full", "seeds": 2},
    }
    return game


def rows(store: RunStore) -> tuple[np.ndarray, np.ndarray]:
    return store.states("orders"), store.outputs("orders", "worth")


@pytest.fixture
def undisturbed(
    truncated: Raw, make_config: Callable[[Raw], Any], inline_pool: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[np.ndarray, np.ndarray]:
    sweep = Sweep.of(make_config(truncated), tmp_path_factory.mktemp("undisturbed") / "sweep")
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        return rows(store)


def assert_same(store: RunStore, expected: tuple[np.ndarray, np.ndarray]) -> None:
    for ours, theirs in zip(rows(store), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_permutation_ends_with_the_block_in_which_it_arrives(
    truncated: Raw, make_sweep: Make, inline_pool: Any, undisturbed: tuple[np.ndarray, np.ndarray]
) -> None:
    sweep = make_sweep(truncated)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        trained = (store.states("orders") == DONE).reshape(6, N)
        assert trained[:, :8].all()
        assert not trained[:, 8:].any()
        assert np.array_equal(skipped(sweep.config, store, "orders"), ~trained.ravel())
        assert finished(sweep, store)["orders"] == (48, 0, 0)
        tally = retrain(sweep, store, pool=inline_pool(sweep))
        assert (tally.done, tally.failed) == (0, 0)
        assert_same(store, undisturbed)


def test_a_resumed_sweep_has_the_rows_of_an_undisturbed_one(
    truncated: Raw, make_sweep: Make, inline_pool: Any, undisturbed: tuple[np.ndarray, np.ndarray]
) -> None:
    sweep = make_sweep(truncated)
    with prepare(sweep) as store:
        for _ in range(20):  # every call commits something and is then stopped
            committed: list[str] = []
            watch = Watch(
                on_commit=lambda design, done, failed, seen=committed: seen.append(design),
                should_stop=lambda seen=committed: bool(seen),
            )
            retrain(sweep, store, watch, pool=inline_pool(sweep, slots=1))
        assert_same(store, undisturbed)


@pytest.mark.parametrize("lost", [[2], [3], [7], [40, 35], [0, 1, 2, 3]])
def test_lost_rows_come_back_and_no_others(
    truncated: Raw, make_sweep: Make, inline_pool: Any, undisturbed: tuple[np.ndarray, np.ndarray], lost: list[int]
) -> None:
    sweep = make_sweep(truncated)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        store.forget("orders", np.array(lost))
        retrain(sweep, store, pool=inline_pool(sweep))
        assert_same(store, undisturbed)


def test_unfinished_permutations_are_not_used(game: Raw, make_sweep: Make, inline_pool: Any) -> None:
    game["designs"] = {"orders": {"kind": "permutations", "permutations": 5}}
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        whole = Shapley().attribute(gather(sweep, store, "worth"))
        store.forget("orders", np.array([8, 22]))  # a prefix of the second permutation and one of the third
        assert (store.states("orders") == PENDING).sum() == 2
        runs = load_runs(sweep, store, "orders", "worth")
        assert runs.permutations is not None
        assert sorted(set(runs.permutations.tolist())) == [-1, 0, 3, 4]
        assert (runs.permutations == -1).sum() == 14
        made = Shapley().attribute(gather(sweep, store, "worth"))
    assert (made.details["permutations"], made.details["unfinished_rows"]) == (3, 14)
    worth = 0.9 ** np.arange(8)
    np.testing.assert_allclose(whole.utility, worth, rtol=1e-5)
    np.testing.assert_allclose(made.utility, worth, rtol=1e-5)


def test_values_of_truncated_permutations_sum_to_what_there_is(
    truncated: Raw, make_sweep: Make, inline_pool: Any
) -> None:
    sweep = make_sweep(truncated)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        for measure, total in (("saturating", 1 - 0.5**N), ("worth", (0.9 ** np.arange(N)).sum())):
            made = Shapley().attribute(gather(sweep, store, measure))
            assert made.details["truncated"] == 6
            np.testing.assert_allclose(made.values.sum(axis=0), total, rtol=1e-5)


def test_the_ledger_is_looked_at_once_a_design_and_not_once_a_pack(
    truncated: Raw, make_sweep: Make, inline_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(truncated)
    looks: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(Path(path)) or scandir(path))  # type: ignore[func-returns-value]

    def looked_at() -> list[str]:
        return sorted(path.name for path in looks if path.parent == sweep.paths.ledger)

    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        finished(sweep, store)
    assert looked_at() == ["everything", "orders"]
    looks.clear()
    with RunStore.open(sweep.paths) as reader:
        finished(sweep, reader)
    assert looked_at() == ["everything", "orders"]
