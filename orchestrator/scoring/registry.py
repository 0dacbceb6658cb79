"""Which metrics there are: ours by import path, third parties' by the entry point group `counterfactory.metrics`.

A script or a notebook registers one of its own for its process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module

from orchestrator.designs.registry import is_again
from orchestrator.scoring.metric import Metric, Quantity
from workers import plugins
from workers.errors import ConfigError, PluginError

GROUP = "counterfactory.metrics"

BUILT_IN = {
    "lds": "orchestrator.scoring.lds:LinearDatamodelingScore",
    "calibration": "orchestrator.scoring.calibration:ScaleCalibration",
    "spread": "orchestrator.scoring.spread:SpreadScore",
    "leave_one_out": "orchestrator.scoring.leave_one_out:LeaveOneOutCorrelation",
    "seed_check": "orchestrator.scoring.seed_check:SeedCheck",
    "detection": "orchestrator.scoring.detection:Detection",
    "removal": "orchestrator.applications.removal_curves:RemovalAreas",
}
"""Name -> module:class. Paths, because applications stand above scoring and bring metrics of their own."""

_registered: dict[str, type[Metric]] = {}


def register(name: str, metric: type[Metric]) -> None:
    """Add a metric to those of this process, such as one written in a notebook.

    The class defined once more takes the place of the first. Raises ConfigError where another has the name.
    """
    known = {**_found().classes, **_registered}
    if is_again(metric, _registered.get(name)):
        del known[name]
    _check(name, metric, known)
    _registered[name] = metric


def metrics() -> tuple[Metric, ...]:
    """Return all metrics, in the order of tables, but for those of packages that cannot be loaded: `unloadable` says why."""
    classes = {**_found().classes, **_registered}
    return tuple(metric() for metric in sorted(classes.values(), key=lambda one: one.place))


def quantities() -> dict[str, Quantity]:
    """Return what all metrics give, by name, in the order of tables."""
    return {one.name: one for metric in metrics() for one in metric.quantities}


def unloadable() -> dict[str, str]:
    """Return the metrics of installed packages that cannot be loaded, by name, each with the reason in a line."""
    return _found().faults


@dataclass
class _Found:
    """The built-in metrics and those of installed packages."""

    classes: dict[str, type[Metric]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """Of those that cannot be loaded: why."""


@cache
def _found() -> _Found:
    found = _Found()
    for name, path in BUILT_IN.items():
        module, _, attribute = path.partition(":")
        found.classes[name] = getattr(import_module(module), attribute)
    for entry in plugins.offered(GROUP):
        try:
            metric = plugins.load(entry, partial(_check, entry.name, others=dict(found.classes)))
        except PluginError as error:
            found.faults[entry.name] = str(error)
        else:
            found.classes[entry.name] = metric
    return found


def _check(name: str, metric: type[Metric], others: dict[str, type[Metric]]) -> None:
    """Refuse what is no metric, a name that another has, and a quantity which another gives."""
    if name in others:
        raise ConfigError(f"metric {name!r}: there is one of that name already")
    if not (isinstance(metric, type) and issubclass(metric, Metric) and hasattr(metric, "quantities")):
        raise ConfigError(f"metric {name!r}: expected a subclass of Metric that has quantities, found {metric!r}")
    taken = {one.name: other for other, known in others.items() for one in known.quantities}
    for one in metric.quantities:
        if one.name in taken:
            raise ConfigError(f"metric {name!r}: its quantity {one.name!r} is one of the metric {taken[one.name]!r}")
