"""Small networks for the built-in tasks.

All of them can run under torch.func's vmap and grad: no in-place operation of theirs, no control flow that depends on data.
Batch normalization alone has a state that a forward pass changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Return Flatten, (Linear, ReLU, Dropout) a hidden width, and Linear; without hidden widths a linear model."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def cnn(channels: int, size: int, width: int, classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Return two (3x3 convolution, ReLU, 2x2 max-pooling) of `width` and 2 `width` channels, and a Linear layer.

    Takes (b, channels, size, size).
    """
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])),
        nn.Linear(2 * width * (size // 4) ** 2, classes),
    )


class Residual(nn.Module):
    """x + block(x)."""

    def __init__(self, *block: nn.Module):
        super().__init__()
        self.block = nn.Sequential(*block)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        result: Tensor = x + self.block(x)
        return result


def resnet9(channels: int, width: int, classes: int, norm: Literal["batch", "group"] = "group") -> nn.Sequential:
    """Return a ResNet-9 of the DAWNBench family: eight convolutions, two residual blocks, one Linear layer.

    Channels are `width`, 2, 4 and 8 times that (64 in the literature). With batch normalization it is the literature's; with
    group normalization (eight channels a group) an example's output does not depend on the others in its batch.
    """

    def convolution(a: int, b: int) -> list[nn.Module]:
        normalization = nn.BatchNorm2d(b) if norm == "batch" else nn.GroupNorm(max(1, b // 8), b)
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), normalization, nn.ReLU()]

    def residual(a: int) -> Residual:
        return Residual(*convolution(a, a), *convolution(a, a))

    return nn.Sequential(
        *convolution(channels, width),
        *(*convolution(width, 2 * width), nn.MaxPool2d(2), residual(2 * width)),
        *(*convolution(2 * width, 4 * width), nn.MaxPool2d(2)),
        *(*convolution(4 * width, 8 * width), nn.MaxPool2d(2), residual(8 * width)),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        nn.Linear(8 * width, classes),
    )


class Attention(nn.Module):
    """Causal multi-head self-attention, (b, length, width) -> (b, length, width), with dropout of its weights."""

    mask: Tensor

    def __init__(self, width: int, heads: int, length: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let every position attend to itself and those before it."""
        length, width = x.shape[1:]
        q, k, v = _by_head(self.mixed(x), self.heads)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(width // self.heads)
        weights = self.drop(scores.masked_fill(self.mask[:length, :length], -torch.inf).softmax(-1))
        result: Tensor = self.out((weights @ v).transpose(1, 2).reshape(x.shape))
        return result


def _by_head(mixed: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Cut queries, keys and values side by side, (b, length, 3 width), into three of (b, heads, length, width / heads)."""
    batch, length, width = mixed.shape
    return mixed.reshape(batch, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)


def _feed_forward(width: int, drop: Sequence[nn.Module]) -> Residual:
    """Return the second half of a transformer's layer, pre-norm."""
    return Residual(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), *drop)


class CausalTransformer(nn.Module):
    """A pre-norm decoder: (b, length) int64 tokens -> (b, length, vocabulary) logits of the next token."""

    positions: Tensor

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        heads: int,
        layers: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        drop = [nn.Dropout(dropout)] if dropout else []
        blocks: list[nn.Module] = []
        for _ in range(layers):
            blocks.append(Residual(nn.LayerNorm(width), Attention(width, heads, length, attention_dropout), *drop))
            blocks.append(_feed_forward(width, drop))
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(width))
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("positions", torch.arange(length), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the token after each position."""
        x = self.token(tokens) + self.position(self.positions[: tokens.shape[-1]])
        logits: Tensor = self.head(self.blocks(x))
        return logits


class EncoderLayer(nn.Module):
    """A pre-norm layer whose positions attend to those that hold a token, with dropout inside attention and after both halves."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.feed = _feed_forward(width, [nn.Dropout(dropout)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (b, length, width) of the same; `mask` (b, length) is True where there is a token, at least once a row."""
        q, k, v = _by_head(self.mixed(self.norm(x)), self.heads)
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :], dropout_p=rate)
        x = x + self.drop(self.out(attended.transpose(1, 2).reshape(x.shape)))
        result: Tensor = self.feed(x)
        return result


class TextClassifier(nn.Module):
    """An encoder whose positions that hold a token are averaged: (b, length) tokens and their mask -> (b, classes) logits."""

    positions: Tensor

    def __init__(
        self, vocabulary: int, length: int, classes: int, width: int, heads: int, layers: int, dropout: float = 0.0
    ):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        for embedding in (self.token, self.position):
            nn.init.normal_(embedding.weight, std=0.02)  # BERT's: what a word adds is soon more than what it began with
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.register_buffer("positions", torch.arange(length), persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of every text; what stands where the mask is False changes nothing."""
        x = self.drop(self.token(tokens) + self.position(self.positions))
        for layer in self.layers:
            x = layer(x, mask)
        there = mask.unsqueeze(-1)
        logits: Tensor = self.head((self.norm(x) * there).sum(1) / there.sum(1))
        return logits
