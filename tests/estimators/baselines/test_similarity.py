import numpy as np
import pytest
import torch
from torch import nn

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


def layer(reference, inputs, name):
    """What the toy network's module of that name returns."""
    state = {key: value.numpy() for key, value in reference.checkpoints[-1].state.items()}
    first = inputs.numpy() @ state["0.weight"].T + state["0.bias"]
    last = np.tanh(first) @ state["2.weight"].T + state["2.bias"]
    return {"0": first, "1": np.tanh(first), "2": last}[name]


METRICS = {
    "cosine": lambda a, b: (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1),
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -np.sqrt(np.square(a[:, None] - b[None]).sum(2)),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", [None, "0", "1", "2"])
def test_every_metric_of_every_layer_is_a_mean_over_models(evidence, metric, name):
    task, expected = evidence.task, 0.0
    for reference in evidence.references:
        parts = (layer(reference, one, name or "1") for one in (task.train_inputs, task.query_inputs))
        expected = expected + METRICS[metric](*parts)
    got = Similarity(metric=metric, layer=name).attribute(evidence).values
    np.testing.assert_allclose(got, expected / 2, rtol=1e-5, atol=1e-6)


def test_a_layer_with_places_is_flattened(toy, evidence_of):
    task = toy("classification")
    task.module = Places
    evidence = evidence_of(task, "margin", models=1)
    state = evidence.references[0].checkpoints[-1].state

    def outputs(inputs):
        return np.einsum("bi,hi->bih", inputs.numpy(), state["wide.weight"].numpy()[:, :1].repeat(3, 1)).reshape(-1, 6)

    expected = outputs(task.train_inputs) @ outputs(task.query_inputs).T
    got = Similarity(metric="dot", layer="wide").attribute(evidence).values
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


class Places(nn.Module):
    """A layer at three places of an example."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(1, 2, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.head(self.wide(inputs[:, :, None]).flatten(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs):
        return self.layer(self.layer(inputs))


def test_a_layer_that_cannot_be_taken_is_told_before_anything_is_trained(toy, evidence_of, evidence):
    with pytest.raises(ConfigError, match="layer '3' is no part of the module: known: 0, 1, 2"):
        Similarity(layer="3").check(evidence)
    task = toy("classification")
    task.module = Twice
    twice = evidence_of(task, "margin", models=1)
    with pytest.raises(ConfigError, match=r"layer 'layr' is no part of the module: did you mean layer\?"):
        Similarity(layer="layr").check(twice)
    with pytest.raises(ConfigError, match="layer 'layer' is called 2 times in a forward pass"):
        Similarity(layer="layer").attribute(twice)
    with pytest.raises(ValueError, match="signed goes with metric cosine or dot, found euclidean"):
        Similarity(signed=True, metric="euclidean")
    with pytest.raises(ConfigError, match="signed=true needs a Classification task"):
        Similarity(signed=True).check(evidence_of(toy("regression"), "prediction", models=1))


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
