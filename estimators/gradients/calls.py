"""From a layer's call to the factors of its parameters' gradients, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from estimators.gradients.recording import Call


@dataclass(frozen=True)
class Layout:
    """Where the examples are in what enters and leaves a call."""

    axis: int | None
    """The dimension that they lie along; None where the call gives the same for all of them."""
    repeats: int = 1
    """Entries of that dimension that belong to one example."""
    together: bool = True
    """Whether an example's entries follow each other, or come once every b entries."""

    def first(self, values: Tensor, count: int) -> Tensor:
        """Return the values of `count` examples, (b, ...) with what is left of the dimension second where there is some."""
        if self.axis is None:
            return values.expand(count, *values.shape)
        values = values.movedim(self.axis, 0)
        if self.repeats == 1:
            return values
        if self.together:
            return values.reshape(count, self.repeats, *values.shape[1:])
        return values.reshape(self.repeats, count, *values.shape[1:]).transpose(0, 1)


@dataclass(frozen=True)
class Positions:
    """What entered and left a call, position by position."""

    inputs: Tensor
    """(b, s, in) of a map, (b, s) int64 tokens of an embedding, (b, s, width) normalized inputs of a normalization."""
    outputs: Tensor
    """(b, s, out) gradients of what left, for one that did not enter the objective zeros."""


def layout_of(call: Call, again: Call, counts: tuple[int, int]) -> Layout | None:
    """Return the layout of a call, from its inputs with two numbers of examples; None where it cannot be told."""
    sizes = call.input.shape, again.input.shape
    if len(sizes[0]) != len(sizes[1]):
        return None
    changed = [axis for axis, (one, other) in enumerate(zip(*sizes, strict=True)) if one != other]
    if not changed:
        return Layout(None) if call.kind == "embedding" else None
    repeats = call.input.shape[changed[0]] // counts[0]
    fits = all(size[changed[0]] == repeats * count for size, count in zip(sizes, counts, strict=True))
    placed = changed == [0] or (call.kind in ("linear", "embedding", "features") and len(changed) == 1)
    return Layout(changed[0], repeats) if fits and placed else None


def positions(call: Call, gradients: Tensor, layout: Layout, count: int) -> Positions:
    """Return what entered a call, and the gradients (as its output) of what left it, position by position."""
    given = call.arguments
    if call.kind == "embedding":
        tokens = layout.first(call.input, count).reshape(count, -1)
        outputs = gradients if layout.axis is None else layout.first(gradients, count)
        outputs = outputs.reshape(count, tokens.shape[1], -1)
        padding = given.get("padding_idx")
        if padding is not None:
            padding %= given["weight"].shape[0]
            outputs = outputs * (tokens != padding).unsqueeze(2)
        return Positions(tokens, outputs)
    if call.kind == "convolution":
        return Positions(_patches(call), gradients.flatten(2).mT)
    if call.kind == "linear":
        entered = call.input
    elif call.kind == "features":
        shape = tuple(given["normalized_shape"])
        entered = call.function(call.input, shape, eps=given.get("eps", None if call.function is F.rms_norm else 1e-5))
        entered, gradients = (one.flatten(one.ndim - len(shape)) for one in (entered, gradients))
    else:
        entered = _normalized(call)
        entered, gradients = (one.flatten(2).mT if one.ndim > 2 else one for one in (entered, gradients))
    inputs, outputs = (layout.first(one, count) for one in (entered, gradients))
    return Positions(inputs.reshape(count, -1, inputs.shape[-1]), outputs.reshape(count, -1, outputs.shape[-1]))


def _normalized(call: Call) -> Tensor:
    """Return what a batch or group normalization makes of its input before weight and bias."""
    given = call.arguments
    if call.function is F.group_norm:
        return F.group_norm(call.input, given["num_groups"], eps=given.get("eps", 1e-5))
    return F.batch_norm(call.input, given["running_mean"], given["running_var"], eps=given.get("eps", 1e-5))


def _patches(call: Call) -> Tensor:
    """Return what a convolution multiplies its weight with, (b, positions, channels x kernel)."""
    given = call.arguments
    kernel = given["weight"].shape[2:]
    stride, dilation = (_each(given.get(name, 1), len(kernel)) for name in ("stride", "dilation"))
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    padded = F.pad(call.input, _padding(given.get("padding", 0), spans))
    for axis, (span, step) in enumerate(zip(spans, stride, strict=True), start=2):
        padded = padded.unfold(axis, span, step)
    dims = len(kernel)
    index: tuple[Any, ...] = (..., *(slice(None, None, step) for step in dilation))
    patches = padded[index]  # (b, channels, *positions, *kernel)
    order = (0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
    return patches.permute(order).flatten(1 + dims).flatten(1, dims)


def _padding(padding: str | int | Sequence[int], spans: Sequence[int]) -> list[int]:
    """Return the zeros before and after every dimension, the last one first, as `F.pad` takes them."""
    if isinstance(padding, str):
        each = [((span - 1) // 2, span - 1 - (span - 1) // 2) if padding == "same" else (0, 0) for span in spans]
    else:
        each = [(size, size) for size in _each(padding, len(spans))]
    return [size for pair in reversed(each) for size in pair]


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * dims if len(value) == 1 else tuple(value)
