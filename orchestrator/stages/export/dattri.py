"""What dattri's metrics read: kept indices and target values, as in its hosted ground truth, and scores.

lds/indices_lds.pt   (m, k) int64    lds/target_values_lds.pt   (m, t) float32, minus the measure
loo/indices_loo.pt   (m,) int64      loo/target_values_loo.pt   (m, t) float32, the measure
scores/<label>.pt    (n, t) float32, the effect of *leaving out*

These are the signs of dattri's `calculate_lds_ground_truth` and `calculate_loo_ground_truth`: `metric.lds` and `metric.loo_corr`
of scores that are right come out positive.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from orchestrator.stages.export.forms import kept_indices, new_folder, tensor
from orchestrator.stages.export.request import Exported, FinishedRuns, Request, finished_runs
from orchestrator.sweeps.roles import scoring_design
from workers.errors import ConfigError


def write(request: Request) -> Exported:
    """Write the runs of the scoring design, or of the one that is named, those of the leave-one-out design, and scores."""
    config = request.sweep.config
    request = replace(
        request,
        design=request.design or scoring_design(config, "lds"),
        measure=request.measure or request.store.measures[0],
    )
    if request.design is None:
        raise ConfigError("dattri's ground truth is of one design, and none is for scoring: name one with --design")
    (name,) = request.designs()
    (measure,) = request.measures()
    runs = finished_runs(request, name)
    if runs.weights is not None:
        raise ConfigError(f"design {name!r}: its examples have weights, of which dattri's ground truth knows nothing")
    if not len(runs.masks):
        raise ConfigError(f"design {name!r}: none of its runs is finished")
    left_out = scoring_design(config, "loo")
    others = finished_runs(request, left_out) if left_out not in (None, name) else None
    said = [*runs.said, f"target_values_lds.pt is minus the {measure} of design {name!r}, as dattri keeps it"]
    with new_folder(request.target) as folder:
        _write_lds(folder / "lds", runs, measure)
        count = 2
        if others is not None and len(others.masks):
            _write_loo(folder / "loo", others, measure)
            said += [*others.said, f"target_values_loo.pt is the {measure} of design {others.design!r} itself"]
            count += 2
        for label, values in request.attributions().items():
            (folder / "scores").mkdir(exist_ok=True)
            tensor(folder / "scores" / label, -values)
            count += 1
        if (folder / "scores").is_dir():
            said.append("scores are (example, query), minus the attributions: dattri's are of leaving out")
    return Exported(count, "arrays", tuple(said))


def _write_lds(folder: Path, runs: FinishedRuns, measure: str) -> None:
    try:
        indices = kept_indices(runs.masks)
    except ConfigError as error:
        raise ConfigError(f"design {runs.design!r}: {error}") from error
    folder.mkdir()
    tensor(folder / "indices_lds", indices)
    tensor(folder / "target_values_lds", -runs.outputs[measure])


def _write_loo(folder: Path, runs: FinishedRuns, measure: str) -> None:
    folder.mkdir()
    tensor(folder / "indices_loo", runs.masks.argmin(axis=1).astype(np.int64))
    tensor(folder / "target_values_loo", runs.outputs[measure])
