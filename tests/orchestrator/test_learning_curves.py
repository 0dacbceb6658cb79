"""A learning curve goes from the fit into the attribution, the lines that `attribute` prints, and the report."""

from pathlib import Path

import numpy as np

from orchestrator.imports.survey import Request
from orchestrator.report.collect import collect
from orchestrator.stages.attribute import attribute
from orchestrator.stages.import_runs import import_runs
from orchestrator.stages.report import report
from orchestrator.stages.score import score
from orchestrator.store.attributions import read_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep


def test_it_is_measured_told_and_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((400, 12)) < 0.5
    (tmp_path / "runs").mkdir()
    np.save(tmp_path / "runs" / "masks.npy", masks)
    outputs = masks @ rng.normal(size=(12, 5)) + 3 * rng.normal(size=(400, 5))
    np.save(tmp_path / "runs" / "outputs.npy", outputs.astype(np.float32))
    import_runs(
        Request(tmp_path / "runs", holdout=0.1, overrides=("estimators.datamodel.threads=1",)), tmp_path / "sweep"
    )
    sweep = Sweep.at(tmp_path / "sweep")
    with RunStore.open(sweep.paths, write=True) as store:
        (notes,) = [one.notes for one in attribute(sweep, store) if one.estimator == "datamodel"]
        score(sweep, store)
        (shown,) = collect(sweep, store).learning_curves
        page = report(sweep, store).read_text(encoding="utf-8")
    told = read_attribution(sweep.paths, "datamodel").attributes.details["learning_curve"]
    assert notes[-1] == told["sentence"] == shown.sentence
    assert shown.estimator == "datamodel"
    assert shown.runs.tolist() == told["runs"]
    assert np.array_equal(shown.measured, [told["correlation"], told["low"], told["high"]])
    assert shown.expected.shape == (3, len(shown.ahead))
    assert f"Another {told['more']:,} runs would bring the LDS from" in page
