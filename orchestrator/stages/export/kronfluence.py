"""What kronfluence's `evaluate_lds.py` reads: pickled arrays, and scores as its `Analyzer` saves them.

<design>/masks.pt                                 (m, n) int8, a NumPy array
<design>/<measure>.pt                             (m, t) float32, a NumPy array
scores/<label>/pairwise_scores.safetensors        all_modules: (t, n) float32, the effect of *leaving out* on the measure

There `-masks @ scores.T` predicts the outputs: kronfluence's scores are minus the effect of including on its measurement.
"""

from __future__ import annotations

import numpy as np

from orchestrator.stages.export import forms
from orchestrator.stages.export.folders import write_designs
from orchestrator.stages.export.request import Exported, Request

SIGN = "scores are (query, example), minus the attributions: kronfluence's are of leaving out"


def write(request: Request) -> Exported:
    """Write the finished runs of every design, and the scores of every attribution."""
    from safetensors.numpy import save_file  # not needed for the other formats

    with forms.new_folder(request.target) as folder:
        count, said = write_designs(request, folder, forms.int8, forms.pickled)
        for label, values in request.attributions().items():
            place = folder / "scores" / label
            place.mkdir(parents=True)
            save_file({"all_modules": np.ascontiguousarray(-values.T)}, place / "pairwise_scores.safetensors")
            count, said = count + 1, said if SIGN in said else (*said, SIGN)
    return Exported(count, "arrays", said)
