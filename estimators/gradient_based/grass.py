"""GraSS: influence in a small space that gradients are brought to by a mask and few signed sums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradients.functional_model import Examples, Model
    from workers.task import Objective


class Grass(ReferenceEstimator):
    """tau[i, q] = - (1/n) phi_q^T (F + damping I)^-1 phi_i, averaged over models.

    Hu et al. 2025, sections 2 and 3: phi = P^T g is the gradient (the loss's at example i, the measure's at query q) after a
    random mask that leaves 4 `project_dim` parameters and a sparse Johnson-Lindenstrauss transform with one entry each
    ("GraSS", by the random mask); F = (1/n) sum of w_i phi_i phi_i^T is the Fisher information of the compressed training
    gradients, at the last checkpoint. With `factored` the mask is on both sides of each layer, no gradient is formed, and F is
    block by layer ("FactGraSS"). The paper chooses the damping by the scores that it reports; here it is a tenth of the mean
    eigenvalue. The learned ("selective") mask is left out.

    A projection of what is inverted is no approximation of the inverse: values have the units of the measure, but not its scale.
    Cost a model: a gradient of every example, 4 k additions for each with k = `project_dim`, and 2 k^2 n + 2 k n t operations.

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
    damping: Annotated[float, Field(gt=0)] | Literal["mean_eigenvalue"] = Field(
        "mean_eigenvalue",
        description="added to the diagonal of F; mean_eigenvalue = 0.1 x its mean eigenvalue, of each layer with factored",
    )

    def effects(self, material: Material) -> GrassEffects:
        """Compress and solve for every model. Raises ConfigError for a flat measure, or features larger than the memory."""
        return GrassEffects(self, material)


class GrassEffects(ModelEffects):
    """What the compressed gradients of each model bring."""

    def __init__(self, options: Grass, material: Material):
        super().__init__(material)
        self._options = options
        self._dampings: list[list[float]] = []
        self._dimensions: list[int] = []

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield - phi_q^T (F + damping I)^-1 phi_i."""
        import torch

        from estimators.curvature.projected import DampedSteps, SecondMoment

        options, train = self._options, self.material.train
        losses, measured = (self.material.task.losses, train), (self.measure(model), self.material.queries)
        features, targets = (
            self._by_layer(model, losses, measured) if options.factored else self._whole(model, losses, measured)
        )
        moments = [SecondMoment(one, train.weights) for one in features]
        steps = DampedSteps(features, moments, options.damping, options.name, factor=-1.0)
        self._dampings.append(steps.dampings)
        yield slice(None), steps.effects(torch.cat(targets, 1))

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th."""
        return total / (len(self.material.train) * len(self.material.references))

    def details(self) -> Mapping[str, Any]:
        """Return the dimensions of every block, and the dampings model by model."""
        return {"dimensions": self._dimensions, "damping": self._dampings}

    def _whole(self, model: Model, *objectives: tuple[Objective, Examples]) -> list[list[Tensor]]:
        """Return the compressed gradients of each objective as one block, (b, k) float64."""
        import torch

        from estimators.gradients.per_example import blocks
        from estimators.gradients.sparse_projection import SparseProjection

        k, budget = min(self._options.project_dim, model.p), self._options.budget // 4
        self._affordable([k])
        exact = k == model.p
        project = SparseProjection(model.p, k, self.material.seed, len(self._dampings), model.dtype)
        return [
            [torch.cat([(rows if exact else project(rows)).double() for _, rows in blocks(model, *pair, budget)])]
            for pair in objectives
        ]

    def _by_layer(self, model: Model, *objectives: tuple[Objective, Examples]) -> list[list[Tensor]]:
        """Return the compressed gradients of each objective layer by layer, (b, k) float64 each."""
        import torch

        from estimators.gradients.factored_projection import ranks_within
        from estimators.gradients.factored_sparse_projection import FactoredSparseProjection
        from estimators.gradients.layers import Layers

        found = Layers.of(model, objectives)
        ranks = ranks_within(found[0].blocks, self._options.project_dim)
        seed, stream = self.material.seed, len(self._dampings)
        project = FactoredSparseProjection.random(found[0].blocks, ranks, seed, stream, model.dtype)
        self._affordable(project.sizes)
        made = []
        for layers, (_, examples) in zip(found, objectives, strict=True):
            rows = layers.rows(examples, self._options.budget // 4)
            parts = [project.parts(factors) for _, factors in layers.batches(examples, rows)]
            made.append([torch.cat(one).double() for one in zip(*parts, strict=True)])
        return made

    def _affordable(self, sizes: Sequence[int]) -> None:
        """Note the dimensions. Raises ConfigError when the features and the largest matrix take more than half the budget."""
        self._dimensions = list(sizes)
        options = self._options
        rows = len(self.material.train) + len(self.material.queries)
        held = 8 * (rows * sum(sizes) + 2 * max(sizes) ** 2)
        if held > options.budget // 2:
            raise ConfigError(
                f"grass: compressed gradients of {rows} examples in {sum(sizes)} dimensions, and their largest matrix, take "
                f"{held / 2**30:.2g} GiB, more than half of memory_gb={options.memory_gb:g}: expected a smaller project_dim "
                "or a larger memory_gb"
            )
