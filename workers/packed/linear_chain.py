"""Recognise a module that is a chain of Linear layers, by tracing it; what the resident kernels can train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from workers.randomness.dropout import KeyedDropout

ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    torch.relu: "relu",
    torch.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    nn.functional.relu: "relu",
    nn.functional.tanh: "tanh",
    nn.functional.sigmoid: "sigmoid",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


@dataclass(frozen=True, slots=True)
class Dense:
    """One Linear layer of a chain, with what follows it."""

    weight: str
    """Name of its weight in the module."""
    bias: str | None
    """Name of its bias, if it has one."""
    inputs: int
    outputs: int
    activation: str = "identity"
    dropout: int | None = None
    """Which of the module's dropouts follows the activation: an index into what `build_module` returned."""
    p: float = 0.0
    """Its probability."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A module that is nothing but Linear layers one after the other."""

    layers: tuple[Dense, ...]
    squeezed: bool
    """Whether the outputs are (b,) instead of (b, 1)."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, KeyedDropout) or super().is_leaf_module(m, module_qualified_name)


def find_chain(module: nn.Module, dropouts: list[KeyedDropout]) -> Chain | None:
    """Return the chain of Linear layers that the module is, or None if it is anything else.

    A chain is: an optional flattening of the input, then Linear layers, each with at most one of ReLU, tanh and sigmoid and at
    most one dropout after that; the last has neither. Every parameter belongs to it and is trained; there are no hooks.
    """
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in module.modules()):
        return None
    wrapped = nn.Sequential(module)  # a module that is itself a layer is traced as one
    try:
        graph = _Tracer().trace(wrapped)
    except Exception:  # whatever a module does that tracing cannot follow, it is no chain
        return None
    walk = _Walk(wrapped, dropouts)
    if not walk.follow(list(graph.nodes)) or not _is_whole(module, walk.layers):
        return None
    used = [layer.dropout for layer in walk.layers if layer.dropout is not None]
    if sorted(used) != list(range(len(dropouts))):
        return None
    return Chain(tuple(walk.layers), walk.squeezed)


def _is_whole(module: nn.Module, layers: list[Dense]) -> bool:
    """Whether the layers fit each other and hold all that the module has to train and to keep."""
    names = [name for layer in layers for name in (layer.weight, layer.bias) if name is not None]
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return (
        all(before.outputs == after.inputs for before, after in pairwise(layers))
        and sorted(names) == sorted(parameters) == sorted(module.state_dict())
        and len({id(value) for value in parameters.values()}) == len(names)
        and all(value.requires_grad for value in parameters.values())
    )


class _Walk:
    """Reads a traced graph as one line of layers."""

    def __init__(self, module: nn.Module, dropouts: list[KeyedDropout]):
        self.module, self.dropouts = module, dropouts
        self.layers: list[Dense] = []
        self.squeezed = False

    def follow(self, nodes: list[fx.Node]) -> bool:
        """Take all nodes; return whether they are a chain."""
        if len(nodes) < 3 or nodes[0].op != "placeholder" or nodes[-1].args != (nodes[-2],):
            return False
        for before, node in pairwise(nodes[:-1]):
            if node.all_input_nodes != [before] or len(node.users) != 1 or not self._take(node):
                return False
        last = self.layers[-1] if self.layers else None
        return last is not None and last.activation == "identity" and last.dropout is None

    def _take(self, node: fx.Node) -> bool:
        part = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        kind: Any = node.target if part is None else type(part)
        last = self.layers[-1] if self.layers else None
        if kind is nn.Identity:
            return True
        if isinstance(part, nn.Linear) and kind is nn.Linear and not self.squeezed:
            name = f"{node.target}.".removeprefix("0.")  # the wrapper's own level
            bias = None if part.bias is None else f"{name}bias"
            self.layers.append(Dense(f"{name}weight", bias, part.in_features, part.out_features))
            return True
        if last is None:
            return _flattens(node, part)
        if kind in ACTIVATIONS and last.activation == "identity" and last.dropout is None and len(node.args) == 1:
            self.layers[-1] = replace(last, activation=ACTIVATIONS[kind])
            return True
        if isinstance(part, KeyedDropout) and last.dropout is None and part.p < 1:
            self.layers[-1] = replace(last, dropout=self.dropouts.index(part), p=part.p)
            return True
        self.squeezed = last.outputs == 1 and last.activation == "identity" and _squeezes(node, part)
        return self.squeezed


def _flattens(node: fx.Node, part: nn.Module | None) -> bool:
    """Whether the node turns (b, ...) into (b, features)."""
    if isinstance(part, nn.Flatten):
        return part.start_dim == 1 and part.end_dim == -1
    return node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs


def _squeezes(node: fx.Node, part: nn.Module | None) -> bool:
    """Whether the node turns (b, 1) into (b,)."""
    if isinstance(part, nn.Flatten):
        return part.start_dim == 0
    return node.target in (torch.squeeze, "squeeze") and node.args[1:] in ((-1,), (1,)) and not node.kwargs
