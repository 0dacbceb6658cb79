"""Random subsets: of exactly a fraction alpha of the examples, or each example by its own coin."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.designs.base import Context, RandomDesign
from workers.errors import ConfigError

RAREST = 0.01
"""Smallest mean size of a Bernoulli subset: below, only one draw in a hundred would have an example."""


class Subsets(RandomDesign):
    """Uniform over the subsets of round(alpha * n) examples (Ilyas et al. 2022, section 2).

    What datamodels and the LDS are published with: every training has the same length. What an example adds is then seen only
    against what the others add.
    """

    law: ClassVar[str | None] = "subsets"

    kind: Literal["subsets"]
    alpha: float = Field(0.5, gt=0, lt=1, description="fraction of the examples in every subset")

    def check(self, context: Context) -> None:
        """Refuse a size of 0 or n."""
        size = round(self.alpha * context.n)
        if not 0 < size < context.n:
            raise ConfigError(
                f"designs.{context.name}.alpha: {self.alpha} of {context.n} examples is a subset of {size}; "
                f"expected between 1 and {context.n - 1}"
            )

    def draw(self, rng: np.random.Generator, context: Context) -> NDArray[np.bool_]:
        """Draw one mask (n,) with exactly round(alpha * n) ones."""
        mask = np.zeros(context.n, dtype=bool)
        mask[rng.choice(context.n, size=round(self.alpha * context.n), replace=False, shuffle=False)] = True
        return mask


class Bernoulli(RandomDesign):
    """Every example independently with the same probability; an empty subset is drawn again.

    Effects of examples are estimated without bias from it, as their presences are independent; with a probability of a half it
    gives Banzhaf values. Sizes differ by about sqrt(n).
    """

    law: ClassVar[str | None] = "bernoulli"
    watched_by: ClassVar[str | None] = "banzhaf"
    measured_by: ClassVar[frozenset[str]] = frozenset({"banzhaf", "difference_in_means", "memorization"})

    kind: Literal["bernoulli"]
    probability: float = Field(0.5, gt=0, lt=1, description="probability of every example")

    def check(self, context: Context) -> None:
        """Refuse a probability so small that nearly every subset would be empty and drawn again."""
        if self.probability * context.n < RAREST:
            raise ConfigError(
                f"designs.{context.name}.probability: {self.probability:g} of {context.n} examples is less than one example "
                f"in {1 / RAREST:.0f} subsets; expected at least {RAREST / context.n:g}"
            )

    def draw(self, rng: np.random.Generator, context: Context) -> NDArray[np.bool_]:
        """Draw one mask (n,) with at least one example: nothing can be trained on none."""
        while True:
            mask = rng.random(context.n) < self.probability
            if mask.any():
                return mask
