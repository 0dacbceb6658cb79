"""LoGra: influence in a small space to which every layer's two sides are projected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.projected import ProjectedEffects, ProjectingEstimator, Sizes, TrainingSide
from estimators.reference_estimator import Material

if TYPE_CHECKING:
    from estimators.curvature.pseudo_gradients import LossGradients
    from estimators.gradients.factored_projection import FactoredProjection
    from estimators.gradients.functional_model import Model
    from estimators.gradients.layers import Layers
    from estimators.gradients.projectors import Projector


class Logra(ProjectingEstimator):
    """tau[i, q] = - (1/n) sum over layers of phi_q^T (H + damping I)^-1 phi_i, averaged over models.

    Choe et al. 2024, section 3: phi = P_out^T G P_in is the gradient of a layer's matrix G (the loss's at example i, the
    measure's at query q), projected on both sides to rank x rank; H = (1/n) sum of w_i phi_i phi_i^T is the second moment of the
    training losses' projected gradients (their "raw projected Hessian", an empirical Fisher matrix), layer by layer, at the last
    checkpoint. The sides are random, or with `init: pca` the leading eigenvectors of K-FAC's two sides (section 3.2).

    With `curvature: ekfac` H is Q diag(s) Q^T (section 3.1), with Q = Q_out (x) Q_in the eigenvectors of the projected factors'
    two second moments, of P_out^T g over examples (summed over positions) and of P_in^T x over examples and positions, and
    s = (1/n) sum of w_i (Q^T phi_i)^2: two matrices of rank x rank instead of one of rank^2 x rank^2.

    A projection of what is inverted is no approximation of the inverse: values have the units of the measure, but not its scale.
    Cost a model: one pass over the training examples (two with `ekfac`), and for L layers 2 rank^2 n t L operations. With `store`
    the rows (H + damping I)^-1 phi_i are kept (2 rank^4 n L operations once), and a new query costs its own gradient and
    2 rank^2 n L.

    >>> from estimators.gradient_based.logra import Logra
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Logra().attribute(evidence)
    >>> made.values.shape, made.models, made.details["dimensions"]
    ((24, 4), 2, [6])
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "logra"

    rank: int = Field(64, ge=1, description="dimensions that each side of a layer is projected to; smaller sides stay")
    init: Literal["random", "pca"] = Field(
        "random", description="the sides' projections: random, or leading eigenvectors of K-FAC's sides"
    )
    curvature: Literal["raw", "ekfac"] = Field(
        "raw", description="the second moment of projected gradients as it is, or by EK-FAC on their projected factors"
    )
    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["mean_eigenvalue"] = Field(
        "mean_eigenvalue",
        description="added to every layer's matrix; mean_eigenvalue = 0.1 x its mean eigenvalue, as in the paper",
    )

    def effects(self, material: Material) -> LograEffects:
        """Project and solve for every model. Raises ConfigError for a flat measure, or features larger than the memory."""
        return LograEffects(self, material)


class LograEffects(ProjectedEffects):
    """What the projected gradients of each model bring."""

    def __init__(self, options: Logra, material: Material):
        super().__init__(options, material)
        self._options = options

    def training_side(self, model: Model, number: int) -> TrainingSide:
        """Return - 1/n (H + damping I)^-1 phi_i, layer by layer."""
        import torch

        from estimators.curvature.projected import DampedSteps, ProjectedCurvature, SecondMoment
        from estimators.curvature.projected_kronecker import projected_ekfac
        from estimators.gradients.layers import Layers
        from estimators.gradients.projectors import Factored

        losses, train, options = self.material.task.losses, self.material.train, self._options
        self.refuse_beyond_memory(model)
        (layers,) = Layers.of(model, [(losses, train)])
        project = self._projection(model, layers, number)
        projector = Factored(project)
        features = torch.split(projector.rows(model, losses, train, options.budget // 4), list(project.sizes), 1)
        curvatures: Sequence[ProjectedCurvature]
        if options.curvature == "ekfac":
            curvatures = projected_ekfac(layers, self._source(), project, features, options.budget // 4)
        else:
            curvatures = [SecondMoment(one, train.weights) for one in features]
        steps = DampedSteps(features, curvatures, options.damping, options.name, factor=-1 / len(train))
        return TrainingSide(projector, steps, told={"dimensions": list(project.sizes), "damping": steps.dampings})

    def drawn(self, model: Model, number: int) -> Projector:
        """Return a random projection, of the dimensions that one on leading eigenvectors has, too."""
        from estimators.gradients.layers import Layers
        from estimators.gradients.projectors import Factored

        (layers,) = Layers.of(model, [(self.material.task.losses, self.material.train)])
        return Factored(self._random(model, layers, number))

    def sizes(self, model: Model) -> Sizes:
        """Return every layer's dimensions."""
        from estimators.gradients.layers import Layers

        (layers,) = Layers.of(model, [(self.material.task.losses, self.material.train)])
        return Sizes(self._random(model, layers, 0).sizes, "rank", squares=True)

    def details(self) -> Mapping[str, Any]:
        """Return every layer's dimensions, and the dampings model by model."""
        return {"dimensions": self.told[-1]["dimensions"], "damping": [one["damping"] for one in self.told]}

    def _projection(self, model: Model, layers: Layers, number: int) -> FactoredProjection:
        if self._options.init == "random":
            return self._random(model, layers, number)
        from estimators.curvature.kronecker_fit import Fit
        from estimators.curvature.leading import leading
        from estimators.gradients.factored_projection import equal_ranks

        curvature = Fit(layers, self._source(), self._options.budget // 2).kfac()
        return leading(curvature, equal_ranks(layers.blocks, self._options.rank))

    def _random(self, model: Model, layers: Layers, number: int) -> FactoredProjection:
        from estimators.gradients.factored_projection import FactoredProjection, equal_ranks

        ranks = equal_ranks(layers.blocks, self._options.rank)
        return FactoredProjection.random(layers.blocks, ranks, self.material.seed, number, model.dtype)

    def _source(self) -> LossGradients:
        """Return the gradients whose second moment is the curvature."""
        from estimators.curvature.pseudo_gradients import LossGradients

        return LossGradients(self.material.task, self.material.train)
