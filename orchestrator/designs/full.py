"""The full training set: reference models, with checkpoints for the estimators that need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from estimators.contract import Need
from orchestrator.designs.base import Context, Design
from workers.errors import ConfigError


class Segments(BaseModel):
    """Checkpoints of equally long segments of a training: `{segments: 3, each: 2}`, or in short `3 x 2`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: int = Field(ge=1, description="segments of equally many epochs")
    each: int = Field(1, ge=1, description="equally spaced checkpoints in each of them, the last at its end")

    def epochs(self, total: int) -> tuple[int, ...]:
        """Return after which of so many epochs the checkpoints are, `segments * each` of them."""
        count = self.segments * self.each
        return tuple(-(-total * place // count) for place in range(1, count + 1))


def _in_full(value: object) -> object:
    """Return `3 x 2` as the mapping that it is short for; anything else as it is."""
    words = value.replace(" ", "").split("x") if isinstance(value, str) else []
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return {"segments": int(words[0]), "each": int(words[1])}
    return value


InShort = Annotated[str, Field(pattern=r"^\s*\d+\s*x\s*\d+\s*$")]
Checkpoints = tuple[int, ...] | Literal["last", "none", "every"] | Segments


class Full(Design):
    """All examples, once a seed.

    Its models are what gradient-based estimators look at, by the checkpoints it keeps, and what leaving out is compared with.

    What is kept of a training is chosen by `checkpoints`: the epochs named and the last one; `every` epoch; or, for estimators
    that cut the training into segments, `{segments: 3, each: 2}` (in short `3 x 2`): three segments of equally many epochs, two
    equally spaced checkpoints in each, the second at its end. Where the epochs do not divide evenly, ends are rounded up. An
    estimator finds the segments in a reference model's checkpoints after epoch 0: in their order, so many each
    (`estimators.evidence.Reference.segments`).

    With `optimizer_state` a checkpoint holds all that the next step needs: the momentum or Adam's moments, and the average of
    `ema`. Its models are then trained alone, in the plain way, so that any stretch between two checkpoints can be replayed to the
    bit. Batches, learning rates, dropout and augmentation follow from the seed and the recipe, and are not kept.
    """

    serves: ClassVar[frozenset[Need]] = frozenset({"full", "checkpoints"})
    law: ClassVar[str | None] = "full"
    goes_first: ClassVar[bool] = True
    unsaid: ClassVar[Mapping[str, object]] = {**Design.unsaid, "optimizer_state": False}

    kind: Literal["full"]
    checkpoints: Annotated[Checkpoints, BeforeValidator(_in_full, json_schema_input_type=Checkpoints | InShort)] = (
        Field(
            "last",
            description="epochs after which the parameters are kept (the last is always among them), or last, every or none, "
            "or {segments: 3, each: 2}, in short 3 x 2: so many in each of so many equally long segments",
        )
    )
    optimizer_state: bool = Field(
        False,
        description="keep the optimizer's state with the parameters, and train alone, so that steps can be replayed to the bit",
    )

    def count(self, context: Context) -> int:
        """Return 1."""
        return 1

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return all ones (n,)."""
        return np.ones(context.n, dtype=bool)

    @property
    def keeps_optimizer_state(self) -> bool:
        """Return the option."""
        return self.optimizer_state

    def checkpoint_epochs(self, epochs: int | None, context: Context) -> tuple[int, ...]:
        """Return the chosen epochs and the last. Raises ConfigError for one beyond the recipe's, and for too many segments.

        Where nobody told the number of epochs, the last of the chosen stands for the end of the training, or epoch 1.
        """
        key = f"designs.{context.name}.checkpoints"
        if self.checkpoints == "none":
            return ()
        if self.checkpoints == "every" or isinstance(self.checkpoints, Segments):
            return self._spread(epochs, key)
        chosen = () if self.checkpoints == "last" else self.checkpoints
        if epochs is None:
            epochs = max((1, *chosen))
        beyond = [epoch for epoch in chosen if not 0 <= epoch <= epochs]
        if beyond:
            raise ConfigError(f"{key}: {beyond[0]} is not an epoch of the recipe; expected 0 to {epochs}")
        return tuple(sorted({*chosen, epochs}))

    def _spread(self, epochs: int | None, key: str) -> tuple[int, ...]:
        """Return epochs that are spread over a training. Raises ConfigError where it has too few, or nobody told how many."""
        if epochs is None:
            raise ConfigError(f"{key}: the task trains itself and does not tell its epochs; expected a list of them")
        if not isinstance(self.checkpoints, Segments):
            return tuple(range(1, epochs + 1))
        count = self.checkpoints.segments * self.checkpoints.each
        if count > epochs:
            raise ConfigError(f"{key}: {count} checkpoints in segments need as many epochs, the recipe has {epochs}")
        return self.checkpoints.epochs(epochs)
