"""The gradients of single examples, block by block of a module's parameters, in the factors that its layers give them.

Nothing is believed of a module: what its calls give is compared with automatic differentiation on two examples, parameter by
parameter, and a parameter for which the two differ, or that no layer is known to use, is differentiated in the general way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from estimators.gradients.calls import Layout, layout_of
from estimators.gradients.factors import Factor, Formed, passed_once
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.parameter_blocks import ParameterBlock, blocks_of
from estimators.gradients.per_example import PIECE, gradients, rows_within, slices
from estimators.gradients.recorded_pass import RecordedPass, recorded_pass
from workers.errors import ConfigError
from workers.task import Objective

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}
"""Largest relative difference of a parameter's gradients from those of automatic differentiation."""


@dataclass(frozen=True)
class Layers:
    """How one objective's gradients at a model are had: for all of its parameters, in blocks.

    >>> import torch
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.gradients.layers import Layers
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # logistic regression: 2 inputs, 2 outputs
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> examples = Examples.training(task, torch.float64)
    >>> (layers,) = Layers.of(model, [(task.losses, examples)])
    >>> [(block.weight, block.bias, block.form, block.shape) for block in layers.blocks]
    [('weight', 'bias', 'outer', (2, 3))]
    >>> (factor,) = layers.factors(examples)
    >>> factor.inputs.shape, factor.outputs.shape, factor.formed().shape
    (torch.Size([24, 1, 3]), torch.Size([24, 1, 2]), torch.Size([24, 2, 3]))
    """

    model: Model
    objective: Objective
    blocks: tuple[ParameterBlock, ...]
    """They hold every parameter once, in the model's order of their first ones."""
    layouts: tuple[Layout | None, ...] = ()
    """Where the examples are in every call of a forward pass; None for a call that is not used."""

    @classmethod
    def of(cls, model: Model, objectives: Sequence[tuple[Objective, Examples]]) -> tuple[Layers, ...]:
        """Find the layers of a model by some objectives, each with examples to try it on: with the same blocks for all."""
        trials = [_tried(model, objective, examples) for objective, examples in objectives]
        agreed = set.intersection(*({_key(block) for block in trial.blocks} for trial in trials))
        made = []
        for (objective, _), trial in zip(objectives, trials, strict=True):
            found = {block.weight: block for block in trial.blocks if _key(block) in agreed}
            held = {name for block in found.values() for name in block.names}
            for name, value in model.parameters.items():
                if name not in held:
                    why = trial.reasons.get(name, "no layer of a known kind uses it")
                    found[name] = ParameterBlock(name, None, "formed", (1, value.numel()), why=why)
            order = tuple(found[name] for name in model.parameters if name in found)
            made.append(cls(model, objective, order, trial.layouts))
        return tuple(made)

    @classmethod
    def within(cls, blocks: Sequence[ParameterBlock], model: Model, objective: Objective, examples: Examples) -> Layers:
        """Find the layers of one objective, with blocks that others have: those that its layers do not make up are formed.

        Raises ConfigError for blocks that are not of this model's parameters.
        """
        held = sorted(name for block in blocks for name in block.names)
        if held != sorted(model.parameters) or sum(block.size for block in blocks) != model.p:
            raise ConfigError(f"blocks of {', '.join(held)} are not those of the model: {', '.join(model.parameters)}")
        trial = _tried(model, objective, examples)
        found = {_key(block): block for block in trial.blocks}
        return cls(
            model, objective, tuple(found.get(_key(one), replace(one, calls=())) for one in blocks), trial.layouts
        )

    def factors(self, examples: Examples) -> list[Factor]:
        """Return the gradients of every example's weighted objective, block by block."""
        known: dict[str, Factor] = {}
        if any(block.calls for block in self.blocks):
            seen = recorded_pass(self.model, self.objective, examples, _shared(self.layouts))
            placed = seen.positions(self.layouts, examples.weights)
            for block in self.blocks:
                if block.calls:
                    known[block.weight] = block.factor(seen.calls, placed, self.model.parameters[block.weight])
        others = [block for block in self.blocks if not block.calls]
        if others:
            general = self.model.restricted([name for block in others for name in block.names])
            tree = general.unflatten(gradients(general, self.objective, examples, budget=2**62))
            known |= {block.weight: Formed(block.gathered(tree)) for block in others}
        return [known[block.weight] for block in self.blocks]

    def rows(self, examples: Examples, budget: int) -> int:
        """Return how many examples can be passed at once within `budget` bytes, from what the first of them takes.

        Counted are the factors, as much again for what they are made of, and the largest block's gradients when formed.
        """
        factors = self.factors(examples[:1])
        held = sum(factor.held for factor in factors)
        formed = [block.size for block, factor in zip(self.blocks, factors, strict=True) if not passed_once(factor)]
        largest = max(formed, default=0)
        return min(PIECE, rows_within(budget, (2 * held + 2 * largest) * self.model.dtype.itemsize))

    def batches(self, examples: Examples, rows: int) -> Iterator[tuple[slice, list[Factor]]]:
        """Yield (which examples, their gradients), at most `rows` examples at a time."""
        for where in slices(len(examples), rows):
            yield where, self.factors(examples[where])

    def flat(self, factors: Sequence[Factor]) -> Tensor:
        """Return gradients as rows of all parameters, (b, p)."""
        tree: dict[str, Tensor] = {}
        for block, factor in zip(self.blocks, factors, strict=True):
            tree |= block.scattered(factor.formed(), self.model.parameters)
        return self.model.flatten(tree)


