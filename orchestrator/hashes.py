"""What the ledger keeps to recognize rows: BLAKE2b, 16 bytes, in hex."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTES = 16


def row_hash(
    mask: NDArray[np.bool_], seed: int, outputs: Sequence[NDArray[np.float32]], checkpoints: Mapping[int, str]
) -> str:
    """Return the hash of a done row: of its mask bits, seed, outputs and checkpoint hashes, in this order.

    `mask` is (n,) and goes in as numpy.packbits(mask); the seed as 4 bytes and each measure's output (t,), in the
    store's order, as float32, little-endian; then the hex hash of each checkpoint file as ASCII, by ascending epoch.
    """
    digest = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=_BYTES)
    digest.update(np.array(seed, dtype="<u4").tobytes())
    for values in outputs:
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    for epoch in sorted(checkpoints):
        digest.update(checkpoints[epoch].encode())
    return digest.hexdigest()


def plan_hash(plan: Mapping[str, NDArray[Any]], rows: int) -> str:
    """Return the hash of the first `rows` rows of a pack's plan (masks, seeds, subsets, repeats)."""
    digest = hashlib.blake2b(np.packbits(plan["masks"][:rows], axis=1).tobytes(), digest_size=_BYTES)
    for name, dtype in (("seeds", "<u4"), ("subsets", "<i8"), ("repeats", "<i4")):
        digest.update(plan[name][:rows].astype(dtype).tobytes())
    return digest.hexdigest()
