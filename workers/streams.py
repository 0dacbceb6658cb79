"""Where a run's randomness comes from: four independent streams, all derived from the run's own seed.

Nothing here depends on the worker, the pack or the attempt, so a run is the same alone, in any pack, at any place in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.dropout import KeyedDropout, key_dropout


@dataclass(frozen=True, slots=True)
class Streams:
    """The random streams of one run."""

    initial: int
    """Seed of torch's global generator while the module is built."""
    order: np.random.Generator
    """Batch order: one permutation of the subset an epoch."""
    dropout: np.random.Generator
    """Keys of the dropout masks: one a step and layer."""
    augmentation: np.random.Generator
    """Crop offsets and flips, one batch at a time."""

    @classmethod
    def of(cls, seed: int) -> Streams:
        """Derive the streams of the run with this seed."""
        initial, order, dropout, augmentation = np.random.SeedSequence(seed).spawn(4)
        return cls(
            int(initial.generate_state(1, np.uint64)[0] >> np.uint64(1)),
            np.random.Generator(np.random.PCG64(order)),
            np.random.Generator(np.random.PCG64(dropout)),
            np.random.Generator(np.random.PCG64(augmentation)),
        )

    def dropout_keys(self, steps: int, layers: int) -> NDArray[np.int32]:
        """Return the keys of all dropout masks of the training, (steps, layers)."""
        return self.dropout.integers(0, 2**31 - 1, size=(steps, layers), dtype=np.int32)


def build_module(factory: object, seed: int, dtype: torch.dtype) -> tuple[nn.Module, list[KeyedDropout]]:
    """Build a module under its own seed; its dropout layers are replaced by keyed ones, which are returned too."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(
        seed
    )  # not torch.manual_seed, which formats a stack trace for CUDA, at every call
    try:
        module: nn.Module = factory()  # type: ignore[operator]
    finally:
        torch.set_rng_state(state)
    layers = key_dropout(module)
    return module.to(dtype), layers
