"""Which metrics there are: ours by import path, third parties' by the entry point group `counterfactory.metrics`.

A script or a notebook registers one of its own for its process.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from orchestrator.designs.registry import is_again
from orchestrator.scoring.metric import Metric, Quantity
from workers.errors import ConfigError
from workers.plugins import offered

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
    known = {**_found(), **_registered}
    if name in known and not is_again(metric, _registered.get(name)):
        raise ConfigError(f"metric {name!r}: there is one of that name already")
    _check(name, metric, known)
    _registered[name] = metric


def metrics() -> tuple[Metric, ...]:
    """Return all metrics, in the order of tables."""
    classes = {**_found(), **_registered}
    return tuple(metric() for metric in sorted(classes.values(), key=lambda one: one.place))


def quantities() -> dict[str, Quantity]:
    """Return what all metrics give, by name, in the order of tables."""
    return {one.name: one for metric in metrics() for one in metric.quantities}


@cache
def _found() -> dict[str, type[Metric]]:
    """Return the built-in metrics and those of installed packages."""
    found: dict[str, type[Metric]] = {}
    for name, path in BUILT_IN.items():
        module, _, attribute = path.partition(":")
        found[name] = getattr(import_module(module), attribute)
    for entry in offered(GROUP):
        if entry.name in found:
            raise ConfigError(f"metric {entry.name!r} of {entry.value}: there is one of that name already")
        metric = entry.load()
        _check(entry.name, metric, found)
        found[entry.name] = metric
    return found


def _check(name: str, metric: type[Metric], others: dict[str, type[Metric]]) -> None:
    """Refuse what is no metric, and one that gives a quantity which another gives."""
    if not (isinstance(metric, type) and issubclass(metric, Metric) and hasattr(metric, "quantities")):
        raise ConfigError(f"metric {name!r}: expected a subclass of Metric that has quantities, found {metric!r}")
    taken = {one.name: other for other, known in others.items() if other != name for one in known.quantities}
    for one in metric.quantities:
        if one.name in taken:
            raise ConfigError(f"metric {name!r}: its quantity {one.name!r} is one of the metric {taken[one.name]!r}")
