"""Looking at a training while it goes on: what a watcher is shown, and when it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Glimpse:
    """A training between two steps. What it holds is the training's own: to be looked at, not to be changed."""

    epoch: int
    """Epochs completed."""
    step: int
    """Optimizer steps completed."""
    learning_rate: float
    """Of the last step."""
    module: nn.Module
    """In training mode, with the parameters that training goes on from."""
    optimizer: torch.optim.Optimizer | None
    """With its state, such as Adam's moments; None where nobody has it."""


class Watcher(Protocol):
    """Looks at a training at moments of its choice. Any loop can show it some: `watcher.look(Glimpse(...))`."""

    def wants(self, epoch: int, step: int, ends_epoch: bool) -> bool:
        """Say whether to look after this step; `epoch` counts the epochs completed, with the one that the step ends."""

    def look(self, glimpse: Glimpse) -> None:
        """Look at the training. It must draw from no global random state, and change nothing that is trained."""


def show(watcher: Watcher | None, glimpse: Glimpse, per_epoch: int) -> None:
    """Have the watcher, if there is one, look at a moment that it wants to see, in epochs of `per_epoch` steps."""
    if watcher is not None and watcher.wants(glimpse.epoch, glimpse.step, glimpse.step % per_epoch == 0):
        watcher.look(glimpse)
