"""The Gram matrix of 0/1 masks, exact in integers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TILE = 512
"""Columns of one tile: only tiles on and above the diagonal are multiplied."""
ROWS = 512
"""Rows transposed at a time, so that what is read and what is written stay in the cache."""
FLOAT32_EXACT = 2**24
"""Sums of 0/1 products are exact in float32 up to here."""


def has_integer_products(device: str = "cpu") -> bool:
    """Say whether int8 matrix products are fast here: VNNI (or AMX) on a CPU, tensor cores on a GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 5)
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(probe and probe())


def _integer_product(left: Tensor, right: Tensor) -> Tensor:
    """Return left (a, b) @ right (b, c) of int8 matrices as int32; CUDA wants a > 16 and b, c divisible by 8."""
    if left.device.type != "cuda":
        return torch._int_mm(left, right)
    (a, b), c = left.shape, right.shape[1]
    pad = torch.nn.functional.pad
    left = pad(left, (0, -b % 8, 0, max(24 - a, -a % 8)))
    return torch._int_mm(left, pad(right, (0, -c % 8, 0, -b % 8)))[:a, :c]


def add_gram(
    total: NDArray[np.int32], masks: NDArray[np.bool_], *, integer: bool | None = None, device: str = "cpu"
) -> None:
    """Add masks.T @ masks to `total` (n, n) in place, exactly; masks is (b, n).

    `integer` forces int8 products (True) or float32 products (False, at most 2**24 rows); None takes what is fast here.
    """
    integer = has_integer_products(device) if integer is None else integer
    if not integer and len(masks) > FLOAT32_EXACT:
        raise ValueError(f"a block has {len(masks)} rows, float32 counts exactly up to {FLOAT32_EXACT}")
    out = torch.from_numpy(total)
    bits = torch.from_numpy(masks).to(device)
    block = bits.view(torch.int8) if integer else bits.to(torch.float32)
    # a copy with canonical strides: `_int_mm` misreads the leading dimension of a (1, b) view whose strides are (1, 1)
    transposed = torch.empty((block.shape[1], block.shape[0]), dtype=block.dtype, device=block.device)
    for start in range(0, len(block), ROWS):
        transposed[:, start : start + ROWS] = block[start : start + ROWS].T
    for start in range(0, block.shape[1], TILE):
        stop = start + TILE
        left, right = transposed[start:stop], block[:, start:]
        product = _integer_product(left, right) if integer else (left @ right).to(torch.int32)
        out[start:stop, start:] += product.cpu()
        out[stop:, start:stop] = out[start:stop, stop:].T
