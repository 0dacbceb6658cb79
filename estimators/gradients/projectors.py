"""What makes rows of k numbers of an objective's gradients: all of them, a random projection, or one of each layer's sides.

The same for training examples and for queries, whenever these come: a projector is told and made again from what it tells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from estimators.gradients.factored_projection import FactoredProjection, Side
from estimators.gradients.factored_sparse_projection import FactoredSparseProjection
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.parameter_blocks import ParameterBlock
from estimators.gradients.per_example import blocks
from estimators.gradients.projection import Projection
from estimators.gradients.sparse_projection import SparseProjection
from workers.errors import ConfigError
from workers.task import Objective

if TYPE_CHECKING:
    from estimators.kept_gradients import Array


class Projector(ABC):
    """Maps the gradients of examples to rows of k numbers."""

    k: int

    @abstractmethod
    def batches(
        self, model: Model, objective: Objective, examples: Examples, budget: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which examples, their rows (b, k)), within `budget` bytes."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """Return what `made_again` makes it of, as JSON holds it, but for its arrays."""

    def arrays(self) -> dict[str, Tensor]:
        """Return its arrays by name."""
        return {}

    def rows(self, model: Model, objective: Objective, examples: Examples, budget: int) -> Tensor:
        """Return the rows of all examples, (b, k) float64; `budget` bounds what is held beside them."""
        found = torch.empty(len(examples), self.k, dtype=torch.float64)
        for where, rows in self.batches(model, objective, examples, budget):
            found[where] = rows
        return found


class Unprojected(Projector):
    """Gradients as they are: k = p."""

    def __init__(self, p: int):
        self.k = p

    def batches(
        self, model: Model, objective: Objective, examples: Examples, budget: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the gradients."""
        yield from blocks(model, objective, examples, budget)

    def told(self) -> dict[str, Any]:
        """Return the dimension."""
        return {"kind": "none", "k": self.k}


class Whole(Projector):
    """A random projection of all parameters at once."""

    def __init__(self, project: Projection | SparseProjection):
        self._project, self.k = project, project.k

    def batches(
        self, model: Model, objective: Objective, examples: Examples, budget: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the projected gradients."""
        for where, rows in blocks(model, objective, examples, budget):
            yield where, self._project(rows)

    def told(self) -> dict[str, Any]:
        """Return what the projection is drawn from."""
        one = self._project
        return {"kind": one.kind, "p": one.p, "k": one.k, "seed": one.seed, "stream": one.stream}


class Factored(Projector):
    """A projection of each layer's two sides."""

    def __init__(self, project: FactoredProjection):
        self.project, self.k = project, project.k

    def batches(
        self, model: Model, objective: Objective, examples: Examples, budget: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the projected gradients; none is formed where a layer gives its factors."""
        layers = Layers.within(self.project.blocks, model, objective, examples)
        for where, factors in layers.batches(examples, layers.rows(examples, budget)):
            yield where, self.project(factors)

    def told(self) -> dict[str, Any]:
        """Return the blocks of parameters, and the dimensions of each."""
        made = _told_of(self.project.blocks)
        return {"kind": "factored", "k": self.k, "sizes": list(self.project.sizes), "blocks": made}

    def arrays(self) -> dict[str, Tensor]:
        """Return what the sides are multiplied with: `side_<block>_out` and `side_<block>_in`, where it is not the identity."""
        return {
            _side(at, which): side.matrix
            for at, sides in enumerate(self.project.sides)
            for which, side in zip(("out", "in"), sides, strict=True)
            if side.matrix is not None
        }


class FactoredSparse(Projector):
    """FactGraSS: a mask on each layer's sides, then signed sums."""

    def __init__(
        self,
        blocks: Sequence[ParameterBlock],
        ranks: Sequence[tuple[int, int]],
        seed: int,
        stream: int,
        dtype: torch.dtype,
    ):
        self._blocks, self._ranks, self._drawn = tuple(blocks), tuple(ranks), (seed, stream)
        self.project = FactoredSparseProjection.random(blocks, ranks, seed, stream, dtype)
        self.k = self.project.k

    def batches(
        self, model: Model, objective: Objective, examples: Examples, budget: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the projected gradients; none is formed where a layer gives its factors."""
        layers = Layers.within(self._blocks, model, objective, examples)
        for where, factors in layers.batches(examples, layers.rows(examples, budget)):
            yield where, self.project(factors)

    def told(self) -> dict[str, Any]:
        """Return the blocks of parameters, and what the masks and sums are drawn from."""
        seed, stream = self._drawn
        ranks = [list(one) for one in self._ranks]
        made = _told_of(self._blocks)
        return {"kind": "factored_sparse", "k": self.k, "ranks": ranks, "seed": seed, "stream": stream, "blocks": made}


def _told_of(blocks: Sequence[ParameterBlock]) -> list[dict[str, Any]]:
    return [{"weight": one.weight, "bias": one.bias, "form": one.form, "shape": list(one.shape)} for one in blocks]


def _blocks_of(told: Mapping[str, Any]) -> list[ParameterBlock]:
    return [ParameterBlock(**{**one, "shape": tuple(one["shape"])}) for one in told["blocks"]]


def _side(at: int, which: str) -> str:
    return f"side_{at}_{which}"


def made_again(told: Mapping[str, Any], arrays: Mapping[str, Array], model: Model, budget: int) -> Projector:
    """Return the projector that told this and had these arrays. Raises ConfigError where it is not of this model."""
    if told["kind"] == "factored":
        found = _blocks_of(told)
        sides = []
        for at in range(len(found)):
            names = (_side(at, "out"), _side(at, "in"))
            given = [torch.tensor(np.asarray(arrays[name][:])) if name in arrays else None for name in names]
            sides.append((Side(given[0]), Side(given[1])))
        return Factored(FactoredProjection(tuple(found), tuple(sides)))
    if told["kind"] == "factored_sparse":
        ranks = [(out, inner) for out, inner in told["ranks"]]
        return FactoredSparse(_blocks_of(told), ranks, told["seed"], told["stream"], model.dtype)
    if told.get("p", told["k"]) != model.p:
        raise ConfigError(f"a projection of {told.get('p', told['k'])} parameters is not one of the model's {model.p}")
    if told["kind"] == "none":
        return Unprojected(model.p)
    drawn = (model.p, told["k"], told["seed"], told["stream"], model.dtype)
    return Whole(SparseProjection(*drawn) if told["kind"] == "sparse" else Projection(*drawn, budget, told["kind"]))
