"""J^T M J v over a batch, where J is the Jacobian of something that a model says of it: a push forward and a pull back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import vjp

from estimators.gradients.functional_model import Model, Parameters

Said: TypeAlias = Callable[[Parameters], Tensor]
LinearMap: TypeAlias = Callable[[Tensor], Tensor]


def add_products(
    model: Model,
    said: Said,
    middle: Callable[[Tensor], LinearMap],
    rows: Tensor,
    total: Tensor,
) -> None:
    """Add to `total` (r, p) the rows J^T M J v for the rows v of `rows` (r, p), without forming J.

    `said` maps parameters to a tensor, J is its Jacobian at the model's; `middle(at)` returns the map u -> M u, for `at` =
    what was said. Two backward passes for every row.
    """
    at, pull_back = vjp(said, model.parameters)[:2]
    between = middle(at)
    # J v is the transpose of the linear map u -> u J, so reverse mode does it; forward mode covers fewer layers.
    push_forward = vjp(lambda u: pull_back(u)[0], torch.zeros_like(at))[1]
    for row, sum_ in zip(rows, total, strict=True):
        tangent = push_forward(model.unflatten(row))[0]
        sum_ += model.flatten(pull_back(between(tangent))[0])
