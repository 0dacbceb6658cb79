"""LoGra: influence in a small space to which every layer's two sides are projected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.projected import ProjectedEffects, ProjectingEstimator, TrainingSide
from estimators.reference_estimator import Material
from workers.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradients.factored_projection import FactoredProjection
    from estimators.gradients.functional_model import Model


class Logra(ProjectingEstimator):
    """tau[i, q] = - (1/n) sum over layers of phi_q^T (H + damping I)^-1 phi_i, averaged over models.

    Choe et al. 2024, section 3: phi = P_out^T G P_in is the gradient of a layer's matrix G (the loss's at example i, the
    measure's at query q), projected on both sides to rank x rank; H = (1/n) sum of w_i phi_i phi_i^T is the second moment of the
    training losses' projected gradients (their "raw projected Hessian", an empirical Fisher matrix), layer by layer, at the last
    checkpoint. The sides are random, or with `init: pca` the leading eigenvectors of K-FAC's two sides (section 3.2).

    A projection of what is inverted is no approximation of the inverse: values have the units of the measure, but not its scale.
    Cost a model: one pass over the training examples, and for L layers 2 rank^2 n t L operations. With `store` the rows
    (H + damping I)^-1 phi_i are kept (2 rank^4 n L operations once), and a new query costs its own gradient and 2 rank^2 n L.

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
    damping: Annotated[float, Field(gt=0)] | Literal["mean_eigenvalue"] = Field(
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

        from estimators.gradients.projectors import Factored

        losses, train = self.material.task.losses, self.material.train
        project = self._projection(model, number)
        self._affordable(project)
        projector = Factored(project)
        features = projector.rows(model, losses, train, self._options.budget // 4)
        damped = [self._damped(part) for part in torch.split(features, list(project.sizes), 1)]

        def solve(rows: Tensor) -> Tensor:
            pairs = zip(torch.split(rows, list(project.sizes), 1), damped, strict=True)
            parts = [torch.cholesky_solve(part.T, factor).T for part, (_, factor) in pairs]
            return torch.cat(parts, 1) / -len(train)

        told = {"dimensions": list(project.sizes), "damping": [damping for damping, _ in damped]}
        return TrainingSide(projector, features, solve, told=told)

    def details(self) -> Mapping[str, Any]:
        """Return every layer's dimensions, and the dampings model by model."""
        return {"dimensions": self.told[-1]["dimensions"], "damping": [one["damping"] for one in self.told]}

    def _projection(self, model: Model, number: int) -> FactoredProjection:
        from estimators.gradients.factored_projection import FactoredProjection, equal_ranks
        from estimators.gradients.layers import Layers

        task, train = self.material.task, self.material.train
        (layers,) = Layers.of(model, [(task.losses, train)])
        ranks = equal_ranks(layers.blocks, self._options.rank)
        if self._options.init == "random":
            return FactoredProjection.random(layers.blocks, ranks, self.material.seed, number, model.dtype)
        from estimators.curvature.kronecker_fit import Fit
        from estimators.curvature.leading import leading
        from estimators.curvature.pseudo_gradients import LossGradients

        curvature = Fit(layers, LossGradients(task, train), self._options.budget // 2).kfac()
        return leading(curvature, ranks)

    def _damped(self, features: Tensor) -> tuple[float, Tensor]:
        """Return the damping, and the Cholesky factor of H + damping I, for one layer's features (n, k)."""
        from estimators.curvature.damping import MEAN_FRACTION
        from estimators.curvature.dense import damped_factor

        weights = self.material.train.weights
        # A weighted example's gradient is w_i g_i, and it counts w_i times in the second moment of the g_i.
        weighed = features if weights is None else features * _inverse_root(weights.double()).unsqueeze(1)
        moment = weighed.T @ weighed / len(features)
        damping = self._options.damping
        if not isinstance(damping, float):
            damping = MEAN_FRACTION * float(moment.trace()) / len(moment)
        if damping == 0:
            raise ConfigError(
                "logra: all gradients of a layer are 0, so its damping is: expected a damping of your own"
            )
        return damping, damped_factor(moment, damping)

    def _affordable(self, project: FactoredProjection) -> None:
        """Raise ConfigError when the features take more than half the budget."""
        options = self._options
        rows = len(self.material.train) + len(self.material.queries)
        held = 8 * (rows * project.k + 2 * max(project.sizes) ** 2)
        if held > options.budget // 2:
            raise ConfigError(
                f"logra: projected gradients of {rows} examples in {project.k} dimensions, and the largest layer's matrix, take "
                f"{held / 2**30:.2g} GiB, more than half of memory_gb={options.memory_gb:g}: expected a smaller rank "
                "or a larger memory_gb"
            )


def _inverse_root(weights: Tensor) -> Tensor:
    """Return w^(-1/2), and 0 where the weight is: that example has no gradient."""
    import torch

    return torch.where(weights > 0, weights.clamp(min=torch.finfo(weights.dtype).tiny).rsqrt(), 0.0)
