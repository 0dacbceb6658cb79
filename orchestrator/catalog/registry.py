"""The three groups of things that a configuration can name, and where to find one by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from estimators.registry import is_estimator
from estimators.registry import names as estimator_names
from orchestrator.catalog import designs, estimators, tasks
from orchestrator.catalog.entry import Entry
from orchestrator.designs.registry import kinds
from workers.errors import ConfigError, PluginError, near
from workers.loading import BUILT_IN
from workers.named_code import load_attribute, names_code


@dataclass(frozen=True)
class Group:
    """One kind of thing."""

    word: str
    """What one of them is called."""
    key: str
    """Where in a configuration its name stands."""
    names: Callable[[], tuple[str, ...]]
    summary: Callable[[str], str]
    """One sentence on one of them."""
    entry: Callable[[str], Entry]
    """Raises ConfigError for a name that there is not, PluginError for what a package offers and cannot be loaded."""

    def entries(self) -> tuple[Entry, ...]:
        """Return all of them, ours first; of one that cannot be loaded, why."""
        return tuple(map(self._entry_or_fault, self.names()))

    def line(self, name: str) -> str:
        """Return one sentence on one of them, or why it cannot be loaded."""
        try:
            return self.summary(name)
        except PluginError as error:
            return _unloadable(error)

    def _entry_or_fault(self, name: str) -> Entry:
        try:
            return self.entry(name)
        except PluginError as error:
            return Entry(name, _unloadable(error), (), (), ())


def _unloadable(error: PluginError) -> str:
    return f"cannot be loaded: {error}"


GROUPS: Mapping[str, Group] = {
    "estimators": Group(
        "estimator", "estimators.LABEL.estimator", estimator_names, estimators.summary, estimators.entry
    ),
    "designs": Group("design", "designs.LABEL.kind", kinds, designs.summary, designs.entry),
    "tasks": Group("task", "task.name", lambda: tuple(BUILT_IN), tasks.summary, tasks.entry),
}
"""In the order of documents. The keys are what `counterfactory list` takes."""


def group(name: str) -> Group:
    """Return the group of that name. Raises ConfigError where there is none."""
    if name not in GROUPS:
        raise ConfigError(f"there is no list of {name!r}: {near(name, list(GROUPS))}")
    return GROUPS[name]


def named(name: str, folder: Path = Path()) -> tuple[tuple[Group, Entry], ...]:
    """Return everything of that name: an estimator and a design may share one.

    `path/to/file.py:attribute` and `module:attribute` are one's own estimator or task, told by what is found there; `folder` is
    what a file is relative to, and its code is run. Raises ConfigError, with near names, for none, PluginError where a package
    offers it and it cannot be loaded, TaskError for code that cannot be imported.
    """
    if names_code(name):
        return (_own(name, folder),)
    found = tuple((one, one.entry(name)) for one in GROUPS.values() if name in one.names())
    if not found:
        known = sorted({known for one in GROUPS.values() for known in one.names()})
        raise ConfigError(f"there is no estimator, design or task {name!r}: {near(name, known)}")
    return found


def _own(name: str, folder: Path) -> tuple[Group, Entry]:
    """Return one's own estimator or task, whose code this runs."""
    from workers.task_checks import gives_task  # imports PyTorch

    found, where = load_attribute(
        name, folder.absolute(), "estimator or task", lambda one: is_estimator(one) or gives_task(one)
    )
    if is_estimator(found):
        return GROUPS["estimators"], estimators.of_class(name, found)
    if gives_task(found):
        return GROUPS["tasks"], tasks.own(name, found)
    raise ConfigError(f"{where}: is no estimator and no task: found {found!r}")
