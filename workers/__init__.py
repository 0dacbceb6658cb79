"""What happens on one worker: build a task, train a pack of models on their subsets, measure them.

Knows nothing of Ray, Zarr or YAML. A name is imported when it is first asked for, so that importing any part of the
package costs no more than that part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.lazy_exports import exports

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

__getattr__, __dir__ = exports(
    __name__,
    {
        "Checkpoint": "workers.runs",
        "Classification": "workers.task",
        "DifferentiableTask": "workers.task",
        "Failure": "workers.runs",
        "Outcome": "workers.runs",
        "Queries": "workers.runs",
        "Recipe": "workers.recipe",
        "Regression": "workers.task",
        "Run": "workers.runs",
        "Task": "workers.task",
    },
)
