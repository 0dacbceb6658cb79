import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.gradient_based.tracin import TracIn
from workers import Recipe, Run
from workers.errors import ConfigError
from workers.training.alone import train

COSINE = Recipe(lr=0.3, schedule="cosine", batch_size=8, epochs=4, precision="float64", momentum=0.5)


def oracle(evidence, autograd, weight, epochs):
    task, total = evidence.task, 0.0
    weights = np.ones(task.n) if task.train_weights is None else task.train_weights.numpy()
    f = task.measurement(evidence.measure)
    for reference in evidence.references:
        for checkpoint in reference.checkpoints:
            if checkpoint.epoch in epochs:
                g = autograd(task, checkpoint, task.loss, task.train_inputs, task.train_targets) * weights[:, None]
                q = autograd(task, checkpoint, f, task.query_inputs, task.query_targets)
                total = total - weight(checkpoint) * g @ q.T
    return total / len(evidence.references)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("classification", "margin"), ("classification", "loss"), ("regression", "squared_error")],
)
def test_it_equals_a_loop_over_checkpoints_and_examples(kind, name, toy, evidence_of, autograd):
    task = toy(kind, hidden=4, recipe=COSINE, weights=torch.linspace(0.5, 2, 24, dtype=torch.float64))
    evidence = evidence_of(task, name)
    got = TracIn().attribute(evidence)
    expected = oracle(evidence, autograd, lambda c: c.learning_rate, (2, 4))
    np.testing.assert_allclose(got.values, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert got.models == 2
    assert got.details["epochs"] == [2, 4]


def test_segments_weigh_by_the_learning_rates_of_their_steps(toy, evidence_of, autograd):
    evidence = evidence_of(toy("classification", hidden=4, recipe=COSINE), "margin")
    rates = COSINE.learning_rates(24)  # 3 steps an epoch
    sums = {2: rates[:6].sum(), 4: rates[6:].sum()}
    expected = oracle(evidence, autograd, lambda c: sums[c.epoch] / 24 / (1 - 0.5), (2, 4))
    got = TracIn(weights="segment").attribute(evidence).values
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    alone = oracle(evidence, autograd, lambda c: rates.sum() / 24 / (1 - 0.5), (4,))
    got = TracIn(weights="segment", epochs=(4,)).attribute(evidence).values
    np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-6 * np.abs(alone).max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 9, "accumulate": 3},
        {"ema": 0.6, "epochs": 4},
        {"schedule": "linear", "warmup_steps": 2, "epochs": 4},
    ],
    ids=str,
)
def test_segments_have_the_sign_and_the_units_of_leaving_an_example_out(toy, evidence_of, options):
    """With small steps the effect of example i on the trained model is the first-order one that TracIn sums."""
    recipe = Recipe(**{"lr": 1e-3, "batch_size": 24, "epochs": 2, "precision": "float64", **options})
    evidence = evidence_of(toy("regression", hidden=4, recipe=recipe), "prediction", models=1)
    got = TracIn(weights="segment").attribute(evidence).values
    everything = np.arange(24)

    def outputs(weights):
        module, _ = train(toy("regression", hidden=4, recipe=recipe, weights=weights), Run(0, everything, 0))
        with torch.no_grad():
            return module(evidence.task.query_inputs).flatten().numpy()

    full = outputs(None)
    for i in (0, 7):
        without = torch.ones(24, dtype=torch.float64)
        without[i] = 0
        np.testing.assert_allclose(got[i], full - outputs(without), rtol=0.05, atol=1e-7)


def test_segments_of_clipped_steps_are_refused(toy, evidence_of):
    evidence = evidence_of(
        toy("regression", recipe=COSINE.model_copy(update={"clip_norm": 0.5})), "prediction", models=1
    )
    assert TracIn().attribute(evidence).models == 1
    with pytest.raises(ConfigError, match=r"the recipe has clip_norm 0\.5: use weights=learning_rate"):
        TracIn(weights="segment").attribute(evidence)


def test_a_twin_of_the_query_helps(toy, evidence_of):
    task = toy("classification", hidden=4)
    task.train_inputs[0], task.train_targets[0] = task.query_inputs[2], task.query_targets[2]
    assert TracIn().attribute(evidence_of(task, "margin")).values[0, 2] > 0
    assert TracIn().attribute(evidence_of(task, "loss")).values[0, 2] < 0


@settings(deadline=None, max_examples=10)
@given(memory=st.floats(1e-9, 1e-4))
def test_the_memory_budget_changes_only_rounding(memory, wide):
    expected = TracIn().attribute(wide).values
    got = TracIn(memory_gb=memory).attribute(wide).values
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def wide(toy, evidence_of):
    return evidence_of(toy("classification", hidden=4), "margin")


def test_the_initial_model_counts_only_when_named(wide, autograd):
    got = TracIn(epochs=(0, 4)).attribute(wide).values
    expected = oracle(wide, autograd, lambda c: c.learning_rate, (0, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="epoch 0 in `epochs` has no steps before it"):
        TracIn(epochs=(0, 4), weights="segment").attribute(wide)
    with pytest.raises(ConfigError, match=r"epochs \[3\], the reference model of seed 0 has \[0, 2, 4\]"):
        TracIn(epochs=(3, 4)).attribute(wide)
