"""Statistics of batch normalizations, recomputed on what a finished model was trained on."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from workers.data.examples import Readable
from workers.task import DifferentiableTask


@torch.no_grad()
def recompute(task: DifferentiableTask, module: nn.Module, examples: Readable, subset: NDArray[np.int64]) -> None:
    """Replace running means and variances by averages over the subset, in place; the module is left in evaluation mode.

    The subset, in ascending order, is cut into parts as equal as can be, none larger than a batch; every part counts the same,
    as in torch's `update_bn`. Everything but the normalizations is in evaluation mode: dropout is off, nothing is augmented.
    """
    module.eval()
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for part in np.array_split(subset, math.ceil(len(subset) / task.recipe.batch_size)):
        x, _ = examples.read(torch.from_numpy(part))
        task.call(module, x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
