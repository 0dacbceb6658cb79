"""What installed packages offer us, by entry point groups such as `counterfactory.estimators`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return what is offered in a group, as it was when this process first asked."""
    return tuple(_of_all_packages().select(group=group))


def offer(group: str, name: str) -> EntryPoint | None:
    """Return what is offered in a group under a name; None where nothing is."""
    return next((entry for entry in offered(group) if entry.name == name), None)


def package_of(group: str, name: str) -> str:
    """Return the package that offers it, and its version; empty where nothing is offered, and where nobody knows."""
    entry = offer(group, name)
    return f"{entry.dist.name} {entry.dist.version}" if entry is not None and entry.dist is not None else ""


@cache
def _of_all_packages() -> Any:  # the library has two types for it, by Python version
    """Return the entry points of every installed package: each call of the library reads them all, whatever the group."""
    from importlib.metadata import entry_points

    return entry_points()
