"""Which estimators there are: ours by import path, third parties' by the entry point group `counterfactory.estimators`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from estimators.contract import Estimator
from workers.errors import ConfigError, near
from workers.plugins import offered

GROUP = "counterfactory.estimators"

BUILT_IN = {
    "datamodel": "estimators.retraining_based.datamodel:DatamodelEstimator",
    "difference_in_means": "estimators.retraining_based.difference_in_means:DifferenceInMeans",
    "leave_one_out": "estimators.retraining_based.leave_one_out:LeaveOneOut",
    "tracin": "estimators.gradient_based.tracin:TracIn",
    "trak": "estimators.gradient_based.trak:Trak",
    "influence": "estimators.gradient_based.influence:Influence",
    "similarity": "estimators.baselines.similarity:Similarity",
    "random": "estimators.baselines.random:Random",
    "shapley": "estimators.retraining_based.shapley:Shapley",
    "beta_shapley": "estimators.retraining_based.shapley:BetaShapley",
    "banzhaf": "estimators.retraining_based.banzhaf:Banzhaf",
    "groups": "estimators.retraining_based.leave_group_out:Groups",
    "memorization": "estimators.retraining_based.memorization:Memorization",
    "knn_shapley": "estimators.baselines.knn_shapley:KnnShapley",
}


@cache
def names() -> tuple[str, ...]:
    """Return the names of all estimators, ours first."""
    return tuple(BUILT_IN) + tuple(entry.name for entry in offered(GROUP))


@cache
def find(name: str) -> type[Estimator]:
    """Return the estimator class of that name. Raises ConfigError, with near names, when there is none."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: type[Estimator] = getattr(import_module(module), attribute)
        return found
    for entry in offered(GROUP):
        if entry.name == name:
            loaded: type[Estimator] = entry.load()
            return loaded
    raise ConfigError(f"unknown estimator {name!r}: {near(name, list(names()))}")
