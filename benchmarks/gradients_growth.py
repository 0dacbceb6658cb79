"""How the time of gradient-based estimators grows with examples n, queries t and parameters p."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from gradients_setting import RandomImages
from torch import nn

from estimators.evidence import Evidence, Reference
from estimators.registry import find
from workers.runs import Checkpoint
from workers.tasks.networks import mlp

ESTIMATORS = {
    "ekfac": {"damping": "mean_eigenvalue"},
    "tracin": {},
    "trak": {"project_dim": 512, "projection": "factored", "damping": 1e-6},
    "logra": {"rank": 16},
}
SIZES = {"n": (1000, 2000, 3000, 4000), "t": (200, 400, 600, 800), "p": (64, 128, 192, 256)}
"""Of p, the width of the first layer: p is about 785 times that."""
SMALLEST = {"n": 2000, "t": 200, "p": 64}
"""What the others are while one grows."""


class Wide(RandomImages):
    """Random images, for a network 784-width-64-10 at its initial parameters: what gradients cost does not depend on them."""

    def __init__(self, n: int, t: int, width: int):
        super().__init__(n, t)
        self._width = width

    def module(self) -> nn.Module:
        return mlp(784, [self._width, 64], 10, 0.1)


def seconds(n: int, t: int, width: int, rounds: int) -> tuple[int, dict[str, float]]:
    """Return p, and by estimator the least time of the processor that it took in some rounds, in seconds."""
    task = Wide(n, t, width)
    torch.manual_seed(0)
    checkpoint = Checkpoint(1, 1, 0.01, dict(task.module().state_dict()))
    evidence = Evidence(n, t, "margin", references=(Reference(0, (checkpoint,)),), task=task, seed=0)
    found = dict.fromkeys(ESTIMATORS, float("inf"))
    for _ in range(rounds):
        for name, options in ESTIMATORS.items():
            clock = time.process_time()
            find(name)(models=1, **options).attribute(evidence)
            found[name] = min(found[name], time.process_time() - clock)
    return sum(value.numel() for value in checkpoint.state.values()), found


def draw_growth(file: Path, rounds: int) -> None:
    """Measure, print how far each growth is from a straight line, and draw it."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", sharey=True)
    for axis, (what, sizes) in zip(axes, SIZES.items(), strict=True):
        measured = []
        for size in sizes:
            given = {**SMALLEST, what: size}
            p, found = seconds(given["n"], given["t"], given["p"], rounds)
            measured.append((p if what == "p" else size, found))
        at = np.array([place for place, _ in measured], dtype=float)
        for name in ESTIMATORS:
            took = np.array([found[name] for _, found in measured])
            slope, start = np.polyfit(at, took, 1)
            off = float(np.abs(took / (start + slope * at) - 1).max())
            print(
                f"{what}: {name:<8}{' '.join(f'{one:8.3f}' for one in took)} s, at most {off:.0%} from a straight line "
                f"that begins at {start:.3f} s",
                flush=True,
            )
            (drawn,) = axis.plot(at, took, "o", label=name)
            line = np.array([0, at[-1]])
            axis.plot(line, start + slope * line, "-", linewidth=1, color=drawn.get_color())
        others = ", ".join(f"{other} = {_size(other):,}" for other in SIZES if other != what)
        names = {"n": "examples n", "t": "queries t", "p": "parameters p"}
        axis.set(title=others, xlabel=names[what], ylim=(0, None), xlim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of one core, a model")
    axes[0].legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def _size(what: str) -> int:
    if what != "p":
        return SMALLEST[what]
    return sum(value.numel() for value in mlp(784, [SMALLEST["p"], 64], 10, 0.1).state_dict().values())
