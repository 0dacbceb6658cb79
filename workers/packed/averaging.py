"""Exponential moving averages of stacked parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class StackedAverage:
    """One average (K, ...) a parameter: what it is after the first step, then average * decay + parameter * (1 - decay)."""

    def __init__(self, decay: float, parameters: Mapping[str, Tensor]):
        self.decay, self.parameters = decay, parameters
        self.values = {name: value.clone() for name, value in parameters.items()}

    @torch.no_grad()
    def follow(self, where: Tensor | None, steps: Sequence[int]) -> None:
        """Take in the parameters of the models at `where` (None: all), which had taken so many steps (g) before this one."""
        place = slice(None) if where is None else where
        for name, value in self.parameters.items():
            decay = torch.tensor(
                [self.decay if step else 0.0 for step in steps], dtype=value.dtype, device=value.device
            )
            decay = decay.reshape((-1,) + (1,) * (value.ndim - 1))
            self.values[name][place] = self.values[name][place] * decay + value[place] * (1 - decay)

    @torch.no_grad()
    def finish(self, place: int) -> None:
        """Put one model's average in its parameters' place."""
        for name, value in self.parameters.items():
            value[place] = self.values[name][place]
