"""A check of the noise ceiling: what fresh seeds on the same subsets reach, and what was predicted of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from estimators.scores import Basis, seed_check
from estimators.scores.agreement import FEWEST
from orchestrator.attribution.evidence import heldout, load_runs, planned_subsets
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import ScoreRow
from orchestrator.store import accounting
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.roles import fresh_design
from orchestrator.sweeps.sweep import Sweep

SEED_CHECK = Quantity("seed_check", "fresh seeds against the noise ceiling", better=None, has_ceiling=True)


class SeedCheck(Metric):
    """The correlation of one fresh seed's outputs with the mean over the seeds scored on (`value`), its prediction `ceiling`.

    The interval is that of the difference, around the prediction.
    """

    quantities = (SEED_CHECK,)
    place = 30

    def judge_sweep(self, sweep: Sweep, store: RunStore) -> list[ScoreRow]:
        """Hold the noise ceiling against fresh seeds, where the sweep has trained some."""
        section, measure = sweep.config.scores.lds, sweep.config.measures[0]
        fresh, runs = fresh_design(sweep.config), heldout(sweep, store, measure)
        if fresh is None or runs is None or section is None:
            return []
        again = load_runs(sweep, store, fresh, measure)
        finished = len(np.unique(again.subsets))
        if finished < FEWEST or len(np.unique(runs.repeats)) < 2:
            return []
        found = seed_check(runs, again)
        single, basis = found.single, Basis.of(again, planned_subsets(store, fresh))
        row = ScoreRow(
            estimator="retraining",
            metric=SEED_CHECK.name,
            value=single.measured,
            low=single.predicted + single.low,
            high=single.predicted + single.high,
            ceiling=single.predicted,
            measure=measure,
            design=fresh,
            queries=store.t,
            subsets=found.subsets,
            seeds=found.fresh_seeds,
            train_seconds=accounting.train_seconds(store, [fresh]),
            attribute_seconds=math.nan,
            **vars(replace(basis, subsets_not_compared=finished - found.subsets, queries_left_out=0)),
        )
        return [row]
