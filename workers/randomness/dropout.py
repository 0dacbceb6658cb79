"""Dropout whose masks come from a key instead of a generator's state.

The mask is a hash of (key, position), so a batch of models, each with its own key, draws exactly what each would draw alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from workers.kernels import cpu


def _mix(x: Tensor) -> Tensor:
    """Mix 32-bit integers bijectively, in place (the triple of constants is Wellons' 'lowbias32')."""
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= -0x7B935975  # 0x846CA68B as a signed 32-bit number
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


@lru_cache(maxsize=64)
def hash_positions(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the hashes of the positions 0..count-1, int32, before any key is mixed in; not to be written to."""
    return _mix(torch.arange(count, dtype=torch.int32, device=device))


def keep_mask(key: Tensor, shape: torch.Size, p: float) -> Tensor:
    """Return a bool mask that is True with probability 1 - p.

    `key` is an int32 scalar: the mask has `shape`. Works under `torch.vmap` over `key`.
    """
    bits = _mix(hash_positions(shape.numel(), key.device) ^ key).bitwise_and_(0x7FFFFFFF)
    return (bits >= int(p * 2**31)).reshape(shape)


def derived_key(key: Tensor, place: int) -> Tensor:
    """Return the key of the mask at a place in a row of masks that one key governs, an int32 scalar."""
    return _mix(key ^ (place * 0x3C6EF372 + 0x1B873593) % 2**31)


class KeyedDropout(nn.Module):
    """Inverted dropout with its mask drawn from a key that the trainer sets before every step.

    The key is the buffer `key`. Where the trainer gives it as a `number` too, a CPU draws the same mask in one compiled loop.
    """

    key: Tensor
    number: int | None = None
    shared: bool = False
    """Whether all examples of a batch have one mask: the layer then is one thinned network, and not another for every example."""

    def __init__(self, p: float, channels: bool = False):
        """With `channels` whole channels are dropped: one number for each of the first two dimensions of a batch."""
        super().__init__()
        self.p, self.channels = p, channels
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Zero each element with probability p and scale the others by 1 / (1 - p); identity in eval mode."""
        if not self.training or self.p == 0:
            return inputs
        return inputs * self._factors(inputs) if self.p < 1 else inputs * 0

    def _factors(self, inputs: Tensor) -> Tensor:
        """Return 0 or 1 / (1 - p) for every element."""
        scale = 1 / (1 - self.p)
        if self.channels or self.shared:
            inner = (1 for _ in inputs.shape[2:]) if self.channels else inputs.shape[2:]
            shape = torch.Size([1 if self.shared else len(inputs), *inputs.shape[1:2], *inner])
            return keep_mask(self.key, shape, self.p).to(inputs.dtype) * scale
        if self.number is None or inputs.device.type != "cpu":
            return keep_mask(self.key, inputs.shape, self.p).to(inputs.dtype) * scale
        wide = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        factors = torch.empty(inputs.shape, dtype=wide)
        flat = factors.view(-1).numpy()
        hashed = hash_positions(inputs.numel()).numpy().view(np.uint32)
        cpu.dropout_factors(
            np.uint32(self.number), hashed, np.uint32(int(self.p * 2**31)), flat.dtype.type(scale), flat
        )
        return factors.to(inputs.dtype)


def key_dropout(module: nn.Module) -> list[KeyedDropout]:
    """Replace every dropout layer inside `module` by a KeyedDropout, in place; return them in forward-registration order."""
    made: list[KeyedDropout] = []
    parts = list(module.modules())
    if not any(isinstance(part, nn.modules.dropout._DropoutNd) for part in parts):
        return made
    for parent in parts:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
                keyed = KeyedDropout(child.p, channels=not isinstance(child, nn.Dropout))
                keyed.train(child.training)
                setattr(parent, name, keyed)
                made.append(keyed)
            elif isinstance(child, nn.modules.dropout._DropoutNd):
                raise NotImplementedError(
                    f"{type(child).__name__} is not supported: use nn.Dropout, or nn.Dropout1d to 3d"
                )
    return made
