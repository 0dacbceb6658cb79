"""Prefixes of random permutations: the runs of permutation Shapley and its relatives."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Need
from orchestrator.designs.base import Context, Design, ErrorForecast
from orchestrator.designs.keys import generator_of, seeds_of
from orchestrator.designs.prefixes import Prefixes
from workers.errors import ConfigError


class Permutations(Design):
    """Every prefix (or every `step`-th) of random permutations of the examples, the full set included.

    All prefixes of one permutation have the same seed, so that its noise cancels in their differences. With `truncation`,
    a permutation's remaining prefixes are not trained once the utility (the first measure's mean over the queries) is within
    that distance of the full set's (Ghorbani & Zou 2019, algorithm 1), looked at a block of prefixes at a time.

    For Shapley values and their relatives, at n / step trainings a permutation.
    """

    serves: ClassVar[frozenset[Need]] = frozenset({"permutations"})
    law: ClassVar[str | None] = "permutations"
    watched_by: ClassVar[str | None] = "shapley"
    error_forecast: ClassVar[ErrorForecast | None] = ErrorForecast.PREFIXES
    measured_by: ClassVar[frozenset[str]] = frozenset({"shapley"})
    growth_keys: ClassVar[tuple[str, ...]] = ("permutations",)

    kind: Literal["permutations"]
    permutations: int = Field(ge=1, description="number of permutations")
    step: int = Field(1, ge=1, description="examples between two prefixes; their joint gain is shared equally")
    antithetic: bool = Field(False, description="every second permutation is the reverse of the one before")
    truncation: float | None = Field(
        None,
        gt=0,
        description="distance in utility from the full set that ends a permutation; null trains all prefixes",
    )
    block: int = Field(8, ge=1, description="prefixes of a permutation trained between two looks at its truncation")
    seeds: Literal[1] = Field(1, description="always 1: more permutations serve better than more seeds")

    def sizes(self, context: Context) -> NDArray[np.int64]:
        """Return the prefix sizes of one permutation, ascending, the last one n."""
        return np.unique(np.append(np.arange(self.step, context.n, self.step), context.n))

    def check(self, context: Context) -> None:
        """Refuse half an antithetic pair."""
        if self.antithetic and self.permutations % 2:
            raise ConfigError(
                f"designs.{context.name}.permutations: {self.permutations} is odd; antithetic permutations come in pairs"
            )

    def count(self, context: Context) -> int:
        """Return permutations times prefixes."""
        return self.permutations * len(self.sizes(context))

    def sample(self, fraction: float) -> Permutations:
        """Draw fewer permutations, whole pairs of them."""
        unit = 2 if self.antithetic else 1
        return self.model_copy(update={"permutations": unit * max(1, round(self.permutations * fraction / unit))})

    def prefixes(self, context: Context) -> Prefixes:
        """Return its permutations and their prefixes."""
        return Prefixes(
            self.permutations,
            self.sizes(context),
            lambda number: self.permutation(number, context),
            self.antithetic,
            self.truncation,
            self.block,
        )

    def mean_size(self, context: Context) -> float:
        """Return the mean size of a prefix."""
        return float(self.sizes(context).mean())

    def permutation(self, number: int, context: Context) -> NDArray[np.int64]:
        """Return one permutation (n,)."""
        drawn = number // 2 if self.antithetic else number
        order = generator_of(context.root, context.name, drawn).permutation(context.n)
        return order[::-1] if self.antithetic and number % 2 else order

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return the mask (n,) of one prefix."""
        sizes = self.sizes(context)
        permutation, step = divmod(index, len(sizes))
        mask = np.zeros(context.n, dtype=bool)
        mask[self.permutation(permutation, context)[: sizes[step]]] = True
        return mask

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return the masks (k, n) of some prefixes; each permutation is drawn once."""
        sizes = self.sizes(context)
        permutations, steps = np.divmod(subsets, len(sizes))
        masks = np.empty((len(subsets), context.n), dtype=bool)
        for permutation in np.unique(permutations):
            rank = np.argsort(self.permutation(int(permutation), context))
            rows = permutations == permutation
            masks[rows] = rank < sizes[steps[rows], None]
        return masks

    def seeds_of(
        self, subsets: NDArray[np.int64], repeats: NDArray[np.integer], context: Context
    ) -> NDArray[np.uint32]:
        """Return the seeds (k,) of some runs: all prefixes of a permutation share one."""
        return seeds_of(context.root, context.name, subsets // len(self.sizes(context)), repeats)

    def pack(self, preferred: int, context: Context) -> int:
        """Return a pack of whole permutations, or, where one is long, one that divides it evenly."""
        steps = len(self.sizes(context))
        if steps <= 4 * preferred:
            return steps * max(1, preferred // steps)
        fitting = max(size for size in range(1, preferred + 1) if steps % size == 0)
        return fitting if fitting * 4 > preferred else steps
