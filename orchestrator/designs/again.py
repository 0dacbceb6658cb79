"""The subsets of another design once more, with fresh seeds: a second opinion on how much the seed alone matters."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.designs.base import Context, Design
from workers.errors import ConfigError, near


class Again(Design):
    """Every subset of the design `of`, trained with seeds of its own.

    For the check of seeds: do values learned from one design hold for models trained anew on the same subsets?
    """

    keeps_its_side: ClassVar[bool] = True

    kind: Literal["again"]
    of: str = Field(description="name of the design whose subsets are trained again")

    @property
    def follows(self) -> str | None:
        """The other design."""
        return self.of

    def _other(self, context: Context) -> tuple[Design, Context]:
        if self.of not in context.designs or self.of == context.name:
            others = [name for name in context.designs if name != context.name]
            raise ConfigError(f"designs.{context.name}.of: no other design {self.of!r}: {near(self.of, others)}")
        return context.designs[self.of], replace(context, name=self.of)

    def check(self, context: Context) -> None:
        """Refuse an unknown design, a chain of such designs, and subsets moved across the fence."""
        other, _ = self._other(context)
        if other.follows is not None:
            raise ConfigError(
                f"designs.{context.name}.of: {self.of!r} is itself of kind {other.kind!r}; name the first one"
            )
        if other.purpose != self.purpose:
            raise ConfigError(
                f"designs.{context.name}.purpose: {self.purpose!r}, but {self.of!r} has the same subsets for {other.purpose!r}"
            )
        if (other.order, other.normalize) != (self.order, self.normalize):
            raise ConfigError(
                f"designs.{context.name}.order: {self.order} by {self.normalize}, but {self.of!r} has {other.order} by "
                f"{other.normalize}; fresh seeds tell nothing of runs of another regime"
            )

    def count(self, context: Context) -> int:
        """Return the other design's number of subsets."""
        other, there = self._other(context)
        return other.count(there)

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return the other design's mask (n,)."""
        other, there = self._other(context)
        return other.mask(index, there)

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return some of the other design's masks (k, n)."""
        other, there = self._other(context)
        return other.many(subsets, there)

    def weights_of(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.float32] | None:
        """Return what examples weigh in some of the other design's subsets (k, n)."""
        other, there = self._other(context)
        return other.weights_of(subsets, there)

    def sample(self, fraction: float) -> Again:
        """Return itself: it follows the other design's sample."""
        return self
