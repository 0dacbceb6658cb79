"""The last linear layer of a model, cut off from the rest: what enters it, and what it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from estimators.gradients.forward import BATCH
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.outputs import flatten
from estimators.gradients.per_example import slices
from workers.errors import ConfigError
from workers.task import GradientTask


class LastLayer:
    """z = h V of a model whose module returns z (b, c) as it leaves the last Linear layer.

    h (b, d) is what enters the layer, with a 1 behind it where the layer has a bias: V (d, c) then has the bias as its last
    row. Raises ConfigError for a module that has no such layer.
    """

    def __init__(self, task: GradientTask, model: Model, examples: Examples):
        linear = [(name, layer) for name, layer in model.module.named_modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigError(
                "the last layer is looked at, and the module has no Linear layer: expected one that ends it"
            )
        self.name, self._layer = linear[-1]
        self._task, self._model = task, model
        weight, bias = self._layer.weight.detach().T, self._layer.bias
        self.weights = weight.clone() if bias is None else torch.cat([weight, bias.detach()[None]])
        """V (d, c), in the model's precision."""
        self._check(examples[: min(2, len(examples))])

    def inputs(self, examples: Examples, budget: int) -> Tensor:
        """Return h (b, d). Raises ConfigError where it takes more than `budget` bytes."""
        held = len(examples) * len(self.weights) * self._model.dtype.itemsize
        if held > budget:
            raise ConfigError(
                f"what enters the last layer takes {held / 2**30:.2g} GiB for {len(examples)} examples, more than the "
                f"{budget / 2**30:.2g} GiB there are for it: expected a larger memory_gb"
            )
        parts = [self._passed(examples[where])[0] for where in slices(len(examples), BATCH)]
        found = torch.cat(parts)
        return found if self._layer.bias is None else torch.cat([found, torch.ones_like(found[:, :1])], dim=1)

    def _passed(self, examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """Return what enters the layer, what leaves it, and what the module returns, (b, c)."""
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self._layer.register_forward_hook(lambda _layer, args, output: seen.append((args[0], output)))
        try:
            with torch.no_grad():
                returned = flatten(self._task.forward(self._model.module, examples.batch()))
        finally:
            handle.remove()
        if len(seen) != 1:
            raise ConfigError(
                f"the last Linear layer, {self._told}, is called {len(seen)} times in a forward pass: expected one that ends it"
            )
        return *seen[0], returned

    def _check(self, examples: Examples) -> None:
        entering, leaving, returned = self._passed(examples)
        if entering.ndim != 2:
            raise ConfigError(
                f"the last Linear layer, {self._told}, takes {tuple(entering.shape[1:])} numbers an example: "
                "expected a vector, one layer that ends the module once an example"
            )
        if returned.shape != leaving.shape or not torch.equal(returned, leaving):
            raise ConfigError(
                f"the last Linear layer, {self._told}, does not end the module: it gives {leaving.shape[1]} numbers an "
                f"example, and the module returns {returned.shape[1]}, which are others: expected its outputs alone"
            )

    @property
    def _told(self) -> str:
        return repr(self.name) if self.name else "the module itself"
