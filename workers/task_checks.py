"""Does an object keep the task contract, and does it have what is asked of it? Asked once, before anything is trained."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.errors import ConfigError, CounterfactoryError, TaskError, near
from workers.recipe import Recipe
from workers.runs import Queries
from workers.task import Classification, DifferentiableTask, Task
from workers.task_hooks import check_call, check_hooks, measure_train_of, measures_of

if TYPE_CHECKING:
    from torch import Tensor

_CALLS = (("train", "train(subset, seed)", 2), ("measure", "measure(model)", 1))
"""What every black box can be called with: name, how it is written, number of arguments."""


def check_maker(found: object, where: str) -> None:
    """Raise TaskError, naming `where`, unless `found` can only give a task; asked before it is called.

    A class must be one of tasks, a function must say by its return annotation that it gives one. A configuration may come from
    a stranger: whatever else it names (`os:system`) is refused without being called. Ready objects are left to `check_contract`.
    """
    if inspect.isclass(found):
        lacking = _lacking(found)
        if lacking:
            raise TaskError(f"{where}: {found.__name__} has no method {lacking}, which every task needs")
    elif isinstance(found, types.FunctionType | types.MethodType):
        _check_annotation(found, where)
    elif inspect.isroutine(found):
        raise TaskError(
            f"{where}: is a {type(found).__name__}, expected a class of tasks, a function that returns one, or a task"
        )


def gives_task(found: object) -> bool:
    """Say whether something in a user's file can be named as a task: what `check_maker` lets pass, and no class of ours."""
    if getattr(found, "__module__", "") == DifferentiableTask.__module__:
        return False
    try:
        check_maker(found, "")
    except TaskError:
        return False
    maker = inspect.isclass(found) or inspect.isroutine(found)
    return maker or isinstance(found, DifferentiableTask) or not _lacking(type(found))


def _check_annotation(found: types.FunctionType | types.MethodType, where: str) -> None:
    try:
        returned = typing.get_type_hints(found).get("return")
    except Exception as error:  # an annotation is evaluated, and may raise anything
        raise TaskError(f"{where}: its annotations cannot be read: {type(error).__name__}: {error}") from error
    united = isinstance(returned, types.UnionType) or typing.get_origin(returned) is typing.Union
    kinds = typing.get_args(returned) if united else (returned,)
    if not all(inspect.isclass(kind) and not _lacking(kind) for kind in kinds):
        raise TaskError(
            f"{where}: is a function that does not say that it returns a task; annotate it: "
            f"`def {found.__name__}(...) -> Task:`, with `from workers import Task`"
        )


def _lacking(kind: type) -> str:
    """Return the call that a class of tasks lacks, empty for one that lacks none."""
    if issubclass(kind, DifferentiableTask):
        return ""
    return next((call for name, call, _ in _CALLS if not callable(getattr(kind, name, None))), "")


def check_contract(task: object, where: str) -> None:
    """Raise TaskError, naming `where` and what lacks, unless `task` keeps the contract of its level."""
    if isinstance(task, DifferentiableTask):
        _check_tensors(task, where)
        _check_computation(task, where)
        check_hooks(task, where)
    else:
        _check_black_box(task, where)


def _check_black_box(task: Any, where: str) -> None:
    for name, meaning in (("n", "training examples"), ("t", "queries")):
        value: object = getattr(task, name, None)
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value <= 0:
            raise TaskError(f"{where}: `{name}`, the number of {meaning}, must be an int > 0, found {value!r}")
    for name, call, arguments in _CALLS:
        if not callable(getattr(task, name, None)):
            raise TaskError(f"{where}: {type(task).__name__} has no method {call}, which every task needs")
        check_call(task, name, call, arguments, where)
    check_hooks(task, where)


