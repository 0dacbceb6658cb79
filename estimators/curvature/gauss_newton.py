"""The generalized Gauss-Newton matrix of the training loss, dense for few parameters or as a product for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp, vmap

from estimators.gradients.functional_model import Examples, Model, Parameters
from estimators.gradients.outputs import flatten, unflatten
from estimators.gradients.per_example import gradients, rows_within, slices
from workers.data.nested import Nested, mapped
from workers.errors import ConfigError
from workers.recipe import Recipe
from workers.task import GradientTask
from workers.training.batchable_attention import batchable_attention

BATCH = 1024
"""Examples in one pass of a matrix-vector product."""


def l2_curvature(recipe: Recipe | None) -> float:
    """Return d, so that d I is the Hessian of the recipe's L2 term (weight_decay / 2) |theta|^2.

    0 for adamw: its decay is decoupled from the loss, so no term of an objective; and where no recipe is known. Raises
    ConfigError where `no_decay` leaves parameters out of the term: its Hessian is then no multiple of I.
    """
    if recipe is None or recipe.optimizer == "adamw" or not recipe.weight_decay:
        return 0.0
    if recipe.no_decay:
        raise ConfigError(
            "the recipe's weight decay can be added to a curvature only where all parameters have it, found no_decay "
            f"{', '.join(recipe.no_decay)}: use weight_decay: false"
        )
    return recipe.weight_decay


@dataclass(frozen=True)
class GaussNewton:
    """G = (1/n) sum over examples of w_i J_i^T H_i J_i, (p, p), symmetric and positive semi-definite for a convex loss.

    J_i (c, p) is the Jacobian of example i's outputs, flattened to (c,), in the parameters; H_i (c, c) the Hessian of
    its loss in the outputs; w_i its weight (Schraudolph 2002; Martens 2020).

    >>> import torch
    >>> from estimators.curvature.gauss_newton import GaussNewton
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # logistic regression: 2 inputs, 2 outputs
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> G = GaussNewton(model, task, Examples.training(task, torch.float64), budget=2**20)
    >>> G.dense().shape, G.rank
    (torch.Size([6, 6]), 48)
    >>> vectors = torch.ones(1, 6, dtype=torch.float64)
    >>> torch.allclose(G.product(vectors), vectors @ G.dense())
    True
    """

    model: Model
    task: GradientTask
    """Gives the loss as a function of the module's outputs."""
    examples: Examples
    budget: int
    """Bytes that may be held at once, beside the result."""

    def dense(self) -> Tensor:
        """Return G, (p, p) float64, as the Gram matrix of the rows of `roots`."""
        p = self.model.p
        total = torch.zeros(p, p, dtype=torch.float64).numpy().T
        for rows in self.roots():
            # syrk computes one triangle only: half the work of a general product.
            total = dsyrk(1.0 / len(self.examples), rows.double().numpy().T, beta=1.0, c=total, overwrite_c=1, lower=1)
        lower = torch.from_numpy(total).tril()
        return lower + lower.tril(-1).T

    @property
    def rank(self) -> int:
        """Largest rank that G can have: examples times outputs."""
        return len(self.examples) * self._outputs(self.examples[:1].batch()).numel()

    def roots(self) -> Iterator[Tensor]:
        """Yield blocks (b, p) of rows of R_i = (w_i H_i)^(1/2) J_i, so that G = (1/n) sum of R_i^T R_i.

        Raises ConfigError when the loss is not convex in the outputs.
        """
        size = self._outputs(self.examples[:1].batch()).numel()
        # A square root R_i is as wide as the outputs, and each of its rows has the gradient of <row, outputs>.
        bytes_each = max(self.model.p, size * size) * self.model.dtype.itemsize
        for where in slices(len(self.examples), rows_within(self.budget // 2, bytes_each)):
            part = self.examples[where]
            batch = part.batch()
            for row in self._square_roots(batch, part.weights).unbind(1):
                yield gradients(self.model, self._inner, Examples.of((batch, row), len(part)), self.budget // 2)

    def product(self, vectors: Tensor) -> Tensor:
        """Return the rows G v, (r, p), for the rows v of `vectors` (r, p), without forming G."""
        result = torch.zeros_like(vectors)
        with batchable_attention():  # fused kernels have no second derivative
            for batch in slices(len(self.examples), BATCH):
                self._add_batch_product(self.examples[batch], vectors, result)
        return result / len(self.examples)

    def trace(self, probes: int, seed: int) -> float:
        """Estimate tr G as the mean of v^T G v over random signs v (Hutchinson 1990), without forming G."""
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (probes, self.model.p), generator=generator).to(self.model.dtype) * 2 - 1
        return float((signs * self.product(signs)).sum() / probes)

    def _outputs(self, batch: Nested) -> Tensor:
        """Return the outputs of a batch, (b, c)."""
        with torch.no_grad():
            return self._flat(self.model.parameters, batch)

    def _flat(self, parameters: Parameters, batch: Nested) -> Tensor:
        return self.model.value(parameters, lambda module, held: flatten(self.task.forward(module, held)), batch)

    def _inner(self, module: nn.Module, pair: tuple[Nested, Tensor]) -> Tensor:
        """Return <outputs, row> of every example, (b,)."""
        batch, rows = pair
        return (flatten(self.task.forward(module, batch)) * rows).sum(1)

    def _shape(self, batch: Nested) -> Nested:
        """Return the outputs of a batch as the module returns them."""
        with torch.no_grad():
            return self.task.forward(self.model.module, batch)

    def _square_roots(self, batch: Nested, weights: Tensor | None) -> Tensor:
        """Return (b, r, c) roots of w_i H_i, with r <= c: directions flat for the whole block are dropped."""
        first = mapped(lambda leaf: leaf[:1], batch)
        like = self._shape(first)

        def one(outputs: Tensor, example: Nested) -> Tensor:
            single = mapped(lambda leaf: leaf.unsqueeze(0), example)
            return self.task.criterion(unflatten(outputs.unsqueeze(0), like), single).reshape(())

        outputs = self._outputs(batch)
        size = outputs[0].numel()
        hessians = vmap(jacrev(grad(one)))(outputs, batch).reshape(len(outputs), size, size)
        if weights is not None:
            hessians = hessians * weights[:, None, None]
        curvatures, directions = torch.linalg.eigh(hessians)
        rounding = 10 * size * torch.finfo(curvatures.dtype).eps * curvatures.abs().amax()
        if bool((curvatures < -rounding).any()):
            raise ConfigError(
                "the loss is not convex in the model's outputs, so the Gauss-Newton matrix is not positive: "
                f"found output curvature {float(curvatures.min()):g}, expected none below 0"
            )
        used = (curvatures > rounding).any(0)
        roots: Tensor = curvatures[:, used].clamp(min=0).sqrt().unsqueeze(2) * directions[:, :, used].mT
        return roots

    def _add_batch_product(self, part: Examples, vectors: Tensor, result: Tensor) -> None:
        """Add to `result` (r, p) the rows sum over the batch of w_i J_i^T H_i J_i v."""
        batch = part.batch()
        like = self._shape(batch)

        def total_loss(outputs: Tensor) -> Tensor:
            losses = self.task.criterion(unflatten(outputs, like), batch)
            return (losses if part.weights is None else losses * part.weights).sum()

        at, pull_back = vjp(lambda parameters: self._flat(parameters, batch), self.model.parameters)[:2]
        # J v is the transpose of the linear map u -> u J, so reverse mode does it; forward mode covers fewer layers.
        push_forward = vjp(lambda u: pull_back(u)[0], torch.zeros_like(at))[1]
        hessian_product = vjp(grad(total_loss), at)[1]
        for vector, total in zip(vectors, result, strict=True):
            tangent = push_forward(self.model.unflatten(vector))[0]
            total += self.model.flatten(pull_back(hessian_product(tangent)[0])[0])
