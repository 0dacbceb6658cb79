"""Batches that stay put, from the configuration to the runs and to what scores say of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.attribution.evidence import load_runs
from orchestrator.config.schema import Config
from orchestrator.designs.registry import BUILT_IN, find
from orchestrator.forecast.standard_error import Trial
from orchestrator.retraining.jobs import jobs_of
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.stages.verify import check_rows, rerun
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError
from workers.packs import PackTrainer

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


def test_every_design_has_an_order_of_its_own_unless_another_is_asked_for() -> None:
    for kind in BUILT_IN:
        fields = find(kind).model_fields
        assert (fields["order"].default, fields["normalize"].default) == ("own", "batch")


def test_the_default_is_no_part_of_the_identity(make_config: Callable[[Raw], Config], tiny: Raw) -> None:
    """Sweeps that were made before there was an order go on."""
    plain = make_config(tiny)
    assert plain.deciding()["designs"]["fit"] == {
        "kind": "subsets",
        "purpose": "fit",
        "seeds": 1,
        "paired_with": None,
        "alpha": 0.5,
    }
    tiny["designs"]["fit"]["order"] = "own"
    assert make_config(tiny).identity() == plain.identity()
    tiny["designs"]["fit"]["order"] = "shared"
    shared = make_config(tiny)
    tiny["designs"]["fit"]["normalize"] = "weight"
    by_weight = make_config(tiny)
    assert len({plain.identity(), shared.identity(), by_weight.identity()}) == 3


def test_to_normalize_needs_shared_order(make_config: Callable[[Raw], Config], tiny: Raw) -> None:
    tiny["designs"]["fit"]["normalize"] = "weight"
    with pytest.raises(
        ConfigError, match=r"designs\.fit.*normalize: weight says something with order: shared only"
    ) as told:
        make_config(tiny)
    assert "\n" not in str(told.value)


def test_a_black_box_is_refused_before_the_sweep(make_sweep: Make, game: Raw) -> None:
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 4, "order": "shared"}}
    with pytest.raises(
        ConfigError, match=r"^designs\.fit\.order: shared needs a differentiable task; Game trains itself"
    ):
        _ = make_sweep(game).plans


def test_fresh_seeds_are_of_the_same_regime(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["heldout"]["order"] = "shared"
    tiny["designs"]["fresh"] = {"kind": "again", "of": "heldout", "purpose": "score"}
    with pytest.raises(ConfigError, match=r"^designs\.fresh\.order: own by batch, but 'heldout' has shared by batch"):
        _ = make_sweep(tiny).plans
    tiny["designs"]["fresh"]["order"] = "shared"
    assert make_sweep(tiny).plans["fresh"].design.order == "shared"


def test_runs_on_the_way_to_a_worker_say_their_order(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["fit"] |= {"order": "shared", "normalize": "weight"}
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        said = {
            (job.design, run.order, run.normalize) for job in jobs_of(sweep, store, lambda _: False) for run in job.runs
        }
    assert ("fit", "shared", "weight") in said
    assert {one for one in said if one[0] != "fit"} == {
        (name, "own", "batch") for name in ("reference", "heldout", "left_out")
    }


def test_trial_runs_are_of_the_design_s_order(make_sweep: Make, tiny: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny["designs"]["fit"]["order"] = "shared"
    sweep = make_sweep(tiny)
    trainer, seen = PackTrainer(sweep.task), []
    plain = PackTrainer.train
    monkeypatch.setattr(
        PackTrainer, "train", lambda self, runs, *rest: (seen.extend(runs), plain(self, runs, *rest))[1]
    )
    trial = Trial(sweep, sweep.plans, sweep.plans["fit"], 8, trainer)
    assert trial.train([np.arange(60) < 30], [4]) is not None
    assert [run.order for run in seen] == ["shared"]


def test_a_sweep_in_shared_order_says_so_wherever_its_scores_are(make_sweep: Make, tiny: Raw, inline_pool: Any) -> None:
    tiny["designs"]["heldout"]["order"] = "shared"
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert check_rows(store) == []
        assert all(one.equal for one in rerun(sweep, store, 6, pool=inline_pool(sweep)))
        assert load_runs(sweep, store, "heldout", "margin").order == "shared"
        assert load_runs(sweep, store, "fit", "margin").order == "own"
        attribute(sweep, store)
        table = score(sweep, store).set_index(["metric", "estimator"])
    assert set(table.loc["lds"]["order"]) == {"shared"}
    assert table.loc[("lds", "difference_in_means"), "fitted_order"] == "own"
    assert table.loc[("lds", "random"), "fitted_order"] == ""
