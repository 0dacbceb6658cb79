"""The last batch of an epoch: what is smaller than `batch_size`, and too small for a batch normalization or left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from workers.errors import TaskError, one_line
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import build_module
from workers.recipe import Recipe
from workers.task import DifferentiableTask
from workers.training.precision import DTYPES

_TORCH_SAYS = "Expected more than 1 value per channel when training"
REMEDY = "recipe.drop_last: true leaves out the last batch of an epoch where it is smaller than batch_size"


@contextmanager
def named_remedy(recipe: Recipe, examples: int) -> Iterator[None]:
    """Have a batch normalization's refusal of a last batch of one example name the remedy: raises TaskError for it."""
    try:
        yield
    except Exception as error:
        if examples == 1 < recipe.batch_size and _TORCH_SAYS in str(error):
            raise TaskError(f"the last batch of an epoch has 1 example: {one_line(error)}: {REMEDY}") from error
        raise


def check_last_batch(task: DifferentiableTask, size: int, in_full: bool = True) -> None:
    """Raise TaskError if batches of so many examples are none, or the last of them is one that the module cannot take.

    Unless `in_full`, in shared order, normalizations take statistics of what is there, and fail on no batch.
    """
    recipe = task.recipe
    recipe.check_places(size)
    if not in_full or recipe.places_per_epoch(size) % recipe.batch_size != 1 or recipe.batch_size == 1:
        return
    dtype = DTYPES[recipe.precision]
    module, _ = build_module(task.module, 0, dtype)
    if not any(isinstance(part, _BatchNorm) for part in module.modules()):
        return
    x, _ = task.examples("train").to(dtype).read(torch.zeros(1, dtype=torch.int64))
    with named_remedy(recipe, 1), torch.no_grad(), KeyedCalls(torch.zeros((), dtype=torch.int32)):
        task.call(module.train(), x)
