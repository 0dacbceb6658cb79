"""Queries that come later, answered from what is kept of the training examples: none of these is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.evidence import Evidence
from estimators.gradient_based.projected import ProjectedEffects, ProjectingEstimator, multipliers_of, products
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import rows_within, slices
from estimators.kept_gradients import ROWS, Array, KeptGradients, LackingGradients, difference
from estimators.reference_estimator import Material
from workers.data.examples import Arrays, Readable
from workers.data.nested import Nested, length
from workers.errors import ConfigError, DivergedError, StoreError
from workers.runs import Checkpoint


class _Unread(Readable):
    """Examples that are counted, and never read."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Tensor) -> Nested:
        """Raise AssertionError."""
        raise AssertionError("training examples are not read for a new query")

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> _Unread:
        """Return the same."""
        return self


@dataclass(frozen=True)
class NewQueries:
    """The effects of n training examples on q new queries, computed when they are asked for, some examples at a time."""

    n: int
    """Training examples."""
    q: int
    """Queries."""
    models: int
    """Reference models that they are averaged over."""
    _effects: ProjectedEffects
    _pairs: tuple[tuple[Array, Tensor], ...]
    """Of every network the rows (n, k) that are kept, and the queries' projected gradients (q, k)."""
    _budget: int

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield (which examples, the effects on every query (b, q)), ascending, within the estimator's memory budget.

        Raises StoreError for kept rows that are damaged, DivergedError for values that are not finite.
        """
        # A sum, what is added to it, and it in float32; rows are read a few at a time.
        size = rows_within(self._budget // 4, 24 * self.q)
        for where in slices(self.n, size):
            total = torch.zeros(where.stop - where.start, self.q, dtype=torch.float64)
            for rows, targets in self._pairs:
                total += products(rows, targets, where)
            found = self._effects.scaled(total / len(self._pairs), where)
            if not bool(torch.isfinite(found).all()):
                raise DivergedError("attributions of new queries are not finite: a reference model diverged")
            yield where, found.float().numpy()

    def values(self) -> NDArray[np.float32]:
        """Return all effects, (n, q)."""
        return np.concatenate([block for _, block in self.blocks()])


def new_queries(estimator: ProjectingEstimator, evidence: Evidence, batch: Nested) -> NewQueries:
    """Return what an estimator attributes of new queries: a batch of them (q, ...) as the task's own queries are.

    `evidence.gradients` has what is kept of the training examples; the reference models must be those that it is kept of.
    Raises StoreError where something is missing or was made in another way, ConfigError for a flat measure and for more queries
    than there is memory for.

    >>> import numpy as np
    >>> from estimators.gradient_based.logra import Logra
    >>> from estimators.gradient_based.new_queries import new_queries
    >>> from estimators.testing import model_evidence
    >>> evidence, estimator = model_evidence(), Logra(store=True)
    >>> made = estimator.attribute(evidence)  # keeps the gradients of 24 examples at two models
    >>> known = evidence.task.examples("task").read(np.arange(4))
    >>> found = new_queries(estimator, evidence, known)
    >>> found.n, found.q, found.models, bool(np.allclose(found.values(), made.values))
    (24, 4, 2, True)
    """
    task, references = evidence.differentiable(), estimator.references(evidence)
    precision = estimator.dtype(task)
    count = length(batch, "queries")
    material = Material(
        task,
        evidence.measure,
        Examples(_Unread(evidence.n), torch.arange(evidence.n)),
        Examples(Arrays(batch).to(precision), torch.arange(count)),
        references,
        precision,
        evidence.seed,
        estimator.parameters,
        estimator.dropout,
        evidence.gradients,
    )
    effects = estimator.projected_effects(material)
    pairs: list[tuple[Array, Tensor]] = []
    for reference in references:
        for model, checkpoint, _ in effects.networks(reference):
            kept = _found(effects, model, checkpoint, len(pairs))
            projector = effects.projector(kept, model)
            _refuse_unaffordable(estimator, count, projector.k, len(pairs) + 1)
            targets = effects.targets(projector, model)
            effects.remember(kept.told, multipliers_of(kept))
            pairs.append((kept.arrays[ROWS], targets))
    return NewQueries(evidence.n, count, len(references), effects, tuple(pairs), estimator.budget)


def _found(effects: ProjectedEffects, model: Model, checkpoint: Checkpoint, number: int) -> KeptGradients:
    found = effects.material.gradients.kept(number)
    if found is None:
        raise LackingGradients(f"gradients of {number} reference networks are kept, expected more")
    if other := difference(found.identity, effects.identity(model, checkpoint, number)):
        raise StoreError(f"gradients of reference network {number} are kept of something else: {other}")
    return found


def _refuse_unaffordable(estimator: ProjectingEstimator, count: int, k: int, networks: int) -> None:
    held = 8 * count * k * networks
    if held > estimator.budget // 2:
        raise ConfigError(
            f"{estimator.name}: gradients of {count:,} queries in {k:,} dimensions, of {networks} networks, take "
            f"{held / 2**30:.2g} GiB, more than half of memory_gb={estimator.memory_gb:g}: expected fewer queries at a time, "
            "or a larger memory_gb"
        )
