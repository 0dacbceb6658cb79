"""Leave one example out, or one group."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Need
from orchestrator.designs.base import Context, Design, ErrorForecast, read_array
from orchestrator.designs.keys import generator_of
from workers.errors import ConfigError, near


class LeaveOneOut(Design):
    """All examples but one: subset j leaves out the j-th chosen example.

    What one example did to the full model, beside runs of `full`: paired with them (`paired_with`), noise cancels. Effects are
    small against the noise of training unless the model is deterministic or there are many seeds.
    """

    serves: ClassVar[frozenset[Need]] = frozenset({"leave_one_out"})
    law: ClassVar[str | None] = "leave_one_out"
    watched_by: ClassVar[str | None] = "leave_one_out"
    error_forecast: ClassVar[ErrorForecast | None] = ErrorForecast.LEFT_OUT
    measured_by: ClassVar[frozenset[str]] = frozenset({"leave_one_out"})

    kind: Literal["leave_one_out"]
    examples: Literal["all"] | int | float | tuple[int, ...] = Field(
        "all",
        description="which examples are left out: all, a list of indices, or a random sample: how many, or what fraction",
    )

    def chosen(self, context: Context) -> NDArray[np.int64]:
        """Return the indices left out, one a subset."""
        if self.examples == "all":
            return np.arange(context.n)
        if isinstance(self.examples, int | float):
            count = self.examples if isinstance(self.examples, int) else max(1, round(self.examples * context.n))
            # A prefix of one random order, so that a larger sample later contains the smaller one.
            return generator_of(context.root, context.name, 0).permutation(context.n)[:count]
        return np.asarray(self.examples, dtype=np.int64)

    def check(self, context: Context) -> None:
        """Refuse indices that are no examples, and repeated ones."""
        if isinstance(self.examples, int) and not 0 < self.examples <= context.n:
            raise ConfigError(f"designs.{context.name}.examples: cannot sample {self.examples} of {context.n} examples")
        if isinstance(self.examples, float) and not 0 < self.examples < 1:
            raise ConfigError(
                f"designs.{context.name}.examples: {self.examples} is no fraction; expected between 0 and 1"
            )
        chosen = self.chosen(context)
        if not len(chosen):
            raise ConfigError(f"designs.{context.name}.examples: an empty list leaves no example out")
        wrong = [int(i) for i in chosen if not 0 <= i < context.n]
        if wrong or len(set(chosen.tolist())) != len(chosen):
            what = f"{wrong[0]} is not an example" if wrong else "an example is named twice"
            raise ConfigError(
                f"designs.{context.name}.examples: {what}; expected distinct indices 0 to {context.n - 1}"
            )

    def count(self, context: Context) -> int:
        """Return the number of examples left out."""
        return len(self.chosen(context))

    def sample(self, fraction: float) -> LeaveOneOut:
        """Leave out fewer examples."""
        if isinstance(self.examples, tuple):
            return self.model_copy(update={"examples": self.examples[: max(1, round(len(self.examples) * fraction))]})
        if isinstance(self.examples, int):
            return self.model_copy(update={"examples": max(1, round(self.examples * fraction))})
        share = fraction * (1.0 if self.examples == "all" else self.examples)
        return self.model_copy(update={"examples": share if share < 1 else "all"})

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return ones (n,) but for one example."""
        mask: NDArray[np.bool_] = self.many(np.array([index]), context)[0]
        return mask

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return the masks (k, n) of some subsets; the examples are chosen once for all."""
        masks = np.ones((len(subsets), context.n), dtype=bool)
        masks[np.arange(len(subsets)), self.chosen(context)[subsets]] = False
        return masks

    def mean_size(self, context: Context) -> float:
        """Return the size of every subset."""
        return context.n - 1.0


class LeaveGroupOut(Design):
    """All examples but one group: subset j leaves out the j-th group in ascending order of its id.

    What a class, a source or any other group did to the full model, beside runs of `full`.
    """

    serves: ClassVar[frozenset[Need]] = frozenset({"leave_group_out"})
    law: ClassVar[str | None] = "leave_group_out"
    watched_by: ClassVar[str | None] = "groups"
    error_forecast: ClassVar[ErrorForecast | None] = ErrorForecast.LEFT_OUT
    measured_by: ClassVar[frozenset[str]] = frozenset({"groups"})
    from_outside: ClassVar[bool] = True

    kind: Literal["leave_group_out"]
    by: str = Field("label", description="a grouping that the task offers (label, ...), or a .npy file of n group ids")

    @property
    def grouped_by(self) -> str | None:
        """The option `by`."""
        return self.by

    def ids(self, context: Context) -> NDArray[np.int64]:
        """Return the group id of every example (n,). Raises ConfigError when there is no such grouping."""
        if not self.by.endswith(".npy"):
            if self.by not in context.groups:
                known = near(self.by, list(context.groups))
                raise ConfigError(f"designs.{context.name}.by: the task has no grouping {self.by!r}: {known}")
            return context.groups[self.by]
        path = context.folder / self.by
        ids = read_array(path, f"designs.{context.name}.by")
        if ids.shape != (context.n,):
            raise ConfigError(f"designs.{context.name}.by: {path} has shape {ids.shape}, expected ({context.n},)")
        return np.asarray(ids)

    def check(self, context: Context) -> None:
        """Refuse a single group: without it nothing would be left to train on."""
        if self.count(context) < 2:
            raise ConfigError(f"designs.{context.name}.by: {self.by!r} has one group; expected two or more")

    def count(self, context: Context) -> int:
        """Return the number of groups."""
        return len(np.unique(self.ids(context)))

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return ones (n,) but for one group."""
        mask: NDArray[np.bool_] = self.many(np.array([index]), context)[0]
        return mask

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return the masks (k, n) of some subsets; the groups are looked up once for all."""
        ids = self.ids(context)
        kept: NDArray[np.bool_] = ids != np.unique(ids)[subsets, None]
        return kept
