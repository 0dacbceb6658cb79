"""What the ledger keeps to recognize rows: BLAKE2b, 16 bytes, in hex."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTES = 16


def content_hash(content: bytes) -> str:
    """Return the hash of a file's bytes."""
    return hashlib.blake2b(content, digest_size=_BYTES).hexdigest()


def row_hashes(
    plan: Mapping[str, NDArray[Any]],
    outputs: Sequence[NDArray[np.float32]],
    checkpoints: Sequence[Mapping[int, str]],
) -> list[str]:
    """Return the hash of each of r done rows: of its mask bits, seed, weights, outputs and checkpoint hashes, in this order.

    Of the plan, `masks` (r, n) go in as numpy.packbits of each row; `seeds` (r,) as 4 bytes, `weights` (r, n) where the design
    has them, and each measure's outputs (r, t), in the store's order, as float32, little-endian; then the hex hash of each
    checkpoint file as ASCII, by ascending epoch.
    """
    weights = [plan["weights"].astype("<f4")] if "weights" in plan else []
    columns = [plan["seeds"].astype("<u4")[:, None], *weights, *(values.astype("<f4") for values in outputs)]
    parts = [np.packbits(plan["masks"], axis=1), *(np.ascontiguousarray(values).view(np.uint8) for values in columns)]
    hashes = []
    for content, files in zip(np.concatenate(parts, axis=1), checkpoints, strict=True):
        digest = hashlib.blake2b(content, digest_size=_BYTES)
        for epoch in sorted(files):
            digest.update(files[epoch].encode())
        hashes.append(digest.hexdigest())
    return hashes


def plan_hash(plan: Mapping[str, NDArray[Any]], rows: int) -> str:
    """Return the hash of the first `rows` rows of a pack's plan: masks, seeds, subsets, repeats, and weights if it has them."""
    digest = hashlib.blake2b(np.packbits(plan["masks"][:rows], axis=1).tobytes(), digest_size=_BYTES)
    for name, dtype in (("seeds", "<u4"), ("subsets", "<i8"), ("repeats", "<i4"), ("weights", "<f4")):
        if name in plan:
            digest.update(plan[name][:rows].astype(dtype).tobytes())
    return digest.hexdigest()
