"""Rows that are prefixes of permutations: what the stages must know of them, whichever design drew them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prefixes:
    """Some permutations of the examples, and prefixes of them; row = permutation * steps + step."""

    permutations: int
    """Number of permutations."""
    sizes: NDArray[np.int64]
    """(steps,) sizes of one permutation's prefixes, ascending, the last one n."""
    order: Callable[[int], NDArray[np.int64]]
    """Returns one permutation (n,) by its number."""
    antithetic: bool = False
    """Whether the permutations 2k and 2k + 1 are one and its reverse, so that only pairs are independent."""
    truncation: float | None = None
    """Distance in utility from the full set that ends a permutation; None: all prefixes are trained."""
    block: int = 1
    """Prefixes of a permutation trained between two looks at its truncation."""

    @property
    def steps(self) -> int:
        """Prefixes of one permutation."""
        return len(self.sizes)
