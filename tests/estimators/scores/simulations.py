"""What tests on simulated outputs share."""

import numpy as np

from estimators.evidence import Runs


def unit_ranks(x):
    """Ranks over subsets, the axis before the last, centred and of norm 1; continuous values have no ties."""
    ranks = np.argsort(np.argsort(x, axis=-2), axis=-2) - (x.shape[-2] - 1) / 2
    return ranks / np.sqrt(np.square(ranks).sum(-2, keepdims=True))


def runs_of(outputs):
    """Return the runs of outputs (seeds, s, t)."""
    seeds, s, t = outputs.shape
    flat = outputs.transpose(1, 0, 2).reshape(s * seeds, t).astype(np.float32)
    masks = np.random.default_rng(0).random((s, 20)) < 0.5
    return Runs(
        "held", "subsets", "margin", masks.repeat(seeds, 0), flat, np.arange(s).repeat(seeds), np.tile(range(seeds), s)
    )
