"""What happens on one worker: build a task, train a pack of models on their subsets, measure them.

Knows nothing of Ray, Zarr or YAML.
"""

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
