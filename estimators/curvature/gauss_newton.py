"""The generalized Gauss-Newton matrix of the training loss, dense for few parameters or as a product for many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp, vmap

from estimators.curvature.gram import Gram
from estimators.curvature.jacobian_products import LinearMap, Said
from estimators.gradients.outputs import unflatten
from workers.data.nested import Nested, mapped
from workers.errors import ConfigError


class GaussNewton(Gram):
    """G = (1/n) sum over examples of w_i J_i^T H_i J_i, (p, p), symmetric and positive semi-definite for a convex loss.

    J_i (c, p) is the Jacobian of example i's outputs, flattened to (c,), in the parameters; H_i (c, c) the Hessian of
    its loss in the outputs; w_i its weight (Schraudolph 2002; Martens 2020). Its rows are R_i = (w_i H_i)^(1/2) J_i: the matrix
    costs c gradients an example, a product two backward passes and never c of them.

    >>> import torch
    >>> from estimators.curvature.gauss_newton import GaussNewton
    >>> from estimators.gradients.functional_model import Examples, Model
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # logistic regression: 2 inputs, 2 outputs
    >>> task, model = evidence.task, Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64)
    >>> G = GaussNewton(model, task, Examples.training(task, torch.float64), budget=2**20)
    >>> G.dense().shape, G.rank
    (torch.Size([6, 6]), 48)
    >>> rows = torch.ones(1, 6, dtype=torch.float64)
    >>> torch.allclose(G.product(rows), rows @ G.dense())
    True
    """

    @property
    def rank(self) -> int:
        """Largest rank that G can have: examples times outputs."""
        return len(self.examples) * self.outputs(self.examples[:1].batch()).numel()

    def roots(self) -> Iterator[Tensor]:
        """Yield blocks (b, p) of rows of R_i, so that G = (1/n) sum of R_i^T R_i.

        Raises ConfigError when the loss is not convex in the outputs.
        """
        # A square root is as wide as the outputs, and each of its rows has the gradient of <row, outputs>.
        size = self.outputs(self.examples[:1].batch()).numel()
        for where in self.in_budget(self.examples, size):
            part = self.examples[where]
            batch = part.batch()
            values, vectors = self.output_curvature(batch, part.weights)
            used = (values > 0).any(0)  # directions flat for the whole block are dropped
            for row in (values[:, used].sqrt().unsqueeze(2) * vectors[:, :, used].mT).unbind(1):
                yield self.pulled_back(batch, row)

    def output_curvature(self, batch: Nested, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the eigenvalues (b, c) and eigenvectors (b, c, c), in columns, of w_i H_i; eigenvalues of rounding are 0.

        Raises ConfigError when one is below 0.
        """
        like = self.outputs_in_shape(mapped(lambda leaf: leaf[:1], batch))

        def one(outputs: Tensor, example: Nested) -> Tensor:
            single = mapped(lambda leaf: leaf.unsqueeze(0), example)
            return self.task.criterion(unflatten(outputs.unsqueeze(0), like), single).reshape(())

        outputs = self.outputs(batch)
        size = outputs[0].numel()
        hessians = vmap(jacrev(grad(one)))(outputs, batch).reshape(len(outputs), size, size)
        if weights is not None:
            hessians = hessians * weights[:, None, None]
        values, vectors = torch.linalg.eigh(hessians)
        rounding = 10 * size * torch.finfo(values.dtype).eps * values.abs().amax()
        if bool((values < -rounding).any()):
            raise ConfigError(
                "the loss is not convex in the model's outputs, so the Gauss-Newton matrix is not positive: "
                f"found output curvature {float(values.min()):g}, expected none below 0"
            )
        return torch.where(values > rounding, values, 0.0), vectors

    def _said(self, where: slice) -> tuple[Said, Callable[[Tensor], LinearMap]]:
        """Return the outputs, and the product with the Hessians of the weighted losses in them."""
        part = self.examples[where]
        batch = part.batch()
        like = self.outputs_in_shape(batch)

        def total_loss(outputs: Tensor) -> Tensor:
            losses = self.task.criterion(unflatten(outputs, like), batch)
            return (losses if part.weights is None else losses * part.weights).sum()

        def middle(at: Tensor) -> LinearMap:
            product = vjp(grad(total_loss), at)[1]
            return lambda tangent: product(tangent)[0]

        return (lambda parameters: self._flat(parameters, batch)), middle
