"""The scale of attributions that claim units of the measure, on the sweep's held-out runs."""

from __future__ import annotations

from estimators.scores import calibration
from orchestrator.attribution.evidence import heldout, planned_subsets
from orchestrator.scoring.lds import refuse_fitted
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

SLOPE = Quantity("slope", "change measured for a predicted change of 1 (1 is right)", better=None)
EXPLAINED = Quantity("explained_variance", "share of variance that predictions explain as they are")


class ScaleCalibration(Metric):
    """The slope of measured on predicted changes, and what the predictions explain, of attributions that claim units."""

    quantities = (SLOPE, EXPLAINED)
    place = 15

    def judge(self, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        """Judge the scale on the runs of the LDS, with its resamples; no rows for values that claim no units."""
        section = sweep.config.scores.lds
        runs = heldout(sweep, store, judged.measure)
        if runs is None or section is None or not judged.claims_units:
            return []
        refuse_fitted(store, judged, runs)
        planned = planned_subsets(store, runs.design)
        found = calibration(judged.values, runs, resamples=section.resamples, seed=sweep.config.seed, planned=planned)
        return [
            ScoreRow.of(judged, one, shown.name, runs.design)
            for one, shown in ((found.slope, SLOPE), (found.explained, EXPLAINED))
        ]
