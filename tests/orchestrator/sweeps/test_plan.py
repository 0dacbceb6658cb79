from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.designs.keys import is_for_scoring
from orchestrator.sweeps.plan import to_runs
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]


def test_packs_cover_all_rows_once(make_sweep: Make, tiny: Raw) -> None:
    for name, plan in make_sweep(tiny).plans.items():
        assert plan.name == name
        rows = [row for pack in range(plan.packs) for row in range(*plan.span(pack))]
        assert rows == list(range(plan.runs))
        blocks = list(plan.blocks())
        assert [block.start % plan.pack for block in blocks] == [0] * len(blocks)
        whole = plan.rows(0, plan.runs)
        assert np.array_equal(np.concatenate([block.masks for block in blocks]), whole.masks)
        assert np.array_equal(np.concatenate([block.seeds for block in blocks]), whole.seeds)
        assert (whole.masks.dtype, whole.masks.shape) == (bool, (plan.runs, 60))
        assert (whole.seeds.dtype, whole.subsets.dtype, whole.repeats.dtype) == (np.uint32, np.int64, np.int32)


def test_checkpoints_are_for_full_designs_of_differentiable_tasks(make_sweep: Make, tiny: Raw) -> None:
    plans = make_sweep(tiny).plans
    assert plans["reference"].checkpoint_epochs == (1, 3)
    assert {name for name, plan in plans.items() if plan.checkpoint_epochs} == {"reference"}


def test_runs_are_those_wanted_with_their_subsets_and_seeds(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["fit"] |= {"order": "shared", "normalize": "weight"}
    plan = make_sweep(tiny).plans["fit"]
    rows = plan.rows(8, 12)
    runs = to_runs(8, rows.masks, rows.seeds, np.array([False, True, False, True]), plan.design, (3,))
    assert [run.row for run in runs] == [9, 11]
    for run, j in zip(runs, (1, 3), strict=True):
        assert np.array_equal(run.subset, np.flatnonzero(rows.masks[j]))
        assert run.seed == rows.seeds[j]
        assert run.checkpoint_epochs == (3,)
        assert (run.order, run.normalize, run.weights) == ("shared", "weight", None)


def test_an_epoch_of_shared_order_goes_through_all_examples(make_sweep: Make, tiny: Raw) -> None:
    assert make_sweep(tiny).plans["fit"].epoch_size == 30
    tiny["designs"]["fit"]["order"] = "shared"
    plan = make_sweep(tiny).plans["fit"]
    assert (plan.epoch_size, plan.mean_size) == (60, 30)


def test_a_sweep_without_scoring_designs_has_no_fence(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["fit"]["subsets"] = 100
    fenced = make_sweep(tiny).plans["fit"]
    del tiny["designs"]["heldout"]
    free = make_sweep(tiny).plans["fit"]
    assert (fenced.context.fenced, free.context.fenced) == (True, False)
    moved = (fenced.rows(0, 100).masks != free.rows(0, 100).masks).any(axis=1)
    assert np.array_equal(moved, [is_for_scoring(mask) for mask in free.rows(0, 100).masks])
    assert moved.any()


def test_a_design_that_cannot_be_drawn_is_refused_by_its_key(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["fit"]["alpha"] = 0.001
    with pytest.raises(
        ConfigError, match=r"^designs\.fit\.alpha: 0.001 of 60 examples is a subset of 0; expected between 1 and 59$"
    ):
        _ = make_sweep(tiny).plans


def test_a_checkpoint_beyond_the_recipe_is_refused_by_its_key(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["reference"]["checkpoints"] = [1, 4]
    with pytest.raises(ConfigError, match=r"^designs\.reference\.checkpoints: 4 is not an epoch"):
        _ = make_sweep(tiny).plans
