"""What goes into a worker and what comes out of it: runs, outcomes, checkpoints, failures."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from workers.errors import CounterfactoryError

if TYPE_CHECKING:
    import torch

Order = Literal["own", "shared"]
Normalize = Literal["batch", "weight"]


@dataclass(frozen=True, slots=True)
class Run:
    """One training to do."""

    row: int
    """Row of its design in the store."""
    subset: NDArray[np.int64]
    """Indices of the training examples it sees, ascending, without repetition."""
    seed: int
    """Its own seed, 0 <= seed < 2**32; all of the run's randomness comes from it."""
    checkpoint_epochs: tuple[int, ...] = ()
    """Epochs after which the parameters are kept (0 = the initial ones)."""
    order: Order = "own"
    """"own": its subset is shuffled and batched by its seed; "shared": its batches are those of the full set for its seed, and a
    left-out example weighs 0 in them."""
    normalize: Normalize = "batch"
    """What a batch's sum of weighted losses is divided by: its number of examples, or their weight (0 where that is 0)."""
    weights: NDArray[np.floating[Any]] | None = None
    """(len(subset),) factors on the losses of its examples, finite and >= 0; None for ones."""
    optimizer_state: bool = False
    """Whether checkpoints keep the optimizer's state too. Such a run is trained alone, in the plain way, whatever the strategy:
    its steps can then be replayed to the bit (workers.training.replay)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The parameters of one model at one moment of its training."""

    epoch: int
    """Epochs completed."""
    step: int
    """Optimizer steps completed."""
    learning_rate: float
    """Learning rate of the last step taken (of the first one, for epoch 0)."""
    state: dict[str, torch.Tensor]
    """Parameters and buffers by name, on the CPU."""
    optimizer: dict[str, torch.Tensor] | None = None
    """What the optimizer and the average of the parameters hold, on the CPU, by `first/NAME` (momentum, or Adam's mean of
    gradients), `second/NAME` (Adam's mean of their squares) and `average/NAME` (of `ema`); without moments before the first step.
    None where it was not kept."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no outputs."""

    kind: str
    """Class name of the exception."""
    message: str
    """Its first line."""
    traceback: str
    """The whole traceback."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe `error` as it was raised in the user's training code."""
        text = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, (str(error).strip().splitlines() or [""])[0], text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run brought: outputs, or the reason why there are none."""

    row: int
    outputs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """For every measure asked for, (t,) float32, finite."""
    checkpoints: tuple[Checkpoint, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0
    """Time the run took; a packed run's share of its pack."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Which examples' outputs are measured."""

    source: Literal["task", "train"] = "task"
    """"task": the task's own queries; "train": its training examples (memorization)."""
    indices: tuple[int, ...] | None = None
    """Positions in the source; None takes all of them."""

    def take(self, count: int) -> NDArray[np.int64]:
        """Return the positions as an array, of a source that has `count` examples."""
        if self.indices is None:
            return np.arange(count, dtype=np.int64)
        return np.asarray(self.indices, dtype=np.int64)


class OutOfMemory(CounterfactoryError, MemoryError):
    """The device's memory did not hold a pack; the scheduler halves the pack."""
