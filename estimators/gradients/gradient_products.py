"""Inner products of the gradients of training examples with those of queries, from the factors of their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from estimators.gradients.factors import Factor, inner_products
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.kept import Kept
from estimators.gradients.layers import Layers
from estimators.gradients.parameter_blocks import ParameterBlock
from estimators.gradients.per_example import slices
from workers.task import Objective

Change: TypeAlias = Callable[[Sequence[ParameterBlock], list[Factor]], list[Factor]]
"""What is made of a batch's gradients."""


def gradient_products(
    model: Model,
    train: tuple[Objective, Examples],
    queries: tuple[Objective, Examples],
    budget: int,
    change: Change | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (which queries, <gradient of i's objective, gradient of q's> (n, b)), within `budget` bytes beside the result.

    `change` is made to both sides first: it maps blocks and their factors to factors.

    Where examples pass a layer once, an inner product takes 2 (in + out) operations and not 2 in out; where a layer's gradients
    are less when they are formed, they are.

    >>> import torch
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.gradients.gradient_products import gradient_products
    >>> from estimators.gradients.per_example import gradients
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # 24 examples, 4 queries
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> losses = (task.losses, Examples.training(task, torch.float64))
    >>> margins = (task.objective("margin"), Examples.queried(task, evidence.queries, torch.float64))
    >>> ((_, found),) = gradient_products(model, losses, margins, budget=2**20)
    >>> left, right = (gradients(model, *pair, budget=2**20) for pair in (losses, margins))
    >>> torch.allclose(found, left @ right.T)
    True
    """
    quarter = budget // 4
    of_train, of_queries = Layers.of(model, [train, queries])
    held = sum(factor.held for factor in of_train.factors(train[1][:1])) * model.dtype.itemsize
    rows = of_train.rows(train[1], quarter)

    def changed(layers: Layers, factors: list[Factor]) -> list[Factor]:
        return factors if change is None else change(layers.blocks, factors)

    def batches() -> Iterator[tuple[slice, list[Factor]]]:
        for where, factors in of_train.batches(train[1], rows):
            yield where, changed(of_train, factors)

    kept = Kept(batches, held * len(train[1]), quarter)
    for where in slices(len(queries[1]), of_queries.rows(queries[1], quarter)):
        asked = changed(of_queries, of_queries.factors(queries[1][where]))
        result = torch.zeros(len(train[1]), where.stop - where.start, dtype=model.dtype, device=model.device)
        for at, factors in kept:
            for one, other in zip(factors, asked, strict=True):
                result[at] += inner_products(one, other)
        yield where, result
