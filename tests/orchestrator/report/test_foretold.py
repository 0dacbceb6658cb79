"""Whole groups, foretold against measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.report.data import Foretold
from orchestrator.report.foretold import foretold
from orchestrator.report.page.foretold import figure
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.attributions import read_attribution
from orchestrator.sweeps.task_record import read_record


def test_sums_over_groups_stand_beside_what_was_measured(
    game: dict[str, Any], make_sweep: Callable[[Any], Any], inline_pool: Callable[[Any], Any], tmp_path: Path
) -> None:
    np.save(tmp_path / "groups.npy", np.repeat([0, 1, 2], [1, 3, 8]))
    game["task"]["arguments"] = {"n": 12}
    game["designs"] = {"full": {"kind": "full"}, "out": {"kind": "leave_group_out", "by": "groups.npy"}}
    game["estimators"] = {"groups": {}}
    sweep = make_sweep({**game, "folder": str(tmp_path)})
    with prepare(sweep) as store:
        examples = read_record(sweep).examples
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
        known = read_attribution(sweep.paths, "groups")
        free = replace(known.attributes, fitted_on=())
        answers = {
            "groups": known,  # fitted on the very runs, and left out
            "same": replace(known, attributes=free),
            "opposite": replace(known, values=-known.values, attributes=free),
            "shifted": replace(known, values=known.values + 1, attributes=free),
        }
        made = {one.estimator: one for one in foretold(sweep, store, examples, answers)}
    assert list(made) == ["same", "opposite", "shifted"]
    np.testing.assert_allclose(made["same"].predicted, made["same"].actual, rtol=1e-5)
    assert made["same"].correlation == pytest.approx(1)
    assert made["opposite"].correlation == pytest.approx(-1)
    np.testing.assert_allclose(made["shifted"].predicted - made["same"].predicted, [1, 3, 8], rtol=1e-5)
    assert made["same"].groups == ("of example 0", "of example 1", "of example 4")


def test_the_figure_names_the_groups_and_the_correlation() -> None:
    one = Foretold("mpe", "loss", ("cat", "dog", "eel"), np.arange(3.0), np.array([0.0, 1.0, 3.0]), 0.98)
    drawn = str(figure(one, "foretold-0"))
    assert "foretold and measured, correlation 0.98" in drawn
    for word in ("cat", "dog", "eel", "foretold by mpe"):
        assert word in drawn
