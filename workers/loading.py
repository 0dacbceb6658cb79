"""From the name of a task to the task itself, checked against the contract before anything is trained."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.data.shared import SharedArrays
from workers.errors import ConfigError, CounterfactoryError, TaskError, near, one_line
from workers.named_code import load_attribute, names_code
from workers.task import DifferentiableTask, Task
from workers.task_checks import check_contract, check_maker, gives_task
from workers.task_files import line_in

BUILT_IN = {
    "digits": "workers.tasks.digits:Digits",
    "mnist": "workers.tasks.mnist:Mnist",
    "cifar10": "workers.tasks.cifar10:Cifar10",
    "cifar2": "workers.tasks.cifar2:Cifar2",
    "tabular": "workers.tasks.tabular:tabular",
    "sklearn": "workers.tasks.sklearn:SklearnTask",
    "text": "workers.tasks.text:Text",
    "language_model": "workers.tasks.language_model:LanguageModel",
    "characters": "workers.tasks.characters:Characters",
    "imported": "workers.tasks.imported:ImportedTask",
}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Which task, with which arguments: all that a worker needs to build it."""

    name: str
    """A built-in name, `module:attribute`, or `path/to/file.py:attribute`."""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keyword arguments of the class or function. A built-in task's `path` is taken relative to `folder`."""
    folder: str = "."
    """The configuration file's folder, absolute: relative paths start there."""


def build_task(spec: TaskSpec, arrays: SharedArrays | None = None) -> Task | DifferentiableTask:
    """Load, call and check the task.

    Data sets are taken from `arrays`, and loaded into them; without any it loads its own.
    Raises ConfigError for an unknown built-in name, TaskError for a file, attribute, argument or task that will not do.
    """
    arguments = dict(spec.arguments)
    if names_code(spec.name):
        found, where = load_attribute(spec.name, Path(spec.folder).absolute(), "task", gives_task)
    elif spec.name in BUILT_IN:
        found, _ = load_attribute(BUILT_IN[spec.name], Path(spec.folder), "task", gives_task)
        where = f"task {spec.name}"
        if isinstance(arguments.get("path"), str):
            arguments["path"] = str(find_data(arguments["path"], Path(spec.folder)))
    else:
        raise ConfigError(
            f"unknown task {spec.name!r}: {near(spec.name, list(BUILT_IN))}; "
            "your own is path/to/file.py:attribute or module:attribute"
        )
    check_maker(found, where)
    with (arrays or SharedArrays()).in_use():
        task = _call(found, arguments, where)
    check_contract(task, where)
    return task  # type: ignore[no-any-return]


def find_data(path: str, folder: Path) -> Path:
    """Return where a built-in task's `path` is: beside the configuration, or in one of the usual places for data.

    The places are the folder of the environment variable COUNTERFACTORY_DATA, ./data and ../shared/data. A path that is
    in none of them is returned as if it were beside the configuration, for whoever opens it to complain about.
    """
    wanted = Path(path).expanduser()
    beside = folder.absolute() / wanted
    named = os.environ.get("COUNTERFACTORY_DATA")
    usual = [Path(place).absolute() / wanted for place in (named, "data", "../shared/data") if place]
    return next((place for place in (beside, *usual) if place.exists()), beside)


def _call(found: Any, arguments: dict[str, Any], where: str) -> Any:
    """Call a class or function with the arguments, or pass a ready object through."""
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        if arguments:
            raise TaskError(f"{where} is a ready object and takes no arguments, found {', '.join(arguments)}")
        return found
    _check_arguments(found, arguments, where)
    try:
        return found(**arguments)
    except CounterfactoryError:
        raise  # already one line
    except Exception as error:
        file = _file_of(found)
        line = line_in(file, error) if file else ""
        raise TaskError(f"{where} failed{line}: {one_line(error)}") from error


def _check_arguments(found: Callable[..., Any], arguments: dict[str, Any], where: str) -> None:
    """Raise TaskError when the call's own signature refuses the arguments."""
    try:
        signature = inspect.signature(found)
    except ValueError:  # a builtin that does not tell its arguments: the call itself will
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        named = [name for name, parameter in signature.parameters.items() if parameter.kind != parameter.VAR_KEYWORD]
        unknown = [name for name in arguments if name not in named]
        hint = near(unknown[0], named) if unknown else f"it takes {', '.join(named) or 'none'}"
        raise TaskError(f"{where}: wrong arguments, {error}: {hint}") from error


def _file_of(found: Any) -> Path | None:
    """Return the file that defines a class or a function; None for a builtin."""
    try:
        file = inspect.getsourcefile(found)
    except TypeError:
        return None
    return None if file is None else Path(file)
