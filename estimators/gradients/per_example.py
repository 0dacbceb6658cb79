"""Per-example gradients of a loss or a measure, in blocks bounded by a memory budget in bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from operator import itemgetter

import torch
from torch import Tensor
from torch.func import grad, vmap

from estimators.gradients.functional_model import Examples, Model, Parameters
from workers.data.nested import Nested, mapped, tensors
from workers.errors import ConfigError
from workers.task import GradientTask, Objective

PIECE = 512
"""Most examples differentiated in one call: beyond it calls get no faster, only their activations larger."""

logger = logging.getLogger(__name__)


def slices(count: int, rows: int) -> Iterator[slice]:
    """Cover range(count) by consecutive slices of at most `rows`."""
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def rows_within(budget: int, row_bytes: int) -> int:
    """Return how many rows of `row_bytes` the budget holds; at least one, or nothing could be done at all."""
    return max(1, budget // row_bytes)


def gradients(model: Model, objective: Objective, examples: Examples, budget: int) -> Tensor:
    """Return the gradient of every example's weighted objective in the parameters, (b, p).

    `objective` maps (module, batch) to (b,): the task's losses or a measure. The result itself is the caller's to fit
    in memory; `budget` bounds what is held beside it.
    """
    result = torch.empty(len(examples), model.p, dtype=model.dtype, device=model.device)
    # A piece exists twice for a moment: by parameter, and flat.
    rows = min(PIECE, rows_within(budget, 2 * model.p * model.dtype.itemsize))
    for where in slices(len(examples), rows):
        result[where] = model.flatten(_differentiate(model, objective, examples[where].batch()))
    if examples.weights is not None:
        result *= examples.weights.unsqueeze(1)
    return result


def _differentiate(model: Model, objective: Objective, batch: Nested) -> Parameters:
    """Return the gradient of every example of a batch by parameter name, (b, ...) each.

    All at once by `vmap`; one after another, which is slower and said, where the module cannot be batched so.
    """

    def value(parameters: Parameters, example: Nested) -> Tensor:
        one = mapped(lambda leaf: leaf.unsqueeze(0), example)
        return model.value(parameters, objective, one).reshape(())

    if model.batches:
        try:
            found: Parameters = vmap(grad(value), in_dims=(None, 0))(model.parameters, batch)
            return found
        except RuntimeError as error:
            alone = _one_by_one(model, value, batch)  # what fails here too is the module's own fault, and is raised
            model.batches = False
            first = str(error).strip().splitlines()[0]
            logger.warning(
                "gradients are taken example by example, which is slow: the module cannot be batched: %s", first
            )
            return alone
    return _one_by_one(model, value, batch)


def _one_by_one(model: Model, value: Callable[[Parameters, Nested], Tensor], batch: Nested) -> Parameters:
    count = len(tensors(batch)[0])
    each = [grad(value)(model.parameters, mapped(itemgetter(place), batch)) for place in range(count)]
    return {name: torch.stack([one[name] for one in each]) for name in model.parameters}


def blocks(model: Model, objective: Objective, examples: Examples, budget: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield (which examples, their gradients (b, p)), all of it within `budget` bytes."""
    rows = rows_within(budget // 2, model.p * model.dtype.itemsize)
    for where in slices(len(examples), rows):
        yield where, gradients(model, objective, examples[where], budget // 2)


def products(model: Model, objective: Objective, examples: Examples, vectors: Tensor, budget: int) -> Tensor:
    """Return <gradient of example i's objective, vectors[q]>, (b, r), for `vectors` (r, p)."""
    result = torch.empty(len(examples), len(vectors), dtype=model.dtype, device=vectors.device)
    for where, block in blocks(model, objective, examples, budget):
        torch.mm(block, vectors.T, out=result[where])
    return result


def measure_to_differentiate(task: GradientTask, name: str, model: Model, queries: Examples) -> Objective:
    """Return the measure of that name.

    Raises TaskError for an unknown one, ConfigError for one without a gradient in the outputs (such as `correct`).
    """
    measure = task.objective(name)
    batch = queries[:1].batch()
    parameters = {key: value.clone().requires_grad_() for key, value in model.parameters.items()}
    if not model.value(parameters, measure, batch).requires_grad:
        smooth = [other for other, f in task.objectives().items() if model.value(parameters, f, batch).requires_grad]
        raise ConfigError(
            f"measure {name!r} has no gradient, so gradient-based estimators cannot attribute it; "
            f"measures that work: {', '.join(sorted(smooth)) or 'none'}"
        )
    return measure
