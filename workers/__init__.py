"""What happens on one worker: build a task, train a pack of models on their subsets, measure them.

Knows nothing of Ray, Zarr or YAML. A name is imported when it is first asked for, so that importing any part of the
package costs no more than that part.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.recipe import Recipe
    from workers.runs import Checkpoint, Failure, Outcome, Queries, Run
    from workers.task import Classification, DifferentiableTask, Regression, Task

__all__ = [
    "Checkpoint",
    "Classification",
    "DifferentiableTask",
    "Failure",
    "Outcome",
    "Queries",
    "Recipe",
    "Regression",
    "Run",
    "Task",
]

_HOMES = {
    "workers.recipe": ("Recipe",),
    "workers.runs": ("Checkpoint", "Failure", "Outcome", "Queries", "Run"),
    "workers.task": ("Classification", "DifferentiableTask", "Regression", "Task"),
}
"""Where each exported name is defined."""


def __getattr__(name: str) -> object:
    """Import an exported name when it is asked for (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    # With its object, as the interpreter raises it: who reports a user's mistake asks which module was meant.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    """Return the exported names too, for completion."""
    return sorted({*globals(), *__all__})
