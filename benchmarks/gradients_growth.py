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
    measured: dict[tuple[str, str], np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    for what, sizes in SIZES.items():
        at, found = [], []
        for size in sizes:
            given = {**SMALLEST, what: size}
            p, took = seconds(given["n"], given["t"], given["p"], rounds)
            at.append(p if what == "p" else size)
            found.append(took)
        places[what] = np.array(at, dtype=float)
        for name in ESTIMATORS:
            each = np.array([one[name] for one in found])
            slope, start = np.polyfit(places[what], each, 1)
            off = float(np.abs(each / (start + slope * places[what]) - 1).max())
            print(
                f"{what}: {name:<8}{' '.join(f'{one:8.3f}' for one in each)} s, at most {off:.0%} from a straight line "
                f"that begins at {start:.3f} s",
                flush=True,
            )
            measured[what, name] = each
    draw(file, places, measured)


def draw(file: Path, places: dict[str, np.ndarray], measured: dict[tuple[str, str], np.ndarray]) -> None:
    """Draw the times, each estimator's in units of that at the smallest size, beside growth in proportion."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    names = {"n": "examples n", "t": "queries t", "p": "parameters p"}
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for axis, (what, at) in zip(axes, places.items(), strict=True):
        axis.plot(at, at / at[0], ":", color="gray", label="in proportion")
        for name in ESTIMATORS:
            took = measured[what, name]
            (drawn,) = axis.plot(at, took / took[0], "o", label=f"{name}, {took[0]:.2f} s")
            axis.plot(at, np.polyval(np.polyfit(at, took / took[0], 1), at), linewidth=1, color=drawn.get_color())
        others = ", ".join(f"{other} = {_size(other):,}" for other in SIZES if other != what)
        axis.set(title=others, xlabel=names[what], ylim=(0, 1.1 * at[-1] / at[0]), xlim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left", title="and its time at the smallest size", title_fontsize=8)
    axes[0].set_ylabel("time of one core, in units of the smallest size's")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _size(what: str) -> int:
    if what != "p":
        return SMALLEST[what]
    return sum(value.numel() for value in mlp(784, [SMALLEST["p"], 64], 10, 0.1).state_dict().values())
