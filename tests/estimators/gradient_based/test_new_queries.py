"""New queries from kept gradients: what attributing them with all others gives, and not one training example read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from estimators.gradient_based.grass import Grass
from estimators.gradient_based.logra import Logra
from estimators.gradient_based.new_queries import new_queries
from estimators.gradient_based.projected import digest
from estimators.gradient_based.trak import Trak
from estimators.gradient_based.trak_subsets import TrakSubsets
from estimators.kept_gradients import MULTIPLIERS, ROWS, GradientStore, KeptGradients, difference
from estimators.reference_estimator import ReferenceEstimator
from workers import Queries, Recipe
from workers.data.examples import Arrays, Batch
from workers.errors import ConfigError, DivergedError, StoreError
from workers.runs import Checkpoint

DOUBLE = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64")
SINGLE = DOUBLE.model_copy(update={"precision": "float32"})
KINDS = [
    Logra(rank=2),
    Logra(rank=2, init="pca", models=1),
    Logra(damping=0.5),
    Trak(damping=0.5),  # p = 38 parameters, more than the 24 examples
    Trak(project_dim=12),
    Trak(project_dim=12, projection="normal", checkpoints="all"),
    Trak(project_dim=30, projection="factored", reweight=True),
    Trak(project_dim=20, projection="factored", damping=0.1),
    Trak(project_dim=12, projection="sparse", damping=0.1),
    Trak(project_dim=20, projection="factored_sparse", damping=0.1),
    Logra(rank=2, curvature="ekfac"),
    Grass(project_dim=12),
    Grass(project_dim=20, factored=True),
]


def storing(estimator: ReferenceEstimator) -> ReferenceEstimator:
    return estimator.model_copy(update={"store": True})


def others(task, count=6, seed=9):
    """Queries that the task has not."""
    inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Batch(inputs, task.label(inputs, torch.zeros(count, dtype=torch.float64)))


def asked_in_the_sweep(estimator, evidence, batch):
    """Attribute a batch as if it had been the task's queries from the beginning."""
    task = evidence.task
    before = task.query_inputs, task.query_targets
    task.query_inputs, task.query_targets = batch
    try:
        asked = replace(evidence, t=len(batch.inputs), queries=Queries(), gradients=GradientStore())
        return estimator.attribute(asked).values
    finally:
        task.query_inputs, task.query_targets = before


@pytest.mark.parametrize(("recipe", "tolerance"), [(DOUBLE, 1e-7), (SINGLE, 2e-6)])
@pytest.mark.parametrize("estimator", KINDS, ids=str)
def test_they_get_what_they_would_have_got_in_the_sweep(toy, evidence_of, estimator, recipe, tolerance):
    weights = torch.linspace(0.5, 2, 24, dtype=torch.float64)
    task = toy("classification", hidden=4, recipe=recipe, weights=weights)
    evidence, batch = evidence_of(task, "margin"), others(task)
    storing(estimator).attribute(evidence)
    found = new_queries(storing(estimator), evidence, batch).values()
    expected = asked_in_the_sweep(estimator, evidence, batch)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def exact(estimator, evidence, batch):
    """Return the values in float64, before they become float32."""
    made = new_queries(estimator, evidence, batch)
    total = sum(torch.tensor(rows[:]).double() @ targets.T for rows, targets in made._pairs) / len(made._pairs)
    return made._effects.scaled(total).numpy()


@pytest.mark.parametrize("estimator", KINDS, ids=str)
def test_in_float64_to_ten_digits(toy, evidence_of, estimator, monkeypatch):
    task = toy("classification", hidden=4, recipe=DOUBLE)
    evidence, batch = evidence_of(task, "margin"), others(task)
    storing(estimator).attribute(evidence)
    kept = exact(storing(estimator), evidence, batch)
    seen = []
    monkeypatch.setattr(torch.Tensor, "float", lambda self: seen.append(self.numpy().copy()) or self.to(torch.float32))
    asked_in_the_sweep(estimator, evidence, batch)
    np.testing.assert_allclose(kept, seen[-1], rtol=0, atol=1e-10 * np.abs(seen[-1]).max())


