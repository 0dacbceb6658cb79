"""Which kinds of design there are: ours, third parties' by entry point, and those registered while a program runs.

A package offers a design under the entry point group `counterfactory.designs`, by its kind; a program calls `register`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from orchestrator.designs.absent import Absent
from orchestrator.designs.base import Design
from workers import plugins
from workers.errors import ConfigError, PluginError, near

GROUP = "counterfactory.designs"
ONLY_READ = "only read"
"""Key of pydantic's validation context under which True says that the sweep is only looked at: kinds may be absent."""
BUILT_IN = {
    "subsets": "orchestrator.designs.random_subsets:Subsets",
    "bernoulli": "orchestrator.designs.random_subsets:Bernoulli",
    "leave_one_out": "orchestrator.designs.leave_out:LeaveOneOut",
    "leave_group_out": "orchestrator.designs.leave_out:LeaveGroupOut",
    "permutations": "orchestrator.designs.permutations:Permutations",
    "full": "orchestrator.designs.full:Full",
    "explicit": "orchestrator.designs.explicit:Explicit",
    "weights": "orchestrator.designs.weights:Weights",
    "again": "orchestrator.designs.again:Again",
    "imported": "orchestrator.designs.imported:Imported",
    "imported_leave_one_out": "orchestrator.designs.imported:ImportedLeaveOneOut",
    "imported_full": "orchestrator.designs.imported:ImportedFull",
}
registered: dict[str, type[Design]] = {}
"""Those of `register`, by kind."""

D = TypeVar("D", bound=Design)


def register(design: type[D]) -> type[D]:
    """Let configurations of this process name a design by its kind; may stand above the class.

    The class defined once more, as by a notebook's cell that is run again, takes the place of the first. Raises ConfigError for a
    class without a kind, and for a kind that another has.
    """
    annotation = design.model_fields["kind"].annotation
    names = get_args(annotation) if get_origin(annotation) is Literal else ()
    if len(names) != 1:
        raise ConfigError(f"{design.__name__}: has no kind; declare it as `kind: Literal['a_name']`")
    (kind,) = names
    if kind in kinds() and not is_again(design, registered.get(kind)):
        raise ConfigError(f"{design.__name__}: there is a design of kind {kind!r} already")
    registered[kind] = design
    return design


def is_again(new: type, old: type | None) -> bool:
    """Return whether a class is another one, or that one defined once more: a notebook's cell may be run twice."""
    return old is not None and (new.__module__, new.__qualname__) == (old.__module__, old.__qualname__)


def kinds() -> tuple[str, ...]:
    """Return the kinds of all designs, ours first."""
    return (*BUILT_IN, *(entry.name for entry in plugins.offered(GROUP) if entry.name not in BUILT_IN), *registered)


def loadable() -> dict[str, type[Design]]:
    """Return all designs by kind, ours first, but for those of packages that cannot be loaded: `find` says why."""
    return {kind: find(kind) for kind in kinds() if not _fault(kind)}


def find(kind: str) -> type[Design]:
    """Return the design class of a kind.

    Raises ConfigError, with near names, when there is none, PluginError for a package's that cannot be loaded.
    """
    if kind in registered:
        return registered[kind]
    if kind in BUILT_IN:
        module, _, attribute = BUILT_IN[kind].partition(":")
        found: type[Design] = getattr(import_module(module), attribute)
        return found
    entry = plugins.offer(GROUP, kind)
    if entry is not None:
        loaded: type[Design] = plugins.load(entry, _check)
        return loaded
    raise ConfigError(f"unknown kind of design {kind!r}: {near(kind, list(kinds()))}")


def package_of(kind: str) -> str:
    """Return the package that offers a kind, and its version; empty for one of ours, and where nobody knows."""
    return "" if kind in BUILT_IN or kind in registered else plugins.package_of(GROUP, kind)


def _check(found: object) -> None:
    if not (isinstance(found, type) and issubclass(found, Design)):
        raise ConfigError(f"expected a subclass of Design, found {found!r}")


def _fault(kind: str) -> str:
    """Return why the design of a kind, which there is, cannot be loaded; empty where it can."""
    try:
        find(kind)
    except PluginError as error:
        return str(error)
    return ""


class _ByKind:
    """Tells pydantic to ask the registry, whenever something is validated, for the class that a section's `kind` names."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_design_of)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(_union(tuple(loadable().values())))


@cache
def _union(classes: tuple[type[Design], ...]) -> CoreSchema:
    """Return what pydantic knows of a section that is one of these."""
    union: Any = Annotated[Union[classes], Field(discriminator="kind")]  # noqa: UP007  # of as many as there are now
    return TypeAdapter(union).core_schema


def _design_of(section: Any, info: core_schema.ValidationInfo[Any]) -> Design:
    """Return the design that plain data describes. Raises pydantic's own errors of a section told by its `kind`.

    In the context `ONLY_READ` one of a kind that is not there, or cannot be loaded, is an `Absent` one.
    """
    if isinstance(section, Design):
        return section
    if not isinstance(section, Mapping):
        raise PydanticKnownError("dict_type")
    if "kind" not in section:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    kind = section["kind"]
    there = isinstance(kind, str) and kind in kinds()
    if isinstance(kind, str) and (info.context or {}).get(ONLY_READ):
        fault = _fault(kind) if there else ""
        if fault or not there:
            return Absent.model_validate(section).for_fault(fault)
    if not there:
        known = ", ".join(repr(name) for name in kinds())
        context = {"discriminator": "'kind'", "tag": str(kind), "expected_tags": known}
        raise PydanticKnownError("union_tag_invalid", context)
    return find(kind).model_validate(section)


AnyDesign = Annotated[Design, _ByKind()]
"""What a configuration may name under `designs`, chosen by `kind`."""
