"""The linear datamodeling score, on the sweep's held-out runs."""

from __future__ import annotations

from estimators.evidence import Runs
from estimators.scores import lds, refuse_overlap
from estimators.scores.agreement import FEWEST
from orchestrator.attribution.evidence import heldout, planned_subsets
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import DataError

LDS = Quantity(
    "lds", "linear datamodeling score", has_ceiling=True, ceiling_needs=f"{FEWEST} subsets with 2 seeds each"
)

BLOCK = 16384
"""Rows of masks that are looked at together."""


class LinearDatamodelingScore(Metric):
    """The rank correlation of predicted and measured outputs over held-out subsets, the mean over queries."""

    quantities = (LDS,)
    place = 10

    def judge(self, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        """Score on the held-out runs, which must be others than those it was fitted on."""
        section = sweep.config.scores.lds
        runs = heldout(sweep, store, judged.measure)
        if runs is None or section is None:
            return []
        refuse_fitted(store, judged, runs)
        found = lds(
            judged.values,
            runs,
            resamples=section.resamples,
            seed=sweep.config.seed,
            planned=planned_subsets(store, runs.design),
        )
        return [ScoreRow.of(judged, found, LDS.name, runs.design)]


def refuse_fitted(store: RunStore, judged: Judged, runs: Runs) -> None:
    """Enforce that nothing is scored on what it was fitted on: neither the design nor any of its subsets."""
    if runs.design in judged.fitted_on:
        raise DataError(f"{judged.label}: was fitted on design {runs.design!r} and cannot be scored on it")
    for name in judged.fitted_on:
        last = store.designs[name].runs
        for start in range(0, last, BLOCK):
            refuse_overlap(store.masks(name, start, min(start + BLOCK, last)), runs.masks)
