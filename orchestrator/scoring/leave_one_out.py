"""The correlation with leave-one-out effects that the sweep measured."""

from __future__ import annotations

import numpy as np

from estimators.evidence import Runs
from estimators.retraining_based.leave_one_out import measured_effects
from estimators.scores import Basis, loo_correlation
from orchestrator.attribution.evidence import load_runs, planned_subsets
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.roles import scoring_design
from orchestrator.sweeps.sweep import Sweep

LEAVE_ONE_OUT = Quantity("loo_correlation", "correlation with measured leave-one-out effects")


class LeaveOneOutCorrelation(Metric):
    """The rank correlation with what leaving out single examples really changed, the mean over queries."""

    quantities = (LEAVE_ONE_OUT,)
    place = 20

    def judge(self, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        """Correlate with leave-one-out effects, where their runs are finished and were not fitted on.

        Without a design of full runs the mean of those that left one out stands in for them: it is the same for all examples
        of a query, and a correlation over examples does not see it.
        """
        section, design = sweep.config.scores.loo, scoring_design(sweep.config, "loo")
        if section is None or design is None or design in judged.fitted_on:
            return []
        whole_design = _whole(sweep, store, design)
        left_out = load_runs(sweep, store, design, judged.measure)
        whole = _mean_of(left_out) if whole_design is None else load_runs(sweep, store, whole_design, judged.measure)
        if len(np.unique(left_out.subsets)) < 2 or not len(whole.masks):
            return []
        effects = measured_effects(left_out, whole)
        found = loo_correlation(
            judged.values,
            effects.values,
            effects.keys,
            n=store.n,
            resamples=section.resamples,
            seed=sweep.config.seed,
            seeds=sweep.config.designs[design].seeds,
            basis=Basis.of(left_out, planned_subsets(store, design)),
        )
        return [ScoreRow.of(judged, found, LEAVE_ONE_OUT.name, design)]


def _mean_of(left_out: Runs) -> Runs:
    """Return the mean of runs that left one example out, as if it were a run on the full set."""
    n, zero = left_out.masks.shape[1], np.zeros(1, dtype=np.int64)
    mean = np.mean(left_out.outputs, axis=0, keepdims=True)
    return Runs("mean", "full", left_out.measure, np.ones((1, n), dtype=bool), mean, zero, zero)


def _whole(sweep: Sweep, store: RunStore, design: str) -> str | None:
    """Return the design of full runs that the left-out ones are compared with: the one they are paired with, else the first."""
    full = [name for name in store.designs if "full" in sweep.config.designs[name].serves]
    paired = sweep.config.designs[design].paired_with
    if paired in full:
        return paired
    return full[0] if full else None
