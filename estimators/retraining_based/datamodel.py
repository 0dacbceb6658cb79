"""Datamodels: a sparse linear regression per query from the masks of many runs to that query's outputs.

Ilyas, Park, Engstrom, Leclerc, Madry, "Datamodels: Predicting Predictions from Training Data", 2022, equation 4: for every query,
minimize over bias and weights  1/(2m) ||outputs - bias - masks @ weights||^2 + lambda ||weights||_1.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.lasso.collect import FEWEST, Split
from estimators.lasso.cost import GIB, LAPTOP, Forecast, Machine, forecast, this_machine
from estimators.lasso.curve_cost import affordable_queries, forecast_curve
from estimators.lasso.fit import Fit
from estimators.lasso.learning_curve import FEWEST_HELD, learning_curve
from estimators.lasso.pieces import Job, cut, fit_in_pieces
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings
from workers.errors import ConfigError
from workers.machine import cores
from workers.wording import duration

LARGE_SECONDS = 60.0
"""Estimated time on a laptop from which a fit is forecast, done in pieces and resumed."""
FEWEST_QUERIES = 20
"""Queries on which a learning curve is worth its while, where there are so many."""


class DatamodelEstimator(Settings, Estimator):
    """Fit f_q(S) = bias[q] + sum over i in S of tau[i, q] by a LASSO per query; lambda is chosen on held-out subsets."""

    name: ClassVar[str] = "datamodel"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})

    design: str | None = Field(None, description="the fitting design, when the sweep has several")
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="GiB that the fit (each worker's, on a cluster) may take; beyond, queries are fitted block by block; null: "
        "half of the machine's",
    )
    learning_curve: bool | None = Field(
        None, description="say what more runs would bring, on a sample of the queries; null: where that is cheap"
    )

    @model_validator(mode="after")
    def _curve_of_a_path(self) -> Self:
        if self.learning_curve and self.penalty == "ridge":
            raise ValueError("learning_curve: true goes with penalty: l1 only")
        return self

    def check(self, evidence: Evidence) -> None:
        """Refuse so many examples that not even the Gram matrices fit into the budget."""
        self._forecast(FEWEST, evidence).require_fits()

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return the coefficients (n, t) and intercepts (t,), refitted on all runs of the design."""
        runs = evidence.of_kind("subsets", "bernoulli", "explicit", design=self.design)
        expected = self._forecast(len(runs.subsets), evidence)
        expected.require_fits()
        large = expected.queries_per_block < evidence.t or expected.seconds > LARGE_SECONDS
        if self.learning_curve:
            self._announce_curve(len(runs.subsets), expected.machine, evidence)
        found = self._fit_large(runs, expected, evidence) if large else self._fit(runs, evidence.seed)
        details = _details(found, self)
        queries = self._curve_queries(runs, found, expected.machine, large)
        curve = self._curve(runs, queries, evidence) if queries else None
        errors = found.standard_errors
        return Attribution(
            np.ascontiguousarray(found.coefficients.T, np.float32),
            found.intercepts.astype(np.float32),
            None if errors is None else np.ascontiguousarray(errors.T, np.float32),
            fitted_on=(runs.design,),
            models=len(runs.subsets),
            details=details if curve is None else {**details, "learning_curve": curve},
        )

    def _forecast(self, m: int, evidence: Evidence) -> Forecast:
        memory = evidence.workspace.memory if self.memory_gb is None else int(self.memory_gb * GIB)
        threads = self.threads or evidence.workspace.threads or cores()
        return forecast(m, evidence.n, evidence.t, self, replace(LAPTOP, cores=threads, memory=memory))

    def _fit(self, runs: Runs, seed: int) -> Fit:
        return fit_blocks(runs.blocks, runs.subsets, self, seed)

    def _fit_large(self, runs: Runs, expected: Forecast, evidence: Evidence) -> Fit:
        """Say what it will take, then fit piece by piece."""
        workspace = evidence.workspace
        measured = this_machine(expected.machine.memory, expected.machine.cores)
        for line in cut(forecast(len(runs.subsets), evidence.n, evidence.t, self, measured), workspace).lines():
            workspace.say(line)
        settings = Settings(**self.model_dump(include=set(Settings.model_fields)))
        if self.threads is None and workspace.threads is not None:
            settings = settings.model_copy(update={"threads": workspace.threads})
        split = Split.draw(runs.subsets, settings, evidence.seed)
        return fit_in_pieces(Job(runs, split, settings, evidence.n, evidence.t), expected, workspace)

    def _announce_curve(self, m: int, machine: Machine, evidence: Evidence) -> None:
        """Refuse a learning curve whose masks do not fit into the budget, and say beforehand what a long one takes."""
        curve = forecast_curve(m, evidence.n, evidence.t, self, machine)
        if curve.memory > machine.memory:
            raise ConfigError(
                f"learning_curve: true needs all masks in memory, {curve.memory / GIB:.3g} GiB with what it computes, the "
                f"budget is {machine.memory / GIB:.3g} GiB: raise memory_gb or leave it out"
            )
        if curve.seconds > LARGE_SECONDS:
            here = replace(curve, machine=this_machine(machine.memory, machine.cores))
            evidence.workspace.say(f"learning curve on {here.machine.name}: about {duration(here.seconds)} more")

    def _curve_queries(self, runs: Runs, found: Fit, machine: Machine, large: bool) -> int:
        """Return of how many queries there is to be a learning curve: of all when asked for, else of as many as are cheap."""
        t, n = found.coefficients.shape
        if self.learning_curve is not None:
            return t if self.learning_curve else 0
        held = round(self.holdout * len(np.unique(runs.subsets)))
        if large or self.penalty == "ridge" or held < FEWEST_HELD:
            return 0
        count = affordable_queries(len(runs.subsets), n, t, int(np.median(found.nonzeros)), self, machine)
        return count if count >= min(t, FEWEST_QUERIES) else 0

    def _curve(self, runs: Runs, queries: int, evidence: Evidence) -> dict[str, Any]:
        """Return the points of the learning curve of some queries, what they say, and how long that took."""
        started = time.perf_counter()
        chosen = np.sort(np.random.default_rng([evidence.seed, 3]).permutation(evidence.t)[:queries])
        curve = learning_curve(runs.masks, runs.outputs[:, chosen], runs.subsets, self, evidence.seed)
        return {**curve.plain(), "seconds": time.perf_counter() - started}


def _details(found: Fit, settings: Settings) -> dict[str, Any]:
    """Return what is worth keeping of a fit beside its weights."""
    return {
        "summary": found.summary(),
        "lambda": found.penalties.tolist(),
        "relative_gap": found.gaps.tolist(),
        "unconverged": np.flatnonzero(~found.converged).tolist(),
        "heldout_r2": found.heldout_r2.tolist(),
        "heldout_spearman": found.heldout_spearman.tolist(),
        "nonzeros": found.nonzeros.tolist(),
        "heldout_subsets": np.unique(found.split.subsets[found.split.parts >= 0]).tolist(),
        "split_seed": found.split.seed,
        "settings": settings.model_dump(mode="json"),
    }
