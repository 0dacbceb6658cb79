"""DataInf: influence with a closed form for the inverse, layer by layer, by swapping a mean and an inverse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.evidence import Evidence
from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.curvature.fisher import EmpiricalFisher
    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask


class DataInf(ReferenceEstimator):
    """tau[k, q] = - (1/n) sum over l of (<v_ql, g_kl> - (1/n) sum over i of <v_ql, g_il> <g_il, g_kl> / (d_l + |g_il|^2)) / d_l.

    Kwon et al. 2023, equation 5, with l the layers: v_ql is layer l's part of the measure's gradient at query q, g_il that of
    the loss's at example i, d_l the layer's damping. It is influence with the empirical Fisher matrix of each layer, where the
    inverse of the mean of g_i g_i^T + d I is replaced by the mean of the inverses, which have a closed form. A layer is a module
    with parameters of its own. An example's weight multiplies its loss: g_k, and g_i g_i^T, by w.

    Cost: the gradients of all examples once for the dampings, and twice for every block of queries that the memory holds; no
    matrix is formed and nothing is iterated. Its error is bounded by the square of a layer's number of parameters (their theorem
    1): it was made for adapters of low rank, which `parameters` can name. With a damping far above the gradients' squared norms
    it is the gradients' inner product. Its values are not claimed to be in units of the measure: the empirical Fisher matrix of
    a model that fits its data is near 0, whatever the curvature of the loss.

    >>> from estimators.gradient_based.datainf import DataInf
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = DataInf().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "datainf"

    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["mean_eigenvalue", "auto"] = Field(
        "mean_eigenvalue",
        description="d_l; mean_eigenvalue = 0.1 x that of the layer's empirical Fisher matrix, as in the paper; "
        "auto = 1 / sum of lr / (1 - momentum) for all layers, as that of influence",
    )

    def check(self, evidence: Evidence) -> None:
        """Refuse a flat measure, and a damping that the recipe does not tell."""
        super().check(evidence)
        self._damping(evidence.differentiable())

    def effects(self, material: Material) -> DataInfEffects:
        """Invert layer by layer. Raises ConfigError for a flat measure, or a layer without gradients."""
        return DataInfEffects(self, material)

    def _damping(self, task: GradientTask) -> float | None:
        """Return the damping of all layers; None where every layer has its own."""
        from estimators.curvature.damping import unrolled_damping

        if self.damping == "auto":
            if task.recipe is None:
                raise ConfigError(
                    "datainf: damping auto is told by the task's recipe, and the task has none: "
                    "expected a number or mean_eigenvalue"
                )
            return unrolled_damping(task.recipe, task.n)
        return None if isinstance(self.damping, str) else self.damping


class DataInfEffects(ModelEffects):
    """What each model brings, and the dampings of its layers."""

    def __init__(self, options: DataInf, material: Material):
        super().__init__(material)
        self._options = options
        self._damping = options._damping(material.task)
        self._dampings: list[dict[str, float]] = []

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - sum over layers of <x_ql, g_kl>, with x_ql the inverse's product with v_ql."""
        from estimators.curvature.blocks import layer_blocks
        from estimators.curvature.fisher import EmpiricalFisher
        from estimators.gradients.per_example import blocks, products

        task, train, budget = self.material.task, self.material.train, self._options.budget
        measure = self.measure(model)
        fisher, places = EmpiricalFisher(model, task, train, budget // 4), layer_blocks(model)
        dampings = self._of_layers(fisher, places)
        self._dampings.append(dampings)
        for where, sides in blocks(model, measure, self.material.queries, budget // 4):
            solved = swapped_inverse(fisher, [(at, dampings[name]) for name, at in places.items()], sides)
            yield where, -products(model, task.losses, train, solved, budget // 4)

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th."""
        return total / (len(self.material.train) * len(self.material.references))

    def details(self) -> Mapping[str, Any]:
        """Return the layers, and their dampings by model."""
        return {"layers": list(self._dampings[0]), "damping": [list(one.values()) for one in self._dampings]}

    def _of_layers(self, fisher: EmpiricalFisher, places: Mapping[str, Tensor]) -> dict[str, float]:
        if self._damping is not None:
            return dict.fromkeys(places, self._damping)
        from estimators.curvature.damping import MEAN_FRACTION

        diagonal = fisher.diagonal()
        found = {name: MEAN_FRACTION * float(diagonal[at].mean()) for name, at in places.items()}
        flat = [name for name, damping in found.items() if damping <= 0]
        if flat:
            raise ConfigError(
                f"datainf: the losses have no gradient in layer {flat[0]!r}, so its mean eigenvalue is 0: expected a damping "
                "that is a number, or `parameters` without that layer"
            )
        return found


def swapped_inverse(fisher: EmpiricalFisher, layers: list[tuple[Tensor, float]], sides: Tensor) -> Tensor:
    """Return the mean over examples of (g_i g_i^T + d I)^-1 v for the rows v of `sides` (r, p), in each layer: its places and d.

    By Sherman and Morrison: (g g^T + d I)^-1 v = (v - g <g, v> / (d + |g|^2)) / d.
    """
    result = sides.clone()
    for rows in fisher.roots():
        for at, damping in layers:
            part = rows[:, at]
            shares = (part @ sides[:, at].T) / (damping + part.square().sum(1, keepdim=True))
            result[:, at] -= shares.T @ part / len(fisher.examples)
    for at, damping in layers:
        result[:, at] /= damping
    return result
