"""The linear datamodeling score of the spread over seeds, on the sweep's held-out runs."""

from __future__ import annotations

from estimators.scores import spread_lds
from estimators.scores.agreement import FEWEST
from estimators.scores.seeds import seeds_per_subset
from estimators.scores.spread_ceiling import FEWEST_SEEDS
from orchestrator.attribution.evidence import heldout, planned_subsets
from orchestrator.scoring.lds import refuse_fitted
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import Judged, ScoreRow
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

SPREAD = Quantity(
    "spread_lds",
    "rank correlation with the spread of outputs over seeds",
    has_ceiling=True,
    ceiling_needs=f"{FEWEST} subsets with {FEWEST_SEEDS} seeds each",
    no_signal="models of one subset vary with their seed as much as those of another",
)


class SpreadScore(Metric):
    """The rank correlation of predictions with the spread over seeds over held-out subsets, the mean over queries."""

    quantities = (SPREAD,)
    place = 17

    def judge(self, sweep: Sweep, store: RunStore, judged: Judged) -> list[ScoreRow]:
        """Score on the held-out runs, which must be others than those it was fitted on, where two subsets have two seeds."""
        section = sweep.config.scores.spread
        runs = heldout(sweep, store, judged.measure, "spread")
        if runs is None or section is None:
            return []
        if not store.repeats(runs.design).any():
            raise ConfigError(
                f"scores.spread: a spread over seeds needs 2 seeds a subset, design {runs.design!r} has 1"
            )
        if (seeds_per_subset(runs) > 1).sum() < 2:
            return []
        refuse_fitted(store, judged, runs)
        found = spread_lds(
            judged.values,
            runs,
            resamples=section.resamples,
            seed=sweep.config.seed,
            planned=planned_subsets(store, runs.design),
        )
        return [ScoreRow.of(judged, found, SPREAD.name, runs.design)]
