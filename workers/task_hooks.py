"""What a task may offer beyond its contract, and what is assumed without it: the one place that looks.

A black box is any object, so its hooks are found by name. Each name is looked up by one function here, which says what the
hook gives and returns what is assumed where there is none. docs/your-own-task.md lists them for users.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.data.nested import Nested
from workers.errors import TaskError
from workers.runs import Queries
from workers.task import DifferentiableTask, Task

Measured = Mapping[str, NDArray[np.floating[Any]]]

METHODS = {
    "measure_train": ("model",),
    "measure_empty": (),
    "groups": (),
    "show": ("source", "index"),
    "label": ("source", "index"),
    "describe": (),
    "fingerprint": (),
    "read_queries": ("path",),
}
"""Hooks that are methods, and what they are called with."""


def measures_of(task: Task | DifferentiableTask) -> tuple[str, ...] | None:
    """Return the measures a task offers: `measures` of a black box. None where it does not say: any name may be asked for."""
    if isinstance(task, DifferentiableTask):
        return tuple(task.measurements())
    named: Collection[str] | None = _found(task, "measures")
    return None if named is None else tuple(named)


def own_measures_of(task: Task) -> object:
    """Return `measures` as a task has it: names, or, of one that trains itself, a mapping from names to functions."""
    return _found(task, "measures")


def measure_train_of(task: Task) -> Callable[[Any], Measured] | None:
    """Return `measure_train(model)` of a black box: the measures of its training examples, each (n,).

    None where it has none: its queries cannot be training examples.
    """
    hook: Callable[[Any], Measured] | None = _found(task, "measure_train")
    return hook


def empty_outputs_of(
    task: Task | DifferentiableTask, measure: str, queries: Queries | None = None
) -> NDArray[np.float32] | None:
    """Return what a model of no data outputs on the chosen queries, as `measure_empty()` tells it: {measure: (t,)}.

    With queries that are training examples it tells (n,). None where the task does not say: the estimators that need it ask
    for it as an option. Raises TaskError for another shape.
    """
    hook: Callable[[], Measured] | None = _found(task, "measure_empty")
    if hook is None or measure not in (outputs := hook()):
        return None
    queries = queries or Queries()
    count = task.n if queries.source == "train" else task.t
    values = np.asarray(outputs[measure], dtype=np.float32)
    if values.shape != (count,):
        raise TaskError(
            f"{type(task).__name__}.measure_empty()[{measure!r}] has shape {values.shape}, expected ({count},)"
        )
    return values[queries.take(count)]


def groups_of(task: Task | DifferentiableTask) -> Mapping[str, NDArray[Any]]:
    """Return the ways to group training examples, as `groups()` tells them: name -> (n,) group ids.

    Empty where the task tells none: designs that leave groups out need a file of them. Raises TaskError for another shape.
    """
    hook: Callable[[], Mapping[str, NDArray[Any]]] | None = _found(task, "groups")
    groups = {} if hook is None else hook()
    for name, ids in groups.items():
        if np.shape(ids) != (task.n,):
            raise TaskError(
                f"{type(task).__name__}.groups()[{name!r}] has shape {np.shape(ids)}, expected ({task.n},): an id an example"
            )
    return groups


def shower_of(task: Task | DifferentiableTask) -> Callable[[str, int], NDArray[np.uint8] | str] | None:
    """Return `show(source, index)`: an example to look at, an image (h, w) or (h, w, 3) as uint8, or a text.

    None where the task has none: the report has no gallery.
    """
    hook: Callable[[str, int], NDArray[np.uint8] | str] | None = _found(task, "show")
    return hook


def labeller_of(task: Task | DifferentiableTask) -> Callable[[str, int], str] | None:
    """Return `label(source, index)`: the short name of an example's label.

    None where the task has none: effects are not told by class, and pictures stand without a label.
    """
    hook: Callable[[str, int], str] | None = _found(task, "label")
    return hook


def queries_reader_of(task: Task | DifferentiableTask) -> Callable[[Path], Nested] | None:
    """Return `read_queries(path)`: new queries from a file, as a batch of the task's own.

    None where it has none: they are read from an .npz with the leaves of a batch (`GradientTask.read_queries`).
    """
    hook: Callable[[Path], Nested] | None = _found(task, "read_queries")
    return hook


def description_of(task: Task | DifferentiableTask) -> str:
    """Return the task in one line: its own `describe()`, or its class and its number of training examples."""
    hook: Callable[[], str] | None = _found(task, "describe")
    return f"{type(task).__name__}: {task.n:,} training examples" if hook is None else str(hook())


def fingerprint_of(task: Task | DifferentiableTask) -> str:
    """Return `fingerprint()`: a text that is another one when the data are, empty where the task tells none."""
    hook: Callable[[], object] | None = _found(task, "fingerprint")
    return "" if hook is None else str(hook())


def mislabelled(task: Task | DifferentiableTask) -> NDArray[np.bool_] | None:
    """Return `flipped` (n,) bool: which training examples the task mislabelled on purpose.

    None where it mislabelled none: there is nothing to detect. Raises TaskError for another shape.
    """
    flipped = _found(task, "flipped")
    if flipped is None:
        return None
    found: NDArray[np.bool_] = np.asarray(flipped)
    if found.shape != (task.n,) or found.dtype != np.bool_:
        raise TaskError(
            f"{type(task).__name__}.flipped: its shape is {found.shape} {found.dtype}, expected ({task.n},) bool"
        )
    return found if found.any() else None


def check_hooks(task: Task | DifferentiableTask, where: str) -> None:
    """Raise TaskError, naming `where`, for a hook that cannot be what its name says; nothing is called."""
    for name, arguments in METHODS.items():
        check_call(task, name, f"{name}({', '.join(arguments)})", len(arguments), where)
    named = None if isinstance(task, DifferentiableTask) else _found(task, "measures")
    if named is not None and not _are_names(named):
        raise TaskError(f"{where}: `measures` must be a sequence of names, found {named!r}")
    mislabelled(task)


def check_call(task: object, name: str, call: str, arguments: int, where: str) -> None:
    """Raise TaskError if the task has an attribute `name` that cannot be called as `call`, with so many arguments."""
    method = _found(task, name)
    if method is None:
        return
    if not callable(method):
        raise TaskError(f"{where}: `{name}` must be a method {call}, found {type(method).__name__}")
    try:
        inspect.signature(method).bind(*range(arguments))
    except ValueError:  # a builtin that does not tell its arguments
        return
    except TypeError as error:
        raise TaskError(f"{where}: `{name}` must be callable as {call}: {error}") from error


def _are_names(named: object) -> bool:
    return isinstance(named, Collection) and not isinstance(named, str) and all(isinstance(name, str) for name in named)


def _found(task: object, name: str) -> Any:
    """Return what the task has by this name, None where it has nothing."""
    return getattr(task, name, None)
