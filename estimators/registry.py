"""Which estimators there are: ours by import path, third parties' by the entry point group `counterfactory.estimators`.

Our adapters to other libraries (estimators/adapters/) are offered in that group, too.

One of a user's own file is no part of the registry: it is named as a task is, `path/to/file.py:Class`, and `load` finds it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import TYPE_CHECKING

from estimators.contract import Estimator
from workers import plugins
from workers.errors import ConfigError, LackingError, PluginError, TaskError, near
from workers.named_code import load_attribute, names_code

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "counterfactory.estimators"
BUILT_IN = {
    "datamodel": "estimators.retraining_based.datamodel:DatamodelEstimator",
    "difference_in_means": "estimators.retraining_based.difference_in_means:DifferenceInMeans",
    "leave_one_out": "estimators.retraining_based.leave_one_out:LeaveOneOut",
    "tracin": "estimators.gradient_based.tracin:TracIn",
    "unrolled": "estimators.gradient_based.unrolled:Unrolled",
    "hydra": "estimators.gradient_based.hydra:Hydra",
    "data_value_embedding": "estimators.gradient_based.data_value_embedding:DataValueEmbedding",
    "source": "estimators.gradient_based.source:Source",
    "gas": "estimators.gradient_based.gas:Gas",
    "less": "estimators.gradient_based.less:Less",
    "grad_dot": "estimators.gradient_based.grad_dot:GradDot",
    "grad_cos": "estimators.gradient_based.grad_cos:GradCos",
    "trak": "estimators.gradient_based.trak:Trak",
    "trak_ridge": "estimators.gradient_based.trak_ridge:TrakRidge",
    "trak_reweighted": "estimators.gradient_based.trak_reweighted:TrakReweighted",
    "trak_early": "estimators.gradient_based.trak_early:TrakEarly",
    "trak_subsets": "estimators.gradient_based.trak_subsets:TrakSubsets",
    "influence": "estimators.gradient_based.influence:Influence",
    "kfac": "estimators.gradient_based.kfac:Kfac",
    "ekfac": "estimators.gradient_based.ekfac:Ekfac",
    "shampoo": "estimators.gradient_based.shampoo:Shampoo",
    "logra": "estimators.gradient_based.logra:Logra",
    "grass": "estimators.gradient_based.grass:Grass",
    "trackstar": "estimators.gradient_based.trackstar:TrackStar",
    "alo": "estimators.gradient_based.alo:Alo",
    "representer": "estimators.gradient_based.representer:Representer",
    "datainf": "estimators.gradient_based.datainf:DataInf",
    "mpe": "estimators.gradient_based.mpe:Mpe",
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
    """Return the names of all estimators, ours first; without adapters to libraries that are not installed."""
    offered = (entry.name for entry in plugins.offered(GROUP) if not (_is_adapter(entry) and entry.load().lacking()[0]))
    return tuple(dict.fromkeys((*BUILT_IN, *offered)))


def is_adapter(name: str) -> bool:
    """Say whether an estimator is one of our adapters to other libraries."""
    entry = None if name in BUILT_IN else plugins.offer(GROUP, name)
    return entry is not None and _is_adapter(entry)


def _is_adapter(entry: EntryPoint) -> bool:
    """Say whether an entry point is one of our adapters: we offer them in the group of third parties, as they are optional."""
    return entry.value.startswith("estimators.adapters.")


def loadable() -> dict[str, type[Estimator]]:
    """Return all estimators by name, ours first, but for those of packages that cannot be loaded: `find` says why."""
    found = {}
    for name in names():
        with suppress(PluginError):
            found[name] = find(name)
    return found


@cache
def find(name: str) -> type[Estimator]:
    """Return the estimator class registered by that name.

    Raises ConfigError, with near names, when there is none, PluginError for a package's that cannot be loaded, LackingError
    for an adapter to a library that is not installed.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: type[Estimator] = getattr(import_module(module), attribute)
        return found
    entry = plugins.offer(GROUP, name)
    if entry is not None:
        loaded: type[Estimator] = plugins.load(entry, _check)
        package, remedy = loaded.lacking()
        if package:
            raise LackingError(f"estimator {name!r}", package, remedy)
        return loaded
    raise ConfigError(
        f"unknown estimator {name!r}: {near(name, list(names()))}; your own is path/to/file.py:Class or module:Class"
    )


def load(name: str, folder: Path) -> type[Estimator]:
    """Return the estimator class that a configuration in `folder` names: a registered one, or one's own, whose code this runs.

    Raises ConfigError, one line, when there is none, or it is no estimator.
    """
    if not names_code(name):
        return find(name)
    try:
        found, where = load_attribute(name, folder, "estimator", is_estimator)
    except TaskError as error:
        raise ConfigError(str(error)) from error
    try:
        _check(found)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    made: type[Estimator] = found
    return made


def package_of(name: str) -> str:
    """Return the package that registers an estimator, and its version; empty for one of ours, and where nobody knows."""
    return "" if name in BUILT_IN else plugins.package_of(GROUP, name)


def _check(found: object) -> None:
    if not is_estimator(found):
        raise ConfigError(f"expected a subclass of Estimator that has `attribute`, found {found!r}")


def is_estimator(found: object) -> bool:
    """Say whether something is the class of an estimator that can be asked."""
    return isinstance(found, type) and issubclass(found, Estimator) and not isabstract(found)
