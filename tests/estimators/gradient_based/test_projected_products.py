"""`grad_dot` and `grad_cos` on projected gradients: against products by plain autograd with the projection made explicit."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from estimators.gradient_based.grad_cos import GradCos
from estimators.gradient_based.grad_dot import GradDot
from estimators.gradient_based.new_queries import new_queries
from estimators.gradients.factored_projection import FactoredProjection, ranks_within
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.projection import Projection
from estimators.gradients.sparse_projection import SparseProjection
from estimators.testing import model_evidence

K, SEED = 9, 11
"""Dimensions, and the seed of the evidence."""
BOTH = pytest.mark.parametrize("kind", [GradDot, GradCos])


def matrix(name, task, model, number, p):
    """Return the projection as a matrix (p, k), from what it makes of unit vectors."""
    units, drawn = torch.eye(p, dtype=torch.float64), (SEED, number)
    if name == "sparse":
        return SparseProjection(p, K, *drawn, torch.float64)(units).numpy()
    if name != "factored":
        return Projection(p, K, *drawn, torch.float64, 2**20, name)(units).numpy()
    (layers,) = Layers.of(model, [(task.losses, Examples.training(task, torch.float64))])
    project = FactoredProjection.random(layers.blocks, ranks_within(layers.blocks, K), *drawn, torch.float64)
    parts = []
    for block, (out, inner) in zip(layers.blocks, project.sides, strict=True):
        gathered = block.gathered(model.unflatten(units))
        for side, product in ((out, "oa,noi->nai"), (inner, "ib,noi->nob")):
            gathered = gathered if side.matrix is None else torch.einsum(product, side.matrix, gathered)
        parts.append(gathered.flatten(1))
    return torch.cat(parts, 1).numpy()


@BOTH
@pytest.mark.parametrize("name", ["rademacher", "normal", "sparse", "factored"])
def test_it_is_the_product_of_projected_gradients(kind, name, toy, evidence_of, autograd):
    task = toy("classification", hidden=4)
    evidence = evidence_of(task, "margin", models=2)
    made = kind(projection=name, project_dim=K).attribute(evidence)
    expected = 0.0
    for number, reference in enumerate(evidence.references):
        checkpoint = reference.checkpoints[-1]
        g = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets)
        q = autograd(task, checkpoint, task.measurement("margin"), task.query_inputs, task.query_targets)
        project = matrix(name, task, Model(task, checkpoint, torch.float64), number, g.shape[1])
        g, q = g @ project, q @ project
        if kind is GradCos:
            g, q = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (g, q))
        expected = expected - g @ q.T / len(evidence.references)
    np.testing.assert_allclose(made.values, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert made.details["dimension"] == project.shape[1]


@BOTH
def test_as_many_dimensions_as_parameters_change_nothing(kind):
    evidence = model_evidence()
    projected, exact = (one.attribute(evidence).values for one in (kind(projection="sparse"), kind()))
    np.testing.assert_allclose(projected, exact, rtol=1e-6, atol=1e-7)


@BOTH
def test_new_queries_get_what_the_tasks_own_get(kind):
    evidence = model_evidence()
    estimator = kind(projection="normal", project_dim=4, store=True)
    made = estimator.attribute(evidence)
    np.testing.assert_allclose(made.values, kind(projection="normal", project_dim=4).attribute(evidence).values)
    batch = evidence.task.examples("task").read(np.arange(4))
    found = new_queries(estimator, evidence, batch).values()
    np.testing.assert_allclose(found, made.values, rtol=1e-6, atol=1e-7)


@BOTH
def test_what_is_not_projected_is_not_kept(kind):
    with pytest.raises(ValidationError, match="store keeps projected gradients, found projection none"):
        kind(store=True)
    with pytest.raises(ValidationError, match="project_dim goes with a projection"):
        kind(project_dim=7)
    assert not kind().can_store
    assert kind(projection="sparse").can_store