@pytest.mark.parametrize("estimator", [Logra(rank=2), Trak(project_dim=20, projection="factored")], ids=str)
def test_no_training_example_is_read(toy, evidence_of, estimator, monkeypatch):
    task = toy("classification", hidden=4)
    evidence, batch = evidence_of(task, "margin"), others(task)
    storing(estimator).attribute(evidence)
    read = []
    whole = Arrays.read
    monkeypatch.setattr(Arrays, "read", lambda self, indices: read.append(self.whole) or whole(self, indices))
    monkeypatch.setattr(type(task), "examples", lambda self, source: pytest.fail(f"{source} is looked at"))
    new_queries(storing(estimator), evidence, batch).values()
    assert read
    assert all(len(one.inputs) == 6 for one in read)


def test_what_is_not_kept_is_refused_with_the_options():
    with pytest.raises(ValueError, match="not relative"):
        Trak(store=True, relative=True)
    with pytest.raises(ValueError, match="members are trained anew"):
        TrakSubsets(store=True)


def test_another_measure_needs_no_other_store(toy, evidence_of):
    task = toy("classification", hidden=4)
    evidence, batch = evidence_of(task, "margin"), others(task)
    estimator = Logra(rank=2, store=True)
    estimator.attribute(evidence)
    by_loss = replace(evidence, measure="loss")
    found = new_queries(estimator, by_loss, batch).values()
    np.testing.assert_allclose(found, asked_in_the_sweep(Logra(rank=2), by_loss, batch), rtol=1e-5, atol=1e-8)


def test_thinned_networks_are_kept_each(toy, evidence_of, monkeypatch):
    task = toy("classification", hidden=6)
    layers = type(task).module
    monkeypatch.setattr(type(task), "module", lambda self: layers(self).insert(2, torch.nn.Dropout(0.4)))
    evidence, batch = evidence_of(task, "margin"), others(task)
    estimator = Logra(rank=3, dropout=3)
    storing(estimator).attribute(evidence)
    assert evidence.gradients.kept(5) is not None
    assert evidence.gradients.kept(6) is None
    found = new_queries(storing(estimator), evidence, batch).values()
    expected = asked_in_the_sweep(estimator, evidence, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_the_same_values_with_and_without_a_store(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    for estimator in KINDS:
        plain, kept = estimator.attribute(evidence), storing(estimator).attribute(evidence)
        atol = 1e-6 * np.abs(plain.values).max()
        np.testing.assert_allclose(kept.values, plain.values, rtol=1e-6, atol=atol)
        assert kept.details == plain.details
        evidence = replace(evidence, gradients=GradientStore())


def test_what_is_kept_is_used_and_what_is_not_is_made(toy, evidence_of, monkeypatch):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=3)
    estimator = Logra(rank=2, store=True)
    first = estimator.model_copy(update={"models": 2}).attribute(evidence)
    made = []
    effects = estimator.effects(estimator.material(evidence, evidence.references))
    side = type(effects).training_side
    monkeypatch.setattr(
        type(effects), "training_side", lambda self, model, number: made.append(number) or side(self, model, number)
    )
    estimator.attribute(replace(evidence, measure="loss"))
    assert made == [2], "those of the first two models are kept, whatever the measure"
    again = estimator.model_copy(update={"models": 2}).attribute(evidence)
    np.testing.assert_array_equal(first.values, again.values)
    Logra(rank=3, store=True).attribute(evidence)
    assert made == [2, 0, 1, 2], "another projection is made anew"


CHANGES = [
    (Logra(rank=3, store=True), {}, r"options\.rank is 2, expected 3"),
    (Logra(rank=2, init="pca", store=True), {}, r"options\.init is 'random', expected 'pca'"),
    (Logra(rank=2, parameters=("2.*",), store=True), {}, r"options\.parameters is \['\*'\], expected \['2\.\*'\]"),
    (Logra(rank=2, store=True), {"seed": 12}, "seed is 11, expected 12"),
    (Logra(rank=2, store=True), {"n": 25}, "n is 24, expected 25"),
    (Trak(store=True), {}, "estimator is 'logra', expected 'trak'"),
]


@pytest.mark.parametrize(("other", "changes", "line"), CHANGES, ids=[line for *_, line in CHANGES])
def test_gradients_of_something_else_are_refused(toy, evidence_of, other, changes, line):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    Logra(rank=2, store=True).attribute(evidence)
    with pytest.raises(StoreError, match=rf"reference network 0 are kept of something else: .*{line}$"):
        new_queries(other, replace(evidence, **changes), others(evidence.task))


def test_those_of_other_models_and_too_few_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=3)
    estimator, batch = Logra(rank=2, store=True), others(evidence.task)
    estimator.model_copy(update={"models": 2}).attribute(evidence)
    with pytest.raises(StoreError, match="gradients of 2 reference networks are kept, expected more"):
        new_queries(estimator, evidence, batch)
    swapped = replace(evidence, references=evidence.references[::-1])
    with pytest.raises(StoreError, match="checkpoint is '"):
        new_queries(estimator.model_copy(update={"models": 2}), swapped, batch)


