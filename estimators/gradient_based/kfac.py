"""Influence through K-FAC: the curvature of every layer as a Kronecker product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.damped import DampedEstimator
from estimators.reference_estimator import Block, Material, ModelEffects
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.curvature.kronecker import KroneckerFactored
    from estimators.curvature.kronecker_fit import Fit
    from estimators.curvature.pseudo_gradients import ExactGradients, LossGradients, PseudoGradients
    from estimators.gradients.functional_model import Model


class Kfac(DampedEstimator):
    """tau[i, q] = - (1/n) grad f_q^T (F + damping I)^-1 grad loss_i with F by K-FAC, averaged over models.

    Influence (Koh & Liang 2017, equation 2) with the Gauss-Newton matrix of every layer as a Kronecker product of what enters
    the layer and of the gradients of what leaves it (Martens & Grosse 2015, section 3, with homogeneous coordinates; Grosse &
    Martens 2016 for convolutions; Eschenhagen et al. 2023, "expand", for positions of a sequence), at the last checkpoint.
    Random targets are drawn from the model's own prediction, by default one an example: where the model is sure of most
    examples, few of them say anything, and more `samples` change the values; `fisher: exact` draws none, and passes
    the examples back once for every output instead. The damping is added to the products of the sides' eigenvalues; by default it
    is a tenth of each layer's mean eigenvalue (Grosse et al. 2023). Normalizations, and parameters that no layer is known to use,
    have their own second moment.

    Units of the measure, as far as the approximation goes. Cost a model: two passes over the training examples, and for p
    parameters 2 p n t operations; gradients are never formed where an example passes a layer once.

    >>> from estimators.gradient_based.kfac import Kfac
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Kfac().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "kfac"
    in_units: ClassVar[bool] = True

    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto", "mean_eigenvalue"] = Field(
        "mean_eigenvalue",
        description="added to every eigenvalue; mean_eigenvalue = 0.1 x that of each layer, as in the paper; "
        "auto = 1 / sum of lr / (1 - momentum), as that of influence",
    )
    fisher: Literal["sampled", "exact", "empirical"] = Field(
        "sampled",
        description="gradients of the curvature: at targets drawn from the model, their expectation in closed form (a pass for "
        "each output), or at the true targets",
    )
    samples: int = Field(1, ge=1, description="targets drawn an example, for fisher: sampled")

    def effects(self, material: Material) -> KroneckerEffects:
        """Fit and invert every model's curvature. Raises ConfigError for a flat measure, and for a loss that is not convex."""
        return KroneckerEffects(self, material)

    def curvature(self, fit: Fit) -> KroneckerFactored:
        """Return the curvature of one model."""
        return fit.kfac()


@dataclass
class _Told:
    """What is worth telling of all models."""

    damping: list[float | list[float]] = field(default_factory=list)
    """Added to the eigenvalues, weight decay included: of all layers, or of each."""
    without_factors: dict[str, str] = field(default_factory=dict)


class KroneckerEffects(ModelEffects):
    """What the curvatures of the models bring."""

    def __init__(self, options: Kfac, material: Material):
        super().__init__(material)
        self._options = options
        self._damping, self._decay = options.shift(material.task)
        self._told = _Told()

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - grad f_q^T (F + (damping + weight decay) I)^-1 grad loss_i."""
        from estimators.curvature.kronecker_fit import Fit
        from estimators.curvature.kronecker_products import Preconditioned
        from estimators.gradients.layers import Layers

        task, train, queries = self.material.task, self.material.train, self.material.queries
        source, budget = self._source(model), self._options.budget // 2
        of_losses, of_measure, of_source = Layers.of(
            model, [(task.losses, train), (self.measure(model), queries), (source.objective, source.few())]
        )
        self._told.without_factors |= {block.weight: block.why for block in of_losses.blocks if block.why}
        curvature = self._options.curvature(Fit(of_source, source, budget))
        solved = Preconditioned(curvature, self._dampings(curvature), of_losses, of_measure, budget)
        for where, block in solved.products(train, queries):
            yield where, -block

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th."""
        return total / (len(self.material.train) * len(self.material.references))

    def details(self) -> Mapping[str, Any]:
        """Return the dampings, weight decay included, and which parameters have no factors, with the reason."""
        told: dict[str, Any] = {"damping": self._told.damping, **self._options.untold(self.material.task)}
        if self._told.without_factors:
            told["without_factors"] = [f"{name}: {why}" for name, why in self._told.without_factors.items()]
        return told

    def _source(self, model: Model) -> PseudoGradients | ExactGradients | LossGradients:
        """Return the gradients whose second moment is the curvature."""
        from estimators.curvature.pseudo_gradients import fisher_gradients

        options, drawn = self._options, (self.material.seed, len(self._told.damping))
        return fisher_gradients(options.fisher, model, self.material.task, self.material.train, drawn, options.samples)

    def _dampings(self, curvature: KroneckerFactored) -> list[float]:
        """Return what is added to the eigenvalues of every block, and note it."""
        from estimators.curvature.damping import MEAN_FRACTION

        if self._damping is not None:
            self._told.damping.append(self._damping + self._decay)
            return [self._damping + self._decay] * len(curvature.bases)
        found = [MEAN_FRACTION * float(basis.eigenvalues.double().mean()) + self._decay for basis in curvature.bases]
        for block, damping in zip(curvature.blocks, found, strict=True):
            if not damping:
                raise ConfigError(
                    f"{self._options.name}: the gradients of {block.weight!r} are all 0, and so is its mean eigenvalue: "
                    "expected a damping that is a number, or `parameters` without it"
                )
        self._told.damping.append(found)
        return found
