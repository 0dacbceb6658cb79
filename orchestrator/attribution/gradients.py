"""Projected gradients of training examples, kept in the sweep's folder for queries that come later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from estimators.gradient_based.projected import ProjectingEstimator
from estimators.kept_gradients import GradientStore, KeptGradients
from orchestrator.attribution.numbers_of_models import but_for_models
from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.config.schema import Config
from orchestrator.store.gradients import check_gradients, kept_networks, read_gradients, write_gradients
from orchestrator.store.paths import SweepPaths
from workers.errors import StoreError

_DATA = "data"


class SweepGradients(GradientStore):
    """What one estimator keeps, while it is computed: what is damaged, or of other data, is said and made anew.

    Only the process that holds the lease may use it.
    """

    def __init__(self, paths: SweepPaths, name: str, data: Callable[[], str], say: Callable[[str], None], again: bool):
        """`data` returns a hash of the task's data; with `again` nothing that is there is used."""
        super().__init__()
        self._paths, self._name, self._data, self._say, self._again = paths, name, data, say, again
        self._made: set[int] = set()

    def keep(self, number: int, gradients: KeptGradients) -> None:
        """Write what belongs to a network."""
        identity = {**gradients.identity, _DATA: self._data()}
        write_gradients(self._paths, self._name, number, replace(gradients, identity=identity))
        self._made.add(number)

    def kept(self, number: int) -> KeptGradients | None:
        """Return what is there and whole, None for anything else."""
        if self._again and number not in self._made:
            return None
        try:
            found = read_gradients(self._paths, self._name, number)
            if found is None:
                return None
            check_gradients(found)
        except StoreError as error:
            self._say(f"{error}: it is computed anew")
            return None
        identity = dict(found.identity)
        if identity.pop(_DATA, None) != self._data():
            return None
        return replace(found, identity=identity)


class GradientsToAnswerFrom(GradientStore):
    """The same, to be read only: what is damaged is an error."""

    def __init__(self, paths: SweepPaths, name: str):
        super().__init__()
        self._paths, self._name = paths, name

    def keep(self, number: int, gradients: KeptGradients) -> None:
        """Raise AssertionError: new queries keep nothing."""
        raise AssertionError("new queries keep no gradients")

    def kept(self, number: int) -> KeptGradients | None:
        """Return what is there. Raises StoreError where it is damaged."""
        found = read_gradients(self._paths, self._name, number)
        if found is None:
            return None
        return replace(found, identity={key: value for key, value in found.identity.items() if key != _DATA})


def store_of(config: Config, label: str) -> str:
    """Return under which estimator's label its gradients are kept: those that differ in their number of models share them."""
    wanted = but_for_models(config.estimators[label])
    return next(
        other
        for other, section in config.estimators.items()
        if section.estimator == config.estimators[label].estimator and but_for_models(section) == wanted
    )


def can_keep_gradients(section: EstimatorSection) -> bool:
    """Say whether an estimator would keep gradients if it were asked to, with the options that it has."""
    return isinstance(section.options, ProjectingEstimator) and section.options.can_store


def keeps_gradients(section: EstimatorSection) -> bool:
    """Say whether an estimator is asked to keep gradients."""
    return isinstance(section.options, ProjectingEstimator) and section.options.store


def why_lacking(config: Config, paths: SweepPaths, label: str, models: int) -> str:
    """Return why what an attribution of so many models was to keep is not there; empty where it is, or nothing was."""
    section = config.estimators[label]
    if not keeps_gradients(section):
        return ""
    networks = models * (getattr(section.options, "dropout", None) or 1)
    there = kept_networks(paths, store_of(config, label))
    return "its gradients are not kept" if set(range(networks)) - set(there) else ""
