"""Outputs that nobody trained for: sums of effects of examples, and noise, for whatever is to be timed before there are any."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LARGEST = 2**27
"""Bytes of masks and outputs that are made up at once, at most."""


def made_up_effects(n: int, t: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return effects (n, t) of examples on queries."""
    return rng.normal(size=(n, t)).astype(np.float32)


def made_up_outputs(
    masks: NDArray[np.bool_], effects: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return outputs (m, t) of subsets (m, n): the sum of their examples' effects (n, t), scaled, and noise as large."""
    outputs: NDArray[np.float32] = masks.astype(np.float32) @ effects / math.sqrt(masks.shape[1])
    outputs += rng.normal(size=outputs.shape).astype(np.float32)
    return outputs
