"""Folders of arrays, a folder a design: masks in one of the forms, a file a measure, seeds; and the attributions.

<design>/masks, kept_indices or packed_masks    see `forms`
<design>/weights                                (m, n) float32, of a design whose examples have weights
<design>/<measure>                              (m, t) float32
<design>/_seeds                                 (m,) int64, unless a row is a mean over seeds
attributions/<label>                            (n, t) float32, the effect of including
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.stages.export.forms import Form, Save, new_folder
from orchestrator.stages.export.request import Exported, FinishedRuns, Request, finished_runs
from workers.errors import ConfigError


def write(request: Request, form: Form, save: Save) -> Exported:
    """Write the finished runs of every design, and the attributions."""
    with new_folder(request.target) as folder:
        count, said = write_designs(request, folder, form, save)
        for label, values in request.attributions().items():
            (folder / "attributions").mkdir(exist_ok=True)
            save(folder / "attributions" / label, values)
            count += 1
    return Exported(count, "arrays", said)


def write_designs(request: Request, folder: Path, form: Form, save: Save) -> tuple[int, tuple[str, ...]]:
    """Write a folder for every design; return the number of arrays, and what is to be said of them."""
    count, said = 0, list[str]()
    for name in request.designs():
        runs = finished_runs(request, name)
        said += runs.said
        count += _write_design(folder / name, runs, form, save) if len(runs.masks) else 0
    return count, tuple(said)


def _write_design(folder: Path, runs: FinishedRuns, form: Form, save: Save) -> int:
    folder.mkdir()
    try:
        form(folder, runs.masks, save)
    except ConfigError as error:
        raise ConfigError(f"design {runs.design!r}: {error}") from error
    if runs.weights is not None:
        save(folder / "weights", runs.weights)
    for measure, values in runs.outputs.items():
        save(folder / measure, values)
    if runs.seeds is not None:
        save(folder / "_seeds", runs.seeds.astype(np.int64))  # unsigned integers are foreign to many readers
    return 1 + (runs.weights is not None) + len(runs.outputs) + (runs.seeds is not None)
