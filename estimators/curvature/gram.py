"""Curvatures that are means of products of rows: the Gauss-Newton matrix and the Fisher matrices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from scipy.linalg.blas import dsyrk
from torch import Tensor, nn

from estimators.curvature.jacobian_products import LinearMap, Said, add_products
from estimators.curvature.operator import Operator
from estimators.gradients.functional_model import Examples, Model, Parameters
from estimators.gradients.outputs import flatten
from estimators.gradients.per_example import gradients, rows_within, slices
from workers.data.nested import Nested
from workers.task import GradientTask
from workers.training.batchable_attention import batchable_attention

BATCH = 1024
"""Examples in one pass of a matrix-vector product. What is drawn is drawn for so many at once, whatever the budget."""


class Gram(Operator):
    """(1/n) sum over examples of R_i^T R_i, (p, p), positive semi-definite; R_i (k, p) are the rows of example i.

    A subclass yields the rows by `roots`, and says what a batch adds to a product. The matrix takes a gradient for every row,
    and k n p^2 multiplications; a product two backward passes over the examples.
    """

    def __init__(self, model: Model, task: GradientTask, examples: Examples, budget: int):
        self.model, self.task, self.examples, self.budget = model, task, examples, budget
        self.p, self.dtype = model.p, model.dtype

    @property
    def device(self) -> torch.device:
        """That of the model's parameters."""
        return next(iter(self.model.parameters.values())).device

    @property
    @abstractmethod
    def rank(self) -> int:
        """Largest rank that the matrix can have: its number of rows."""

    @abstractmethod
    def roots(self) -> Iterator[Tensor]:
        """Yield blocks (b, p) of rows, so that the matrix is (1/n) sum of rows^T rows."""

    @abstractmethod
    def _said(self, where: slice) -> tuple[Said, Callable[[Tensor], LinearMap]]:
        """Return what is differentiated of these examples, and the map in the middle: see `add_products`."""

    def product(self, rows: Tensor) -> Tensor:
        """Return A v for the rows v of `rows` (r, p), without forming A."""
        result = torch.zeros_like(rows)
        with batchable_attention():  # fused kernels have no second derivative
            for where in slices(len(self.examples), BATCH):
                add_products(self.model, *self._said(where), rows, result)
        return result / len(self.examples)

    def submatrices(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Return A[at, at] for each of `places`, in one pass over the rows."""
        totals = [_Total(at.to(self.device), self.p) for at in places]
        for rows in self.roots():
            for total in totals:
                total.add(rows, 1 / len(self.examples))
        return [total.matrix() for total in totals]

    def diagonal(self) -> Tensor:
        """Return diag A, (p,) float64, from the squares of the rows."""
        total = torch.zeros(self.p, dtype=torch.float64, device=self.device)
        for rows in self.roots():
            total += rows.double().square().sum(0)
        return total / len(self.examples)

    def outputs(self, batch: Nested) -> Tensor:
        """Return the outputs of a batch, flattened, (b, c)."""
        with torch.no_grad():
            return self._flat(self.model.parameters, batch)

    def outputs_in_shape(self, batch: Nested) -> Nested:
        """Return the outputs of a batch as the module returns them."""
        with torch.no_grad():
            return self.task.forward(self.model.module, batch)

    def pulled_back(self, batch: Nested, rows: Tensor) -> Tensor:
        """Return the gradients of <outputs of example i, rows[i]>, (b, p), for `rows` (b, c)."""
        return gradients(self.model, self._inner, Examples.of((batch, rows), len(rows)), self.budget // 2)

    def in_budget(self, examples: Examples, size: int) -> Iterator[slice]:
        """Cover examples by slices whose gradients, or matrices (size, size), take half the budget."""
        bytes_each = max(self.p, size * size) * self.dtype.itemsize
        return slices(len(examples), rows_within(self.budget // 2, bytes_each))

    def _flat(self, parameters: Parameters, batch: Nested) -> Tensor:
        return self.model.value(parameters, lambda module, held: flatten(self.task.forward(module, held)), batch)

    def _inner(self, module: nn.Module, pair: tuple[Nested, Tensor]) -> Tensor:
        batch, rows = pair
        return (flatten(self.task.forward(module, batch)) * rows).sum(1)


class _Total:
    """A growing sum of rows^T rows at some places."""

    def __init__(self, at: Tensor, p: int):
        self._at, self._whole = at, len(at) == p and bool((at == torch.arange(p, device=at.device)).all())
        # Fortran's order, which is BLAS's; on another device it does not matter.
        self._sum = torch.zeros(len(at), len(at), dtype=torch.float64, device=at.device).T

    def add(self, rows: Tensor, factor: float) -> None:
        part = (rows if self._whole else rows[:, self._at]).double()
        if part.device.type == "cpu":
            # syrk computes one triangle only: half the work of a general product.
            kept = dsyrk(factor, part.numpy().T, beta=1.0, c=self._sum.numpy(), overwrite_c=1, lower=1)
            self._sum = torch.from_numpy(kept)
        else:
            self._sum.addmm_(part.T, part, alpha=factor)

    def matrix(self) -> Tensor:
        lower = self._sum.tril()
        return lower + lower.tril(-1).T
