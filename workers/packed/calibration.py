"""Choose how a task is trained."""

from __future__ import annotations

from typing import Literal

from workers.packed.plan import Path, Plan
from workers.packed.resident import Resident
from workers.task import DifferentiableTask


def plan_of(
    task: DifferentiableTask, device: str, width: int | Literal["auto"] = "auto", path: Path | Literal["auto"] = "auto"
) -> Plan:
    """Return the plan."""
    if path == "auto":
        path = "alone" if width == 1 else "resident" if device == "cpu" and Resident.of(task) else "alone" if width == "auto" else "stacked"
    return Plan(path, width if isinstance(width, int) else 16, "")
