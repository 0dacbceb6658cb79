from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator.applications.removal_curves import nested_sweeps, read_removals
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.store.attributions import Attributes, StoredAttribution, write_attribution
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
N = 10


@pytest.fixture
def removing(game: Raw) -> Raw:
    """A game of which the worth of every example is known, and a removal of them."""
    game["task"]["arguments"] = {"n": N}
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 20}}
    game["estimators"] = {"difference_in_means": {}}
    game["scores"] = {
        "removal": {"estimators": ["difference_in_means"], "fractions": [0, 0.3, 0.6], "seeds": 2, "better": "higher"}
    }
    return game


def attributed(sweep: Sweep, utility: np.ndarray) -> None:
    values = np.tile(utility[:, None], (1, 3)).astype(np.float32)
    told = Attributes(estimator="difference_in_means", measure="worth", fitted_on=("fit",))
    stored = StoredAttribution(values, told, utility=utility.astype(np.float32))
    write_attribution(sweep.paths, "difference_in_means", stored)


def train(sweep: Sweep, pool: Any) -> int:
    trained = 0
    for nested in nested_sweeps(sweep):
        with prepare(nested) as store:
            trained += retrain(nested, store, pool=pool(nested)).done
    return trained


def test_the_curves_are_what_remains_is_worth(removing: Raw, make_sweep: Make, inline_pool: Any) -> None:
    sweep = make_sweep(removing)
    prepare(sweep).close()
    worth = 0.9 ** np.arange(N)
    attributed(sweep, worth)
    assert sweep.config.scores.removal is not None
    assert train(sweep, inline_pool) == sweep.config.scores.removal.trainings == 3 * 3 * 2
    curves = {(one.estimator, one.order): one for one in read_removals(sweep)}
    assert set(curves) == {("difference_in_means", "best"), ("difference_in_means", "worst"), ("random", "any")}
    best, worst = (curves["difference_in_means", order].curve for order in ("best", "worst"))
    np.testing.assert_allclose(best.removed, [0, 0.3, 0.6], atol=1e-12)
    np.testing.assert_allclose(best.utility, [worth.sum(), worth[3:].sum(), worth[6:].sum()], rtol=1e-6)
    np.testing.assert_allclose(worst.utility, [worth.sum(), worth[:7].sum(), worth[:4].sum()], rtol=1e-6)
    assert best.area.value < curves["random", "any"].curve.area.value < worst.area.value
    assert train(sweep, inline_pool) == 0, "nothing is trained twice"


def test_the_areas_are_scores_and_the_random_order_s_stands_for_both(
    removing: Raw, make_sweep: Make, inline_pool: Any
) -> None:
    sweep = make_sweep(removing)
    with prepare(sweep) as store:
        attributed(sweep, 0.9 ** np.arange(N))
        train(sweep, inline_pool)
        table = score(sweep, store)
    areas = table.pivot_table(index="estimator", columns="metric", values="value")
    assert areas.loc["random", "removal_best_area"] == areas.loc["random", "removal_worst_area"]
    assert areas.loc["difference_in_means", "removal_best_area"] < areas.loc["random", "removal_best_area"]
    assert set(table.measure) == {"worth"}


def test_for_a_loss_the_helpful_ones_are_those_that_lower_it(removing: Raw, make_sweep: Make, inline_pool: Any) -> None:
    removing["scores"]["removal"]["better"] = "lower"
    sweep = make_sweep(removing)
    prepare(sweep).close()
    attributed(sweep, 0.9 ** np.arange(N))
    train(sweep, inline_pool)
    curves = {one.order: one.curve.area.value for one in read_removals(sweep)}
    assert curves["best"] > curves["worst"]


def test_other_values_start_their_curves_anew_and_leave_the_rest(
    removing: Raw, make_sweep: Make, inline_pool: Any
) -> None:
    sweep = make_sweep(removing)
    prepare(sweep).close()
    attributed(sweep, 0.9 ** np.arange(N))
    train(sweep, inline_pool)
    before = {one.estimator: one for one in read_removals(sweep)}
    attributed(sweep, -(0.9 ** np.arange(N)))
    assert train(sweep, inline_pool) == 2 * 3 * 2
    after = {(one.estimator, one.order): one.curve for one in read_removals(sweep)}
    assert after["difference_in_means", "best"].area > after["difference_in_means", "worst"].area
    np.testing.assert_array_equal(after["random", "any"].utility, before["random"].curve.utility)


def test_a_moved_folder_keeps_its_curves(
    removing: Raw, make_config: Callable[[Raw], Any], inline_pool: Any, tmp_path: Path
) -> None:
    sweep = Sweep.of(make_config(removing), tmp_path / "here")
    prepare(sweep).close()
    attributed(sweep, 0.9 ** np.arange(N))
    train(sweep, inline_pool)
    (tmp_path / "here").rename(tmp_path / "there")
    assert train(Sweep.of(make_config(removing), tmp_path / "there"), inline_pool) == 0


def test_a_curve_without_all_its_runs_is_not_shown(removing: Raw, make_sweep: Make, inline_pool: Any) -> None:
    sweep = make_sweep(removing)
    prepare(sweep).close()
    attributed(sweep, 0.9 ** np.arange(N))
    train(sweep, inline_pool)
    nested = next(nested_sweeps(sweep))
    with prepare(nested) as store:
        store.forget("best", np.array([0, 1]))
    assert [(one.estimator, one.order) for one in read_removals(sweep)] == [
        ("difference_in_means", "worst"),
        ("random", "any"),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"estimators": ["nobody"]}, r"scores\.removal\.estimators: no estimator 'nobody'"),
        ({"fractions": [0.5, 0.1]}, r"scores\.removal\.fractions: \[0\.5, 0\.1\] is not ascending"),
        ({"measure": "height"}, r"scores\.removal\.measure: 'height' is not recorded"),
        ({"better": None}, r"scores\.removal\.better: whether higher values of 'worth' are good is not known"),
    ],
)
def test_what_cannot_be_removed_is_refused(removing: Raw, make_sweep: Make, change: Raw, complaint: str) -> None:
    removing["scores"]["removal"].update(change)
    with pytest.raises(ConfigError, match=complaint):
        prepare(make_sweep(removing))


def test_run_detects_removes_and_shows_both(
    command: Callable[..., Any], ray_started: None, tiny: Raw, tmp_path: Path
) -> None:
    tiny["task"]["arguments"]["flip_labels"] = 0.2
    tiny["scores"]["removal"] = {
        "estimators": ["difference_in_means"],
        "fractions": [0, 0.4],
        "seeds": 1,
        "order": ["worst"],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    ended = command("run", tmp_path / "tiny.yaml", "--out", tmp_path / "sweep")
    assert ended.code == 0, ended.err
    assert "tiny-removal-difference_in_means: 2 runs to train" in ended.err
    table = pd.read_parquet(tmp_path / "sweep" / "scores.parquet").set_index(["estimator", "metric"])
    for estimator in ("random", "tracin", "difference_in_means"):
        row = table.loc[(estimator, "detection_auc")]
        assert 0 <= row.low <= row.value <= row.high <= 1
    assert ("random", "removal_worst_area") in table.index
    assert ("random", "removal_best_area") not in table.index
    page = (tmp_path / "sweep" / "report.html").read_text()
    for heading in ("Finding the mislabelled ones", "Retrained without them", "Most and least valued"):
        assert heading in page
    again = command("score", tmp_path / "sweep", "--json")
    assert "runs to train" not in again.err
    assert command("status", tmp_path / "sweep" / "removal" / "random").code == 0
