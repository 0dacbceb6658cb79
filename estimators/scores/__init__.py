"""Score attributions against runs they were not fitted on: pure functions on arrays.

All of it is imported at once: it is NumPy alone (SciPy where a function needs it), and `lds`, `calibration` and `spearman` are
names of a module and of the function in it, which only an import that has happened tells apart.
"""

from estimators.scores.basis import Basis
from estimators.scores.bootstrap import difference
from estimators.scores.calibration import Calibration, calibration
from estimators.scores.ceiling import Ceiling, noise_ceiling
from estimators.scores.detection import auc
from estimators.scores.external import judge_array
from estimators.scores.lds import lds
from estimators.scores.leave_one_out import loo_correlation
from estimators.scores.overlap import count_overlap, refuse_overlap
from estimators.scores.per_example import own_effects
from estimators.scores.result import UNKNOWN, Estimate, Score
from estimators.scores.seed_check import Agreement, SeedCheck, seed_check
from estimators.scores.share import share_of
from estimators.scores.spearman import spearman
from estimators.scores.spread import spread_lds, spread_of
from estimators.scores.spread_ceiling import spread_ceiling

__all__ = [
    "UNKNOWN",
    "Agreement",
    "Basis",
    "Calibration",
    "Ceiling",
    "Estimate",
    "Score",
    "SeedCheck",
    "auc",
    "calibration",
    "count_overlap",
    "difference",
    "judge_array",
    "lds",
    "loo_correlation",
    "noise_ceiling",
    "own_effects",
    "refuse_overlap",
    "seed_check",
    "share_of",
    "spearman",
    "spread_ceiling",
    "spread_lds",
    "spread_of",
]
