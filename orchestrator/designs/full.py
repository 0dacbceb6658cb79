"""The full training set: reference models, with checkpoints for the estimators that need them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Need
from orchestrator.designs.base import Context, Design
from workers.errors import ConfigError


class Full(Design):
    """All examples, once a seed.

    Its models are what gradient-based estimators look at, by the checkpoints it keeps, and what leaving out is compared with.
    """

    serves: ClassVar[frozenset[Need]] = frozenset({"full", "checkpoints"})
    law: ClassVar[str | None] = "full"
    goes_first: ClassVar[bool] = True

    kind: Literal["full"]
    checkpoints: tuple[int, ...] | Literal["last", "none"] = Field(
        "last",
        description="epochs after which the parameters are kept (the last is always among them), or last, or none",
    )

    def count(self, context: Context) -> int:
        """Return 1."""
        return 1

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return all ones (n,)."""
        return np.ones(context.n, dtype=bool)

    def checkpoint_epochs(self, epochs: int | None, context: Context) -> tuple[int, ...]:
        """Return the chosen epochs and the last. Raises ConfigError for one beyond the recipe's.

        Where nobody told the number of epochs, the last of the chosen stands for the end of the training, or epoch 1.
        """
        if self.checkpoints == "none":
            return ()
        chosen = () if self.checkpoints == "last" else self.checkpoints
        if epochs is None:
            epochs = max((1, *chosen))
        beyond = [epoch for epoch in chosen if not 0 <= epoch <= epochs]
        if beyond:
            raise ConfigError(
                f"designs.{context.name}.checkpoints: {beyond[0]} is not an epoch of the recipe; expected 0 to {epochs}"
            )
        return tuple(sorted({*chosen, epochs}))