def test_more_queries_than_memory_and_a_flat_measure_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    estimator = Logra(rank=2, store=True)
    estimator.attribute(evidence)
    with pytest.raises(ConfigError, match=r"gradients of 6 queries in 8 dimensions, of 1 networks, .* fewer queries"):
        new_queries(estimator.model_copy(update={"memory_gb": 1e-7}), evidence, others(evidence.task))
    with pytest.raises(ConfigError, match="measure 'correct' has no gradient"):
        new_queries(estimator, replace(evidence, measure="correct"), others(evidence.task))


def test_the_memory_budget_divides_the_work_and_changes_no_value(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4, n=1064), "margin", models=1)
    estimator = Logra(rank=2, store=True)
    estimator.attribute(evidence)
    whole = new_queries(estimator, evidence, others(evidence.task))
    small = new_queries(estimator.model_copy(update={"memory_gb": 2e-6}), evidence, others(evidence.task))
    blocks = list(small.blocks())
    assert len(blocks) > 10
    assert [where.start for where, _ in blocks[1:]] == [where.stop for where, _ in blocks[:-1]]
    np.testing.assert_array_equal(small.values(), whole.values())


def test_rows_that_are_not_finite_are_refused(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    estimator = Logra(rank=2, store=True)
    estimator.attribute(evidence)
    kept = evidence.gradients.kept(0)
    bad = kept.arrays[ROWS].copy()
    bad[3] = np.nan
    evidence.gradients.keep(0, replace(kept, arrays={**kept.arrays, ROWS: bad}))
    with pytest.raises(DivergedError, match="a reference model diverged"):
        new_queries(estimator, evidence, others(evidence.task)).values()


def test_what_is_kept_says_what_it_is(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin", models=1)
    Trak(project_dim=20, projection="factored", store=True).attribute(evidence)
    kept = evidence.gradients.kept(0)
    assert isinstance(kept, KeptGradients)
    k = kept.projection["k"]
    assert kept.arrays[ROWS].shape == (24, k)
    assert kept.arrays[MULTIPLIERS].shape == (24,)
    assert kept.identity["checkpoint"] == digest(evidence.references[0].checkpoints[-1])
    for part in (kept.identity, kept.projection, kept.told):
        assert json.loads(json.dumps(part)) == part


def test_a_digest_is_of_names_types_and_values():
    state = {"a": torch.arange(3.0), "b": torch.tensor(2, dtype=torch.bfloat16)}
    one = digest(Checkpoint(1, 1, 0.1, state))
    assert one == digest(Checkpoint(1, 2, 0.2, dict(reversed(state.items()))))
    for changed in ({"a": torch.arange(3.0) + 1}, {"a": torch.arange(3)}, {"a": torch.arange(3.0)[None]}):
        assert one != digest(Checkpoint(1, 1, 0.1, {**state, **changed}))
    assert one != digest(Checkpoint(1, 1, 0.1, {"c": state["a"], "b": state["b"]}))


def test_the_first_difference_is_named():
    assert difference({"a": 1, "b": {"c": [2]}}, {"a": 1, "b": {"c": [2]}}) == ""
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "b is None, expected 2"
    assert difference({"a": 1, "b": 2}, {"a": 1}) == "b is 2, expected None"
