"""How a pack is trained: the path, the width, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Path = Literal["resident", "stacked", "compiled", "alone"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to train packs of one task on one machine."""

    path: Path
    """"resident": our kernels, one model in cache after another; "stacked": in lockstep; "compiled": in lockstep, its
    step compiled by torch.compile; "alone": the plain way."""
    width: int
    """Models trained in lockstep; 1 unless stacked or compiled."""
    channels_last: bool
    """Whether training alone lays images out with channels last."""
    reason: str
    """One line for the report: why, with the figures that decided."""
    failed: bool = False
    """Whether this is what remained because the task's own code failed while being timed; such a plan is not kept."""
