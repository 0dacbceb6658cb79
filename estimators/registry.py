"""Which estimators there are: ours by import path, third parties' by the entry point group `counterfactory.estimators`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from estimators.contract import Estimator
from workers.errors import ConfigError, near

BUILT_IN = {
    "datamodel": "estimators.datamodel:DatamodelEstimator",
    "difference_in_means": "estimators.difference_in_means:DifferenceInMeans",
    "leave_one_out": "estimators.leave_one_out:LeaveOneOut",
    "tracin": "estimators.tracin:TracIn",
    "trak": "estimators.trak:Trak",
    "influence": "estimators.influence:Influence",
    "similarity": "estimators.similarity:Similarity",
    "random": "estimators.random:Random",
    "shapley": "estimators.values.shapley:Shapley",
    "beta_shapley": "estimators.values.shapley:BetaShapley",
    "banzhaf": "estimators.values.banzhaf:Banzhaf",
    "groups": "estimators.values.groups:Groups",
    "memorization": "estimators.values.memorization:Memorization",
    "knn_shapley": "estimators.values.knn_shapley:KnnShapley",
}


@cache
def names() -> tuple[str, ...]:
    """Return the names of all estimators, ours first."""
    return tuple(BUILT_IN) + tuple(entry.name for entry in entry_points(group="counterfactory.estimators"))


@cache
def find(name: str) -> type[Estimator]:
    """Return the estimator class of that name. Raises ConfigError, with near names, when there is none."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: type[Estimator] = getattr(import_module(module), attribute)
        return found
    for entry in entry_points(group="counterfactory.estimators", name=name):
        loaded: type[Estimator] = entry.load()
        return loaded
    raise ConfigError(f"unknown estimator {name!r}: {near(name, list(names()))}")
