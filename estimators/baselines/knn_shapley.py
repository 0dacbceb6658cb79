"""Exact Shapley values of a k-nearest-neighbour classifier: a baseline that trains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Attribution, Need
from estimators.evidence import Evidence
from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError, DivergedError
from workers.measures import LOWER_IS_BETTER
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask

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

    >>> from estimators import Evidence
    >>> from estimators.baselines.knn_shapley import KnnShapley
    >>> from estimators.testing import model_evidence
    >>> task = model_evidence().task  # two classes: even and odd examples; query 0 is even
    >>> made = KnnShapley(k=3).attribute(Evidence(task.n, task.t, "margin", task=task))  # nothing is trained
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # neighbours of the query's class vote for it
    True
    """

    name: ClassVar[str] = "knn_shapley"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    k: int = Field(5, ge=1, description="neighbours that vote")
    weights: Weights = Field("uniform", description="uniform: votes count alike; gaussian: nearer ones count more")
    features: Literal["inputs", "representation"] = Field(
        "inputs", description="what distances are taken between: the raw inputs, or what enters the last linear layer"
    )

    @property
    def needed(self) -> frozenset[Need]:
        """Representations are those of the reference models; inputs need none."""
        return self.needs | {"checkpoints"} if self.features == "representation" else self.needs

    def check(self, evidence: Evidence) -> None:
        """Refuse a task without classes."""
        _refuse_without_classes(evidence.differentiable())

    def effects(self, material: Material) -> KnnShapleyEffects:
        """Return what votes between representations bring. Raises ConfigError for a task without classes."""
        _refuse_without_classes(material.task)
        return KnnShapleyEffects(self, material)

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return tau (n, t) and its mean over the queries (n,). Raises ConfigError for a task without classes."""
        from torch import Tensor

        if self.features == "representation":
            return super().attribute(evidence)
        effects = self.effects(self.material(evidence, references=()))
        train, queries = (one.batch().inputs for one in (effects.material.train, effects.material.queries))
        if not (isinstance(train, Tensor) and isinstance(queries, Tensor)):
            raise ConfigError("knn_shapley: inputs are more than one tensor: set features to representation")
        return effects.wrapped(effects.between(train, queries), self.name)


class KnnShapleyEffects(ModelEffects):
    """The values of votes in each model's space of representations."""

    def __init__(self, options: KnnShapley, material: Material):
        super().__init__(material)
        self._options = options
        self._direction = -1 if material.measure in LOWER_IS_BETTER else 1

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield the values between representations."""
        from estimators.gradients.forward import representations

        task, train, queries = self.material.task, self.material.train, self.material.queries
        yield slice(None), self.between(representations(task, model, train), representations(task, model, queries))

    def between(self, train: Tensor, queries: Tensor) -> Tensor:
        """Return the values (n, t) for features (n, ...) and (t, ...)."""
        import torch

        labels, wanted = (one.batch().targets.numpy() for one in (self.material.train, self.material.queries))
        found = nearest_values(_flat(train), labels, _flat(queries), wanted, self._options.k, self._options.weights)
        return torch.from_numpy(self._direction * found + 0.0)  # a negated zero is a zero

    def utility(self, values: Tensor) -> NDArray[np.floating[Any]]:
        """Return the mean over the queries."""
        mean: NDArray[np.float64] = values.numpy().mean(axis=1)
        return mean

    def details(self) -> Mapping[str, Any]:
        """Return the options, and the sign that the measure gave."""
        options = self._options
        said = {"k": options.k, "weights": options.weights, "features": options.features}
        return {"direction": self._direction, **said}


def _refuse_without_classes(task: GradientTask) -> None:
    from workers.task import Classification

    if not isinstance(task, Classification):
        raise ConfigError(f"knn_shapley: needs a Classification task, found {type(task).__name__}")


def _flat(features: Tensor) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = features.flatten(1).double().numpy()
    if not np.isfinite(flat).all():
        raise DivergedError("estimator 'knn_shapley': some features are not finite")
    return flat


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

    >>> import numpy as np
    >>> from estimators.baselines.knn_shapley import knn_shapley
    >>> votes = np.array([[1.0, 0.0, 1.0]])  # one query: the nearest is of its class, the second is not
    >>> values = knn_shapley(votes, k=1)
    >>> values.round(2).tolist(), values.sum().round(2).tolist()  # they share U(all) = 1
    ([[0.83, -0.17, 0.33]], 1.0)
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
    from scipy.spatial.distance import cdist

    found: NDArray[np.float64] = cdist(queries, train, "sqeuclidean")
    return found


def _gaussian(squared: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return weights (t, n) of sorted squared distances; where the k-th is 0, only distances of 0 have a weight: 1."""
    width = squared[:, min(k, squared.shape[1]) - 1][:, None]
    flat = width == 0
    weights: NDArray[np.float64] = np.where(flat, squared == 0, np.exp(-squared / (2 * np.where(flat, 1.0, width))))
    return weights
