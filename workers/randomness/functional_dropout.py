"""Dropout that is no module: `torch.nn.functional.dropout`, and what attention does inside, drawn from a run's own key.

While `KeyedCalls` is in force, every such call of a forward pass draws its mask from the step's key and from how many went before
it in that pass. A batch of models, each with its own key, so draws exactly what each would draw alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from workers.errors import TaskError
from workers.randomness.dropout import derived_key, keep_mask

_CHANNELS = (F.dropout1d, F.dropout2d, F.dropout3d)
"""These drop whole channels, the first two dimensions of a batch."""
_REFUSED = {
    getattr(torch, name)
    for name in ("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial")
} | {
    F.alpha_dropout, F.feature_alpha_dropout, F.rrelu, torch.rrelu, torch.dropout, torch.dropout_, torch.normal,
    Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.exponential_, Tensor.random_,
    Tensor.bernoulli, Tensor.multinomial,
}  # fmt: skip
"""What draws from torch's global state and is not drawn anew."""


class KeyedCalls(TorchFunctionMode):
    """Draws what functions of one forward pass draw from `key`, an int32 scalar; works under `torch.vmap` over keys."""

    def __init__(self, key: Tensor):
        super().__init__()
        self.key = key
        self.count = 0
        """Masks drawn so far."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in _CHANNELS:
            return self._dropout(*args, **{**kwargs, "channels": True})
        if func is F.scaled_dot_product_attention and _arguments(args, kwargs).get("dropout_p", 0.0) > 0:
            return self._attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self._inside():
                return func(*args, **kwargs)
        if func in _REFUSED:
            name = getattr(func, "__name__", str(func))
            raise TaskError(
                f"the module draws random numbers by `{name}` in its forward pass, which a run's seed does not govern: "
                "use nn.Dropout or torch.nn.functional.dropout"
            )
        return func(*args, **kwargs)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, channels: bool = False
    ) -> Tensor:
        """Return what torch's function of these arguments does, with a mask of the key."""
        if not training or p == 0:
            return input
        shape = torch.Size([*input.shape[:2], *(1 for _ in input.shape[2:])]) if channels else input.shape
        key = derived_key(self.key, self.count)
        self.count += 1
        kept = input * keep_mask(key, shape, p).to(input.dtype) / (1 - p) if p < 1 else input * 0
        return input.copy_(kept) if inplace else kept

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Return softmax(q k^T scale + mask) v, with dropout on the weights, as torch's function defines it."""
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
            scores = scores.masked_fill(~ones.tril(), -math.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
        return self._dropout(scores.softmax(-1), dropout_p) @ value

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Have `multi_head_attention_forward` call these for what it draws: torch does not ask a mode from inside it."""
        before = F.dropout, F.scaled_dot_product_attention

        def attention(*args: Any, **kwargs: Any) -> Tensor:
            drops = _arguments(args, kwargs).get("dropout_p", 0.0) > 0
            attended: Tensor = self._attention(*args, **kwargs) if drops else before[1](*args, **kwargs)
            return attended

        module: Any = F
        module.dropout, module.scaled_dot_product_attention = self._dropout, attention
        try:
            yield
        finally:
            module.dropout, module.scaled_dot_product_attention = before


_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of attention by name; it is a builtin that does not tell its signature."""
    return {**dict(zip(_ATTENTION, args, strict=False)), **kwargs}
