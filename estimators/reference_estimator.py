"""Options and checks that every estimator on gradients or representations of reference models shares."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Reference
from estimators.gradients.functional_model import Examples, Model, precision_of
from estimators.gradients.per_example import measure_to_differentiate
from workers.errors import ConfigError, DivergedError
from workers.randomness.streams import build_module
from workers.runs import Checkpoint


class ReferenceEstimator(Estimator):
    """An estimator that looks at reference models: models trained on the full set, with checkpoints."""

    needs: ClassVar[frozenset[Need]] = frozenset({"checkpoints", "gradients"})

    differentiates_queries: ClassVar[bool] = True
    """Whether it takes the gradient of the measure at the queries."""

    models: int | None = Field(None, ge=1, description="how many reference models to use; null takes all there are")
    memory_gb: float = Field(2.0, gt=0, description="memory for gradients held at once, in GiB; changes no result")

    @property
    def budget(self) -> int:
        """The memory budget in bytes."""
        return int(self.memory_gb * 2**30)

    def check(self, evidence: Evidence) -> None:
        """Refuse a measure that cannot be differentiated."""
        task = evidence.differentiable()
        if self.differentiates_queries:
            dtype = precision_of(task)
            module, _ = build_module(task.module, 0, dtype)
            model = Model(task, Checkpoint(0, 0, 0.0, dict(module.state_dict())), dtype)
            measure_to_differentiate(task, evidence.measure, model, Examples.queried(task, evidence.queries, dtype))

    def references(self, evidence: Evidence) -> tuple[Reference, ...]:
        """Return the reference models to use, each with checkpoints. Raises ConfigError when there are too few."""
        found = tuple(reference for reference in evidence.references if reference.checkpoints)
        wanted = self.models or 1
        if len(found) < wanted:
            raise ConfigError(
                f"estimator {self.name!r} needs {wanted} reference model(s) trained on the full set with checkpoints, "
                f"the sweep has {len(found)}"
            )
        return found[: self.models]


def attribution(values: Tensor, estimator: ReferenceEstimator, models: int, **details: object) -> Attribution:
    """Wrap `values` (n, t) as float32. Raises DivergedError when one is not finite: a reference model diverged."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise DivergedError(f"estimator {estimator.name!r}: {bad} of {values.numel()} attributions are not finite")
    return Attribution(values.float().numpy(), models=models, details=details)
