"""Gradients of stacked models, gathered over the batches of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Accumulator:
    """Sums of gradients (K, ...) by parameter; each model begins and ends its sums for itself."""

    def __init__(self, parameters: Mapping[str, Tensor]):
        self.sums = {name: torch.zeros_like(value) for name, value in parameters.items()}

    @torch.no_grad()
    def add(self, gradients: Mapping[str, Tensor], where: Tensor | None, shares: Sequence[float]) -> dict[str, Tensor]:
        """Add the gradients (g, ...) of the models at `where` (None: all), times their shares; return their sums so far."""
        found = {}
        for name, gradient in gradients.items():
            factors = torch.tensor(shares, dtype=gradient.dtype, device=gradient.device)
            held = self.sums[name] if where is None else self.sums[name][where]
            found[name] = held + gradient * factors.reshape((-1,) + (1,) * (gradient.ndim - 1))
            self._put(name, where, found[name])
        return found

    def begin(self, where: Tensor | None) -> None:
        """Start the sums of the models at `where` (None: all) from zero."""
        for name in self.sums:
            self._put(name, where, 0.0)

    def _put(self, name: str, where: Tensor | None, value: Tensor | float) -> None:
        self.sums[name][slice(None) if where is None else where] = value
