"""A design whose kind is not installed here, or cannot be loaded: its runs can be looked at, and none can be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, PrivateAttr

from orchestrator.designs.base import Context, Design
from workers.errors import ConfigError


class Absent(Design):
    """Stands for a design of an unknown kind in a sweep that is only read. Its keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    kind: str
    _follows: str | None = PrivateAttr(None)
    _fault: str = PrivateAttr("")

    def for_fault(self, fault: str) -> Absent:
        """Return this design, told why its kind cannot be loaded; nothing where it is not installed."""
        self._fault = fault
        return self

    def told(self, serves: Sequence[str], follows: str | None, growth_keys: Sequence[str]) -> Absent:
        """Return this design with what the kind said of itself where it was installed."""
        said = {"serves": frozenset(serves), "growth_keys": tuple(growth_keys), "__module__": __name__}
        kind: type[Absent] = type("Absent", (Absent,), said)
        made = kind.model_validate(self.model_dump())
        made._follows = follows
        return made.for_fault(self._fault)

    @property
    def follows(self) -> str | None:
        """The design whose subsets these are, as its kind said."""
        return self._follows

    @property
    def fault(self) -> str:
        """Why its kind cannot be loaded; empty where it is not installed."""
        return self._fault

    def count(self, context: Context) -> int:
        """Refuse: nobody here can draw it."""
        raise self._unknown(context)

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Refuse: nobody here can draw it."""
        raise self._unknown(context)

    def _unknown(self, context: Context) -> ConfigError:
        why = f"cannot be loaded here ({self._fault})" if self._fault else "is not installed here"
        return ConfigError(f"designs.{context.name}.kind: {self.kind!r} {why}, so it cannot be drawn")
