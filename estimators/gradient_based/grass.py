"""GraSS: influence in a small space that gradients are brought to by a mask and few signed sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.projected import ProjectedEffects, ProjectingEstimator, Sizes, TrainingSide
from estimators.reference_estimator import Material

if TYPE_CHECKING:
    from estimators.gradients.functional_model import Model
    from estimators.gradients.projectors import Projector


class Grass(ProjectingEstimator):
    """tau[i, q] = - (1/n) phi_q^T (F + damping I)^-1 phi_i, averaged over models.

    Hu et al. 2025, sections 2 and 3: phi = P^T g is the gradient (the loss's at example i, the measure's at query q) after a
    random mask that leaves 4 `project_dim` parameters and a sparse Johnson-Lindenstrauss transform with one entry each
    ("GraSS", by the random mask); F = (1/n) sum of w_i phi_i phi_i^T is the Fisher information of the compressed training
    gradients, at the last checkpoint. With `factored` the mask is on both sides of each layer, no gradient is formed, and F is
    block by layer ("FactGraSS"). The paper chooses the damping by the scores that it reports; here it is a tenth of the mean
    eigenvalue. The learned ("selective") mask is left out.

    A projection of what is inverted is no approximation of the inverse: values have the units of the measure, but not its scale.
    Cost a model: a gradient of every example, 4 k additions for each with k = `project_dim`, and 2 k^2 n + 2 k n t operations.
    With `store` a new query costs its own gradient and 2 k n.

    >>> from estimators.gradient_based.grass import Grass
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Grass().attribute(evidence)
    >>> made.values.shape, made.models, made.details["dimensions"]
    ((24, 4), 2, [6])
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "grass"

    project_dim: int = Field(
        4096,
        ge=1,
        description="dimension of compressed gradients, all layers together; no more parameters stay as they are",
    )
    factored: bool = Field(False, description="mask both sides of each layer instead of the whole gradient (FactGraSS)")
    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["mean_eigenvalue"] = Field(
        "mean_eigenvalue",
        description="added to the diagonal of F; mean_eigenvalue = 0.1 x its mean eigenvalue, of each layer with factored",
    )

    def effects(self, material: Material) -> GrassEffects:
        """Compress and solve for every model. Raises ConfigError for a flat measure, or features larger than the memory."""
        return GrassEffects(self, material)


class GrassEffects(ProjectedEffects):
    """What the compressed gradients of each model bring."""

    def __init__(self, options: Grass, material: Material):
        super().__init__(options, material)
        self._options = options

    def training_side(self, model: Model, number: int) -> TrainingSide:
        """Return - 1/n (F + damping I)^-1 phi_i."""
        import torch

        from estimators.curvature.projected import DampedSteps, SecondMoment

        losses, train, options = self.material.task.losses, self.material.train, self._options
        projector, sizes = self._projector(model, number)
        self.refuse_beyond_memory(model)
        features = torch.split(projector.rows(model, losses, train, options.budget // 4), list(sizes), 1)
        moments = [SecondMoment(one, train.weights) for one in features]
        steps = DampedSteps(features, moments, options.damping, options.name, factor=-1 / len(train))
        return TrainingSide(projector, steps, told={"dimensions": list(sizes), "damping": steps.dampings})

    def drawn(self, model: Model, number: int) -> Projector:
        """Return the network's own compression."""
        return self._projector(model, number)[0]

    def sizes(self, model: Model) -> Sizes:
        """Return the dimensions of what has a Fisher matrix of its own."""
        return Sizes(self._projector(model, 0)[1], "project_dim", squares=True)

    def details(self) -> Mapping[str, Any]:
        """Return the dimensions of every block, and the dampings model by model."""
        return {"dimensions": self.told[-1]["dimensions"], "damping": [one["damping"] for one in self.told]}

    def _projector(self, model: Model, number: int) -> tuple[Projector, Sequence[int]]:
        """Return the model's own compression, and the dimensions of what has a Fisher matrix of its own."""
        from estimators.gradients.factored_projection import ranks_within
        from estimators.gradients.layers import Layers
        from estimators.gradients.projectors import FactoredSparse, Unprojected, Whole
        from estimators.gradients.sparse_projection import SparseProjection

        k, seed = self._options.project_dim, self.material.seed
        if self._options.factored:
            (layers,) = Layers.of(model, [(self.material.task.losses, self.material.train)])
            made = FactoredSparse(layers.blocks, ranks_within(layers.blocks, k), seed, number, model.dtype)
            return made, made.project.sizes
        if k >= model.p:
            return Unprojected(model.p), [model.p]
        return Whole(SparseProjection(model.p, k, seed, number, model.dtype)), [k]
