"""Attributions drawn at random: the floor that every estimator must clear."""

from __future__ import annotations

import zlib
from typing import ClassVar

import numpy as np

from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence

_STREAM = zlib.crc32(b"estimators.random")


class Random(Estimator):
    """tau[i, q] ~ N(0, 1), independent of the data, the runs and the models.

    A function of the seed and of (n, t) alone, on a stream of its own: it shares no draw with whatever else uses the
    same seed. Unit-free.

    >>> from estimators import Evidence
    >>> from estimators.baselines.random import Random
    >>> first, again, other = (Random().attribute(Evidence(n=3, t=2, measure="margin", seed=s)).values for s in (7, 7, 8))
    >>> first.shape, bool((first == again).all()), bool((first == other).any())
    ((3, 2), True, False)
    """

    name: ClassVar[str] = "random"

    def attribute(self, evidence: Evidence) -> Attribution:
        """Draw (n, t) standard normals from the evidence's seed."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(evidence.seed, spawn_key=(_STREAM,))))
        return Attribution(rng.standard_normal((evidence.n, evidence.t), dtype=np.float32))
