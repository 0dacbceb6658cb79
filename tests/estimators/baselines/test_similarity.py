import numpy as np
import pytest
import torch

from estimators.baselines.similarity import Similarity
from workers import Queries
from workers.errors import ConfigError, DivergedError


def hidden(reference, inputs):
    state = reference.checkpoints[-1].state
    return np.tanh(inputs.numpy() @ state["0.weight"].numpy().T + state["0.bias"].numpy())


@pytest.fixture(scope="module")
def evidence(toy, evidence_of):
    return evidence_of(toy("classification", hidden=4), "margin")


def cosines(evidence):
    task, total = evidence.task, 0.0
    for reference in evidence.references:
        a, b = hidden(reference, task.train_inputs), hidden(reference, task.query_inputs)
        total = total + (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    return total / len(evidence.references)


def test_it_is_the_mean_cosine_of_hidden_layers(evidence):
    got = Similarity().attribute(evidence)
    np.testing.assert_allclose(got.values, cosines(evidence), atol=1e-6)
    assert got.values.dtype == np.float32
    assert got.models == 2


def test_signed_opposes_other_labels(evidence):
    same = evidence.task.train_targets[:, None] == evidence.task.query_targets[None, :]
    expected = np.where(same, 1, -1) * cosines(evidence)
    np.testing.assert_allclose(Similarity(signed=True).attribute(evidence).values, expected, atol=1e-6)


def test_a_loss_turns_the_direction_and_says_so(toy, evidence_of, evidence):
    loss = evidence_of(evidence.task, "loss")
    got = Similarity().attribute(loss)
    np.testing.assert_allclose(got.values, -cosines(evidence), atol=1e-6)
    assert got.details["direction"] == -1


def test_queries_may_be_training_examples(toy, evidence_of, evidence):
    queries = Queries("train", (3, 8))
    values = Similarity().attribute(evidence_of(evidence.task, "margin", queries=queries)).values
    assert values.shape == (24, 2)
    np.testing.assert_allclose(values[[3, 8], [0, 1]], 1, atol=1e-6)


def test_what_it_cannot_do_is_refused(toy, evidence_of, evidence):
    regression = evidence_of(toy("regression", hidden=4), "prediction")
    with pytest.raises(ConfigError, match="signed=true needs a Classification task, found ToyRegression"):
        Similarity(signed=True).attribute(regression)
    with pytest.raises(ConfigError, match=r"'similarity' needs 3 reference model.*the sweep has 2"):
        Similarity(models=3).attribute(evidence)


def test_a_diverged_reference_is_an_error_not_an_answer(toy, evidence_of):
    evidence = evidence_of(toy("classification", hidden=4), "margin")
    evidence.references[1].checkpoints[-1].state["0.weight"].fill_(torch.nan)
    with pytest.raises(DivergedError, match="120 of 120 attributions are not finite"):
        Similarity().attribute(evidence)
    assert np.isfinite(Similarity(models=1).attribute(evidence).values).all()
