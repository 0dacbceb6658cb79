"""The built-in tasks: whether they are differentiable, their arguments."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, create_model

from orchestrator.catalog.entry import Entry, first_paragraph, paragraphs
from orchestrator.catalog.options import options_of
from workers.errors import ConfigError, near
from workers.loading import BUILT_IN


def entry(name: str) -> Entry:
    """Return one task; imports it, and with it PyTorch or scikit-learn. Raises ConfigError where there is none of that name."""
    if name not in BUILT_IN:
        raise ConfigError(f"unknown task {name!r}: {near(name, list(BUILT_IN))}")
    module, _, attribute = BUILT_IN[name].partition(":")
    maker = getattr(import_module(module), attribute)
    facts = (("gradients", "yes: it is differentiable" if _differentiable(maker) else "no: it is a black box"),)
    return Entry(name, summary(name), tuple(paragraphs(maker)), facts, options_of(_arguments(maker)))


def summary(name: str) -> str:
    """Return one sentence on a task, as its file begins. Imports nothing: a list is not worth waiting for PyTorch."""
    found = find_spec(BUILT_IN[name].partition(":")[0])
    source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    return first_paragraph(ast.get_docstring(ast.parse(source))) or name


def _differentiable(maker: Callable[..., Any]) -> bool:
    from workers.task import DifferentiableTask  # imports PyTorch

    made = maker if inspect.isclass(maker) else get_type_hints(maker)["return"]
    return issubclass(made, DifferentiableTask)


def _arguments(maker: Callable[..., Any]) -> type[BaseModel]:
    """Return a model whose fields are the arguments of a task's class or function."""
    call = maker.__init__ if inspect.isclass(maker) else maker
    hints = get_type_hints(call, include_extras=True)
    parameters = list(inspect.signature(maker).parameters.values())
    fields = {one.name: (hints[one.name], ... if one.default is one.empty else one.default) for one in parameters}
    model: type[BaseModel] = create_model("Arguments", **fields)  # type: ignore[call-overload]
    return model
