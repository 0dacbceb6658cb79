"""Batch normalization over the examples that are present: one that weighs 0 in its batch must not touch the others."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from workers.errors import TaskError
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import build_module
from workers.task import DifferentiableTask
from workers.training.precision import DTYPES

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LOOKED_AT = 4
"""Examples of the batch on which it is tried whether one touches the others."""


class PresentBatchNorm(_BatchNorm):
    """torch's batch normalization, whose statistics while training are over the present examples only.

    Which are present is the buffer `present`, (b,) bool, that the trainer sets before every step; as long as it is a scalar all
    are, and torch's own operation is taken. The biased variance normalizes, the unbiased one enters the running variance. Where
    no example is present, running statistics stay as they are, and so does the running variance where one value makes none.
    """

    present: Tensor

    @classmethod
    def of(cls, norm: _BatchNorm) -> PresentBatchNorm:
        """Return the normalization in this form, with the same parameters and buffers under the same names."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.__dict__.update(norm.__dict__)
        made._buffers = {**norm._buffers}
        made._non_persistent_buffers_set = {*norm._non_persistent_buffers_set}
        made.register_buffer("present", torch.ones((), dtype=torch.bool), persistent=False)
        return made

    def _check_input_dim(self, input: Tensor) -> None:
        """Take what torch's one to three dimensional forms take."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (b, c, ...) by the statistics of the present examples, or, in eval mode, by the running ones."""
        if not self.training or self.present.ndim == 0:
            return super().forward(input)
        shape = (1, -1) + (1,) * (input.ndim - 2)
        along = [0, *range(2, input.ndim)]
        weight = self.present.to(input.dtype).reshape(-1, *(1 for _ in input.shape[1:])).expand_as(input)
        count = self.present.sum().to(input.dtype) * (input[0].numel() // input.shape[1])
        some = count.clamp(min=1)
        mean = (input * weight).sum(along) / some
        centred = (input - mean.reshape(shape)) * weight
        variance = (centred * centred).sum(along) / some
        if self.running_mean is not None:
            self._track(mean, variance, count)
        scale = (variance + self.eps).rsqrt()
        normal = (input - mean.reshape(shape)) * scale.reshape(shape)
        if self.weight is not None:
            normal = normal * self.weight.reshape(shape)
        return normal if self.bias is None else normal + self.bias.reshape(shape)

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Let running statistics follow those (c,) of a batch of `count` present values; without a branch, as vmap needs it."""
        mean, variance = mean.detach(), variance.detach()
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_((count > 0).to(self.num_batches_tracked.dtype))
        seen = self.num_batches_tracked.clamp(min=1).to(mean.dtype)
        factor = 1 / seen if self.momentum is None else self.momentum  # without one, a cumulative average
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.add_(torch.where(count > 0, factor * (mean - self.running_mean), 0))
        self.running_var.add_(torch.where(count > 1, factor * (unbiased - self.running_var), 0))


def exchange_norms(module: nn.Module) -> list[PresentBatchNorm]:
    """Exchange every nn.BatchNorm1d to 3d inside `module`, in place; return their new forms, in the order of its modules.

    Other forms stay as they are: `check_apart` tells whether they mix examples.
    """
    made: dict[int, PresentBatchNorm] = {}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):  # named_children passes over one that comes twice
            if isinstance(child, _BatchNorm) and type(child) in _KNOWN:
                if id(child) not in made:  # one that stands in two places stays one
                    made[id(child)] = PresentBatchNorm.of(child)
                setattr(parent, name, made[id(child)])
    return list(made.values())


@torch.no_grad()
def check_apart(task: DifferentiableTask) -> None:
    """Raise TaskError if an example touches what the module makes of another one, otherwise than by a batch normalization.

    Tried on a few training examples, of which the first is left out: with another one in its place, all else must stay.
    """
    dtype = DTYPES[task.recipe.precision]
    module, _ = build_module(task.module, 0, dtype)
    norms = exchange_norms(module.train())
    indices = torch.arange(min(_LOOKED_AT, task.n))
    for norm in norms:
        norm.present = indices > 0
    made = []
    for first in (0, len(indices) - 1):
        x = task.examples("train").to(dtype).read(torch.cat([indices[first : first + 1], indices[1:]])).inputs
        with KeyedCalls(torch.zeros((), dtype=torch.int32)):
            made.append([leaf for leaf in tree_leaves(task.call(module, x)) if isinstance(leaf, Tensor)])
    near = partial(torch.allclose, rtol=1e-4, atol=1e-5, equal_nan=True)
    if not all(near(one[1:], other[1:]) for one, other in zip(*made, strict=True)):
        raise TaskError(
            f"{type(task).__name__}.module() mixes the examples of a batch otherwise than by nn.BatchNorm1d to 3d, so that in "
            "shared order a left-out one would touch the model"
        )
