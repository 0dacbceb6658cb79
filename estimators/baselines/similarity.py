"""Similarity of representations: the baseline that looks at where examples lie, not at what training did with them."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from estimators.contract import Attribution
from estimators.evidence import Evidence
from estimators.gradients.functional_model import Examples, Model, precision_of
from estimators.reference_estimator import ReferenceEstimator, attribution
from workers.errors import ConfigError
from workers.measures import LOWER_IS_BETTER
from workers.task import Classification, DifferentiableTask


class Similarity(ReferenceEstimator):
    """tau[i, q] = s * cos(h(x_i), h(x_q)), averaged over the reference models; in [-1, 1], unit-free.

    h is the representation that enters the last linear layer, (d,), at the last checkpoint (the "representation
    similarity" baseline of Park et al. 2023; Hanawa et al. 2021). A similarity has no direction of its own:
    s is +1, except -1 for measures that a helpful example lowers (`loss`, `squared_error`), and is told as `direction`
    in the details. With `signed`, an example of another class than the query's also counts as opposing it.
    """

    name: ClassVar[str] = "similarity"
    differentiates_queries: ClassVar[bool] = False

    signed: bool = Field(False, description="classification: negative where the labels of example and query differ")

    def attribute(self, evidence: Evidence) -> Attribution:
        """Compare all training examples with all queries. Raises ConfigError for `signed` without classes."""
        task = evidence.differentiable()
        if self.signed and not isinstance(task, Classification):
            raise ConfigError(f"similarity: signed=true needs a Classification task, found {type(task).__name__}")
        references = self.references(evidence)
        dtype = precision_of(task)
        train, queries = Examples.training(task, dtype), Examples.queried(task, evidence.queries, dtype)
        total = torch.zeros(len(train), len(queries), dtype=torch.float64)
        for reference in references:
            model = Model(task, reference.checkpoints[-1], dtype)
            total += _directions(task, model, train.inputs) @ _directions(task, model, queries.inputs).T
        direction = -1 if evidence.measure in LOWER_IS_BETTER else 1
        values = direction * total / len(references)
        if self.signed:
            same = train.targets[:, None] == queries.targets[None, :]
            values = torch.where(same, values, -values)
        return attribution(values, self, len(references), direction=direction)


@torch.no_grad()
def _directions(task: DifferentiableTask, model: Model, inputs: Tensor, batch: int = 4096) -> Tensor:
    """Return representations of length 1, (b, d) float64; a zero representation stays zero."""
    parts = [task.representation(model.module, part) for part in torch.split(inputs, batch)]
    return F.normalize(torch.cat(parts).double(), dim=1)
