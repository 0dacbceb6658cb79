"""The order of the examples in every epoch: a compiled shuffle, since numpy's costs a tenth of a small model's training."""

from __future__ import annotations

# Types in compiled code are numba's to infer.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
import numpy as np
from numba import njit
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Shuffler:
    """Draws one permutation after the other, from a key.

    Fisher and Yates' shuffle with the upper halves of SplitMix64's numbers (Steele, Lea & Flood 2014), each scaled to its
    range by a multiplication (Lemire 2019, without the rejections: a probability is off by at most count / 2**32).
    """

    def __init__(self, key: int):
        self._state = np.array([key], dtype=np.uint64)

    def orders(self, subset: NDArray[np.int64], epochs: int) -> NDArray[np.int64]:
        """Return the subset (m,) in the orders of the next epochs, (epochs, m)."""
        found = np.empty((epochs, len(subset)), dtype=np.int64)
        _shuffle(self._state, np.ascontiguousarray(subset, dtype=np.int64), found)
        return found

    def skip(self, count: int, epochs: int) -> None:
        """Go past the orders of `epochs` epochs of `count` examples, as if they had been drawn."""
        drawn = max(0, count - 1) * epochs
        self._state[0] = (int(self._state[0]) + drawn * int(_GOLDEN)) % 2**64


@njit(cache=True, nogil=True)
def _shuffle(state, subset, orders):
    """Write one shuffle of the subset into every row, and advance the state."""
    counter = state[0]
    for row in range(len(orders)):
        line = orders[row]
        line[:] = subset
        for i in range(len(line) - 1, 0, -1):
            counter += _GOLDEN
            z = (counter ^ (counter >> np.uint64(30))) * _FIRST
            z = (z ^ (z >> np.uint64(27))) * _SECOND
            z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
            j = np.int64((z * np.uint64(i + 1)) >> np.uint64(32))
            line[i], line[j] = line[j], line[i]
    state[0] = counter
