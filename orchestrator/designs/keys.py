"""Where randomness comes from: keys of (root, design, subset, repeat), never a live stream and never the attempt.

The same configuration therefore gives the same runs, in any order, on any number of workers, after any crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestrator.designs.seed_sequences import Prepared, generate_states

SCORE_SHARE = 8
"""One mask in so many belongs to scoring designs; see `is_for_scoring`."""
FEW = 10
"""Fewer generators than these are faster made one by one than at once."""


def _word(text: str) -> int:
    """Return a 32-bit number that stands for `text` in a key."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def seed_of(root: int, design: str, subset: int, repeat: int) -> int:
    """Return the seed of one run, 0 <= seed < 2**32, the range that every library accepts."""
    key = np.random.SeedSequence(root, spawn_key=(_word("seed"), _word(design), subset, repeat))
    return int(key.generate_state(1)[0])


def seeds_of(root: int, design: str, subsets: NDArray[np.int64], repeats: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Return `seed_of` of many runs, (k,) uint32."""
    keys = _keys("seed", design, subsets, repeats)
    return generate_states(root, keys, words=1)[:, 0]


def generator_of(root: int, design: str, subset: int, attempt: int = 0) -> np.random.Generator:
    """Return the generator from which the mask of one subset is drawn."""
    key = np.random.SeedSequence(root, spawn_key=(_word("mask"), _word(design), subset, attempt))
    return np.random.Generator(np.random.PCG64(key))


def generators_of(root: int, design: str, subsets: NDArray[np.int64], attempt: int) -> Iterator[np.random.Generator]:
    """Yield `generator_of` of many subsets."""
    if len(subsets) < FEW:
        yield from (generator_of(root, design, int(subset), attempt) for subset in subsets)
        return
    keys = _keys("mask", design, subsets, np.full_like(subsets, attempt))
    for state in generate_states(root, keys, words=8):  # PCG64 asks for four words of 64 bits
        yield np.random.Generator(np.random.PCG64(Prepared(state)))  # type: ignore[arg-type]  # NumPy's stub is too narrow


def _keys(use: str, design: str, *last: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the spawn keys (k, 4) of many runs or subsets."""
    first = [np.full_like(last[0], word, dtype=np.int64) for word in (_word(use), _word(design))]
    return np.stack([*first, *last], axis=1).astype(np.int64)


def is_for_scoring(mask: NDArray[np.bool_]) -> bool:
    """Say on which side of the fence between fitting and scoring a mask (n,) stands.

    The side is a property of the subset itself (its hash), not of who drew it: so a subset that a method was fitted on can
    never be one that it is scored on, however many runs are added to either design later.
    """
    digest = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % SCORE_SHARE == 0
