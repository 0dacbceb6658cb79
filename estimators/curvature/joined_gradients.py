"""Gradients of several models of one training, gone through as if they were one model's: their curvatures are then averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from estimators.curvature.kronecker_fit import GradientSource
from estimators.gradients.factors import Factor
from estimators.gradients.functional_model import Examples
from estimators.gradients.layers import Layers
from estimators.gradients.sided_scale import SidedScale


@dataclass(frozen=True)
class JoinedGradients:
    """The gradients of every source at its own model, one source after the other; block by block times a scale if there is one.

    All sources have as many gradients, and the layers the same blocks: a `Fit` on these then has the mean of the models' two
    sides, and in one basis the mean of their eigenvalues.
    """

    sources: Sequence[GradientSource]
    own: Sequence[Layers]
    """The layers of each source's objective at its model."""
    scales: Sequence[SidedScale] | None = None

    @property
    def count(self) -> int:
        """Number of gradients, of all models."""
        return sum(source.count for source in self.sources)

    def few(self) -> Examples:
        """Return examples to try the last source's gradients on."""
        return self.sources[-1].few()

    def batches(self, layers: Layers, rows: int) -> Iterator[list[Factor]]:
        """Yield the gradients, at most `rows` examples at a time; each source's come from its own layers, not from `layers`."""
        for source, own in zip(self.sources, self.own, strict=True):
            for factors in source.batches(own, rows):
                yield factors if self.scales is None else scaled(factors, self.scales)


def scaled(factors: Sequence[Factor], scales: Sequence[SidedScale]) -> list[Factor]:
    """Return gradients times the scale of their block."""
    return [scale.times(factor) for factor, scale in zip(factors, scales, strict=True)]
