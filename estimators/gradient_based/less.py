"""LESS: the cosine between a query's gradient and the step that the optimizer takes on an example, over the checkpoints."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from estimators.gradient_based.trajectory import TrajectoryEffects, TrajectoryEstimator
from estimators.reference_estimator import Block, Material
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Model
    from estimators.gradients.projection import Projection
    from workers.recipe import Recipe
    from workers.task import GradientTask

Map: TypeAlias = "Callable[[Tensor], Tensor]"

EXACT_UP_TO = 20_000
"""`project_dim: auto` leaves gradients of so many parameters as they are."""
AUTO_DIM = 8192
"""The dimension of the paper."""
_STREAM = zlib.crc32(b"estimators.less")


class Less(TrajectoryEstimator):
    """tau[i, q] = - sum over checkpoints c of lr_c cos(P^T grad f_q, P^T Gamma_i), averaged over models.

    Xia et al. 2024, definition 3.1 and section 4.1: Gamma_i is the step that the optimizer takes on example i alone, P a
    random projection of signs (p, k), one for all checkpoints, lr_c the mean learning rate of the steps since the checkpoint
    used before. For adam and adamw Gamma = m' / (sqrt(v') + eps) with the running means m', v' after the example's gradient has
    entered them; for sgd it is the gradient, and tau is `gas` but for rates and projection. Weight decay is no part of Gamma.

    `moments` says what to take for Adam's means, and without it recipes with adam or adamw are refused: `kept` are those that
    checkpoints of a design with `optimizer_state: true` have; `expected` those that batches at the checkpoint's own parameters
    lead to, from the mean and the variance of the examples' gradients. They are near the true ones where the parameters move
    little in 1 / (1 - beta2) steps.

    Unit-free. Costs a gradient of every example and checkpoint (two with `expected`), n p k operations to project and n t k to
    compare. A task without a recipe is refused: nobody knows its optimizer.

    >>> from estimators.gradient_based.less import Less
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # trained by sgd; two classes: even and odd examples; query 0 is even
    >>> made = Less().attribute(evidence)
    >>> made.values.shape, made.details["epochs"]
    ((24, 4), [30, 60])
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > odd)  # the query's margin gains more from its own class
    True
    """

    name: ClassVar[str] = "less"

    moments: Literal["kept", "expected"] | None = Field(
        None,
        description="adam, adamw: the running means to take, as checkpoints keep them with optimizer_state: true, or those of "
        "batches at the checkpoint",
    )
    project_dim: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto",
        description="dimension of projected gradients; null = exact; auto = exact up to 20,000 parameters, else 8192",
    )

    def check(self, evidence: Evidence) -> None:
        """Refuse a measure that has no gradient, an optimizer whose steps are not known, rows that are larger than the memory."""
        super().check(evidence)
        self.recipe_of(evidence.differentiable())
        model = self.untrained(evidence.differentiable())
        rows, k = evidence.n + evidence.t, self.dimension(model.p)
        held = rows * (k or 0) * model.dtype.itemsize
        if held > self.budget // 2:
            raise ConfigError(
                f"less: projected gradients of {rows} examples in {k} dimensions take {held / 2**30:.2g} GiB, more than half of "
                f"memory_gb={self.memory_gb:g}: expected a smaller project_dim or a larger memory_gb"
            )

    def dimension(self, p: int) -> int | None:
        """Return the dimension that p parameters are projected to; None where gradients are left as they are."""
        if self.project_dim == "auto":
            return None if p <= EXACT_UP_TO else AUTO_DIM
        return self.project_dim

    def recipe_of(self, task: GradientTask) -> Recipe:
        """Return the recipe. Raises ConfigError where there is none, or where Adam's means are not given."""
        if task.recipe is None:
            raise ConfigError("less follows the optimizer's steps, and the task has no `recipe` that tells it")
        if task.recipe.optimizer != "sgd" and self.moments is None:
            raise ConfigError(
                f"less: the recipe's optimizer is {task.recipe.optimizer}, whose running means are needed: expected moments: "
                "kept (with optimizer_state: true in the design), or expected, which takes those of batches at the checkpoint"
            )
        return task.recipe

    def weights_of(self, checkpoints: Sequence[Checkpoint], task: GradientTask) -> list[float]:
        """Return the mean rate of the steps since the checkpoint before."""
        rates = self.recipe_of(task).learning_rates(task.n)
        starts = [0, *(checkpoint.step for checkpoint in checkpoints[:-1])]
        spans = zip(starts, checkpoints, strict=True)
        return [float(rates[start : max(one.step, start + 1)].mean()) for start, one in spans]

    def effects(self, material: Material) -> LessEffects:
        """Sum over checkpoints, average over models. Raises ConfigError for a flat measure, and as `check` does."""
        return LessEffects(self, material)


class LessEffects(TrajectoryEffects):
    """What the checkpoints of a training bring, each weighted by its stretch's mean learning rate."""

    def __init__(self, options: Less, material: Material):
        super().__init__(options, material)
        self._options = options
        self._recipe = options.recipe_of(material.task)
        self._dimension = 0
        self._projection: Projection | None = None

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - cos(P^T grad f_q, P^T Gamma_i)."""
        import torch

        from estimators.gradients.per_example import blocks

        train, queries, part = self.material.train, self.material.queries, self._options.budget // 4
        project, direction = self._projected(model), self._direction(model, checkpoint)
        asked = torch.cat([project(rows) for _, rows in blocks(model, self.measure(model), queries, part)])
        found = asked.new_empty(len(train), len(queries))
        for where, rows in blocks(model, self.material.task.losses, train, part):
            torch.mm(project(direction(rows)), asked.T, out=found[where])
        yield slice(None), -found

    def details(self) -> Mapping[str, Any]:
        """Return the epochs of the checkpoints used, the dimension, and which running means were taken."""
        taken = {} if self._recipe.optimizer == "sgd" else {"moments": self._options.moments}
        return {**super().details(), "dimension": self._dimension, **taken}

    def _direction(self, model: Model, checkpoint: Checkpoint) -> Map:
        """Return the map from gradients (b, p) to the optimizer's steps Gamma (b, p)."""
        from estimators.gradients.adam import adam_directions
        from estimators.gradients.optimizer_moments import moments_at

        recipe, taken_from = self._recipe, self._options.moments
        if recipe.optimizer == "sgd" or taken_from is None:  # without them only sgd comes so far
            return lambda rows: rows
        losses, train, budget = self.material.task.losses, self.material.train, self._options.budget // 4
        moments = moments_at(model, checkpoint, losses, train, recipe, taken_from, budget)
        return lambda rows: adam_directions(rows, moments, recipe, checkpoint.step)

    def _projected(self, model: Model) -> Map:
        """Return the map from rows (b, p) to their projections (b, k), each of length 1."""
        from estimators.gradients.directions import normalized
        from estimators.gradients.projection import Projection

        wanted = self._options.dimension(model.p)
        self._dimension = wanted or model.p
        if wanted is None:
            return lambda rows: normalized(rows.clone(), [slice(None)])
        if self._projection is None:
            budget = self._options.budget // 4
            self._projection = Projection(model.p, wanted, self.material.seed, _STREAM, model.dtype, budget)
        project = self._projection
        return lambda rows: normalized(project(rows), [slice(None)])
