"""The layers of several models of one structure, with the same blocks of parameters at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.parameter_blocks import ParameterBlock
from workers.errors import ConfigError
from workers.task import Objective

Trial = tuple[Model, Objective, Examples]
"""A model, an objective, and examples to try it on."""


def shared_layers(trials: Sequence[Trial]) -> list[Layers]:
    """Return the layers of each trial; a block that one of them does not have is differentiated in the general way at all.

    The models are checkpoints of one training. Raises ConfigError for models whose parameters differ.
    """
    names = list(trials[0][0].parameters)
    if any(list(model.parameters) != names for model, _, _ in trials):
        raise ConfigError("the checkpoints' models have different parameters: expected those of one training")
    found = [Layers.of(model, [(objective, examples)])[0] for model, objective, examples in trials]
    keys = [{_key(block) for block in layers.blocks if block.calls} for layers in found]
    agreed = set.intersection(*keys)
    if all(one == agreed for one in keys):
        return found
    blocks = [replace(block, calls=()) for block in found[0].blocks if _key(block) in agreed]
    held = {name for block in blocks for name in block.names}
    for name in names:
        if name not in held:
            size = trials[0][0].parameters[name].numel()
            why = "its layers' gradients are not those of automatic differentiation at every checkpoint"
            blocks.append(ParameterBlock(name, None, "formed", (1, size), why=why))
    blocks.sort(key=lambda block: names.index(block.weight))
    return [Layers.within(blocks, model, objective, examples) for model, objective, examples in trials]


def _key(block: ParameterBlock) -> tuple[object, ...]:
    return block.weight, block.bias, block.form, block.shape
