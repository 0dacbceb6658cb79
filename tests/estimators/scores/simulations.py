"""What tests on simulated outputs share."""

from dataclasses import replace

import numpy as np

from estimators.evidence import Runs


def unit_ranks(x):
    """Ranks over subsets, the axis before the last, centred and of norm 1; continuous values have no ties."""
    ranks = np.argsort(np.argsort(x, axis=-2), axis=-2) - (x.shape[-2] - 1) / 2
    return ranks / np.sqrt(np.square(ranks).sum(-2, keepdims=True))


def half_masks(rng, s, n):
    """Subsets of exactly half of the examples."""
    return np.argsort(rng.random((s, n)), axis=1) < n // 2


def make_runs(masks, outputs, design="holdout", kind="subsets", first_repeat=0, order=""):
    """Runs from masks (s, n) and outputs (s, seeds, t)."""
    s, seeds, t = outputs.shape
    return Runs(
        design=design,
        kind=kind,
        measure="margin",
        masks=masks.repeat(seeds, axis=0),
        outputs=outputs.reshape(s * seeds, t).astype(np.float32),
        subsets=np.arange(s).repeat(seeds),
        repeats=np.tile(np.arange(seeds), s) + first_repeat,
        order=order,
    )


def runs_of(outputs):
    """Runs of outputs (seeds, s, t), on some masks."""
    masks = np.random.default_rng(0).random((outputs.shape[1], 20)) < 0.5
    return make_runs(masks, outputs.transpose(1, 0, 2))


def take(runs, rows):
    """Some of the runs, in the order of `rows`."""
    names = ("masks", "outputs", "subsets", "repeats")
    return replace(runs, **{name: getattr(runs, name)[rows] for name in names})


def without(runs, *rows):
    """All runs but some."""
    return take(runs, np.setdiff1d(np.arange(len(runs.subsets)), rows))


def additive_world(s=400, n=60, t=30, seeds=5, noise=1.0, seed=0):
    """An additive world: signal of variance 1 from tau, plus independent noise of each seed. Returns tau, masks, outputs."""
    rng = np.random.default_rng(seed)
    masks = rng.random((s, n)) < 0.5
    tau = rng.normal(size=(n, t)) / np.sqrt(n / 4)
    outputs = (masks @ tau)[:, None] + noise * rng.normal(size=(s, seeds, t))
    return tau, masks, outputs
