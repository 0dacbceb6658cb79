"""How a pack is trained: the method, the width, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Method = Literal["resident", "stacked", "compiled", "alone"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to train packs of one task on one machine."""

    method: Method
    """"resident": our kernels, one model in cache after another; "stacked": in lockstep; "compiled": in lockstep, its
    step compiled by torch.compile; "alone": the plain way."""
    width: int
    """Models trained in lockstep; 1 unless stacked or compiled."""
    channels_last: bool
    """Whether training alone lays images out with channels last."""
    reason: str
    """One line for the report: why, with the figures that decided."""
    failed: bool = False
    """Whether this is what remained because the task's own code failed while being timed; such a strategy is not kept."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data; the method's key on disk is `path`."""
        kept = asdict(self)
        return {"path": kept.pop("method"), **kept}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Strategy:
        """Return the strategy that `to_json` describes."""
        return cls(kept["path"], **{key: value for key, value in kept.items() if key != "path"})
