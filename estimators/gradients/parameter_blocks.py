"""Blocks of parameters whose gradients are kept in one form, and how the calls of layers make them up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from estimators.gradients.calls import Positions
from estimators.gradients.factors import EmbeddingRows, Factor, Formed, Outer
from estimators.gradients.recording import Call

Form: TypeAlias = Literal["outer", "rows", "formed"]
"""What the gradients of a block are kept as: outer products, rows of an embedding, or as they are."""
_MAPS = {"linear", "convolution"}


@dataclass(frozen=True)
class ParameterBlock:
    """Parameters that are differentiated together, seen as one matrix (out, in)."""

    weight: str
    """The parameter's name."""
    bias: str | None
    """The name of the parameter that is the matrix's last column; None for none."""
    form: Form
    shape: tuple[int, int]
    """(out, in); of one that is kept as it is (1, its elements)."""
    calls: tuple[int, ...] = ()
    """Which calls of a forward pass use it; none where it is differentiated in the general way."""
    why: str = ""
    """Why its gradients have no factors; empty where they have."""

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.shape[0] * self.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def gathered(self, tree: Mapping[str, Tensor]) -> Tensor:
        """Return (r, out, in) from values by parameter name, each (r, *shape)."""
        out, inner = self.shape
        weight = tree[self.weight]
        if self.bias is None:
            return weight.reshape(-1, out, inner)
        return torch.cat([weight.reshape(-1, out, inner - 1), tree[self.bias].reshape(-1, out, 1)], dim=2)

    def scattered(self, values: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return values (r, out, in) by parameter name, each (r, *shape of the parameter)."""
        if self.bias is None:
            return {self.weight: values.reshape(-1, *like[self.weight].shape)}
        return {
            self.weight: values[:, :, :-1].reshape(-1, *like[self.weight].shape),
            self.bias: values[:, :, -1].reshape(-1, *like[self.bias].shape),
        }

    def factor(self, calls: Sequence[Call], seen: Mapping[int, Positions], like: Tensor) -> Factor:
        """Return its gradients from what entered and left its calls; `like` is the parameter's value."""
        if self.form == "outer":
            pieces = [self._outer(calls[at], seen[at]) for at in self.calls]
            joined = pieces[0]
            for piece in pieces[1:]:
                joined = joined.joined(piece)
            return joined
        if self.form == "rows":
            tokens, outputs = ([getattr(seen[at], name) for at in self.calls] for name in ("inputs", "outputs"))
            return EmbeddingRows(torch.cat(tokens, 1), torch.cat(outputs, 1), self.shape[0])
        total = sum(_formed(calls[at], seen[at], self.weight, like) for at in self.calls)
        assert isinstance(total, Tensor)
        return Formed(total.reshape(len(total), *self.shape))

    def _outer(self, call: Call, seen: Positions) -> Outer:
        if call.kind == "embedding":  # tied with the map that follows: rows are outer products with unit vectors
            return EmbeddingRows(seen.inputs, seen.outputs, self.shape[0]).as_outer()
        if self.bias is None:
            return Outer(seen.inputs, seen.outputs)
        return Outer(torch.cat([seen.inputs, torch.ones_like(seen.inputs[:, :, :1])], 2), seen.outputs)


def blocks_of(
    calls: Sequence[Call], usable: Sequence[bool], parameters: Mapping[str, Tensor]
) -> Iterator[ParameterBlock]:
    """Yield the blocks that calls make up; parameters of calls that are not usable are in none of them."""
    as_weight: dict[str, list[int]] = defaultdict(list)
    as_bias: dict[str, list[int]] = defaultdict(list)
    for at, call in enumerate(calls):
        if call.weight is not None:
            as_weight[call.weight].append(at)
        if call.bias is not None:
            as_bias[call.bias].append(at)
    joined: set[str] = set()
    for name in parameters:
        uses = as_weight.get(name, [])
        if not uses or not all(usable[at] for at in (*uses, *as_bias.get(name, ()))):
            continue
        kinds = {calls[at].kind for at in uses}
        whole = name not in as_bias and all(calls[at].rows is None for at in uses)
        value = parameters[name]
        if kinds == {"embedding"} and whole:
            yield ParameterBlock(name, None, "rows", (value.shape[0], value.shape[1]), tuple(uses))
        elif kinds <= {*_MAPS, "embedding"} and whole:
            bias = _shared_bias([calls[at] for at in uses], as_bias, uses) if kinds <= _MAPS else None
            joined |= {bias} if bias is not None else set()
            inner = value[0].numel() + (bias is not None)
            yield ParameterBlock(name, bias, "outer", (value.shape[0], inner), tuple(uses))
        else:
            every = sorted({*uses, *as_bias.get(name, ())})
            yield ParameterBlock(name, None, "formed", (1, value.numel()), tuple(every))
    for name, uses in as_bias.items():
        if name not in joined and name not in as_weight and all(usable[at] for at in uses):
            yield ParameterBlock(name, None, "formed", (1, parameters[name].numel()), tuple(uses))


def _shared_bias(calls: Sequence[Call], as_bias: Mapping[str, list[int]], uses: list[int]) -> str | None:
    """Return the bias that all calls of a weight have, and no other call; None where there is none such."""
    names = {call.bias for call in calls}
    name = names.pop() if len(names) == 1 else None
    whole = all(call.bias_rows is None for call in calls)
    return name if name is not None and whole and as_bias[name] == uses else None


def _formed(call: Call, seen: Positions, name: str, like: Tensor) -> Tensor:
    """Return what one call brings to a parameter's gradients, (b, *shape)."""
    count = len(seen.outputs)
    total = like.new_zeros(count, *like.shape)
    if call.bias == name:
        part = total if call.bias_rows is None else total[:, call.bias_rows]
        part += seen.outputs.sum(1).reshape(part.shape)
    if call.weight == name:
        part = total if call.rows is None else total[:, call.rows]
        if call.kind in _MAPS:
            part += torch.bmm(seen.outputs.mT, seen.inputs).reshape(part.shape)
        elif call.kind == "embedding":
            part += EmbeddingRows(seen.inputs, seen.outputs, part.shape[1]).formed()
        else:
            part += (seen.inputs * seen.outputs).sum(1).reshape(part.shape)
    return total
