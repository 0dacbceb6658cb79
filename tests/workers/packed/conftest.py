"""Small tasks of many architectures, and the comparison of a packed training with training alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workers import Classification, DifferentiableTask, Outcome, Queries, Recipe, Regression, Run
from workers.packs import train_pack

N, T, CLASSES = 33, 7, 3


class Residual(nn.Module):
    """A convolutional block with a skip connection, as narrow ResNets have.

    No bias stands before a normalization: its gradient is exactly zero, and Adam blows the rounding of a zero up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.head((x + self.block(x)).mean((2, 3)))


class Tokens(nn.Module):
    """Embedding, LayerNorm and a head, on integer inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(tokens).mean(1)))


def mlp(activation: type[nn.Module], dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 9), activation(), nn.Dropout(dropout), nn.Linear(9, CLASSES))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(5, CLASSES),
    "relu": lambda: mlp(nn.ReLU),
    "dropout": lambda: mlp(nn.ReLU, 0.3),
    "deep": lambda: nn.Sequential(
        nn.Linear(5, 20), nn.Tanh(), nn.Dropout(0.2), nn.Linear(20, 7, bias=False), nn.Sigmoid(), nn.Linear(7, CLASSES)
    ),
    "wide": lambda: nn.Sequential(nn.Linear(5, 150), nn.ReLU(), nn.Linear(150, 37), nn.ReLU(), nn.Linear(37, CLASSES)),
    "broad": lambda: nn.Sequential(
        nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 150), nn.ReLU(), nn.Linear(150, CLASSES, bias=False)
    ),
    "gelu": lambda: mlp(nn.GELU, 0.3),
    "layer_norm": lambda: nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.SiLU(), nn.Linear(9, CLASSES)),
    "batch_norm": lambda: nn.Sequential(
        nn.Linear(5, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, CLASSES)
    ),
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten(), nn.Linear(16, CLASSES)
    ),
    "residual": Residual,
    "tokens": Tokens,
}
IMAGES = ("convolution", "residual")


class Zoo(Classification):
    """Three classes, by any of the modules above, on what inputs it takes."""

    def __init__(self, recipe: Recipe, architecture: str, weighted: bool = False):
        generator = torch.Generator().manual_seed(5)
        self.recipe, self.architecture = recipe, architecture
        shape = (2, 6, 6) if architecture in IMAGES else (5,)
        targets = torch.randint(CLASSES, (N + T,), generator=generator)
        inputs = torch.randn(N + T, *shape, generator=generator, dtype=torch.float64)
        inputs += targets.reshape(-1, *(1 for _ in shape))
        if architecture == "tokens":
            inputs = (inputs.abs() * 4).long().clamp(max=10)
        self.train_inputs, self.train_targets = inputs[:N], targets[:N]
        self.query_inputs, self.query_targets = inputs[N:], targets[N:]
        self.train_weights = torch.rand(N, generator=generator, dtype=torch.float64) + 0.5 if weighted else None

    def module(self) -> nn.Module:
        return MODULES[self.architecture]()


class Line(Regression):
    """One real target, by a small network that squeezes its output or does not."""

    def __init__(self, recipe: Recipe, squeeze: bool):
        generator = torch.Generator().manual_seed(6)
        self.recipe, self.squeeze = recipe, squeeze
        inputs = torch.randn(N + T, 5, generator=generator, dtype=torch.float64)
        targets = inputs[:, 0] - inputs[:, 1] ** 2
        self.train_inputs, self.train_targets = inputs[:N], targets[:N]
        self.query_inputs, self.query_targets = inputs[N:], targets[N:]

    def module(self) -> nn.Module:
        head = (nn.Flatten(0),) if self.squeeze else ()
        return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1), *head)


def unequal_runs(epochs: Sequence[int]) -> list[Run]:
    """Leave-one-out beside a prefix of 10, a half, and a second leave-one-out of the same size."""
    everything = np.arange(N)
    half = np.sort(np.random.default_rng(0).permutation(N)[: N // 2])
    subsets = [np.delete(everything, 4), everything[:10], half, np.delete(everything, 20)]
    return [Run(row, subset, 40 + row, tuple(epochs)) for row, subset in enumerate(subsets)]


def equal_runs(count: int, epochs: Sequence[int] = ()) -> list[Run]:
    rng = np.random.default_rng(1)
    return [Run(row, np.sort(rng.permutation(N)[:20]), 70 + row, tuple(epochs)) for row in range(count)]


def largest_difference(first: Sequence[Outcome], second: Sequence[Outcome]) -> float:
    """Largest absolute difference between the checkpoints of two trainings; they must be of the same moments."""
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        assert a.failure is None, a.failure.traceback
        assert b.failure is None, b.failure.traceback
        moments = [[(c.epoch, c.step, c.learning_rate) for c in outcome.checkpoints] for outcome in (a, b)]
        assert moments[0] == moments[1]
        assert len(moments[0]) > 0
        for one, other in zip(a.checkpoints, b.checkpoints, strict=True):
            assert list(one.state) == list(other.state)
            for name, value in one.state.items():
                assert value.shape == other.state[name].shape
                assert value.dtype == other.state[name].dtype
                worst = max(worst, float((value.double() - other.state[name].double()).abs().max()))
    return worst


def compare(task: DifferentiableTask, path: str, runs: Sequence[Run], measure: str) -> None:
    """Assert that the path agrees with training alone, in every checkpoint and in the outputs."""
    packed = train_pack(task, runs, [measure], Queries(), method=path, width=len(runs))
    alone = train_pack(task, runs, [measure], Queries(), method="alone")
    assert largest_difference(packed, alone) < 1e-9
    for a, b in zip(packed, alone, strict=True):
        assert a.row == b.row
        np.testing.assert_allclose(a.outputs[measure], b.outputs[measure], rtol=1e-6, atol=1e-6)


@pytest.fixture
def zoo() -> type[Zoo]:
    return Zoo


@pytest.fixture
def line() -> type[Line]:
    return Line


@pytest.fixture(name="unequal_runs")
def unequal_runs_fixture() -> Callable[..., list[Run]]:
    return unequal_runs


@pytest.fixture(name="equal_runs")
def equal_runs_fixture() -> Callable[..., list[Run]]:
    return equal_runs


@pytest.fixture(name="compare")
def compare_fixture() -> Callable[..., None]:
    return compare


@pytest.fixture(name="largest_difference")
def largest_difference_fixture() -> Callable[..., float]:
    return largest_difference


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep calibration's choices out of the user's folder."""
    monkeypatch.setenv("COUNTERFACTORY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
