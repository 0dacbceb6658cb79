"""The adjoint of an optimizer's update: from what the state after a step is worth to what the state before it is worth.

For a measure f of the finished model, the cotangent of a part of the training's state is f's derivative in it. One step takes
(theta, m, v) and the gradient g of its loss to (theta', m', v'); the update is elementwise but for the clipping of g by its norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.errors import ConfigError
from workers.recipe import Recipe
from workers.training.course import Moment

Tensors = dict[str, Tensor]
_CLIP_EPS = 1e-6
"""Added to the norm that a gradient is divided by, as `torch.nn.utils.clip_grad_norm_` does."""
KNOWN = ("sgd", "adam", "adamw")
"""Optimizers whose update is known here."""


@dataclass
class Cotangents:
    """What each part of a training's state is worth to Q measures: every tensor is (Q, *shape of the part)."""

    parameters: Tensors
    first: Tensors = field(default_factory=dict)
    """Of the momentum, or of Adam's mean of gradients, before its decay: the next step back multiplies by it."""
    second: Tensors = field(default_factory=dict)
    """Of Adam's mean of squares, likewise."""
    average: Tensors = field(default_factory=dict)
    """Of the average of the parameters (`ema`)."""
    statistics: Tensors = field(default_factory=dict)
    """Of running means and variances."""

    def __getitem__(self, where: slice) -> Cotangents:
        """Return views of some of the measures'."""
        parts = (self.parameters, self.first, self.second, self.average, self.statistics)
        return Cotangents(*({name: value[where] for name, value in part.items()} for part in parts))


def moments_of(recipe: Recipe) -> int:
    """Return how many moments a recipe's optimizer holds. Raises ConfigError for an optimizer whose update is not known."""
    if recipe.optimizer not in KNOWN:
        raise ConfigError(f"recipe.optimizer {recipe.optimizer!r} cannot be taken backwards; known: {', '.join(KNOWN)}")
    return int(recipe.momentum > 0) if recipe.optimizer == "sgd" else 2


