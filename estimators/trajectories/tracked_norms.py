"""Batch normalization whose running statistics are functions of the parameters, to be differentiated."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from workers.errors import ConfigError
from workers.training.present_norm import PresentBatchNorm

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, PresentBatchNorm)


class TrackedNorm(PresentBatchNorm):
    """The same normalization; in training it leaves the running statistics alone, and tells what would enter them.

    In evaluation mode its running statistics may be differentiated in, which torch's own operation does not allow.
    """

    entering: tuple[Tensor, Tensor] | None = None
    """Mean and unbiased variance (c,) of the last batch in training, with the graph that they come from."""

    @classmethod
    def within(cls, module: nn.Module) -> dict[str, TrackedNorm]:
        """Exchange every batch normalization of a module, in place; return the new ones by name, in the order of its modules."""
        made: dict[int, TrackedNorm] = {}
        for parent in list(module.modules()):
            for name, child in list(parent._modules.items()):
                if type(child) in _KNOWN and isinstance(child, _BatchNorm):
                    if id(child) not in made:
                        made[id(child)] = cls.of(child)
                    setattr(parent, name, made[id(child)])
        return {name: part for name, part in module.named_modules() if isinstance(part, TrackedNorm)}

    @classmethod
    def of(cls, norm: _BatchNorm) -> TrackedNorm:
        """Return the normalization in this form, with the same parameters and buffers under the same names."""
        made = super().of(norm)
        assert isinstance(made, TrackedNorm)
        return made

    def factor(self, before: int) -> float:
        """Return the weight with which the statistics of a batch enter the running ones, after so many batches."""
        return 1 / (before + 1) if self.momentum is None else self.momentum

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (b, c, ...) by the statistics of the present examples, or, in eval mode, by the running ones."""
        if self.training and self.present.ndim == 0:  # written out, since torch's operation tells no statistics
            everyone, self.present = self.present, torch.ones(len(input), dtype=torch.bool, device=input.device)
            found = super().forward(input)
            self.present = everyone
            return found
        if self.training:
            return super().forward(input)
        shape = (1, -1) + (1,) * (input.ndim - 2)
        if self.running_mean is None or self.running_var is None:
            return super().forward(input)
        normal = (input - self.running_mean.reshape(shape)) * (self.running_var + self.eps).rsqrt().reshape(shape)
        if self.weight is not None:
            normal = normal * self.weight.reshape(shape)
        return normal if self.bias is None else normal + self.bias.reshape(shape)

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        self.entering = mean, variance * count / (count - 1).clamp(min=1)


def refuse_other_norms(module: nn.Module, name: str) -> None:
    """Raise ConfigError, in an estimator's name, for running statistics of another kind: their derivative is not known here."""
    for where, part in module.named_modules():
        other = isinstance(part, _BatchNorm) and type(part) not in _KNOWN and not isinstance(part, TrackedNorm)
        if (other or isinstance(part, _InstanceNorm)) and part.track_running_stats:
            raise ConfigError(
                f"{name}: {where or 'the module'} is a {type(part).__name__}, whose running statistics cannot be followed; "
                "expected nn.BatchNorm1d to 3d, or normalizations without running statistics"
            )
