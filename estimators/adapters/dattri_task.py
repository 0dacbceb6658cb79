"""A task and a model as dattri has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from estimators.adapters.peer import PeerEffects


def attribution_task(effects: PeerEffects, module: nn.Module) -> Any:
    """Return the losses and the measure of a module at its parameters, as dattri's `AttributionTask`.

    Its attributors call the same functions with one example or with a batch of them.
    """
    import torch
    from dattri.task import AttributionTask

    dimensions = effects.material.train[:1].batch().inputs.dim()

    def called(parameters: Any, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = data
        if inputs.dim() < dimensions:
            inputs, targets = inputs.unsqueeze(0), targets.unsqueeze(0)
        return torch.func.functional_call(module, parameters, (inputs,)), targets

    def loss(parameters: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        return effects.losses(*called(parameters, data)).mean()

    def measure(parameters: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        return effects.measured(*called(parameters, data)).mean()

    return AttributionTask(loss, module, module.state_dict(), target_func=measure)
