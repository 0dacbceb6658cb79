"""Draw a model's initial parameters again and again; where it can be, without building the module: that costs most of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from workers.randomness.streams import build_module

_Step = tuple[Callable[..., Any], str, tuple[Any, ...], dict[str, Any]]

_CHECKED = (1, 2**61 - 1)
"""Seeds at which what is drawn must be what the built module has."""


class Initial:
    """The initial parameters of a task's module, by the seed of its building.

    What building does to the parameters is recorded once: drawn from torch's generator, filled, scaled, in place. It is then done
    again to tensors that are kept, from a generator of the same seed, which gives the same bits. A module that is built in any
    other way, or that gives other bits at one of two more seeds, is built anew for every run.
    """

    def __init__(self, factory: Callable[[], nn.Module], dtype: torch.dtype):
        self._factory, self._dtype = factory, dtype
        self._generator = torch.Generator()
        self._kept: dict[str, Tensor] = {}
        self._steps: list[_Step] = []
        try:
            self._kept, self._steps = _record(factory)
            self.replays = all(self._agrees(seed) for seed in _CHECKED)
        except Exception:  # what building raises at some seed is for the run of that seed to raise
            self.replays = False

    def draw(self, seed: int) -> Mapping[str, Tensor]:
        """Return the parameters by name; they hold until the next call."""
        return self._again(seed) if self.replays else self._build(seed)

    def _build(self, seed: int) -> Mapping[str, Tensor]:
        module, _ = build_module(self._factory, seed, self._dtype)
        return {name: value.detach() for name, value in module.named_parameters()}

    def _again(self, seed: int) -> Mapping[str, Tensor]:
        self._generator.manual_seed(seed)
        for do, name, arguments, options in self._steps:
            if "generator" in options:
                options = {**options, "generator": self._generator}
            do(self._kept[name], *arguments, **options)
        return self._kept

    def _agrees(self, seed: int) -> bool:
        """Whether drawing gives what building gives; what no step writes to is not a number, and so does not."""
        if not self._steps:
            return False
        for value in self._kept.values():
            value.fill_(torch.nan)
        drawn, built = self._again(seed), self._build(seed)
        return drawn.keys() == built.keys() and all(torch.equal(drawn[k].to(self._dtype), built[k]) for k in built)


def _record(factory: Callable[[], nn.Module]) -> tuple[dict[str, Tensor], list[_Step]]:
    """Build a module; return tensors like its parameters, and what was done to these in place (nothing: it cannot be redone)."""
    recorder = _Recorder()

    def recorded() -> nn.Module:
        with recorder:
            return factory()

    module, _ = build_module(recorded, 0, torch.get_default_dtype())
    parameters = dict(module.named_parameters())
    names = {_place(value): name for name, value in parameters.items()}
    steps: list[_Step] = []
    for do, target, arguments, options in recorder.done:
        if _place(target) not in names:
            recorder.repeatable = False
            break
        steps.append((do, names[_place(target)], arguments, options))
    kept = {name: torch.empty_like(value, requires_grad=False) for name, value in parameters.items()}
    return kept, steps if recorder.repeatable else []


def _place(value: Tensor) -> tuple[object, ...]:
    return value.data_ptr(), value.dtype, tuple(value.shape), value.stride()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is done to tensors in place. It keeps them, so that no two of them are ever at one place."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[Callable[..., Any], Tensor, tuple[Any, ...], dict[str, Any]]] = []
        self.repeatable = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable:
            self.done.append((func, args[0], tuple(args[1:]), self._options(func, kwargs or {})))
        elif torch.Tag.nondeterministic_seeded in func.tags or func is torch.ops.aten._local_scalar_dense.default:
            self.repeatable = False  # draws elsewhere, or decides by what was drawn
        others = [*args[1:], *(kwargs or {}).values()]
        if func._schema.is_mutable and any(isinstance(value, Tensor | torch.Generator) for value in others):
            self.repeatable = False
        return result

    @staticmethod
    def _options(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the options, with a place for the generator where there may be one."""
        takes = any(argument.name == "generator" for argument in func._schema.arguments)
        return {**kwargs, "generator": None} if takes else dict(kwargs)
