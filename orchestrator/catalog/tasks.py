"""The built-in tasks: whether they are differentiable, their arguments."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, create_model

from orchestrator.catalog.entry import Entry, first_paragraph, paragraphs
from orchestrator.catalog.options import options_of
from workers.errors import ConfigError, near
from workers.loading import BUILT_IN

_PLAIN = (int, float, str, bool, int | None, float | None, str | None)
"""Types that a JSON Schema has words for, of an own task's arguments."""


def entry(name: str) -> Entry:
    """Return one task; imports it, and with it PyTorch or scikit-learn. Raises ConfigError where there is none of that name."""
    if name not in BUILT_IN:
        raise ConfigError(f"unknown task {name!r}: {near(name, list(BUILT_IN))}")
    module, _, attribute = BUILT_IN[name].partition(":")
    maker = getattr(import_module(module), attribute)
    return Entry(name, summary(name), tuple(paragraphs(maker)), _facts(maker), options_of(_arguments(maker)))


def own(name: str, found: Any) -> Entry:
    """Return a task of a user's own that a configuration names so: a class, a function that returns one, or a ready object.

    Arguments whose annotations are no plain types are said to take anything.
    """
    made = inspect.isclass(found) or inspect.isroutine(found)
    first, *others = paragraphs(found if made else type(found))
    options = options_of(_arguments(found, plain=True)) if made else ()
    return Entry(name, first, tuple(others), _facts(found if made else type(found)), options)


def _facts(maker: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    return (("gradients", "yes: it is differentiable" if _differentiable(maker) else "no: it is a black box"),)


def summary(name: str) -> str:
    """Return one sentence on a task, as its file begins. Imports nothing: a list is not worth waiting for PyTorch."""
    found = find_spec(BUILT_IN[name].partition(":")[0])
    source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    return first_paragraph(ast.get_docstring(ast.parse(source))) or name


def _differentiable(maker: Callable[..., Any]) -> bool:
    from workers.task import DifferentiableTask  # imports PyTorch

    made = maker if inspect.isclass(maker) else get_type_hints(maker)["return"]
    return all(issubclass(kind, DifferentiableTask) for kind in get_args(made) or (made,))


def _arguments(maker: Callable[..., Any], plain: bool = False) -> type[BaseModel]:
    """Return a model whose fields are the arguments of a task's class or function; `plain` makes Any of what is no plain type."""
    call = maker.__init__ if inspect.isclass(maker) else maker
    hints = get_type_hints(call, include_extras=True)
    if plain:
        hints = {name: hint if hint in _PLAIN else Any for name, hint in hints.items()}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [one for one in inspect.signature(maker).parameters.values() if one.kind in named]
    fields = {
        one.name: (hints.get(one.name, Any), ... if one.default is one.empty else _shown(one.default, plain))
        for one in parameters
    }
    model: type[BaseModel] = create_model("Arguments", **fields)  # type: ignore[call-overload]
    return model


def _shown(default: Any, plain: bool) -> Any:
    """Return a default that JSON can hold: of an own task's argument it may be anything."""
    return default if not plain or default is None or isinstance(default, int | float | str) else repr(default)
