"""TrackStar: cosines of gradients that were corrected by the optimizer's second moment and by a curvature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradients.factored_projection import FactoredProjection
    from estimators.gradients.functional_model import Examples, Model
    from estimators.gradients.layers import Layers

COMPONENTS = 1000 / 2**16
"""Share of the components that `mixing: auto` lets the queries decide: about 1,000 of 65,536 (Chang et al. 2024, app. A.1)."""


class TrackStar(ReferenceEstimator):
    """tau[i, q] = - <G_q, G_i> / (|G_q| |G_i|) with G = R^(-1/2) P^T (g / sqrt(V)), averaged over models.

    Chang et al. 2024, section 3: g is the gradient (the loss's at example i, the measure's at query q) at the last checkpoint, V
    the optimizer's second moment of gradients, P a random projection of both sides of each layer, and R, block by layer, the
    second moment of the projected gradients: `mixing` x that of the queries + (1 - `mixing`) x that of the training examples.
    Directions that all queries share say nothing of a single one; R makes them small. `mixing: auto` has the largest 1,000 of
    65,536 eigenvalues from the queries: where the sorted eigenvalues of both, all layers together, are as large at that place.

    What departs from the paper: queries are differentiated in the measure, not in their loss; the queries that R is of are
    those that are asked for; checkpoints keep no optimizer state, so that V is, for adam and adamw, what its running mean tends
    to at the checkpoint, and for sgd the mean square of the examples' gradients (`second_moment` in the details says which);
    parameters whose V is 0 are left out; every weight matrix, with its bias, is a block of `rank` x `rank` dimensions, where the
    paper has 65,536 in all; R is damped.

    Unit-free: how strongly an example pulls is left out. Cost a model: two gradients of every example, 2 p n `rank` operations
    to project, and for a layer's k dimensions 2 k^2 n + 10 k^3 and 2 k n t.

    >>> from estimators.gradient_based.trackstar import TrackStar
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # trained by sgd; two classes: even and odd examples; query 0 is even
    >>> made = TrackStar().attribute(evidence)
    >>> made.values.shape, made.models, made.details["dimensions"]
    ((24, 4), 2, [6])
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > odd)  # the query's margin gains more from its own class
    True
    """

    name: ClassVar[str] = "trackstar"

    rank: int = Field(64, ge=1, description="dimensions that each side of a layer is projected to; smaller sides stay")
    mixing: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto", description="share of the queries in the second moment R; auto = they decide 1,000 of 65,536 components"
    )
    damping: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["mean_eigenvalue"] = Field(
        "mean_eigenvalue",
        description="added to the diagonal of R; mean_eigenvalue = 0.1 x its mean eigenvalue, layer by layer",
    )

    def effects(self, material: Material) -> TrackStarEffects:
        """Correct, project and compare for every model. Raises ConfigError for a flat measure, or features beyond the memory."""
        return TrackStarEffects(self, material)


class TrackStarEffects(ModelEffects):
    """The cosines at the last checkpoint of each model."""

    def __init__(self, options: TrackStar, material: Material):
        super().__init__(material)
        self._options = options
        self._mixings: list[float] = []
        self._dampings: list[list[float]] = []
        self._dimensions: list[int] = []
        self._second_moment = ""

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - cos(G_q, G_i)."""
        import torch

        from estimators.curvature.projected import SecondMoment
        from estimators.gradients.directions import normalized
        from estimators.gradients.factored_projection import FactoredProjection, equal_ranks
        from estimators.gradients.layers import Layers

        options, train, queries = self._options, self.material.train, self.material.queries
        losses, measure = self.material.task.losses, self.measure(model)
        of_losses, of_measure = Layers.of(model, [(losses, train), (measure, queries)])
        ranks, stream = equal_ranks(of_losses.blocks, options.rank), len(self._mixings)
        project = FactoredProjection.random(of_losses.blocks, ranks, self.material.seed, stream, model.dtype)
        self._affordable(project)
        scales = self._scales(model, of_losses)
        features = self._projected(of_losses, train, project, scales)
        targets = self._projected(of_measure, queries, project, scales)
        moments = [SecondMoment(one, train.weights).matrix for one in features]
        asked = [SecondMoment(one, None).matrix for one in targets]
        factors = self._factors(moments, asked)
        found, wanted = (
            normalized(torch.cat([_whitened(*pair) for pair in zip(parts, factors, strict=True)], 1), [slice(None)])
            for parts in (features, targets)
        )
        yield slice(None), -found @ wanted.T

    def details(self) -> Mapping[str, Any]:
        """Return every layer's dimensions, what V is, and model by model the queries' share in R and its dampings."""
        return {
            "dimensions": self._dimensions,
            "second_moment": self._second_moment,
            "mixing": self._mixings,
            "damping": self._dampings,
        }

    def _scales(self, model: Model, layers: Layers) -> list[Tensor]:
        """Return what gradients are multiplied with for the optimizer's second moment, (1, out, in) a block."""
        from estimators.gradients.second_moment import corrections

        task, budget = self.material.task, self._options.budget // 4
        found, self._second_moment = corrections(model, task.losses, self.material.train, task.recipe, budget)
        tree = model.unflatten(found.unsqueeze(0))
        return [block.gathered(tree) for block in layers.blocks]

    def _projected(
        self, layers: Layers, examples: Examples, project: FactoredProjection, scales: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the gradients, corrected and projected, (b, k) float64 a layer."""
        import torch

        from estimators.gradients.factors import Formed
        from estimators.gradients.per_example import rows_within

        budget = self._options.budget // 4
        formed = 2 * layers.model.p * layers.model.dtype.itemsize
        rows = min(layers.rows(examples, budget), rows_within(budget, formed))
        parts = []
        for _, factors in layers.batches(examples, rows):
            corrected = [Formed(factor.formed() * scale) for factor, scale in zip(factors, scales, strict=True)]
            parts.append(project.parts(corrected))
        return [torch.cat(one).double() for one in zip(*parts, strict=True)]

    def _factors(self, moments: Sequence[Tensor], asked: Sequence[Tensor]) -> list[Tensor]:
        """Return the Cholesky factor of every layer's R, damped, from the second moments of training examples and of queries."""
        from estimators.curvature.dense import damped_factor
        from estimators.curvature.projected import damping_of

        options = self._options
        mixing = balanced(moments, asked) if isinstance(options.mixing, str) else options.mixing
        factors, dampings = [], []
        for ours, theirs in zip(moments, asked, strict=True):
            mixed = mixing * theirs + (1 - mixing) * ours
            given = options.damping
            dampings.append(
                damping_of(float(mixed.diagonal().mean()), options.name) if isinstance(given, str) else given
            )
            factors.append(damped_factor(mixed, dampings[-1]))
        self._mixings.append(mixing)
        self._dampings.append(dampings)
        return factors

    def _affordable(self, project: FactoredProjection) -> None:
        """Note the dimensions. Raises ConfigError when the features and second moments take more than half the budget."""
        self._dimensions = list(project.sizes)
        options = self._options
        rows = len(self.material.train) + len(self.material.queries)
        held = 8 * (2 * rows * project.k + 3 * sum(size**2 for size in project.sizes))
        if held > options.budget // 2:
            raise ConfigError(
                f"trackstar: projected gradients of {rows} examples in {project.k} dimensions, and every layer's matrices, take "
                f"{held / 2**30:.2g} GiB, more than half of memory_gb={options.memory_gb:g}: expected a smaller rank "
                "or a larger memory_gb"
            )


def balanced(moments: Sequence[Tensor], asked: Sequence[Tensor]) -> float:
    """Return m so that, of all blocks' eigenvalues in order, m x the queries' and (1 - m) x the training examples' meet.

    They meet at the place of `COMPONENTS` of all, or at the last at which both are above rounding.
    """
    import torch

    ours, theirs = (
        torch.cat([torch.linalg.eigvalsh(one) for one in each]).sort(descending=True).values
        for each in (moments, asked)
    )
    above = [int((one > one[0] * len(one) * torch.finfo(one.dtype).eps).sum()) for one in (ours, theirs)]
    place = max(0, min(round(COMPONENTS * len(ours)), *above) - 1)
    total = float(ours[place] + theirs[place])
    return float(ours[place]) / total if total > 0 else 0.0


def _whitened(rows: Tensor, factor: Tensor) -> Tensor:
    """Return rows L^(-T), which have the inner products and lengths of rows R^(-1/2), for R = L L^T."""
    import torch

    found: Tensor = torch.linalg.solve_triangular(factor, rows.T, upper=False)
    return found.T
