"""An operator block by layer: what couples parameters of two layers is left out."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from estimators.curvature.dense import Dense
from estimators.curvature.operator import Invertible, Operator, Rows
from estimators.gradients.functional_model import Model
from workers.errors import ConfigError
from workers.name_patterns import matching


def layer_blocks(model: Model, patterns: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Return the places (k,) int64, in the flat parameters, of the parameters of each block.

    A block is a layer: the parameters of one module, by the module's name. With `patterns` it is the parameters that a pattern
    matches, by the pattern; one that several match belongs to the first. Raises ConfigError for a pattern that matches none, or
    none that is left, and for parameters that no pattern matches.
    """
    names = list(model.parameters)
    if patterns is None:
        owners = [name.rpartition(".")[0] for name in names]
    else:
        matching(names, patterns, "blocks")
        firsts = [next((one for one in patterns if fnmatchcase(name, one)), None) for name in names]
        owners = [owner for owner in firsts if owner is not None]
        left = [name for name, owner in zip(names, firsts, strict=True) if owner is None]
        if left:
            raise ConfigError(f"blocks: expected every parameter in a block, found none for {', '.join(left)}")
        empty = [one for one in patterns if one not in owners]
        if empty:
            raise ConfigError(f"blocks: pattern {empty[0]!r} matches only parameters of the patterns before it")
    places = torch.split(torch.arange(model.p), [value.numel() for value in model.parameters.values()])
    return {
        key: torch.cat([at for at, owner in zip(places, owners, strict=True) if owner == key])
        for key in dict.fromkeys(owners)
    }


class BlockDiagonal(Invertible):
    """The blocks A[at, at] of an operator A, and 0 between them; every parameter is in one block.

    The blocks are formed once, which takes what `submatrices` of A takes, and their squared sizes in memory; a product then
    costs as much a row. Raises ValueError unless the blocks are a partition of the p places.

    >>> import torch
    >>> from estimators.curvature.blocks import BlockDiagonal
    >>> from estimators.curvature.dense import Dense
    >>> A = Dense(torch.tensor([[2.0, 1.0, 5.0], [1.0, 2.0, 5.0], [5.0, 5.0, 4.0]]))
    >>> blocks = BlockDiagonal(A, [torch.tensor([0, 1]), torch.tensor([2])])
    >>> blocks.dense().tolist()
    [[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 4.0]]
    >>> (blocks.inverse(damping=1.0)(torch.tensor([[3.0, 1.0, 10.0]])).round(decimals=2) + 0.0).tolist()
    [[1.0, 0.0, 2.0]]
    """

    def __init__(self, operator: Operator, blocks: Sequence[Tensor]):
        together = torch.cat(list(blocks)) if blocks else torch.empty(0, dtype=torch.int64)
        if not torch.equal(together.cpu().sort().values, torch.arange(operator.p)):
            raise ValueError(
                f"expected every one of {operator.p} parameters in one block, found {len(together)} places"
            )
        self.p, self.dtype, self._device = operator.p, operator.dtype, operator.device
        self._places = [at.to(self._device) for at in blocks]
        self._blocks = [Dense(one.to(self.dtype)) for one in operator.submatrices(self._places)]

    @property
    def device(self) -> torch.device:
        """That of the operator."""
        return self._device

    def product(self, rows: Tensor) -> Tensor:
        """Return the product of every block with its part of v."""
        return self._by_block([block.product for block in self._blocks])(rows)

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return parts of the whole, which is formed."""
        whole = Dense(self.dense())
        return whole.submatrices(places)

    def dense(self) -> Tensor:
        """Return the whole, zeros between the blocks included."""
        whole = torch.zeros(self.p, self.p, dtype=torch.float64, device=self._device)
        for at, block in zip(self._places, self._blocks, strict=True):
            whole[at[:, None], at] = block.dense()
        return whole

    def diagonal(self) -> Tensor:
        """Return the blocks' diagonals."""
        found = torch.empty(self.p, dtype=torch.float64, device=self._device)
        for at, block in zip(self._places, self._blocks, strict=True):
            found[at] = block.diagonal()
        return found

    def inverse(self, damping: float) -> Rows:
        """Return v -> (A + damping I)^-1 v. Raises ConfigError where a block of that is not positive definite."""
        return self._by_block([block.inverse(damping) for block in self._blocks])

    def root(self) -> Rows:
        """Return v -> A^(1/2) v. Raises ConfigError for a block with an eigenvalue below 0."""
        return self._by_block([block.root() for block in self._blocks])

    def _by_block(self, maps: Sequence[Rows]) -> Rows:
        def whole(rows: Tensor) -> Tensor:
            result = torch.empty_like(rows)
            for at, one in zip(self._places, maps, strict=True):
                result[:, at] = one(rows[:, at])
            return result

        return whole
