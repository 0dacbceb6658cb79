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
    """

    name: ClassVar[str] = "random"

    def attribute(self, evidence: Evidence) -> Attribution:
        """Draw (n, t) standard normals from the evidence's seed."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(evidence.seed, spawn_key=(_STREAM,))))
        return Attribution(rng.standard_normal((evidence.n, evidence.t), dtype=np.float32))
