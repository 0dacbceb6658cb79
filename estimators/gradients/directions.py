"""Directions of gradients: each of length 1, as a whole or layer by layer, and the cosines between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import blocks
from workers.task import Objective


def layers(model: Model) -> list[slice]:
    """Return which of the p parameters each layer has: those of one module together, as a weight and its bias."""
    found: list[slice] = []
    start, last = 0, None
    for name, parameter in model.parameters.items():
        owner, stop = name.rpartition(".")[0], start + parameter.numel()
        if found and owner == last:
            found[-1] = slice(found[-1].start, stop)
        else:
            found.append(slice(start, stop))
        start, last = stop, owner
    return found


def normalized(rows: Tensor, parts: Sequence[slice]) -> Tensor:
    """Return `rows` (b, p) with every part of every row of length 1, in place; a part of zeros stays zeros.

    A row is divided by its largest entry first: gradients of well-fitted examples are so small that their squares vanish.
    """
    for part in parts:
        columns = rows[:, part]
        columns /= _or_one(columns.abs().amax(1, keepdim=True))
        columns /= _or_one(columns.norm(dim=1, keepdim=True))
    return rows


def _or_one(lengths: Tensor) -> Tensor:
    return torch.where(lengths > 0, lengths, 1.0)


def cosines(
    model: Model,
    objectives: tuple[Objective, Objective],
    examples: tuple[Examples, Examples],
    parts: Sequence[slice],
    budget: int,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (which of the second examples, (n, b)): the sum over the parts of the cosines between the gradients of the first
    objective at the n first examples and those of the second at the second.
    """
    for where, rows in blocks(model, objectives[1], examples[1], budget // 2):
        asked = normalized(rows, parts)
        found = asked.new_empty(len(examples[0]), len(asked))
        for place, block in blocks(model, objectives[0], examples[0], budget // 2):
            torch.mm(normalized(block, parts), asked.T, out=found[place])
        yield where, found
