"""Random subsets: of exactly so many examples, or each example by its own coin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from orchestrator.designs.base import Context, RandomDesign
from orchestrator.designs.dropping import DESCRIPTION, check_drop, dropped, one_size
from workers.errors import ConfigError

RAREST = 0.01
"""Smallest mean size of a Bernoulli subset: below, only one draw in a hundred would have an example."""


class Dropping(RandomDesign):
    """A random design whose size can be said by what it drops."""

    unsaid: ClassVar[Mapping[str, object]] = {**RandomDesign.unsaid, "drop": None}
    kept: ClassVar[str]
    """The key that says the size by what is kept."""

    drop: int | float | None = Field(None, description=f"instead of what is kept: {DESCRIPTION}")

    @model_validator(mode="before")
    @classmethod
    def _has_one_size(cls, section: Any) -> Any:
        return one_size(section, cls.kept, cls.model_fields[cls.kept].default)

    @field_validator("drop", mode="before")
    @classmethod
    def _drops_some(cls, drop: Any) -> Any:
        return check_drop(drop) if isinstance(drop, int | float) else drop


class Subsets(Dropping):
    """Uniform over the subsets of round(alpha * n) examples (Ilyas et al. 2022, section 2).

    What datamodels and the LDS are published with: every training has the same length. What an example adds is then seen only
    against what the others add.
    """

    law: ClassVar[str | None] = "subsets"
    kept: ClassVar[str] = "alpha"

    kind: Literal["subsets"]
    alpha: float | None = Field(
        0.5, gt=0, lt=1, description="fraction of the examples in every subset; null where `drop` says it"
    )

    def size(self, context: Context) -> int:
        """Return the size of every subset."""
        if self.drop is not None:
            return context.n - round(dropped(self.drop, context.n))
        assert self.alpha is not None
        return round(self.alpha * context.n)

    def check(self, context: Context) -> None:
        """Refuse a size of 0 or n."""
        size = self.size(context)
        if not 0 < size < context.n:
            said = f"alpha: {self.alpha} of" if self.drop is None else f"drop: {self.drop} of"
            raise ConfigError(
                f"designs.{context.name}.{said} {context.n} examples is a subset of {size}; "
                f"expected between 1 and {context.n - 1}"
            )

    def draw(self, rng: np.random.Generator, context: Context) -> NDArray[np.bool_]:
        """Draw one mask (n,) with exactly `size` ones."""
        mask = np.zeros(context.n, dtype=bool)
        mask[rng.choice(context.n, size=self.size(context), replace=False, shuffle=False)] = True
        return mask


class Bernoulli(Dropping):
    """Every example independently with the same probability; an empty subset is drawn again.

    Effects of examples are estimated without bias from it, as their presences are independent; with a probability of a half it
    gives Banzhaf values. Sizes differ by about sqrt(n).
    """

    law: ClassVar[str | None] = "bernoulli"
    kept: ClassVar[str] = "probability"
    watched_by: ClassVar[str | None] = "banzhaf"
    measured_by: ClassVar[frozenset[str]] = frozenset({"banzhaf", "difference_in_means", "memorization"})

    kind: Literal["bernoulli"]
    probability: float | None = Field(
        0.5, gt=0, lt=1, description="probability of every example; null where `drop` says it, on average"
    )

    def chance(self, context: Context) -> float:
        """Return the probability of every example."""
        if self.drop is not None:
            return 1 - dropped(self.drop, context.n) / context.n
        assert self.probability is not None
        return self.probability

    def check(self, context: Context) -> None:
        """Refuse a probability so small that nearly every subset would be empty and drawn again."""
        if self.drop is not None and context.n - dropped(self.drop, context.n) < 1:
            raise ConfigError(
                f"designs.{context.name}.drop: {self.drop} of {context.n} examples leaves less than one; "
                f"expected at most {context.n - 1}"
            )
        if self.probability is not None and self.probability * context.n < RAREST:
            raise ConfigError(
                f"designs.{context.name}.probability: {self.probability:g} of {context.n} examples is less than one example "
                f"in {1 / RAREST:.0f} subsets; expected at least {RAREST / context.n:g}"
            )

    def draw(self, rng: np.random.Generator, context: Context) -> NDArray[np.bool_]:
        """Draw one mask (n,) with at least one example: nothing can be trained on none."""
        while True:
            mask = rng.random(context.n) < self.chance(context)
            if mask.any():
                return mask
