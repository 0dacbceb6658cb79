"""Exact Shapley values of a k-nearest-neighbour classifier: a baseline that trains nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial.distance import cdist
from torch import Tensor

from estimators.contract import Attribution, Need
from estimators.evidence import Evidence
from estimators.gradients.functional_model import Examples, Model, precision_of
from estimators.reference_estimator import ReferenceEstimator
from workers.errors import ConfigError, DivergedError
from workers.measures import LOWER_IS_BETTER
from workers.task import Classification, DifferentiableTask

_BLOCK = 1 << 22

Weights = Literal["uniform", "gaussian"]


class KnnShapley(ReferenceEstimator):
    """Shapley values of U_q(S) = (1/k) sum over the min(k, |S|) nearest j in S of w_qj 1[y_j = y_q] (Jia et al. 2019).

    With w = 1 this is their theorem 1. The weighted variant takes w_qj = exp(-d^2 / 2h^2), h the distance of
    q's k-th nearest training example: a weight that depends on the pair alone, not on who else is in S, so that the same
    recursion is exact (`knn_shapley`); no radius or threshold is to be chosen. Distances are Euclidean, between
    flattened inputs or between the representations at the reference models (values are then averaged over the models);
    ties go to the lower index.

    The values are in units of U, which is in [0, 1], whatever the sweep's measure; they are negated for measures
    that a helpful example lowers (`loss`), told as `direction`. There is no standard error: nothing is drawn.
    """

    name: ClassVar[str] = "knn_shapley"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    k: int = Field(5, ge=1, description="neighbours that vote")
    weights: Weights = Field("uniform", description="uniform: votes count alike; gaussian: nearer ones count more")
    features: Literal["inputs", "representation"] = Field(
        "inputs", description="what distances are taken between: the raw inputs, or what enters the last linear layer"
    )

    def check(self, evidence: Evidence) -> None:
        """Refuse a task without classes."""
        _classification(evidence)

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t) and its mean over the queries (n,). Raises ConfigError for a task without classes."""
        task = _classification(evidence)
        spaces = self._spaces(task, evidence)
        labels, wanted = task.train_targets.numpy(), task.examples(evidence.queries)[1].numpy()
        direction = -1 if evidence.measure in LOWER_IS_BETTER else 1
        values = np.zeros((evidence.n, evidence.t))
        for train, queries in spaces:
            values += direction / len(spaces) * nearest_values(train, labels, queries, wanted, self.k, self.weights)
        return Attribution(
            values.astype(np.float32),
            utility=values.mean(axis=1).astype(np.float32),
            models=len(spaces) if self.features == "representation" else 0,
            details={"direction": direction, "k": self.k, "weights": self.weights, "features": self.features},
        )

    def _spaces(
        self, task: DifferentiableTask, evidence: Evidence
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return features of training examples (n, d) and of queries (t, d): one pair, or one a reference model."""
        dtype = precision_of(task)
        train, queries = Examples.training(task, dtype).inputs, Examples.queried(task, evidence.queries, dtype).inputs
        if self.features == "inputs":
            return [(_flat(train), _flat(queries))]
        models = [Model(task, reference.checkpoints[-1], dtype) for reference in self.references(evidence)]
        return [(_represented(task, model, train), _represented(task, model, queries)) for model in models]


def _classification(evidence: Evidence) -> Classification:
    task = evidence.differentiable()
    if not isinstance(task, Classification):
        raise ConfigError(f"knn_shapley: needs a Classification task, found {type(task).__name__}")
    return task


def _flat(features: Tensor) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = features.flatten(1).double().numpy()
    if not np.isfinite(flat).all():
        raise DivergedError("estimator 'knn_shapley': some features are not finite")
    return flat


@torch.no_grad()
def _represented(task: DifferentiableTask, model: Model, inputs: Tensor, batch: int = 4096) -> NDArray[np.float64]:
    return _flat(torch.cat([task.representation(model.module, part) for part in torch.split(inputs, batch)]))


def nearest_values(
    train: NDArray[np.float64],
    labels: NDArray[np.int64],
    queries: NDArray[np.float64],
    wanted: NDArray[np.int64],
    k: int,
    weights: Weights = "uniform",
) -> NDArray[np.float64]:
    """Return the values (n, t) for features (n, d) and (t, d) and labels (n,) and (t,): O(n (d + log n)) a query."""
    n = len(train)
    values = np.empty((n, len(queries)))
    for start in range(0, len(queries), max(1, _BLOCK // n)):
        block = slice(start, start + max(1, _BLOCK // n))
        squared = _squared_distances(queries[block], train)
        order = np.argsort(squared, axis=1, kind="stable")
        votes = (labels[order] == wanted[block, None]).astype(np.float64)
        if weights == "gaussian":
            votes *= _gaussian(np.take_along_axis(squared, order, axis=1), k)
        np.put_along_axis(values[:, block].T, order, knn_shapley(votes, k), axis=1)
    return values


def knn_shapley(votes: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the Shapley values (t, n) of U(S) = (1/k) sum of the votes of the min(k, |S|) nearest in S.

    `votes` (t, n) are in the order of distance, nearest first. With 1-based i (Jia et al. 2019, theorem 1):

        s_n = votes_n min(k, n) / (n k),    s_i = s_(i+1) + (votes_i - votes_(i+1)) min(k, i) / (i k)

    Their proof uses that putting i in place of i + 1 changes U by (votes_i - votes_(i+1)) / k if fewer than k of S are
    nearer, and not at all otherwise: that holds for any votes, so also for weighted ones.
    """
    n = votes.shape[1]
    place = np.arange(1, n + 1)
    factor = np.minimum(k, place) / (place * k)
    drops = votes * factor
    drops[:, :-1] -= votes[:, 1:] * factor[:-1]
    values: NDArray[np.float64] = np.cumsum(drops[:, ::-1], axis=1)[:, ::-1]
    return values


def _squared_distances(queries: NDArray[np.float64], train: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (t, n) squared Euclidean distances, exactly 0 between equal rows."""
    found: NDArray[np.float64] = cdist(queries, train, "sqeuclidean")
    return found


def _gaussian(squared: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return weights (t, n) of sorted squared distances; where the k-th is 0, only distances of 0 have a weight: 1."""
    width = squared[:, min(k, squared.shape[1]) - 1][:, None]
    flat = width == 0
    weights: NDArray[np.float64] = np.where(flat, squared == 0, np.exp(-squared / (2 * np.where(flat, 1.0, width))))
    return weights
