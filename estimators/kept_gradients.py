"""The projected gradients of the training examples, kept so that new queries need no pass over these: here in memory, elsewhere
in a sweep's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from workers.errors import StoreError

ROWS = "rows"
"""The array (n, k) of every model: a query's projected gradient times it is what the model brings to the query."""
MULTIPLIERS = "multipliers"
"""An array (n,) of some: the mean over the models of what they bring is multiplied with the mean of these."""


class LackingGradients(StoreError):
    """Fewer networks' gradients are kept than there are."""


class Array(Protocol):
    """What is read of a kept array: all of it in memory, or rows that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    def __getitem__(self, where: slice, /) -> NDArray[Any]:
        """Return some of the rows."""


@dataclass(frozen=True)
class KeptGradients:
    """What is kept of one model."""

    identity: Mapping[str, Any]
    """What decided the arrays: estimator, options, checkpoint, seed, precision, number of examples. As JSON holds it."""
    projection: Mapping[str, Any]
    """How a query's gradient is projected; with the arrays that begin with `side_`. As JSON holds it."""
    told: Mapping[str, Any]
    """What is worth telling of it: damping, dimensions. As JSON holds it."""
    arrays: Mapping[str, Array]
    """By name: ROWS, perhaps MULTIPLIERS, and what projects."""


class GradientStore:
    """What is kept of an estimator's models by their number, in memory. The orchestrator's keeps it in the sweep's folder."""

    def __init__(self) -> None:
        self._kept: dict[int, KeptGradients] = {}

    def keep(self, number: int, gradients: KeptGradients) -> None:
        """Keep what belongs to a model, in place of what was kept of that number."""
        self._kept[number] = gradients

    def kept(self, number: int) -> KeptGradients | None:
        """Return what is kept of a model; None where nothing is that can be used."""
        return self._kept.get(number)


def difference(kept: Mapping[str, Any], wanted: Mapping[str, Any], where: str = "") -> str:
    """Return the first thing that differs between two identities, in words; empty where nothing does.

    >>> from estimators.kept_gradients import difference
    >>> difference({"n": 24, "options": {"rank": 4}}, {"n": 24, "options": {"rank": 8}})
    'options.rank is 4, expected 8'
    """
    for key in dict.fromkeys([*wanted, *kept]):
        was, now = kept.get(key), wanted.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            if found := difference(was, now, f"{where}{key}."):
                return found
        elif was != now:
            return f"{where}{key} is {was!r}, expected {now!r}"
    return ""