def _check_tensors(task: DifferentiableTask, where: str) -> None:
    import torch
    from torch import Tensor

    for name, kind in (("recipe", Recipe), *((name, Tensor) for name in _TENSORS)):
        value = getattr(task, name, None)
        if not isinstance(value, kind):
            found = "nothing" if value is None else type(value).__name__
            raise TaskError(f"{where}: `{name}` must be set to a {kind.__name__} in __init__, found {found}")
    for split in ("train", "query"):
        inputs, targets = getattr(task, f"{split}_inputs"), getattr(task, f"{split}_targets")
        if inputs.ndim == 0 or len(inputs) == 0:
            raise TaskError(f"{where}: `{split}_inputs` holds no examples")
        if targets.ndim == 0 or len(targets) != len(inputs):
            raise TaskError(
                f"{where}: `{split}_targets` has shape {tuple(targets.shape)}, expected ({len(inputs)}, ...) "
                f"as `{split}_inputs` has {len(inputs)} examples"
            )
        if isinstance(task, Classification) and (targets.dtype != torch.int64 or targets.min() < 0):
            wrong = targets.dtype if targets.dtype != torch.int64 else int(targets.min())
            raise TaskError(f"{where}: `{split}_targets` must be class indices >= 0 as int64, found {wrong}")
    weights = task.train_weights
    if weights is not None and (not isinstance(weights, Tensor) or weights.shape != (task.n,)):
        shape = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise TaskError(f"{where}: `train_weights` must be a tensor of shape ({task.n},), found {shape}")


_TENSORS = ("train_inputs", "train_targets", "query_inputs", "query_targets")


def _check_computation(task: DifferentiableTask, where: str) -> None:
    """Run a fresh module on two examples: the loss and every measure must give one number an example."""
    import torch

    try:
        with torch.no_grad():
            _compute(task, where)
    except CounterfactoryError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["(no message)"])[0]
        raise TaskError(f"{where}: the module fails on its first examples: {type(error).__name__}: {first}") from error


def _compute(task: DifferentiableTask, where: str) -> None:
    import torch
    from torch import nn

    from workers.training.decay import undecayed
    from workers.training.precision import DTYPES, cast

    with torch.random.fork_rng(devices=[]):
        module = task.module()
    if not isinstance(module, nn.Module):
        raise TaskError(f"{where}: module() must return a torch.nn.Module, found {type(module).__name__}")
    dtype = DTYPES[task.recipe.precision]
    undecayed(task.recipe, dict(module.named_parameters()))
    module.to(dtype).eval()
    if isinstance(task, Classification):
        _check_labels(task, module(cast(task.train_inputs[:2], dtype)), where)
    examples = {
        "loss(outputs, targets)": (task.loss, task.train_inputs[:2], task.train_targets[:2]),
        **{
            f"measure {name!r}": (measure, task.query_inputs[:2], task.query_targets[:2])
            for name, measure in task.measurements().items()
        },
    }
    for call, (function, x, y) in examples.items():
        values = function(module(cast(x, dtype)), cast(y, dtype))
        if values.shape != (len(x),):
            raise TaskError(
                f"{where}: {call} must return one number an example, of shape (b,); "
                f"for {len(x)} examples it returned {tuple(values.shape)}"
            )


def _check_labels(task: Classification, outputs: Tensor, where: str) -> None:
    """Raise TaskError if a class index has no output, where the outputs are one a class, (b, c)."""
    if outputs.ndim != 2:
        return
    classes = outputs.shape[1]
    for name in ("train_targets", "query_targets"):
        largest = int(getattr(task, name).max())
        if largest >= classes:
            raise TaskError(
                f"{where}: `{name}` must be class indices below {classes}, as the module has {classes} outputs; "
                f"found {largest}"
            )


def check_queries(task: Task | DifferentiableTask, queries: Queries) -> None:
    """Raise ConfigError when the task has no such queries."""
    if queries.source not in ("task", "train"):
        raise ConfigError(f"queries come from 'task' or 'train', found {queries.source!r}")
    if queries.source == "train" and not isinstance(task, DifferentiableTask) and measure_train_of(task) is None:
        kind = type(task).__name__
        raise ConfigError(f"queries of source 'train' need a method measure_train(model), which {kind} lacks")
    count = task.n if queries.source == "train" else task.t
    if queries.indices is not None and not queries.indices:
        raise ConfigError("queries: an empty list of indices leaves nothing to measure")
    outside = [index for index in queries.indices or () if not 0 <= index < count]
    if outside:
        raise ConfigError(f"query index {outside[0]} is out of range: expected 0..{count - 1} ({len(outside)} outside)")


def check_measures(task: Task | DifferentiableTask, names: Sequence[str]) -> None:
    """Raise ConfigError for a measure that the task says it does not have."""
    known = measures_of(task)
    for name in names:
        if known is not None and name not in known:
            raise ConfigError(f"unknown measure {name!r} of {type(task).__name__}: {near(name, list(known))}")
