"""What every design is: a distribution over subsets with a purpose.

A new design is one file in this folder with a subclass of `Design`, and one line in `registry.py`; a third party's is an entry
point. The class says itself what stages must know of a kind: none of them asks for its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from estimators.contract import Need
from orchestrator.designs.keys import generators_of, is_for_scoring, seeds_of
from orchestrator.designs.prefixes import Prefixes
from workers.data.npy import SeveralArrays, UnreadableArray, map_array
from workers.errors import ConfigError
from workers.runs import Normalize, Order

Self = TypeVar("Self", bound="Design")
ATTEMPTS = 1000
LOOKED_AT = 16
"""Subsets whose sizes are averaged for the mean size."""


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
    attribution: Callable[[Path, str], NDArray[np.float32]] | None = None
    """Returns the values (n, t) of an attribution, from the folder of its sweep and its label."""


class ErrorForecast(Enum):
    """How the standard error of a value is foreseen from a few trainings: by what an estimator averages over the design."""

    RANDOM_SUBSETS = "random subsets"
    """A difference of means between subsets with and without an example."""
    LEFT_OUT = "left out"
    """A difference between the full set and a subset that lacks something."""
    PREFIXES = "prefixes"
    """A mean gain over permutations."""


class Design(BaseModel, ABC):
    """A distribution over subsets; its fields are what the configuration sets, its class variables what its kind can do."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    serves: ClassVar[frozenset[Need]] = frozenset()
    """Which needs of estimators (and of scores) its runs meet."""
    law: ClassVar[str | None] = None
    """The kind by which estimators know how its subsets are distributed; None: they can assume nothing of that."""
    watched_by: ClassVar[str | None] = None
    """The estimator whose values a stopping criterion watches unless it names another; None: it cannot be stopped early."""
    error_forecast: ClassVar[ErrorForecast | None] = None
    """How the standard error of a value from it alone is foreseen; None: no value is made from it alone."""
    measured_by: ClassVar[frozenset[str]] = frozenset()
    """The estimators whose own standard error is the one foreseen, so that a report can compare the two."""
    growth_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that only say how much is drawn: they may grow over the same runs, and are no part of a sweep's identity."""
    drawable: ClassVar[bool] = True
    """Whether its subsets follow from the configuration; False: they are in the store alone, and cannot be trained again."""
    from_outside: ClassVar[bool] = False
    """Whether its subsets come from a file or from the task, which may change while the configuration stays the same."""
    keeps_its_side: ClassVar[bool] = False
    """Whether its subsets keep to their side of the fence by themselves: drawn there, those of another design, or looked at
    already. Others are looked at one by one."""
    unsaid: ClassVar[Mapping[str, object]] = {"order": "own", "normalize": "batch"}
    """Keys that are no part of a sweep's identity at these values: what runs are without them."""
    weighs: ClassVar[bool] = False
    """Whether its examples have weights, and not only are there or not."""
    goes_first: ClassVar[bool] = False
    """Whether it is trained before other designs: its runs are few, long, and waited for."""

    kind: str
    purpose: Literal["fit", "score"] = Field(
        "fit", description="fit: estimators may use these runs; score: held out, attributions are judged by them"
    )
    seeds: int = Field(1, ge=1, description="trainings of each subset, with different seeds")
    paired_with: str | None = Field(
        None, description="take the seeds of that design's first subset, repeat by repeat, so that noise cancels"
    )
    order: Order = Field(
        "own",
        description="whose batches a run takes: own (its subset is shuffled by its seed), or shared (those of the full set for "
        "that seed, in which a left-out example weighs 0)",
    )
    normalize: Normalize = Field(
        "batch",
        description="shared order: what a batch's sum of losses is divided by, its number of examples or their weight",
    )

    @model_validator(mode="after")
    def _normalizes_what_it_shares(self: Self) -> Self:
        if self.order == "own" and self.normalize != "batch":
            raise ValueError(f"normalize: {self.normalize} says something with order: shared only")
        return self

    @abstractmethod
    def count(self, context: Context) -> int:
        """Return the number of subsets."""

    @abstractmethod
    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return the mask (n,) of subset `index`; depends on nothing but the key (root, name, index)."""

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return the masks (k, n) of some subsets; a design that can draw many at once faster overrides this."""
        return np.stack([self.mask(int(subset), context) for subset in subsets])

    def weights_of(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.float32] | None:
        """Return what examples weigh in some subsets (k, n), not 0 exactly where they are there; None where each weighs 1."""
        return None

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

    def deciding(self) -> dict[str, Any]:
        """Return what decides its runs, as plain data, without how many are drawn, and keys that say what holds without them."""
        left_out = {*self.growth_keys, *(key for key in self.unsaid if getattr(self, key) == self.unsaid[key])}
        return self.model_dump(mode="json", exclude=left_out)

    @property
    def seen_as(self) -> str:
        """The kind under which estimators see its runs: its law's; of subsets of no known law `explicit`; else its own."""
        return self.law or ("explicit" if self.serves else self.kind)

    @property
    def keeps_optimizer_state(self) -> bool:
        """Whether its checkpoints keep the optimizer's state too."""
        return False

    @property
    def known_order(self) -> str:
        """Whose batches its runs take, empty where nobody says: of runs that were made elsewhere."""
        return self.order if self.drawable else ""

    @property
    def follows(self) -> str | None:
        """The design whose subsets these are, trained with seeds of their own; None: they are its own."""
        return None

    @property
    def grouped_by(self) -> str | None:
        """The grouping of the examples whose groups are left out, one of the task's or a file; None: its subsets know none."""
        return None

    def prefixes(self, context: Context) -> Prefixes | None:
        """Return the permutations whose prefixes its rows are; None for a design of other subsets."""
        return None

    def mean_size(self, context: Context) -> float:
        """Return the mean size of a subset, from a few of them spread over all."""
        count = self.count(context)
        chosen = np.linspace(0, count - 1, min(LOOKED_AT, count))  # one or more apart, so that none is looked at twice
        return float(np.mean([self.mask(int(index), context).sum() for index in chosen]))

    def pack(self, preferred: int, context: Context) -> int:
        """Return the number of runs a pack, near the preferred one."""
        return preferred

    def checkpoint_epochs(self, epochs: int | None, context: Context) -> tuple[int, ...]:
        """Return after which epochs of `epochs` the parameters are kept; None where the task's own training does not tell."""
        return ()


class RandomDesign(Design):
    """A design that draws its masks independently; it keeps to its side of the fence between fitting and scoring."""

    serves: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    watched_by: ClassVar[str | None] = "difference_in_means"
    error_forecast: ClassVar[ErrorForecast | None] = ErrorForecast.RANDOM_SUBSETS
    measured_by: ClassVar[frozenset[str]] = frozenset({"difference_in_means", "memorization"})
    growth_keys: ClassVar[tuple[str, ...]] = ("subsets",)
    keeps_its_side: ClassVar[bool] = True

    subsets: int = Field(ge=1, description="number of subsets drawn")

    def count(self, context: Context) -> int:
        """Return the number of subsets."""
        return self.subsets

    def sample(self: Self, fraction: float) -> Self:
        """Keep the seeds (they make the noise ceiling), take fewer subsets, at least five if there are as many."""
        return self.model_copy(update={"subsets": min(self.subsets, max(5, round(self.subsets * fraction)))})  # type: ignore[attr-defined]

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
        return map_array(path)
    except SeveralArrays as error:
        raise ConfigError(f"{key}: {path} {error}, expected one .npy array") from error
    except UnreadableArray as error:
        raise ConfigError(f"{key}: cannot read {path}: {error}") from error
