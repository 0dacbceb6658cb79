"""What every design is: a distribution over subsets with a purpose.

A new design is one file in this folder with a subclass of `Design`, and one line in this package's `__init__`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.designs.keys import generators_of, is_for_scoring, seeds_of
from workers.errors import ConfigError

Self = TypeVar("Self", bound="Design")
ATTEMPTS = 1000


@dataclass(frozen=True)
class Context:
    """What a design may know of the sweep it stands in."""

    name: str
    """The design's name in the configuration."""
    root: int
    """Root seed of the sweep."""
    n: int
    """Number of training examples."""
    fenced: bool = False
    """Whether the sweep has scoring designs: then fitting and scoring masks are kept apart."""
    groups: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Ways to group the examples, from the task."""
    designs: Mapping[str, Design] = field(default_factory=dict)
    """All designs of the sweep."""
    folder: Path = field(default_factory=Path)
    """Folder against which a design's file names are resolved."""


class Design(BaseModel, ABC):
    """A distribution over subsets; its fields are what the configuration sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    purpose: Literal["fit", "score"] = Field(
        "fit", description="fit: estimators may use these runs; score: held out, attributions are judged by them"
    )
    seeds: int = Field(1, ge=1, description="trainings of each subset, with different seeds")
    paired_with: str | None = Field(
        None, description="take the seeds of that design's first subset, repeat by repeat, so that noise cancels"
    )

    @abstractmethod
    def count(self, context: Context) -> int:
        """Return the number of subsets."""

    @abstractmethod
    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return the mask (n,) of subset `index`; depends on nothing but the key (root, name, index)."""

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return the masks (k, n) of some subsets; a design that can draw many at once faster overrides this."""
        return np.stack([self.mask(int(subset), context) for subset in subsets])

    def check(self, context: Context) -> None:
        """Raise ConfigError, naming the key, if the design cannot be drawn on this task."""

    def sample(self: Self, fraction: float) -> Self:
        """Return this design with about that fraction of its runs."""
        return self.model_copy(update={"seeds": max(1, round(self.seeds * fraction))})

    def seeds_of(
        self, subsets: NDArray[np.int64], repeats: NDArray[np.integer], context: Context
    ) -> NDArray[np.uint32]:
        """Return the seeds (k,) of some runs, given the subset and the repeat of each."""
        if self.paired_with is not None:
            return seeds_of(context.root, self.paired_with, np.zeros_like(subsets), repeats)
        return seeds_of(context.root, context.name, subsets, repeats)

    def chain(self, subset: int, context: Context) -> int | None:
        """Return which chain of nested subsets a subset belongs to; None for a design that has none."""
        return None

    def pack(self, preferred: int, context: Context) -> int:
        """Return the number of runs a pack, near the preferred one."""
        return preferred

    def checkpoint_epochs(self, epochs: int, context: Context) -> tuple[int, ...]:
        """Return after which epochs of `epochs` the parameters are kept."""
        return ()


class RandomDesign(Design):
    """A design that draws its masks independently; it keeps to its side of the fence between fitting and scoring."""

    subsets: int = Field(ge=1, description="number of subsets drawn")

    def count(self, context: Context) -> int:
        """Return the number of subsets."""
        return self.subsets

    def sample(self: Self, fraction: float) -> Self:
        """Keep the seeds (they make the noise ceiling), take fewer subsets, at least five."""
        return self.model_copy(update={"subsets": max(5, round(self.subsets * fraction))})  # type: ignore[attr-defined]

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Draw the mask (n,) of one subset."""
        mask: NDArray[np.bool_] = self.many(np.array([index]), context)[0]
        return mask

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Draw the masks (k, n) of some subsets, each with new keys until it is on the side of the fence for its purpose.

        Raises ConfigError when that side seems empty.
        """
        masks = np.empty((len(subsets), context.n), dtype=bool)
        left = np.arange(len(subsets))
        for attempt in range(ATTEMPTS):
            rngs = generators_of(context.root, context.name, subsets[left], attempt)
            for place, rng in zip(left, rngs, strict=True):
                masks[place] = self.draw(rng, context)
            if context.fenced:
                wanted = self.purpose == "score"
                left = np.array([place for place in left if is_for_scoring(masks[place]) != wanted], dtype=np.int64)
            if not context.fenced or not len(left):
                return masks
        raise ConfigError(
            f"designs.{context.name}: found no subset of {context.n} examples kept for purpose {self.purpose!r} in "
            f"{ATTEMPTS} draws; so few examples have too few subsets to hold some out"
        )

    @abstractmethod
    def draw(self, rng: np.random.Generator, context: Context) -> NDArray[np.bool_]:
        """Draw one mask (n,)."""


def read_array(path: Path, key: str) -> NDArray[np.generic]:
    """Map the .npy file that the configuration names under `key`. Raises ConfigError when it is not one."""
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise ConfigError(f"{key}: {path} holds several arrays (.npz), expected one .npy array")
    return found
