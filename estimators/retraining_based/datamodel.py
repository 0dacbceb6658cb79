"""Datamodels: a sparse linear regression per query from the masks of many runs to that query's outputs.

Ilyas, Park, Engstrom, Leclerc, Madry, "Datamodels: Predicting Predictions from Training Data", 2022, equation 4: for every query,
minimize over bias and weights  1/(2m) ||outputs - bias - masks @ weights||^2 + lambda ||weights||_1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.findings import Findings
from estimators.lasso.settings import Settings

if TYPE_CHECKING:
    from estimators.lasso.fit import Fit
    from estimators.lasso.within_budget import Budgeted


class DatamodelEstimator(Settings, Estimator):
    """Fit f_q(S) = bias[q] + sum over i in S of tau[i, q] by a LASSO per query; lambda is chosen on held-out subsets.

    >>> from itertools import product
    >>> import numpy as np
    >>> from estimators import Evidence, Runs
    >>> from estimators.retraining_based.datamodel import DatamodelEstimator
    >>> masks = np.array(list(product([False, True], repeat=5)))  # all subsets of 5 examples
    >>> outputs = (3 + masks @ [[2.0], [-1.0], [0.5], [0.0], [0.0]]).astype(np.float32)  # two of them do nothing
    >>> rows = np.arange(32)
    >>> runs = Runs("fit", "bernoulli", "margin", masks, outputs, subsets=rows, repeats=0 * rows)
    >>> made = DatamodelEstimator().attribute(Evidence(5, 1, "margin", {"fit": runs}))
    >>> made.values[:, 0].astype(float).round(1).tolist(), made.bias.astype(float).round(1).tolist()
    ([2.0, -1.0, 0.5, 0.0, 0.0], [3.0])
    """

    name: ClassVar[str] = "datamodel"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    naming_designs: ClassVar[tuple[str, ...]] = ("design",)
    in_units: ClassVar[bool] = True

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
        self._budgeted(evidence).refuse_too_large()

    def foresee(self, evidence: Evidence) -> float | None:
        """Return what a large fit will take, by its cost and this machine's measured rates; a small one is quickly tried."""
        return self._budgeted(evidence).foresee(self._runs(evidence), bool(self.learning_curve))

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return the coefficients (n, t) and intercepts (t,), refitted on all runs of the design."""
        runs = self._runs(evidence)
        budgeted = self._budgeted(evidence)
        expected = budgeted.cost(runs)
        if self.learning_curve:
            budgeted.announce_curve(runs, expected.machine)
        found = budgeted.fit(runs, expected)
        if self.learning_curve is None:
            queries = budgeted.cheap_queries(runs, found, expected)
        else:
            queries = evidence.t if self.learning_curve else 0
        curve = budgeted.curve(runs, queries) if queries else None
        errors = found.standard_errors
        return Attribution(
            np.ascontiguousarray(found.coefficients.T, np.float32),
            found.intercepts.astype(np.float32),
            None if errors is None else np.ascontiguousarray(errors.T, np.float32),
            fitted_on=(runs.design,),
            models=len(runs.subsets),
            details=_details(found, self),
            findings=Findings(found.summary(), curve),
        )

    def _runs(self, evidence: Evidence) -> Runs:
        return evidence.of_kind("subsets", "bernoulli", "explicit", design=self.design)

    def _budgeted(self, evidence: Evidence) -> Budgeted:
        from estimators.lasso.within_budget import Budgeted

        return Budgeted(Settings(**self.model_dump(include=set(Settings.model_fields))), evidence, self.memory_gb)


def _details(found: Fit, settings: Settings) -> dict[str, Any]:
    """Return what is worth keeping of a fit beside its weights."""
    return {
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
