"""What installed packages offer us, by entry point groups such as `counterfactory.estimators`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, PluginError, one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return what is offered in a group, as it was when this process first asked."""
    return tuple(_of_all_packages().select(group=group))


def offer(group: str, name: str) -> EntryPoint | None:
    """Return what is offered in a group under a name; None where nothing is."""
    return next((entry for entry in offered(group) if entry.name == name), None)


def load(entry: EntryPoint, check: Callable[[Any], None]) -> Any:
    """Import what a package offers, once a process, whether that goes well or not.

    `check` raises ConfigError for what is not what the group is of. Raises PluginError, one line, for that and for whatever the
    import raises: the package is somebody else's, and who does not ask for what it offers goes on without it.
    """
    found, fault = _imported(entry)
    if not fault:
        try:
            check(found)
        except ConfigError as error:
            fault = str(error)
    if fault:
        package = f"package {_package(entry)}" if _package(entry) else "an installed package"
        raise PluginError(
            f"{package}: its entry point `{entry.name} = {entry.value}` of {entry.group} cannot be loaded: {fault}"
        )
    return found


def package_of(group: str, name: str) -> str:
    """Return the package that offers it, and its version; empty where nothing is offered, and where nobody knows."""
    entry = offer(group, name)
    return "" if entry is None else _package(entry)


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


@cache
def _imported(entry: EntryPoint) -> tuple[Any, str]:
    """Return what an entry point names, and in one line why it cannot be imported; empty where it can."""
    try:
        return entry.load(), ""
    except (Exception, SystemExit) as error:  # a module may be a script that ends its process
        return None, one_line(error)


@cache
def _of_all_packages() -> Any:  # the library has two types for it, by Python version
    """Return the entry points of every installed package: each call of the library reads them all, whatever the group."""
    from importlib.metadata import entry_points

    return entry_points()
