"""What enters and leaves the layers of a forward pass, call by call.

A layer is told by what it computes and not by its class: linear maps, convolutions, embeddings and normalizations whose weight is
one of the parameters in question, also those inside attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Kind: TypeAlias = Literal["linear", "convolution", "embedding", "features", "channels"]
"""`features` and `channels` are normalizations: of the last dimensions (layer, RMS), and of the second (batch, group)."""

_SIGNATURES: Mapping[Any, tuple[Kind, tuple[str, ...]]] = {
    F.linear: ("linear", ("input", "weight", "bias")),
    F.embedding: ("embedding", ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")),
    F.layer_norm: ("features", ("input", "normalized_shape", "weight", "bias", "eps")),
    F.rms_norm: ("features", ("input", "normalized_shape", "weight", "eps")),
    F.group_norm: ("channels", ("input", "num_groups", "weight", "bias", "eps")),
    F.batch_norm: (
        "channels",
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    **dict.fromkeys(
        (F.conv1d, F.conv2d, F.conv3d),
        ("convolution", ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    ),
}  # fmt: skip
"""The functions that are looked at: their kind, and their arguments in order."""


@dataclass(frozen=True)
class Call:
    """One call of a layer's function."""

    kind: Kind
    weight: str | None
    """The parameter's name; None for one that is held fixed."""
    bias: str | None
    rows: slice | None
    """Which rows of the weight, where the call takes some of them; None for all."""
    bias_rows: slice | None
    """The same of the bias."""
    input: Tensor
    output: GradientEdge
    shape: torch.Size
    """Of the output."""
    arguments: Mapping[str, Any]
    """All that it was called with, by name."""
    function: Callable[..., Tensor]


@dataclass
class Recorder(TorchFunctionMode):
    """While it is in force, calls of layers whose weight or bias is among `parameters` are kept in `calls`, in their order.

    Parameters are told by identity: they must be the very tensors that the module holds while it is called.
    """

    parameters: Mapping[str, Tensor]
    shared: frozenset[int] = frozenset()
    """Which calls give the same output for every example, and give it once an example here: (b, ...) instead of (...)."""
    count: int = 0
    """Number of examples."""
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._names = {id(value): name for name, value in self.parameters.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self._inside():
                return func(*args, **kwargs)
        found = func(*args, **kwargs)
        return self._recorded(func, args, kwargs, found) if func in _SIGNATURES else found

    def _recorded(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Tensor) -> Tensor:
        kind, names = _SIGNATURES[func]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        weight, rows = self._named(given.get("weight"))
        bias, bias_rows = self._named(given.get("bias"))
        if (weight is None and bias is None) or _beyond(given):
            return output
        if len(self.calls) in self.shared:
            output = output.expand(self.count, *output.shape)
        edge = get_gradient_edge(output)
        entered = given["input"].detach()
        self.calls.append(Call(kind, weight, bias, rows, bias_rows, entered, edge, output.shape, given, func))
        return output

    def _named(self, value: Tensor | None) -> tuple[str | None, slice | None]:
        """Return the name of a parameter, and which of its rows are meant, or (None, None)."""
        if value is None:
            return None, None
        if id(value) in self._names:
            return self._names[id(value)], None
        base = value._base
        if base is None or id(base) not in self._names or value.ndim != base.ndim:
            return None, None
        if value.shape[1:] != base.shape[1:] or value.stride() != base.stride() or not base.is_contiguous():
            return None, None
        first = value.storage_offset() // base.stride(0)
        return self._names[id(base)], slice(first, first + len(value))

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Have `multi_head_attention_forward` call this for its linear maps: torch does not ask a mode from inside it."""
        before = F.linear

        def linear(*args: Any, **kwargs: Any) -> Tensor:
            return self._recorded(before, args, kwargs, before(*args, **kwargs))

        module: Any = F
        module.linear = linear
        try:
            yield
        finally:
            module.linear = before


def _beyond(given: Mapping[str, Any]) -> bool:
    """Say whether a call does what no factors of its weight's gradient are known for."""
    return (
        given.get("groups", 1) != 1
        or given.get("max_norm") is not None
        or bool(given.get("scale_grad_by_freq"))
        or bool(given.get("training"))
    )
