"""Per-example gradients of a loss or a measure, in blocks bounded by a memory budget in bytes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import grad, vmap

from estimators.gradients.functional_model import Examples, Model, Parameters
from workers.errors import ConfigError
from workers.measures import Measure
from workers.task import DifferentiableTask

PIECE = 512
"""Most examples differentiated in one call: beyond it calls get no faster, only their activations larger."""


def slices(count: int, rows: int) -> Iterator[slice]:
    """Cover range(count) by consecutive slices of at most `rows`."""
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def rows_within(budget: int, row_bytes: int) -> int:
    """Return how many rows of `row_bytes` the budget holds; at least one, or nothing could be done at all."""
    return max(1, budget // row_bytes)


def gradients(model: Model, objective: Measure, examples: Examples, budget: int) -> Tensor:
    """Return the gradient of every example's weighted objective in the parameters, (b, p).

    `objective` maps (outputs, targets) to (b,): the task's loss or a measure. The result itself is the caller's to fit
    in memory; `budget` bounds what is held beside it.
    """

    def value(parameters: Parameters, inputs: Tensor, target: Tensor) -> Tensor:
        return objective(model(parameters, inputs.unsqueeze(0)), target.unsqueeze(0)).reshape(())

    differentiate = vmap(grad(value), in_dims=(None, 0, 0))
    result = torch.empty(len(examples), model.p, dtype=model.dtype)
    # A piece exists twice for a moment: by parameter, and flat.
    rows = min(PIECE, rows_within(budget, 2 * model.p * model.dtype.itemsize))
    for where in slices(len(examples), rows):
        piece = examples[where]
        result[where] = model.flatten(differentiate(model.parameters, piece.inputs, piece.targets))
    if examples.weights is not None:
        result *= examples.weights.unsqueeze(1)
    return result


def blocks(model: Model, objective: Measure, examples: Examples, budget: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield (which examples, their gradients (b, p)), all of it within `budget` bytes."""
    rows = rows_within(budget // 2, model.p * model.dtype.itemsize)
    for where in slices(len(examples), rows):
        yield where, gradients(model, objective, examples[where], budget // 2)


def products(model: Model, objective: Measure, examples: Examples, vectors: Tensor, budget: int) -> Tensor:
    """Return <gradient of example i's objective, vectors[q]>, (b, r), for `vectors` (r, p)."""
    result = torch.empty(len(examples), len(vectors), dtype=model.dtype)
    for where, block in blocks(model, objective, examples, budget):
        torch.mm(block, vectors.T, out=result[where])
    return result


def measure_to_differentiate(task: DifferentiableTask, name: str, model: Model, queries: Examples) -> Measure:
    """Return the measure of that name.

    Raises TaskError for an unknown one, ConfigError for one without a gradient in the outputs (such as `correct`).
    """
    measure = task.measurement(name)
    with torch.no_grad():
        outputs = model(model.parameters, queries.inputs[:1])
    outputs.requires_grad_()
    targets = queries.targets[:1]
    if not measure(outputs, targets).requires_grad:
        smooth = [other for other, f in task.measurements().items() if f(outputs, targets).requires_grad]
        raise ConfigError(
            f"measure {name!r} has no gradient, so gradient-based estimators cannot attribute it; "
            f"measures that work: {', '.join(sorted(smooth)) or 'none'}"
        )
    return measure
