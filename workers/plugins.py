"""What installed packages offer us, by entry point groups such as `counterfactory.estimators`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return what is offered in a group, as it was when this process first asked."""
    return tuple(_of_all_packages().select(group=group))


@cache
def _of_all_packages() -> Any:  # the library has two types for it, by Python version
    """Return the entry points of every installed package: each call of the library reads them all, whatever the group."""
    from importlib.metadata import entry_points

    return entry_points()
