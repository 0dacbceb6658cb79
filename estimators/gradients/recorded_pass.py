"""One pass of examples through a model with its layers' calls recorded, and the objective differentiated by what left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.gradients.calls import Layout, Positions, positions
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.recording import Call, Recorder
from workers.task import Objective


@dataclass(frozen=True)
class RecordedPass:
    """The calls of one forward pass."""

    calls: tuple[Call, ...]
    values: Tensor
    """The objective, (b,), unweighted and not yet differentiated."""
    parameters: Mapping[str, Tensor]
    """The parameters that it can be differentiated by."""

    def positions(self, layouts: Sequence[Layout | None], weights: Tensor | None) -> dict[int, Positions]:
        """Return what entered every call that has a layout, and the gradients of the weighted objective by what left it."""
        used = [at for at, layout in enumerate(layouts) if layout is not None]
        total = (self.values if weights is None else self.values * weights).sum()
        edges = [self.calls[at].output for at in used]
        found = torch.autograd.grad(total, edges, allow_unused=True, retain_graph=True) if edges else ()
        placed = {}
        for at, gradient in zip(used, found, strict=True):
            call, layout = self.calls[at], layouts[at]
            assert layout is not None
            known = self.values.new_zeros(call.shape) if gradient is None else gradient
            placed[at] = positions(call, known, layout, len(self.values))
        return placed


def recorded_pass(
    model: Model, objective: Objective, examples: Examples, shared: frozenset[int] = frozenset()
) -> RecordedPass:
    """Pass some examples through the model; `shared` are the calls that give the same for every example."""
    parameters = {name: value.detach().requires_grad_() for name, value in model.parameters.items()}
    recorder = Recorder(parameters, shared, len(examples))
    batch = examples.batch()
    with recorder:
        values = model.value(parameters, objective, batch)
    return RecordedPass(tuple(recorder.calls), values, parameters)
