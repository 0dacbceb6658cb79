"""Cut an epoch's order into batches, and batches into optimizer steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from workers.recipe import Recipe


class Portion(NamedTuple):
    """Examples that go through the model together."""

    examples: Tensor
    """Their indices, (b,) int64."""
    share: float
    """Of its step's examples: the factor on the batch's mean loss in the step's."""
    ends_step: bool
    """Whether the optimizer steps after it."""


def cut(order: Tensor, recipe: Recipe) -> list[Portion]:
    """Cut an epoch's order (m,) into batches of `batch_size`, `accumulate` of them a step; none is shared by two epochs.

    The last batch and the last step take what is left. The shares of a step's batches sum to 1, so that its gradient is that of
    the mean loss over all of its examples.
    """
    found: list[Portion] = []
    for examples in torch.split(order, recipe.batch_size * recipe.accumulate):
        parts = torch.split(examples, recipe.batch_size)
        found += [Portion(part, len(part) / max(1, len(examples)), part is parts[-1]) for part in parts]
    return found
