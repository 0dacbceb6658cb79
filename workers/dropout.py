"""Dropout whose masks come from a key instead of a generator's state.

The mask is a hash of (key, position), so a batch of models, each with its own key, draws exactly what each would draw alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _mix(x: Tensor) -> Tensor:
    """Mix 32-bit integers bijectively (the triple of constants is Wellons' 'lowbias32')."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B as a signed 32-bit number
    return x ^ ((x >> 16) & 0xFFFF)


def hash_positions(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the hashes of the positions 0..count-1, int32, before any key is mixed in."""
    return _mix(torch.arange(count, dtype=torch.int32, device=device))


def keep_mask(key: Tensor, shape: torch.Size, p: float) -> Tensor:
    """Return a bool mask that is True with probability 1 - p.

    `key` is an int32 scalar: the mask has `shape`. Works under `torch.vmap` over `key`.
    """
    count = shape.numel()
    bits = _mix(hash_positions(count, key.device) ^ key) & 0x7FFFFFFF
    return (bits >= int(p * 2**31)).reshape(shape)


class KeyedDropout(nn.Module):
    """Inverted dropout with its mask drawn from the buffer `key`, which the trainer sets before every step."""

    key: Tensor

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Zero each element with probability p and scale the others by 1 / (1 - p); identity in eval mode."""
        if not self.training or self.p == 0:
            return inputs
        keep = keep_mask(self.key, inputs.shape, self.p)
        return inputs * keep * (1 / (1 - self.p)) if self.p < 1 else inputs * 0


def key_dropout(module: nn.Module) -> list[KeyedDropout]:
    """Replace every nn.Dropout inside `module` by a KeyedDropout, in place; return them in forward-registration order."""
    made: list[KeyedDropout] = []
    parts = list(module.modules())
    if not any(isinstance(part, nn.modules.dropout._DropoutNd) for part in parts):
        return made
    for parent in parts:
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                keyed = KeyedDropout(child.p)
                setattr(parent, name, keyed)
                made.append(keyed)
            elif isinstance(child, nn.modules.dropout._DropoutNd):
                raise NotImplementedError(f"{type(child).__name__} is not supported: use nn.Dropout")
    return made
