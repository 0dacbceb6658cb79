"""The seeds of a design's subsets: how many there are, and which of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.evidence import Runs


@dataclass(frozen=True)
class Block:
    """Runs of s subsets with R seeds each."""

    outputs: NDArray[np.float64]
    """(R, s, t)."""
    masks: NDArray[np.bool_]
    """(s, n)."""
    subsets: NDArray[np.int64]
    """(s,) which subsets of the design they are."""


def seeds_per_subset(runs: Runs) -> NDArray[np.int64]:
    """Return (s,) how many runs each subset has."""
    return np.unique(runs.subsets, return_counts=True)[1]


def harmonic_mean(seeds: NDArray[np.int64]) -> float:
    """Return the harmonic mean, to the digit where all are equal; 0 of nothing."""
    if not len(seeds) or seeds.min() == seeds.max():
        return float(seeds.max(initial=0))
    return float(1 / np.mean(1 / seeds))


def complete_block(runs: Runs) -> Block:
    """Return the complete block of subsets x seeds with the most pairs of seeds to compare with one another."""
    order = np.lexsort((runs.repeats, runs.subsets))
    _, first, inverse, counts = np.unique(
        runs.subsets[order], return_index=True, return_inverse=True, return_counts=True
    )
    choices = np.unique(counts)
    size = [(counts >= seeds).sum() * (seeds - 1) for seeds in choices]
    seeds = int(choices[int(np.argmax(size))]) if len(choices) else 0
    nth = np.arange(len(order)) - first[inverse]
    kept = order[(nth < seeds) & (counts[inverse] >= seeds)]
    outputs = runs.outputs[kept].astype(np.float64).reshape(-1, max(seeds, 1), runs.outputs.shape[1])
    ones = kept[:: max(seeds, 1)]
    return Block(outputs.transpose(1, 0, 2), runs.masks[ones], runs.subsets[ones])
