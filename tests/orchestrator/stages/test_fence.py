"""The second fence: `score` looks at the masks themselves, whatever let a subset to both sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.imports import survey
from orchestrator.imports.survey import Request
from orchestrator.stages.attribute import attribute
from orchestrator.stages.import_runs import import_runs
from orchestrator.stages.score import score
from orchestrator.store.attributions import read_attribution, write_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import DataError


@pytest.fixture
def overlapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep whose first fence was open: two of its 20 scoring subsets are among its 40 fitting ones; attributed."""
    rng = np.random.default_rng(0)
    masks = rng.random((58, 12)) < 0.5
    outputs = masks @ rng.normal(size=(12, 3)) + rng.normal(size=(58, 3))
    for name, rows in (("fit", slice(0, 40)), ("score", slice(38, 58))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "masks.npy", masks[rows])
        np.save(tmp_path / name / "outputs.npy", outputs[rows])
    monkeypatch.setattr(survey, "_refuse_shared_subsets", lambda *_: None)
    import_runs(Request(tmp_path / "fit", score=tmp_path / "score"), tmp_path / "sweep")
    sweep = Sweep.at(tmp_path / "sweep")
    with RunStore.open(sweep.paths, write=True) as store:
        attribute(sweep, store)
    return sweep


def test_a_subset_on_both_sides_is_not_scored_on(overlapping: Sweep) -> None:
    with (
        RunStore.open(overlapping.paths, write=True) as store,
        pytest.raises(DataError, match="2 of the 20 scoring subsets were also fitted on"),
    ):
        score(overlapping, store)
    assert not overlapping.paths.scores.exists()


def test_a_design_that_was_fitted_on_is_not_scored_on(overlapping: Sweep) -> None:
    for label in ("datamodel", "difference_in_means"):
        kept = read_attribution(overlapping.paths, label)
        attributes = replace(kept.attributes, fitted_on=("score",))
        write_attribution(overlapping.paths, label, replace(kept, attributes=attributes))
    with (
        RunStore.open(overlapping.paths, write=True) as store,
        pytest.raises(DataError, match="was fitted on design 'score' and cannot be scored on it"),
    ):
        score(overlapping, store)