class PullBack:
    """The adjoint of one step's update: prepared once, for any number of measures.

    `gradients` are those of the step's loss by parameter, before they are clipped; the step leaves a parameter without one as it
    is, as torch's optimizers do.
    """

    def __init__(
        self, recipe: Recipe, undecayed: frozenset[str], moment: Moment, gradients: Mapping[str, Tensor], rate: float
    ):
        self.recipe, self.rate, self.taken = recipe, rate, moment.step
        self.decay = {name: 0.0 if name in undecayed else recipe.weight_decay for name in gradients}
        self._raw, self._norm = gradients, None
        if recipe.clip_norm is not None:
            norm = torch.stack([value.norm() for value in gradients.values()]).norm()
            if recipe.clip_norm < norm + _CLIP_EPS:
                self._norm = norm
                factor = recipe.clip_norm / (norm + _CLIP_EPS)
                gradients = {name: value * factor for name, value in gradients.items()}
        if recipe.optimizer != "sgd":
            self._slopes = {name: self._adam_slopes(name, moment, value) for name, value in gradients.items()}

    def __call__(self, worth: Cotangents) -> Tensors:
        """Take the cotangents back over the update, in place; return those of the step's gradient (Q, *shape).

        What the gradient itself depends on is the caller's to add.
        """
        if worth.average:
            self._average(worth)
        pull = self._sgd if self.recipe.optimizer == "sgd" else self._adam
        found = {name: pull(name, worth) for name in self._raw}
        return found if self._norm is None else self._clip(found)

    def _average(self, worth: Cotangents) -> None:
        """a' = d a + (1 - d) theta', with d = 0 at the first step."""
        assert self.recipe.ema is not None
        decay = self.recipe.ema if self.taken else 0.0
        for name, value in worth.average.items():
            worth.parameters[name].add_(value, alpha=1 - decay)
            value.mul_(decay)

    def _sgd(self, name: str, worth: Cotangents) -> Tensor:
        """u = g + decay theta; m' = momentum m + u; theta' = theta - rate (m', or u + momentum m' with Nesterov, or u)."""
        of_theta, recipe = worth.parameters[name], self.recipe
        if recipe.momentum:
            of_first = worth.first[name]
            share = recipe.momentum if recipe.nesterov else 1.0
            of_first.mul_(recipe.momentum).add_(of_theta, alpha=-self.rate * share)
            of_gradient = of_first.add(of_theta, alpha=-self.rate) if recipe.nesterov else of_first
        else:
            of_gradient = of_theta * -self.rate
        if self.decay[name]:
            of_theta.add_(of_gradient, alpha=self.decay[name])
        return of_gradient

    def _adam(self, name: str, worth: Cotangents) -> Tensor:
        """theta' = (theta, less its decay by adamw) - step(m', v'), with the slopes of `_adam_slopes`."""
        of_theta, (beta1, beta2) = worth.parameters[name], self.recipe.betas
        in_first, in_second, in_gradient = self._slopes[name]
        of_first, of_second = worth.first[name], worth.second[name]
        of_first.mul_(beta1).addcmul_(of_theta, in_first)
        of_second.mul_(beta2).addcmul_(of_theta, in_second)
        of_gradient = (of_first * (1 - beta1)).addcmul_(of_second, in_gradient)
        if self.recipe.optimizer == "adamw":
            of_theta.mul_(1 - self.rate * self.decay[name])
        elif self.decay[name]:
            of_theta.add_(of_gradient, alpha=self.decay[name])
        return of_gradient

    def _adam_slopes(self, name: str, moment: Moment, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return d theta' / d m', d theta' / d v' and d v' / d g, elementwise.

        m' = b1 m + (1 - b1) g and v' = b2 v + (1 - b2) g^2; theta' = theta - rate m^ / D with m^ = m' / (1 - b1^k), v^ = v' /
        (1 - b2^k) and D = sqrt(v^) + eps, or sqrt(v^ + eps). Where v' is 0 no gradient has ever come: there theta' is a smooth
        function of g, and the path over v' brings nothing.
        """
        recipe, (beta1, beta2), step = self.recipe, self.recipe.betas, self.taken + 1
        if recipe.optimizer == "adam" and self.decay[name]:
            gradient = gradient.add(moment.state[name].to(gradient.device), alpha=self.decay[name])
        first, second = (1 - beta1) * gradient, (1 - beta2) * gradient.square()
        if f"first/{name}" in moment.optimizer:
            first.add_(moment.optimizer[f"first/{name}"].to(first.device), alpha=beta1)
            second.add_(moment.optimizer[f"second/{name}"].to(first.device), alpha=beta2)
        rate, correct = self.rate / (1 - beta1**step), 1 - beta2**step
        if recipe.eps_in == "root":
            divisor = (second / correct + recipe.eps).sqrt()
            of_divisor = 0.5 / (correct * divisor)
        else:
            root = (second / correct).sqrt()
            divisor = root + recipe.eps
            of_divisor = torch.where(root > 0, 0.5 / (correct * root), 0)
        return -rate / divisor, rate * first / divisor.square() * of_divisor, 2 * (1 - beta2) * gradient

    def _clip(self, of_clipped: Tensors) -> Tensors:
        """g~ = c g with c = clip_norm / (norm(g) + 1e-6)."""
        assert self._norm is not None
        assert self.recipe.clip_norm is not None
        norm, factor = self._norm, self.recipe.clip_norm / (self._norm + _CLIP_EPS)
        products = [(value * self._raw[name]).flatten(1).sum(1) for name, value in of_clipped.items()]
        along = torch.stack(products).sum(0) * (factor / ((norm + _CLIP_EPS) * norm))
        return {
            name: value * factor - along.reshape((-1,) + (1,) * (value.ndim - 1)) * self._raw[name]
            for name, value in of_clipped.items()
        }
