"""TRAK: one Newton step of the model linearized in its parameters, averaged over models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from estimators.evidence import Reference
from estimators.gradient_based.projected import ProjectedEffects, ProjectingEstimator, Sizes, TrainingSide
from estimators.gradients.projection import Kind
from estimators.reference_estimator import Material
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from estimators.gradients.functional_model import Model
    from estimators.gradients.projectors import Projector
    from workers.data.nested import Nested
    from workers.task import GradientTask, Objective

EXACT_UP_TO = 20_000
"""`project_dim: auto` leaves gradients of so many parameters as they are."""
AUTO_DIM = 4096
AUTO_FRACTION = 1.0
"""`damping: auto` is this multiple of the mean of the eigenvalues of Phi^T R Phi that can differ from 0: min(n, k) of them."""


@dataclass(frozen=True)
class TrakOutput:
    """The scalar f that TRAK linearizes, and the training loss as a function of it."""

    value: Objective
    """f, (b,)."""
    residual: Callable[[nn.Module, Nested], Tensor]
    """-dloss/df, (b,), an objective too."""
    curvature: Callable[[Tensor], Tensor]
    """d2loss/df2, (b,), from f."""


def trak_output(task: GradientTask) -> TrakOutput:
    """Return the output function of a task: the measure it calls `margin`, else the one it calls `prediction`.

    Raises ConfigError when it has neither.
    """
    known = task.objectives()
    if "margin" in known:  # f = log(p / (1 - p)), loss = log(1 + exp(-f))
        margin = known["margin"]
        return TrakOutput(
            margin,
            residual=lambda module, batch: (-margin(module, batch)).sigmoid(),
            curvature=lambda f: f.sigmoid() * (-f).sigmoid(),
        )
    if "prediction" in known:  # loss = (f - y)^2; both derivatives are halved, which cancels in tau
        return TrakOutput(
            known["prediction"],
            residual=lambda module, batch: -_slope(task, module, batch) / 2,
            curvature=lambda f: f.new_ones(f.shape),
        )
    raise ConfigError(
        f"trak linearizes a measure named 'margin' or 'prediction'; {type(task).__name__} has only: "
        f"{', '.join(sorted(known))}"
    )


def _slope(task: GradientTask, module: nn.Module, batch: Nested) -> Tensor:
    """Return dloss/df (b,), where f is all that the module returns. Raises ConfigError where it is more than a number."""
    import torch

    outputs = task.forward(module, batch)
    with torch.enable_grad():
        f = outputs.detach().requires_grad_() if isinstance(outputs, torch.Tensor) else None
        if f is None or f.numel() != len(f):
            raise ConfigError("trak linearizes `prediction`, so the module must return one number an example")
        (slope,) = torch.autograd.grad(task.criterion(f, batch).sum(), f)
    return slope.flatten()


class Trak(ProjectingEstimator):
    """tau[:, q] = (mean over models of Phi (Phi^T R Phi + damping I)^-1 phi_q) * (mean over models of r).

    Park et al. 2023, equations 13-15 and section 3.2: Phi (n, k) has the rows phi_i = P^T grad f_i(theta), f the margin
    (classification) or the prediction (regression); phi_q = P^T grad of the measure at query q (f itself, or by the
    chain rule any other measure); r_i = -dloss/df = 1 - p_i, or y_i - f_i. R is the identity as in the authors'
    estimator, or diag(d2loss/df2) with `reweight`; examples' weights multiply R and r. As the authors do, the two means
    are taken before the product. Without a damping, as in the paper, the inverse is the pseudo-inverse. tau is in units of the
    measure, for R with `reweight` or in regression.

    With `projection: factored` P is no matrix of independent entries: each layer's gradient is projected on both of its sides
    (LoGra: Choe et al. 2024), in as many dimensions for each as make up at most `project_dim`; with `sparse` and
    `factored_sparse` it is GraSS's and FactGraSS's (Hu et al. 2025). Inner products are kept in expectation, with more
    variance than by independent entries; the cost does not grow with p times `project_dim`.

    With `relative` tau[i, :] is divided by (mean over models of (phi_i^T (Phi^T R Phi + damping I)^-1 phi_i)^(1/2)) |r_i|, the
    relative influence of Barshan et al. 2020 (l-RelatIF) in the space of features: of r_i its sign is left, and outliers that
    change everything lead fewer lists.

    With `store` the rows Phi (Phi^T R Phi + damping I)^-1 and the residuals are kept, and a new query costs its own projected
    gradient and 2 n k operations a model.

    The leverage (the denominator of the leave-one-out formula) is left out, as in the paper. Label smoothing is not
    seen by r.

    >>> from estimators.gradient_based.trak import Trak
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Trak().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "trak"

    project_dim: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto",
        description="dimension of projected gradients; null = exact; auto = exact up to 20,000 parameters, else 4096",
    )
    projection: Kind | Literal["sparse", "factored", "factored_sparse"] = Field(
        "rademacher",
        description="the random projection: its entries rademacher or normal, as in the paper; sparse, as in GraSS; factored or "
        "factored_sparse, by each layer's sides, which forms no gradient",
    )
    damping: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        0.0,
        description="added to the Gram matrix's diagonal, 0 as in the paper; auto = the mean of its non-zero eigenvalues",
    )
    checkpoints: Literal["last", "early", "all"] = Field(
        "last",
        description="last of each reference model, or those after epoch 0 before it, or both, each as a model of its own",
    )
    reweight: bool = Field(False, description="weight the Gram matrix by the loss's second derivative")
    relative: bool = Field(
        False, description="divide by the size of what each example does to its own output (relative influence)"
    )

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.store and self.relative:
            raise ValueError("store keeps rows for values that are not relative: expected one of the two")
        return self

    @property
    def claims_units(self) -> bool:
        """Where the Gram matrix is the loss's curvature: in classification only with `reweight`."""
        return self.reweight and not self.relative

    def effects(self, material: Material) -> TrakEffects:
        """Average over models. Raises ConfigError for a flat measure, features beyond the budget, a singular matrix."""
        return TrakEffects(self, material)


