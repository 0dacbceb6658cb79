"""Similarity of representations: the baseline that looks at where examples lie, not at what training did with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from estimators.reference_estimator import Block, Material, ModelEffects, ReferenceEstimator
from workers.errors import ConfigError
from workers.measures import LOWER_IS_BETTER
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradients.functional_model import Examples, Model


class Similarity(ReferenceEstimator):
    """tau[i, q] = s * cos(h(x_i), h(x_q)), averaged over the reference models; in [-1, 1], unit-free.

    h is the representation that enters the last linear layer, (d,), at the last checkpoint (the "representation
    similarity" baseline of Park et al. 2023; Hanawa et al. 2021). A similarity has no direction of its own:
    s is +1, except -1 for measures that a helpful example lowers (`loss`, `squared_error`), and is told as `direction`
    in the details. With `signed`, an example of another class than the query's also counts as opposing it.

    >>> from estimators.baselines.similarity import Similarity
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> plain, signed = (Similarity(signed=signed).attribute(evidence).values for signed in (False, True))
    >>> bool((plain[0::2, 0] == signed[0::2, 0]).all()), bool((plain[1::2, 0] == -signed[1::2, 0]).all())
    (True, True)
    """

    name: ClassVar[str] = "similarity"
    differentiates_queries: ClassVar[bool] = False

    signed: bool = Field(False, description="classification: negative where the labels of example and query differ")

    def effects(self, material: Material) -> SimilarityEffects:
        """Compare all training examples with all queries. Raises ConfigError for `signed` without classes."""
        from workers.task import Classification

        if self.signed and not isinstance(material.task, Classification):
            raise ConfigError(
                f"similarity: signed=true needs a Classification task, found {type(material.task).__name__}"
            )
        return SimilarityEffects(self, material)


class SimilarityEffects(ModelEffects):
    """The cosines between the representations of each model."""

    def __init__(self, options: Similarity, material: Material):
        super().__init__(material)
        self._signed = options.signed
        self._direction = -1 if material.measure in LOWER_IS_BETTER else 1

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield cos(h(x_i), h(x_q))."""
        train, queries = self.material.train, self.material.queries
        yield slice(None), self._directions(model, train) @ self._directions(model, queries).T

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models, in the measure's direction and, where asked, against other labels."""
        import torch

        values = self._direction * total / len(self.material.references)
        if not self._signed:
            return values
        train, queries = self.material.train.batch().targets, self.material.queries.batch().targets
        same = train[:, None] == queries[None, :]
        return torch.where(same, values, -values)

    def details(self) -> Mapping[str, Any]:
        """Return the sign that the measure gave."""
        return {"direction": self._direction}

    def _directions(self, model: Model, examples: Examples) -> Tensor:
        """Return representations of length 1, (b, d) float64; a zero representation stays zero."""
        from torch.nn.functional import normalize

        from estimators.gradients.forward import representations

        return normalize(representations(self.material.task, model, examples).double(), dim=1)
