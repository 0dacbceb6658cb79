"""What numpy.random.SeedSequence makes of a key, for many keys at once: bit for bit its numbers, in a fraction of its time.

The algorithm is O'Neill's seed_seq_fe128 as NumPy froze it (NEP 19; NumPy promises never to change its stream): entropy is
hashed into a pool of four 32-bit words, from which any number of words is generated. Arithmetic is modulo 2**32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_POOL = 4
_SHIFT = np.uint32(16)
_MODULUS = 1 << 32
_ENTROPY_START, _ENTROPY_FACTOR = 0x43B0D7E5, 0x931E8875
_STATE_START, _STATE_FACTOR = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


def generate_states(root: int, keys: NDArray[np.int64], words: int) -> Words:
    """Return SeedSequence(root, spawn_key=key).generate_state(words) for every key, (k, words); keys is (k, depth).

    Raises ValueError for a part of a key that is not one 32-bit word.
    """
    if keys.size and not 0 <= keys.min() <= keys.max() < _MODULUS:
        raise ValueError("every part of a key must be at least 0 and below 2**32")
    entropy = [np.full(len(keys), word, dtype=np.uint32) for word in _words(root)]
    entropy += list(keys.T.astype(np.uint32))
    pool = _mixed(entropy)
    hashing = _Hash(_STATE_START, _STATE_FACTOR)
    return np.stack([hashing(pool[place % _POOL]) for place in range(words)], axis=1)


class Prepared(ISeedSequence):
    """Hands a bit generator a state that was computed before."""

    def __init__(self, state: Words):
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint32 | np.uint64]:
        """Return the state, which must be of the size asked for."""
        state: NDArray[np.uint32 | np.uint64] = self._state.view(dtype)
        if len(state) != n_words:
            raise ValueError(f"{n_words} words were asked for, {len(state)} are prepared")
        return state


def _words(root: int) -> list[int]:
    """Return the 32-bit words of a number >= 0, the lowest first, filled up to the size of the pool."""
    found = [root >> shift & (_MODULUS - 1) for shift in range(0, root.bit_length(), 32)]
    return found + [0] * (_POOL - len(found))


class _Hash:
    """A hash whose constant moves on with every word."""

    def __init__(self, start: int, factor: int):
        self._constant, self._factor = start, factor

    def __call__(self, values: Words) -> Words:
        hashed = values ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor % _MODULUS
        hashed *= np.uint32(self._constant)
        hashed ^= hashed >> _SHIFT
        return hashed


def _mix(left: Words, right: Words) -> Words:
    mixed = left * _MIX_LEFT - right * _MIX_RIGHT
    mixed ^= mixed >> _SHIFT
    return mixed


def _mixed(entropy: list[Words]) -> list[Words]:
    """Return the pool in which every word of the entropy has met every word of the pool."""
    hashing = _Hash(_ENTROPY_START, _ENTROPY_FACTOR)
    pool = [hashing(words) for words in entropy[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashing(pool[source]))
    for words in entropy[_POOL:]:
        pool = [_mix(word, hashing(words)) for word in pool]
    return pool