class TrakEffects(ProjectedEffects):
    """The Newton steps of the models, and the residuals that they are multiplied with in the end."""

    def __init__(self, options: Trak, material: Material):
        import torch

        super().__init__(options, material)
        self._options = options
        self._output = trak_output(material.task)
        self._sizes = torch.zeros(len(material.train), dtype=torch.float64)

    def chosen(self, reference: Reference) -> Iterator[tuple[Checkpoint, float]]:
        """Yield the checkpoints to use, each a model of its own; the initial model only where there is no other."""
        *before, last = reference.checkpoints
        earlier = [checkpoint for checkpoint in before if checkpoint.epoch > 0]
        wanted = self._options.checkpoints
        if wanted == "early" and not earlier:
            raise ConfigError(
                f"{self._options.name}: checkpoints: early needs one between epoch 0 and the last, the reference model of seed "
                f"{reference.seed} has {[checkpoint.epoch for checkpoint in reference.checkpoints]}"
            )
        chosen = {"last": [last], "early": earlier, "all": [*earlier, last]}[wanted]
        yield from ((checkpoint, 1.0) for checkpoint in chosen)

    def training_side(self, model: Model, number: int) -> TrainingSide:
        """Return Phi (Phi^T R Phi + damping I)^-1, with the residuals as multipliers."""
        from estimators.curvature.newton_steps import newton_steps
        from estimators.gradients.forward import values_of

        train, output = self.material.train, self._output
        self.refuse_beyond_memory(model)
        projector = self.drawn(model, number)
        f = values_of(model, output.value, train)
        weights = f.new_ones(f.shape) if train.weights is None else train.weights.double()
        curvature = weights * output.curvature(f) if self._options.reweight else weights
        features = projector.rows(model, output.value, replace(train, weights=None), self._options.budget // 4)
        damping = self._damping(features, curvature)
        steps = newton_steps(features, curvature, damping, model.dtype)
        if self._options.relative:
            self._sizes += steps.leverages().sqrt()
        residuals = weights * values_of(model, output.residual, train)
        return TrainingSide(projector, steps, residuals, {"damping": damping, "dimension": projector.k})

    def multiplied(self, means: Tensor, residuals: Tensor, where: slice) -> Tensor:
        """Return the mean Newton steps times the mean residuals; relative, but for the size of what is said of an example."""
        import torch

        if self._options.relative:
            sizes = self._sizes[where] / len(self.told)
            residuals = torch.where(sizes > 0, residuals.sign() / sizes, 0.0)
        return super().multiplied(means, residuals, where)

    def sizes(self, model: Model) -> Sizes:
        """Return the dimension."""
        return Sizes([self.drawn(model, 0).k], "project_dim", squares=False)

    def details(self) -> Mapping[str, Any]:
        """Return the dampings, the features' dimension, and how many checkpoints were averaged."""
        return {
            "damping": [one["damping"] for one in self.told],
            "dimension": self.told[-1]["dimension"],
            "checkpoints": len(self.told),
        }

    def drawn(self, model: Model, number: int) -> Projector:
        """Return the network's own projection, if one is asked for."""
        from estimators.gradients.drawn_projectors import drawn_projector

        k, training = self._projected_dim(model.p), (self._output.value, self.material.train)
        options, drawn = self._options, (self.material.seed, number)
        return drawn_projector(options.projection, k, model, training, drawn, options.budget // 4)

    def _projected_dim(self, p: int) -> int | None:
        """Return the dimension to project p parameters to, or None to leave them."""
        if self._options.project_dim == "auto":
            return None if p <= EXACT_UP_TO else AUTO_DIM
        return self._options.project_dim

    def _damping(self, features: Tensor, curvature: Tensor) -> float:
        if self._options.damping != "auto":
            return self._options.damping
        return AUTO_FRACTION * float(curvature @ features.square().sum(1)) / min(features.shape)