@dataclass
class _Trial:
    """What was found out about the calls of an objective's pass."""

    blocks: list[ParameterBlock] = field(default_factory=list)
    """Those whose factors agree with automatic differentiation."""
    layouts: tuple[Layout | None, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a parameter is in none of them."""


def _key(block: ParameterBlock) -> tuple[object, ...]:
    return block.weight, block.bias, block.form, block.shape


def _shared(layouts: Sequence[Layout | None]) -> frozenset[int]:
    return frozenset(at for at, one in enumerate(layouts) if one is not None and one.axis is None)


def _tried(model: Model, objective: Objective, examples: Examples) -> _Trial:
    """Find the calls of an objective, where the examples are in them, and what of it agrees with automatic differentiation."""
    second = min(1, len(examples) - 1)
    two, three = (_picked(examples, places) for places in ([0, second], [0, second, second]))
    first, again = recorded_pass(model, objective, two), recorded_pass(model, objective, three)
    if len(first.calls) != len(again.calls):
        return _Trial(
            reasons=dict.fromkeys(model.parameters, "the number of the layers' calls depends on the examples")
        )
    layouts = tuple(layout_of(*pair, (2, 3)) for pair in zip(first.calls, again.calls, strict=True))
    if _shared(layouts):
        try:
            first = recorded_pass(model, objective, two, _shared(layouts))
        except (RuntimeError, IndexError, ValueError):  # the output's shape matters to what follows
            layouts = tuple(one if one is not None and one.axis is not None else None for one in layouts)
            first = recorded_pass(model, objective, two)
    usable = [layout is not None for layout in layouts]
    blocks = list(blocks_of(first.calls, usable, model.parameters))
    right = _right(first, blocks, layouts)
    apart = tuple(
        replace(layout, together=False)
        if layout is not None and layout.repeats > 1 and at not in _calls(right)
        else layout
        for at, layout in enumerate(layouts)
    )
    if apart != layouts:
        layouts, right = apart, _right(first, blocks, apart)
    used = _calls(right)
    wrong = {name for block in blocks if block not in right for name in block.names}
    return _Trial(
        right,
        tuple(layout if at in used else None for at, layout in enumerate(layouts)),
        dict.fromkeys(wrong, "its layers' gradients are not those of automatic differentiation"),
    )


def _picked(examples: Examples, places: list[int]) -> Examples:
    return Examples(examples.readable, examples.indices[torch.tensor(places)])


def _calls(blocks: Sequence[ParameterBlock]) -> set[int]:
    return {at for block in blocks for at in block.calls}


def _right(
    seen: RecordedPass, blocks: Sequence[ParameterBlock], layouts: Sequence[Layout | None]
) -> list[ParameterBlock]:
    """Return the blocks whose gradients are those of automatic differentiation, example by example."""
    names = list(seen.parameters)
    true: dict[str, list[Tensor]] = {name: [] for name in names}
    for value in seen.values:
        found = torch.autograd.grad(value, list(seen.parameters.values()), allow_unused=True, retain_graph=True)
        for name, one in zip(names, found, strict=True):
            true[name].append(torch.zeros_like(seen.parameters[name]) if one is None else one)
    placed = seen.positions(layouts, None)
    right = []
    for block in blocks:
        factor = block.factor(seen.calls, placed, seen.parameters[block.weight])
        wanted = block.gathered({name: torch.stack(true[name]) for name in block.names})
        off = (factor.formed().detach() - wanted).norm()
        if bool(off <= TOLERANCE[wanted.dtype] * wanted.norm()):
            right.append(block)
    return right
