"""Similarity of representations: the baseline that looks at where examples lie, not at what training did with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.measures import LOWER_IS_BETTER
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Examples, Model
    from workers.task import GradientTask


class Similarity(ReferenceEstimator):
    """tau[i, q] = s * similarity(h(x_i), h(x_q)), averaged over the reference models; unit-free.

    The similarity is the cosine, in [-1, 1], the inner product (`dot`), or minus the distance (`euclidean`). h (d,) is what
    enters the last linear layer, at the last checkpoint (the "representation similarity" baseline of Park et al. 2023; Hanawa et
    al. 2021), or what a module of another name returns, flattened. A similarity has no direction of its own: s is +1,
    except -1 for measures that a helpful example lowers (`loss`, `squared_error`), and is told as `direction` in the details.
    With `signed`, an example of another class than the query's also counts as opposing it; a distance cannot say so.
    Costs one forward pass, and n t d operations a model.

    >>> from estimators.baselines.similarity import Similarity
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> plain, signed = (Similarity(signed=signed).attribute(evidence).values for signed in (False, True))
    >>> bool((plain[0::2, 0] == signed[0::2, 0]).all()), bool((plain[1::2, 0] == -signed[1::2, 0]).all())
    (True, True)
    """

    name: ClassVar[str] = "similarity"
    differentiates_queries: ClassVar[bool] = False

    metric: Literal["cosine", "dot", "euclidean"] = Field(
        "cosine", description="how alike two representations are: cosine, inner product, or minus their distance"
    )
    layer: str | None = Field(
        None, description="name of the module whose output is compared; null takes what enters the last Linear layer"
    )
    signed: bool = Field(False, description="classification: negative where the labels of example and query differ")

    @model_validator(mode="after")
    def _consistent(self) -> Similarity:
        if self.signed and self.metric == "euclidean":
            raise ValueError("signed goes with metric cosine or dot, found euclidean: a distance has no sign to turn")
        return self

    def check(self, evidence: Evidence) -> None:
        """Refuse a layer that is not there, and `signed` without classes."""
        from estimators.gradients.forward import layer_outputs
        from estimators.gradients.functional_model import Examples

        super().check(evidence)
        task = evidence.differentiable()
        self.check_classes(task)
        if self.layer is not None:
            model = self.untrained(task)
            layer_outputs(task, model, self.layer, Examples.training(task, model.dtype)[:1])

    def check_classes(self, task: GradientTask) -> None:
        """Raise ConfigError for `signed` without classes."""
        from workers.task import Classification

        if self.signed and not isinstance(task, Classification):
            raise ConfigError(f"similarity: signed=true needs a Classification task, found {type(task).__name__}")

    def effects(self, material: Material) -> SimilarityEffects:
        """Compare all training examples with all queries. Raises ConfigError as `check` does."""
        self.check_classes(material.task)
        return SimilarityEffects(self, material)


class SimilarityEffects(ModelEffects):
    """The similarities between the representations of each model."""

    def __init__(self, options: Similarity, material: Material):
        super().__init__(material)
        self._options = options
        self._direction = -1 if material.measure in LOWER_IS_BETTER else 1

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield the similarities of all pairs."""
        import torch

        ours, theirs = (self._representations(model, one) for one in (self.material.train, self.material.queries))
        if self._options.metric == "euclidean":
            yield slice(None), -torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            yield slice(None), ours @ theirs.T

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models, in the measure's direction and, where asked, against other labels."""
        import torch

        values = self._direction * total / len(self.material.references)
        if not self._options.signed:
            return values
        train, queries = self.material.train.batch().targets, self.material.queries.batch().targets
        same = train[:, None] == queries[None, :]
        return torch.where(same, values, -values)

    def details(self) -> Mapping[str, Any]:
        """Return the sign that the measure gave."""
        return {"direction": self._direction}

    def _representations(self, model: Model, examples: Examples) -> Tensor:
        """Return representations (b, d) float64, for the cosine of length 1; a zero representation stays zero."""
        from torch.nn.functional import normalize

        from estimators.gradients.forward import layer_outputs, representations

        task, layer = self.material.task, self._options.layer
        found = representations(task, model, examples) if layer is None else layer_outputs(task, model, layer, examples)
        return normalize(found.double(), dim=1) if self._options.metric == "cosine" else found.double()
