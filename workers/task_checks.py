"""Does an object keep the task contract, and does it have what is asked of it? Asked once, before anything is trained."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.data.nested import Nested, length
from workers.errors import ConfigError, CounterfactoryError, TaskError, near, one_line
from workers.recipe import Recipe
from workers.runs import Queries
from workers.task import Classification, DifferentiableTask, GradientTask, Source, Task, trains_itself
from workers.task_hooks import check_call, check_hooks, measure_train_of, measures_of, own_measures_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_CALLS = (("train", "train(subset, seed)", 2), ("measure", "measure(model)", 1))
"""What every black box can be called with: name, how it is written, number of arguments."""
_OWN_CALLS = (
    ("train", "train(subset, seed, keep)", 3),
    ("batch", "batch(source, indices)", 2),
    ("loss", "loss(module, batch)", 2),
    ("module", "module()", 0),
    ("representation", "representation(module, batch)", 2),
)
"""The same of a task that trains itself; the last two may be absent."""


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
    if issubclass(kind, DifferentiableTask) or trains_itself(kind):
        return ""
    return next((call for name, call, _ in _CALLS if not callable(getattr(kind, name, None))), "")


def check_contract(task: object, where: str) -> None:
    """Raise TaskError, naming `where` and what lacks, unless `task` keeps the contract of its level."""
    if isinstance(task, DifferentiableTask):
        _check_examples(task, where)
        _check_computation(task, where)
        check_hooks(task, where)
    elif trains_itself(task):
        _check_own_training(task, where)
    else:
        _check_black_box(task, where)


def _check_own_training(task: Any, where: str) -> None:
    """Check what is called, and, where the module can be had without training, that it computes."""
    from workers.own_training import OwnTraining

    _check_counts(task, where)
    for name, call, arguments in _OWN_CALLS:
        check_call(task, name, call, arguments, where)
    named = own_measures_of(task)
    if not isinstance(named, Mapping) or not named or not all(callable(measure) for measure in named.values()):
        raise TaskError(
            f"{where}: `measures` must map names to functions of (module, batch), found {named!r:.80}; "
            "a task with the method measure(model) is a black box"
        )
    check_hooks(task, where)
    view = OwnTraining(task)
    if hasattr(task, "module"):
        _check_computation(view, where)
    else:
        for source in ("train", "task"):
            _first_two(view, source, None)


def _check_counts(task: Any, where: str) -> None:
    for name, meaning in (("n", "training examples"), ("t", "queries")):
        value: object = getattr(task, name, None)
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value <= 0:
            raise TaskError(f"{where}: `{name}`, the number of {meaning}, must be an int > 0, found {value!r}")


def _check_black_box(task: Any, where: str) -> None:
    _check_counts(task, where)
    for name, call, arguments in _CALLS:
        if not callable(getattr(task, name, None)):
            raise TaskError(f"{where}: {type(task).__name__} has no method {call}, which every task needs")
        check_call(task, name, call, arguments, where)
    check_hooks(task, where)


def _check_examples(task: DifferentiableTask, where: str) -> None:
    _check_set(task, "recipe", Recipe, where)
    for split in ("train", "query"):
        if getattr(task, f"{split}_data", None) is not None:
            _check_data_set(task, split, where)
        else:
            _check_arrays(task, split, where)
    weights = task.train_weights
    if weights is not None:
        import torch

        if not isinstance(weights, torch.Tensor) or weights.shape != (task.n,):
            shape = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
            raise TaskError(f"{where}: `train_weights` must be a tensor of shape ({task.n},), found {shape}")
        if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            raise TaskError(f"{where}: `train_weights` must be finite numbers >= 0, found {_first_wrong(weights)}")


def _first_wrong(weights: Tensor) -> str:
    wrong = ~(weights.isfinite() & (weights >= 0))
    at = int(wrong.int().argmax())
    return f"{weights[at].item():g} for example {at}"


def _check_set(task: DifferentiableTask, name: str, kind: type | None, where: str) -> None:
    """Raise TaskError unless the task has an attribute of that name, of that class."""
    value = getattr(task, name, None)
    if value is None or (kind is not None and not isinstance(value, kind)):
        found = "nothing" if value is None else type(value).__name__
        wanted = f"to a {kind.__name__} " if kind is not None else ""
        raise TaskError(f"{where}: `{name}` must be set {wanted}in __init__, found {found}")


def _check_arrays(task: DifferentiableTask, split: str, where: str) -> None:
    """Every part of inputs and targets must have as many examples."""
    counts = {}
    for part in ("inputs", "targets"):
        name = f"{split}_{part}"
        _check_set(task, name, None, where)
        try:
            counts[part] = length(getattr(task, name), name)
        except TaskError as error:
            raise TaskError(f"{where}: {error}") from error
    if counts["inputs"] == 0:
        raise TaskError(f"{where}: `{split}_inputs` holds no examples")
    targets = getattr(task, f"{split}_targets")
    if counts["targets"] != counts["inputs"]:
        raise TaskError(
            f"{where}: `{split}_targets` has {counts['targets']} examples, expected {counts['inputs']} "
            f"as `{split}_inputs` has"
        )
    if isinstance(task, Classification):
        _check_classes(targets, split, where)


def _check_classes(targets: Any, split: str, where: str) -> None:
    """Targets of a classification are class indices, where they are one tensor."""
    import torch

    if isinstance(targets, torch.Tensor) and (targets.dtype != torch.int64 or targets.min() < 0):
        wrong = targets.dtype if targets.dtype != torch.int64 else int(targets.min())
        raise TaskError(f"{where}: `{split}_targets` must be class indices >= 0 as int64, found {wrong}")


def _check_data_set(task: DifferentiableTask, split: str, where: str) -> None:
    """A data set must have a length and be read by an index."""
    name = f"{split}_data"
    data = getattr(task, name)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise TaskError(
            f"{where}: `{name}` must be a map-style data set, with __len__ and __getitem__, found {type(data).__name__}"
        )
    if len(data) == 0:
        raise TaskError(f"{where}: `{name}` holds no examples")


def _check_computation(task: GradientTask, where: str) -> None:
    """Run a fresh module on two examples: the loss and every measure must give one number an example."""
    import torch

    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _compute(task, where)
    except CounterfactoryError as error:
        raise error if str(error).startswith(where) else type(error)(f"{where}: {error}") from error
    except Exception as error:
        raise TaskError(f"{where}: the module fails on its first examples: {one_line(error)}") from error


def _compute(task: GradientTask, where: str) -> None:
    from torch import nn

    from workers.training.decay import undecayed
    from workers.training.precision import DTYPES

    module = task.module()
    if not isinstance(module, nn.Module):
        raise TaskError(f"{where}: module() must return a torch.nn.Module, found {type(module).__name__}")
    dtype = None
    if isinstance(task, DifferentiableTask):
        dtype = DTYPES[task.recipe.precision]
        _check_names(module, task.module(), where)
        undecayed(task.recipe, dict(module.named_parameters()))
    module.to(dtype).eval()
    if isinstance(task, Classification):
        _check_labels(task, task.forward(module, _first_two(task, "train", dtype)), where)
    check_values(task, module, where, dtype)


def check_values(task: GradientTask, module: nn.Module, where: str, dtype: torch.dtype | None = None) -> None:
    """Raise TaskError, naming `where`, for a loss or a measure that is not one number an example, on the first two of them."""
    import torch

    first = {source: _first_two(task, source, dtype) for source in ("train", "task")}
    values = {"loss": task.losses(module, first["train"])}
    values |= {f"measure {name!r}": measure(module, first["task"]) for name, measure in task.objectives().items()}
    for call, found in values.items():
        count = length(first["train" if call == "loss" else "task"], "batch")
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        if shape != (count,):
            raise TaskError(
                f"{where}: {call} must return one number an example, of shape (b,); for {count} examples it returned {shape}"
            )


def _check_names(one: nn.Module, other: nn.Module, where: str) -> None:
    """Refuse modules of one task whose parameters or buffers are not the same ones in the same order."""
    names, others = list(one.state_dict()), list(other.state_dict())
    if names != others:
        apart = sorted({*names} ^ {*others}) or ["their order"]
        raise TaskError(f"{where}: module() returned modules with other parameters, one after the other: {apart[0]}")


def _first_two(task: GradientTask, source: Source, dtype: torch.dtype | None) -> Nested:
    """Return the first two examples, cast to the type that the task is trained in."""
    import torch

    examples = task.examples(source)
    examples = examples if dtype is None else examples.to(dtype)
    return examples.read(torch.arange(min(2, len(examples))))


def _check_labels(task: Classification, outputs: Nested, where: str) -> None:
    """Raise TaskError if a class index has no output, where the outputs are one a class, (b, c), and targets in memory."""
    import torch

    if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2:
        return
    classes = outputs.shape[1]
    for split in ("train", "query"):
        name = f"{split}_targets"
        targets = None if getattr(task, f"{split}_data") is not None else getattr(task, name)
        largest = int(targets.max()) if isinstance(targets, torch.Tensor) else -1
        if largest >= classes:
            raise TaskError(
                f"{where}: `{name}` must be class indices below {classes}, as the module has {classes} outputs; "
                f"found {largest}"
            )


def check_queries(task: Task | DifferentiableTask, queries: Queries) -> None:
    """Raise ConfigError when the task has no such queries."""
    if queries.source not in ("task", "train"):
        raise ConfigError(f"queries come from 'task' or 'train', found {queries.source!r}")
    able = isinstance(task, DifferentiableTask) or trains_itself(task) or measure_train_of(task) is not None
    if queries.source == "train" and not able:
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
            remedy = task.elsewhere(name) if isinstance(task, DifferentiableTask) else ""
            raise ConfigError(f"unknown measure {name!r} of {type(task).__name__}: {near(name, list(known))}{remedy}")
