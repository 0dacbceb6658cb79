"""Where a run's randomness comes from: five independent streams, all derived from the run's own seed.

Nothing here depends on the worker, the pack or the attempt, so a run is the same alone, in any pack, at any place in it.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.randomness.dropout import KeyedDropout, key_dropout
from workers.randomness.shuffle import Shuffler


class Streams:
    """The random streams of one run; each begins when it is first asked for."""

    def __init__(self, seed: int):
        words = np.random.SeedSequence(seed).generate_state(5, np.uint64)
        self._initial, self._order, self._dropout, self._augmentation, self._functional = (int(word) for word in words)

    @cached_property
    def initial(self) -> int:
        """Seed of torch's global generator while the module is built; it fits 63 bits."""
        return self._initial >> 1

    @cached_property
    def order(self) -> Shuffler:
        """Batch order: one shuffle of the subset an epoch."""
        return Shuffler(self._order)

    @cached_property
    def augmentation(self) -> np.random.Generator:
        """Crop offsets and flips, one batch at a time."""
        return np.random.Generator(np.random.PCG64(self._augmentation))

    def dropout_keys(self, steps: int, layers: int) -> NDArray[np.int32]:
        """Return the keys of all dropout masks of the training, (steps, layers)."""
        if layers == 0:
            return np.empty((steps, 0), dtype=np.int32)
        generator = np.random.Generator(np.random.PCG64(self._dropout))
        return generator.integers(0, 2**31 - 1, size=(steps, layers), dtype=np.int32)

    def functional_keys(self, batches: int) -> NDArray[np.int32]:
        """Return the keys of what functions draw in each batch (batches,): see functional_dropout.py."""
        generator = np.random.Generator(np.random.PCG64(self._functional))
        return generator.integers(0, 2**31 - 1, size=batches, dtype=np.int32)


def build_module(factory: object, seed: int, dtype: torch.dtype) -> tuple[nn.Module, list[KeyedDropout]]:
    """Build a module under its own seed; its dropout layers are replaced by keyed ones, which are returned too."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack trace for CUDA at every call
    try:
        module: nn.Module = factory()  # type: ignore[operator]
    finally:
        torch.set_rng_state(state)
    layers = key_dropout(module)
    values = chain(module.parameters(), module.buffers())
    if any(value.is_floating_point() and value.dtype != dtype for value in values):
        module.to(dtype)
    return module, layers
