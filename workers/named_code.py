"""Code that a configuration names: `path/to/file.py:attribute` or `module:attribute`, a task's or an estimator's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from workers.errors import ConfigError, TaskError, near, one_line
from workers.task_files import load_file


def names_code(name: str) -> bool:
    """Say whether a name is `path/to/file.py:attribute` or `module:attribute`, and none that is registered."""
    return ":" in name


def source_file(name: str, folder: Path) -> Path | None:
    """Return the file of `path/to/file.py:attribute`, relative to `folder`; None for anything else. It need not be there."""
    source = name.rpartition(":")[0]
    return (folder / Path(source).expanduser()).resolve() if source.endswith(".py") else None


def load_attribute(name: str, folder: Path, what: str, fits: Callable[[object], bool]) -> tuple[Any, str]:
    """Return what `module:attribute` or `file.py:attribute` names, and how to call the place in a message.

    `what` is sought (task, estimator); where the attribute is not there, the message lists what `fits`. Raises ConfigError for
    a name that is written otherwise, TaskError for what cannot be imported or is not there.
    """
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise ConfigError(f"{what} {name!r}: expected path/to/file.py:attribute or module:attribute")
    file = source_file(name, folder)
    if file is not None:
        module, where = load_file(file), source
    else:
        module, where = _load_module(source, folder), f"module {source}"
    if not hasattr(module, attribute):
        able = [known for known, value in vars(module).items() if not known.startswith("_") and fits(value)]
        raise TaskError(f"{where} has no {attribute!r}: {near(attribute, able)}")
    return getattr(module, attribute), f"{where}:{attribute}"


def _load_module(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise TaskError(f"module {name} cannot be imported: {one_line(error)}") from error
        beside = folder / f"{name}.py"
        hint = f"; for the file beside the configuration write {beside.name}:..." if beside.is_file() else ""
        raise TaskError(f"there is no module {name!r}{hint}") from error
    except Exception as error:
        raise TaskError(f"module {name} cannot be imported: {one_line(error)}") from error
