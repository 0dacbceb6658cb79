"""The memory-perturbation equation: what including an example did, by the covariance that the training algorithm implies."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from estimators.evidence import Reference
from estimators.gradient_based.damped import DampedEstimator
from estimators.reference_estimator import Block, Material, ModelEffects
from workers.errors import ConfigError
from workers.recipe import Recipe
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.curvature.operator import Rows
    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask

Row = Literal["newton", "online_newton", "diagonal", "iblr", "adam", "sgd"]
Covariance = Literal["full", "kfac", "diagonal"]
_STREAM = zlib.crc32(b"estimators.mpe")


class Mpe(DampedEstimator):
    """tau[i, q] = - <grad f_q, S grad loss_i>, averaged over models: f_q minus what it is expected to be without example i.

    The memory-perturbation equation (Nickl et al. 2023): without example i the parameters move by S grad loss_i, with S the
    covariance of the posterior that an algorithm keeps. The rows of the paper's table, with H the Gauss-Newton matrix of the mean
    loss and d the damping and the L2 term's curvature:

    - `newton`: n S = (H + d I)^-1. `covariance` full (then tau is `influence`), kfac (then it is `kfac` with `damping: auto`
      and `fisher: exact`) or diagonal.
    - `online_newton`: n S = (S_t + d I)^-1, S_t = (1 - rate) S_(t-1) + rate H_t over the kept checkpoints after epoch 0;
      `diagonal`: the same with the diagonals of H_t.
    - `iblr`: n S = 1 / (h + d), h the mean of diag H over `samples` draws from N(theta, S), a fixed point of `rounds` rounds;
      gradients are means over the same draws.
    - `adam`: n S = 1 / (sqrt(v) + d), v the second moment of the batches' gradients at the checkpoint, which is what Adam's tends
      to there (also RMSprop's). It has units as far as sqrt(v) is a curvature, and claims none.
    - `sgd`: n S = rho I with rho the rate of the checkpoint's last step: what one step does, `tracin`'s term of that checkpoint
      over n. No units of the whole training.

    `damping` is that of `influence`. float64. Costs a gradient of every example and query and n t p operations; the curvatures
    of `newton` full and `online_newton` a matrix (p, p), diagonals one pass back for each output. How strongly the model
    answers to each of its examples, (n,), which this paper is about, is in `estimators.sensitivity`.

    >>> from estimators.gradient_based.mpe import Mpe
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Mpe(row="newton", covariance="diagonal").attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "mpe"

    row: Row = Field("newton", description="the algorithm whose covariance is taken")
    covariance: Covariance = Field("full", description="row newton: the whole matrix, by layers, or its diagonal")
    damping: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="added to the precision; auto = 1 / sum of lr / (1 - momentum); for a task without a recipe a number",
    )
    rate: float = Field(0.5, gt=0, le=1, description="online_newton, diagonal: weight of each checkpoint's curvature")
    samples: int = Field(8, ge=1, description="iblr: draws from the posterior")
    rounds: int = Field(3, ge=1, description="iblr: rounds of curvature and covariance")

    @model_validator(mode="after")
    def _together(self) -> Mpe:
        rows = {"covariance": ("newton",), "rate": ("online_newton", "diagonal")}
        rows |= dict.fromkeys(("samples", "rounds"), ("iblr",))
        for option, wanted in rows.items():
            if self.row not in wanted and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"{option} goes with row {' or '.join(wanted)}, found {self.row}")
        if self.covariance == "kfac" and self.damping == 0:
            raise ValueError("covariance kfac needs a damping above 0")
        return self

    @property
    def claims_units(self) -> bool:
        """Where the covariance is made of the loss's own curvature."""
        return self.row not in ("adam", "sgd")

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return float64."""
        import torch

        return torch.float64

    def shift(self, task: GradientTask) -> tuple[float, float]:
        """Return the damping, and the curvature of the L2 term. Raises ConfigError for `auto` without a recipe."""
        damping, decay = super().shift(task)
        if damping is None:
            raise ConfigError("mpe: damping: auto follows the recipe, and the task has none: expected a number")
        return damping, decay

    def check(self, evidence: Evidence) -> None:
        """Refuse besides a row that needs the recipe of a task that tells none, and one whose rate ends at 0."""
        super().check(evidence)
        recipe_of(self, evidence.differentiable())

    def effects(self, material: Material) -> ModelEffects:
        """Return what each model brings. Raises ConfigError for a flat measure, and a precision that is not positive."""
        if self.row == "newton" and self.covariance != "diagonal":
            return _delegated(self, material)
        return MpeEffects(self, material)


def recipe_of(options: Mpe, task: GradientTask) -> Recipe | None:
    """Return the recipe. Raises ConfigError where row `adam` needs one that there is not."""
    if options.row == "adam" and task.recipe is None:
        raise ConfigError("mpe: row adam needs the batch size, and the task has no `recipe` that tells it")
    return task.recipe


def _delegated(options: Mpe, material: Material) -> ModelEffects:
    """Return the effects of the estimator whose formula this is: influence, or kfac with its exact expectation."""
    from estimators.gradient_based.influence import Influence, InfluenceEffects
    from estimators.gradient_based.kfac import Kfac, KroneckerEffects

    damping = options.shift(material.task)[0]
    given: dict[str, Any] = {name: getattr(options, name) for name in ("parameters", "dropout", "memory_gb")}
    given |= {"weight_decay": options.weight_decay, "damping": damping}
    if options.covariance == "full":
        return InfluenceEffects(Influence(**given), material)
    return KroneckerEffects(Kfac(fisher="exact", **given), material)


class MpeEffects(ModelEffects):
    """What the covariance of each model brings."""

    def __init__(self, options: Mpe, material: Material):
        super().__init__(material)
        self._options = options
        damping, decay = options.shift(material.task)
        self._damping = damping + decay
        self._reference: Reference | None = None
        self._rates: list[float] = []
        self._drawn = 0

    def of_reference(self, reference: Reference) -> Iterator[Block]:
        """Yield what one model brings, remembering the checkpoints before its last."""
        self._reference = reference
        yield from super().of_reference(reference)

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - grad f_q^T (n S) grad loss_i."""
        from estimators.gradients.per_example import gradients, products, rows_within, slices

        task, train, part = self.material.task, self.material.train, self._options.budget // 4
        measure = self.measure(model)
        solve, models = self._solve(model, checkpoint)
        for where in slices(len(self.material.queries), rows_within(part, model.p * 8)):
            queries = self.material.queries[where]
            solved = solve(_mean([gradients(one, measure, queries, part) for one in models]))
            yield where, -_mean([products(one, task.losses, train, solved, part) for one in models])

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th."""
        return total / (len(self.material.train) * len(self.material.references))

    def details(self) -> Mapping[str, Any]:
        """Return the row and what its covariance was made with."""
        told: dict[str, Any] = {"row": self._options.row, "covariance": self._kind}
        if self._options.row == "sgd":
            return {**told, "rates": self._rates}
        return {**told, "damping": self._damping, **self._options.untold(self.material.task)}

    @property
    def _kind(self) -> str:
        row = self._options.row
        return {"online_newton": "full", "sgd": "a multiple of the identity"}.get(row, "diagonal")

    def _solve(self, model: Model, checkpoint: Checkpoint) -> tuple[Rows, list[Model]]:
        """Return v -> n S v, and the models over which gradients are means."""
        from estimators.sensitivity import covariances

        row, damping = self._options.row, self._damping
        if row == "sgd":
            return self._scaled(checkpoint), [model]
        if row == "adam":
            return covariances.root_mean_square(self._second_moment(model), damping), [model]
        if row == "iblr":
            return self._expected(model)
        if row == "newton":
            return covariances.inverse(self._diagonal(model), damping), [model]
        running = covariances.running_curvature(self._curvatures(), self._options.rate)
        return covariances.inverse(running, damping), [model]

    def _scaled(self, checkpoint: Checkpoint) -> Rows:
        from estimators.sensitivity.covariances import scaled

        if math.isnan(checkpoint.learning_rate):
            raise ConfigError("mpe: row sgd needs the learning rate of the last step, and the task told none")
        self._rates.append(checkpoint.learning_rate)
        return scaled(checkpoint.learning_rate)

    def _second_moment(self, model: Model) -> Tensor:
        from estimators.gradients.adam import expected_moments

        task, recipe = self.material.task, recipe_of(self._options, self.material.task)
        assert recipe is not None
        size = recipe.batch_size * recipe.accumulate
        return expected_moments(model, task.losses, self.material.train, size, self._options.budget // 4).second

    def _curvatures(self) -> Iterator[Tensor]:
        """Yield the curvature of every checkpoint of the reference after epoch 0, (p, p) or its diagonal (p,)."""
        assert self._reference is not None
        for checkpoint in self._reference.checkpoints:
            if checkpoint.epoch > 0:
                model = self.model(checkpoint)
                yield self._dense(model) if self._options.row == "online_newton" else self._diagonal(model)

    def _dense(self, model: Model) -> Tensor:
        from estimators.curvature.gauss_newton import GaussNewton

        held = 4 * model.p**2 * 8
        if held > self._options.budget:
            raise ConfigError(
                f"mpe: row online_newton takes, for {model.p:,} parameters, {held / 2**30:.2g} GiB, more than "
                f"memory_gb={self._options.memory_gb:g}: expected row diagonal, or a larger memory_gb"
            )
        return GaussNewton(model, self.material.task, self.material.train, self._options.budget // 4).dense()

    def _diagonal(self, model: Model) -> Tensor:
        from estimators.sensitivity.layer_jacobians import LayerJacobians

        jacobians = LayerJacobians(model, self.material.task, self.material.train, self._options.budget // 4)
        return jacobians.flat(jacobians.gauss_newton_diagonal())

    def _expected(self, model: Model) -> tuple[Rows, list[Model]]:
        """Return iBLR's covariance, and the models at its draws."""
        import torch

        from estimators.sensitivity import covariances

        options, n = self._options, len(self.material.train)
        generator = _generator(self.material.seed, self._drawn)
        self._drawn += 1
        draws = torch.randn(options.samples, model.p, generator=generator, dtype=torch.float64)
        at = covariances.expected_diagonal(
            lambda step: self._diagonal(_moved(model, step)),
            *(self._diagonal(model), draws, n, self._damping, options.rounds),
        )
        solve = covariances.inverse(at, self._damping)
        spread = (n * (at + self._damping)).rsqrt()
        return solve, [_moved(model, spread * draw) for draw in draws]


def _generator(seed: int, model: int) -> torch.Generator:
    """Return what is drawn from for one model."""
    import numpy as np
    import torch

    state = np.random.SeedSequence(seed, spawn_key=(_STREAM, model)).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


def _moved(model: Model, step: Tensor) -> Model:
    """Return the model with a step (p,) added to its parameters."""
    other = copy.copy(model)
    tree = model.unflatten(step)
    other.parameters = {name: value + tree[name].to(value.dtype) for name, value in model.parameters.items()}
    return other


def _mean(values: list[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)
