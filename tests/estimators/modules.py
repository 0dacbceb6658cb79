"""Small modules of every kind, as tasks: what gradients in factors and curvatures are tried on."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from estimators.gradients.functional_model import Examples, Model
from workers import Classification, Recipe
from workers.data.nested import mapped
from workers.runs import Checkpoint
from workers.tasks.networks import CausalTransformer, TextClassifier, cnn, mlp, resnet9

N, T = 7, 4


class Net(Classification):
    def __init__(self, build: Any, inputs: Any, classes: int = 3, dtype: torch.dtype = torch.float64):
        self.build = build
        self.recipe = Recipe(precision="float64" if dtype == torch.float64 else "float32")
        self.train_inputs = mapped(lambda leaf: leaf[:N], inputs)
        self.query_inputs = mapped(lambda leaf: leaf[N:], inputs)
        generator = torch.Generator().manual_seed(1)
        self.train_targets = torch.randint(0, classes, (N,), generator=generator)
        self.query_targets = torch.randint(0, classes, (T,), generator=generator)

    def module(self) -> nn.Module:
        return self.build()


def normal(*shape: int) -> Tensor:
    return torch.randn(N + T, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def tokens(length: int, vocabulary: int) -> Tensor:
    return torch.randint(0, vocabulary, (N + T, length), generator=torch.Generator().manual_seed(3))


class Tied(nn.Module):
    """A tiny language model whose head is its embedding; the logits of the last position are its classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = CausalTransformer(5, 6, 8, 2, 1)
        self.net.head.weight = self.net.token.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, -1]


class Torch(nn.Module):
    """PyTorch's own attention: weights that no module is called with, positions first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.token = nn.Embedding(9, 8, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.cross = nn.MultiheadAttention(8, 2, kdim=8, vdim=8, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.token(x)
        if not self.batch_first:
            y = y.transpose(0, 1)
        y = self.layer(y)
        y = y + self.cross(y, 2 * y, y + 1)[0]
        return self.head(y.mean(1 if self.batch_first else 0))


class Odd(nn.Module):
    """Parameters that no layer uses, a layer that is used twice, an in-place operation, a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.twice = nn.Linear(6, 6)
        self.grouped = nn.Conv1d(2, 4, 2, groups=2)
        self.head = nn.Linear(6 + 8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.twice(F.relu(self.twice(x * self.scale), inplace=True))
        return self.head(torch.cat([y.relu_(), self.grouped(x.reshape(-1, 2, 3)).flatten(1)], 1))


class UsedTwice(nn.Module):
    """A layer whose weight is also a matrix of its own right."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.net(x)) @ self.net.weight)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(2, 3, 3, padding="same", dilation=2)
        self.two = nn.Conv2d(1, 2, (3, 2), stride=(2, 1), padding=(1, 0))
        self.three = nn.Conv3d(1, 2, 2, padding=1, padding_mode="circular")
        self.head = nn.LazyLinear(3)
        self.double()(normal(2, 12))

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x.reshape(-1, 1, 4, 6))
        return self.head(torch.cat([y.flatten(1) for y in (one, two, self.three(x.reshape(-1, 1, 2, 3, 4)))], 1))


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 6]), nn.RMSNorm(6)),
            *(nn.Flatten(), nn.Linear(24, 5), nn.BatchNorm1d(5), nn.LayerNorm(5), nn.Linear(5, 3)),
        )
        for name, parameter in self.named_parameters():
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


CASES: dict[str, tuple[Any, Any, int]] = {
    "mlp": (lambda: mlp(6, [5, 4], 3), normal(6), 0),
    "cnn": (lambda: cnn(1, 8, 3, 3), normal(1, 8, 8), 0),
    "resnet9": (lambda: resnet9(2, 2, 3, "batch"), normal(2, 8, 8), 0),
    "convolutions": (Convolutions, normal(2, 12), 0),
    "normalized": (Normalized, normal(2, 6), 0),
    "text": (
        lambda: TextClassifier(9, 5, 3, 8, 2, 2),
        {"tokens": tokens(5, 9), "mask": torch.arange(5) < torch.tensor([3, 5, 4] * 4)[: N + T, None]},
        0,
    ),
    "tied": (Tied, tokens(6, 5), 0),
    "attention": (lambda: Torch(True), tokens(4, 9), 0),
    "attention, positions first": (lambda: Torch(False), tokens(4, 9), 0),
    "odd": (Odd, normal(6), 3),
    "used twice": (UsedTwice, normal(6), 2),
}
"""How a module is built, what it is given, and how many of its parameters have no factors."""


def setting(name: str, dtype: torch.dtype = torch.float64) -> tuple[Net, Model, Examples, Examples]:
    build, inputs, _ = CASES[name]
    torch.manual_seed(5)
    task = Net(build, inputs, dtype=dtype)
    state = build().double().state_dict()
    model = Model(
        task,
        Checkpoint(
            1, 1, 0.1, {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        ),
        dtype,
    )
    weights = torch.linspace(0.5, 2, N, dtype=dtype)
    train = Examples(task.examples("train").to(dtype), torch.arange(N), weights)
    return task, model, train, Examples(task.examples("query").to(dtype), torch.arange(T))
