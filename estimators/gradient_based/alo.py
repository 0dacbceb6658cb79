"""Approximate leave-one-out: the optimum without each example in closed form, by its leverage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.curvature.left_out import LeftOut
    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Examples, Model
    from estimators.gradients.linearized import Linearized
    from estimators.gradients.output_losses import OutputLosses
    from workers.task import GradientTask


class Alo(ReferenceEstimator):
    """tau[i, q] = f_q(all) - f_q(without i), the optimum without i by one Newton step from that of all; averaged over models.

    Rad & Maleki 2020, section 2 (Pregibon 1981 for logistic regression), with c outputs: the optimum of

        (1/n) sum of w_j loss_j + (penalty / 2) |V|^2 + (damping / 2) |V - V_0|^2

    moves without example i, to that of the same means over the n - 1 others, by

        delta_i = s + B^-1 J_i^T (I - H_i K_i)^-1 (a_i + H_i J_i s),

    where a_i (c,) and H_i (c, c) are the derivatives of w_i loss_i in the outputs, J_i (c, p) the outputs' Jacobian, B the
    curvature of the whole, K_i = J_i B^-1 J_i^T, and s = B^-1 (penalty V + damping (V - V_0)), as n - 1 losses weigh less
    against these two. H_i K_i is the leverage h_ii: with one output the step is influence times 1 / (1 - h_ii). The measure f, of
    any kind, is evaluated where the step ends.

    - `layers: last`: V (d, c) is the last Linear layer, first fitted to the optimum with all that enters it held fixed. Exact
      for squared errors, and for a model that is a single linear layer with them: it equals training without each example.
      For other losses one step (docs/alo.md has the errors of logistic regression).
    - `layers: all`: rescaled influence. The network is taken as linear in all its parameters around the trained ones, and these
      as its optimum: influence with the Gauss-Newton matrix, and the leverage.

    The damping keeps to the trained V_0: by default 1 over the training's time, sum of lr / (1 - momentum)
    (estimators/curvature/damping.py); 0.1 x the mean eigenvalue where there is no recipe. Where classes can be told apart
    without error, penalty and damping 0 have no optimum, which is refused, as is an example without which it is not unique.

    In units of the measure. Costs about 4 n c p^2 operations and n t evaluations of the measure a model, holds a matrix (p, p),
    with p = d c or all parameters: for networks of some thousand, or last layers. float64 throughout.

    >>> from estimators.gradient_based.alo import Alo
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Alo().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "alo"
    in_units: ClassVar[bool] = True
    differentiates_queries: ClassVar[bool] = False

    layers: Literal["last", "all"] = Field("last", description="the last Linear layer, or all parameters (rescaled)")
    penalty: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="L2 coefficient, (penalty / 2) |V|^2; auto = the recipe's weight decay (sgd, adam)"
    )
    damping: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        "auto",
        description="pull to the trained parameters; auto = 1 / the sum over the training of lr / (1 - momentum)",
    )

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return float64."""
        import torch

        return torch.float64

    def check(self, evidence: Evidence) -> None:
        """Refuse a task without a last layer, or whose weight decay is no L2 term of all parameters."""
        from estimators.gradients.functional_model import Examples
        from estimators.gradients.last_layer import LastLayer

        super().check(evidence)
        task = evidence.differentiable()
        self.penalty_of(task)
        if self.layers == "last":
            model = self.untrained(task)
            LastLayer(task, model, Examples.training(task, model.dtype))

    def penalty_of(self, task: GradientTask) -> float:
        """Return the L2 coefficient. Raises ConfigError for `auto` where parts of the parameters have no decay."""
        from estimators.curvature.damping import l2_curvature

        return l2_curvature(task.recipe, "use a number for penalty") if self.penalty == "auto" else self.penalty

    def effects(self, material: Material) -> AloEffects:
        """Leave out every example of every model. Raises ConfigError for a matrix that is singular, or beyond the budget."""
        return AloEffects(self, material)


@dataclass(frozen=True)
class _Setting:
    """One model, ready to leave examples out."""

    point: Linearized
    losses: OutputLosses
    left_out: LeftOut


class AloEffects(ModelEffects):
    """The steps of each model, and what is told of them."""

    def __init__(self, options: Alo, material: Material):
        super().__init__(material)
        self._options = options
        self._penalty = options.penalty_of(material.task)
        self._told: dict[str, list[float]] = {"damping": [], "largest_leverage": []}

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield f_q at the optimum minus f_q without each example."""
        from estimators.gradients.per_example import rows_within, slices

        setting = self._setting(model)
        self._told["largest_leverage"].append(0.0)
        queries, point = self.material.queries, setting.point
        rows = rows_within(self._options.budget // 8, 3 * point.size * point.p * 8)
        for where in slices(len(queries), rows):
            yield where, self._left_out(setting, queries[where])

    def details(self) -> Mapping[str, Any]:
        """Return the penalty, and of every model its damping and largest leverage."""
        return {"penalty": self._penalty, **self._told}

    def _left_out(self, setting: _Setting, queries: Examples) -> Tensor:
        """Return f_q - f_q without i, (n, b)."""
        import torch

        outputs, jacobians = setting.point.outputs(queries)
        batch, flat = queries.batch(), jacobians.flatten(0, 1)
        measure = self.material.task.objective(self.material.measure)
        found = torch.empty(len(self.material.train), len(queries), dtype=torch.float64, device=outputs.device)
        with torch.no_grad():
            whole = setting.losses.measured(measure, outputs, batch)
            for where, steps, leverages in self._steps(setting, outputs.numel()):
                self._told["largest_leverage"][-1] = max(self._told["largest_leverage"][-1], float(leverages.max()))
                moves = (steps @ flat.T).reshape(len(steps), *outputs.shape)
                for row, move in zip(range(where.start, where.stop), moves, strict=True):
                    found[row] = whole - setting.losses.measured(measure, outputs + move, batch)
        return found

    def _steps(self, setting: _Setting, asked: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield (which examples, delta_i (b, p), leverages (b,)), beside which `asked` numbers an example are held."""
        for where, jacobians, slopes, curvatures in self._derivatives(setting.point, setting.losses, asked):
            yield where, *setting.left_out.steps(jacobians, slopes, curvatures)

    def _derivatives(
        self, point: Linearized, losses: OutputLosses, asked: int = 0
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Yield (which examples, J (b, c, p), a (b, c), H (b, c, c))."""
        from estimators.gradients.output_losses import hessians
        from estimators.gradients.per_example import rows_within, slices

        train = self.material.train
        bytes_each = 8 * (4 * point.size * point.p + 2 * asked)
        for where in slices(len(train), rows_within(self._options.budget // 4, bytes_each)):
            part = train[where]
            outputs, jacobians = point.outputs(part)
            slopes, product = losses.derivatives(outputs, part.batch(), part.weights)
            yield where, jacobians, slopes, hessians(product, slopes)

    def _setting(self, model: Model) -> _Setting:
        """Find the optimum that examples are left out of, and prepare the matrix there."""
        from estimators.curvature.left_out import LeftOut
        from estimators.gradients.output_losses import OutputLosses

        losses = OutputLosses(self.material.task, model, self.material.train)
        optimum = self._last_layer if self._options.layers == "last" else self._network
        point, pull, damping = optimum(model, losses)
        self._told["damping"].append(damping)
        curvature = self._curvature(point, losses)
        return _Setting(point, losses, LeftOut.of(curvature, self._penalty + damping, pull, len(self.material.train)))

    def _network(self, model: Model, losses: OutputLosses) -> tuple[Linearized, Tensor, float]:
        """Return the network around its trained parameters, taken for its optimum, a pull of zeros (p,), and the damping."""
        import torch

        from estimators.gradients.linearized import LinearizedModel

        point = LinearizedModel(self.material.task, model, losses.size, self._options.budget // 4)
        self._affordable(point.p)
        pull = torch.zeros(point.p, dtype=model.dtype, device=next(iter(model.parameters.values())).device)
        return point, pull, self._damping(point, losses)

    def _last_layer(self, model: Model, losses: OutputLosses) -> tuple[Linearized, Tensor, float]:
        """Fit the last layer. Return it at its optimum, the gradient (p,) of the quadratic terms there, and the damping."""
        from estimators.curvature.last_layer_fit import LastLayerProblem, fit_last_layer
        from estimators.gradients.last_layer import LastLayer
        from estimators.gradients.linearized import LinearizedLastLayer

        train, part = self.material.train, self._options.budget // 4
        layer = LastLayer(self.material.task, model, train)
        start = LinearizedLastLayer(layer, layer.weights, part)
        self._affordable(start.p)
        damping = self._damping(start, losses)
        inputs = layer.inputs(train, part)
        problem = LastLayerProblem(losses, train, inputs, layer.weights, self._penalty, damping)
        weights = fit_last_layer(problem).weights
        pull = self._penalty * weights + damping * (weights - layer.weights)
        return LinearizedLastLayer(layer, weights, part), pull.flatten(), damping

    def _damping(self, point: Linearized, losses: OutputLosses) -> float:
        """Return the damping that the options name."""
        from estimators.curvature.damping import MEAN_FRACTION, unrolled_damping

        if self._options.damping != "auto":
            return self._options.damping
        n, recipe = len(self.material.train), self.material.task.recipe
        if recipe is not None:
            return unrolled_damping(recipe, n)
        return MEAN_FRACTION * float(self._curvature(point, losses).trace()) / (n * point.p)

    def _curvature(self, point: Linearized, losses: OutputLosses) -> Tensor:
        """Return the sum over the examples of J_i^T H_i J_i, (p, p)."""
        total: Tensor | None = None
        for _, jacobians, _, curvatures in self._derivatives(point, losses):
            added = jacobians.flatten(0, 1).T @ (curvatures @ jacobians).flatten(0, 1)
            total = added if total is None else total.add_(added)
        assert total is not None  # there are examples
        return total

    def _affordable(self, p: int) -> None:
        """Raise ConfigError when the matrix and its factor take more than half the budget."""
        held = 3 * p * p * 8
        if held > self._options.budget // 2:
            raise ConfigError(
                f"alo: matrices of {p} x {p} parameters take {held / 2**30:.2g} GiB, more than half of "
                f"memory_gb={self._options.memory_gb:g}: expected a larger memory_gb, or layers: last"
            )
