"""Representer points: what each example adds to the pre-activation of a last layer that is fitted with an L2 penalty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.runs import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Model
    from estimators.gradients.output_losses import OutputLosses
    from workers.task import GradientTask


class Representer(ReferenceEstimator):
    """tau[i, q] = <df_q/dz, alpha_i> <h_i, h_q>, averaged over models: the part of example i in what the model says of q.

    Yeh et al. 2018, theorem 3.1. h (d,) is what enters the last Linear layer, with a 1 behind it where the layer has a bias,
    so that its bias is penalized, too. That layer is fitted again, with h held fixed, to the minimum over V (d, c) of

        (1/n) sum over examples of w_i loss(h_i V, y_i) + penalty |V|^2,

    on the task's own targets. There the outputs z_q = h_q V are a sum over the training examples, exactly:
    z_q = sum of alpha_i <h_i, h_q> with alpha_i (c,) = - w_i dloss_i/dz / (2 penalty n), at the optimum.

    tau is that sum's term on the scale of the measure f, by the first order of f at z_q. What is claimed is how z_q is made up,
    not how it would change without the example: the other alphas would change, too. So it claims no units, even where the
    terms add up to an output (`prediction`). Where the penalty pulls the layer far from the one that was trained (`moved` and
    `output_correlation` in the details), the model that is explained is another one. The default is that of the authors' code.

    Costs one forward pass and some hundred products of h (n, d) with (d, c) a model; holds h. Needs a module whose outputs are
    those of its last Linear layer, called once, and a loss that is convex in them; float64 throughout.

    >>> from estimators.gradient_based.representer import Representer
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Representer().attribute(evidence)
    >>> made.values.shape, made.models
    ((24, 4), 2)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > odd)  # the query's margin is made up more of its own class
    True
    """

    name: ClassVar[str] = "representer"

    penalty: float = Field(0.003, gt=0, description="lambda of the L2 term lambda |V|^2 beside the mean loss")

    def dtype(self, task: GradientTask) -> torch.dtype:
        """Return float64."""
        import torch

        return torch.float64

    def check(self, evidence: Evidence) -> None:
        """Refuse a measure that cannot be differentiated, and a module without a last layer."""
        from estimators.gradients.functional_model import Examples
        from estimators.gradients.last_layer import LastLayer

        super().check(evidence)
        task = evidence.differentiable()
        model = self.untrained(task)
        LastLayer(task, model, Examples.training(task, model.dtype))

    def effects(self, material: Material) -> RepresenterEffects:
        """Fit the last layer of every model. Raises ConfigError for a module without one, or without an optimum."""
        return RepresenterEffects(self, material)


@dataclass(frozen=True)
class Decomposition:
    """The outputs of a fitted last layer as sums over training examples: z_q = sum of alpha_i <h_i, h_q>."""

    inputs: Tensor
    """h_i (n, d)."""
    alphas: Tensor
    """(n, c)."""
    asked: Tensor
    """h_q (t, d)."""
    outputs: Tensor
    """z_q (t, c) by the fitted layer."""

    def error(self) -> float:
        """Return the largest difference between an output and the sum that it is, relative to the largest output."""
        sums = self.asked @ (self.inputs.T @ self.alphas)
        return float((sums - self.outputs).abs().max() / self.outputs.abs().max().clamp(min=1e-300))

    def terms(self, slopes: Tensor, where: slice) -> Tensor:
        """Return <slope_q, alpha_i> <h_i, h_q>, (n, b), for slopes (b, c) of the queries `where`."""
        return (self.alphas @ slopes.T) * (self.inputs @ self.asked[where].T)


class RepresenterEffects(ModelEffects):
    """The decompositions of each model, and how far its last layer moved."""

    def __init__(self, options: Representer, material: Material):
        super().__init__(material)
        self._options = options
        self._told: dict[str, list[float]] = {"moved": [], "output_correlation": [], "decomposition_error": []}

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield <df_q/dz, alpha_i> <h_i, h_q>."""
        from estimators.gradients.output_losses import OutputLosses
        from estimators.gradients.per_example import rows_within, slices

        queries, measure = self.material.queries, self.measure(model)
        losses = OutputLosses(self.material.task, model, self.material.train)
        found = self.decomposition(model, losses)
        for where in slices(len(queries), rows_within(self._options.budget // 8, 3 * 8 * len(self.material.train))):
            slopes = losses.slopes(measure, found.outputs[where], queries[where].batch())
            yield where, found.terms(slopes, where)

    def decomposition(self, model: Model, losses: OutputLosses) -> Decomposition:
        """Fit the last layer, note how far it moved, and take its outputs apart."""
        from estimators.curvature.last_layer_fit import LastLayerProblem, fit_last_layer
        from estimators.gradients.last_layer import LastLayer

        train, penalty = self.material.train, self._options.penalty
        layer = LastLayer(self.material.task, model, train)
        inputs = layer.inputs(train, self._options.budget // 2)
        asked = layer.inputs(self.material.queries, self._options.budget // 4)
        fit = fit_last_layer(LastLayerProblem(losses, train, inputs, layer.weights, 2 * penalty, 0.0))
        alphas = -fit.gradients / (2 * penalty * len(train))
        found = Decomposition(inputs, alphas, asked, asked @ fit.weights)
        start = layer.weights
        self._told["moved"].append(float((fit.weights - start).norm() / start.norm().clamp(min=1e-300)))
        self._told["output_correlation"].append(_correlation(found.outputs, asked @ start))
        self._told["decomposition_error"].append(found.error())
        return found

    def details(self) -> Mapping[str, Any]:
        """Return of every model how far its last layer moved, |V - V_0| / |V_0|; the correlation of its outputs on the queries
        with the trained ones; and by how much those outputs miss the sums that they are, relative to the largest.
        """
        return self._told


def _correlation(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation over all entries; 0 where one of both is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = float(one.norm() * other.norm())
    return float((one * other).sum()) / size if size else 0.0
