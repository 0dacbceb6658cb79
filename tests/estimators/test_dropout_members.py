"""Dropout ensembles: thinned networks in place of models, each the same network for all examples."""

import numpy as np
import pytest
import torch
from numpy.random import SeedSequence
from torch import nn

from estimators.gradient_based.alo import Alo
from estimators.gradient_based.grad_dot import GradDot
from estimators.gradient_based.influence import Influence
from estimators.gradient_based.representer import Representer
from estimators.gradient_based.tracin import TracIn
from estimators.gradient_based.trak import Trak
from estimators.gradients.functional_model import Model
from workers.errors import ConfigError
from workers.randomness.dropout import KeyedDropout

ESTIMATORS = [GradDot(), TracIn(), Influence(), Trak(), Representer(), Alo()]


class Dropping(nn.Sequential):
    def __init__(self, p=0.5):
        super().__init__(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(p), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def evidence(toy, evidence_of):
    task = toy("classification")
    task.module = Dropping
    return evidence_of(task, "margin")


def thinned(evidence, mask):
    """A model with a mask, and which of its eight hidden units are left."""
    model = Model(evidence.task, evidence.references[0].checkpoints[-1], torch.float64, mask=mask)
    (layer,) = [one for one in model.module.modules() if isinstance(one, KeyedDropout)]
    return model, layer(torch.ones(1, 8, dtype=torch.float64))[0]


def test_a_mask_thins_the_network_for_all_examples_alike(evidence):
    model, kept = thinned(evidence, SeedSequence(4))
    assert set(kept.tolist()) == {0.0, 2.0}
    state = evidence.references[0].checkpoints[-1].state
    inputs = evidence.task.train_inputs
    hidden = torch.tanh(inputs @ state["0.weight"].T + state["0.bias"]) * kept
    with torch.no_grad():
        torch.testing.assert_close(model.module(inputs), hidden @ state["3.weight"].T + state["3.bias"])
    assert (thinned(evidence, SeedSequence(5))[1] != kept).any()
    assert (thinned(evidence, SeedSequence(4))[1] == kept).all()


def test_channels_are_dropped_for_all_examples_alike():
    layer = KeyedDropout(0.5, channels=True)
    layer.shared = True
    found = layer(torch.ones(4, 16, 3))
    assert set(found.unique().tolist()) == {0.0, 2.0}
    assert (found == found[:1, :, :1]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: one.name)
def test_it_is_a_mean_over_members_of_each_model(evidence, estimator, monkeypatch):
    """Each member in turn is given as all there is of a model."""
    options = estimator.model_copy(update={"dropout": 2, "models": 1})
    got = options.attribute(evidence).values
    alone = []
    for member in range(2):
        material = options.material(evidence, evidence.references[:1])
        kept = type(material).mask
        monkeypatch.setattr(type(material), "mask", lambda self, r, _, kept=kept, m=member: kept(self, r, m))
        alone.append(estimator.model_copy(update={"dropout": 1, "models": 1}).attribute(evidence))
        monkeypatch.undo()
    assert (alone[0].values != alone[1].values).any()
    if estimator.name != "trak":  # the mean of whose residuals is taken apart
        expected = (alone[0].values + alone[1].values) / 2
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_trak_takes_every_member_for_a_model(evidence):
    """Two members of one model are what two models are: the mean step times the mean residual."""
    options = Trak(dropout=2, models=1, damping=0.3)
    material = options.material(evidence, evidence.references[:1])
    checkpoint, steps, residuals = evidence.references[0].checkpoints[-1], 0.0, 0.0
    for member in range(2):
        effects = options.effects(material)
        model = effects.model(checkpoint, material.mask(evidence.references[0], member))
        ((_, block),) = effects.of_model(model, checkpoint)
        steps, residuals = steps + block / 2, residuals + effects._multipliers / 2
    np.testing.assert_allclose(options.attribute(evidence).values, steps * residuals[:, None], rtol=1e-5, atol=1e-8)


def test_masks_are_of_the_seed_and_of_the_model_and_member(evidence):
    material = GradDot(dropout=2).material(evidence, evidence.references)
    keys = [material.mask(one, member).generate_state(1)[0] for one in evidence.references for member in range(2)]
    assert len(set(keys)) == 4
    assert GradDot().material(evidence, evidence.references).mask(evidence.references[0], 0) is None


def test_a_module_that_drops_nothing_is_refused_before_anything_is_trained(toy, evidence_of, evidence):
    GradDot(dropout=3).check(evidence)
    task = toy("classification", hidden=4)
    with pytest.raises(
        ConfigError, match=r"dropout: masks are of nn.Dropout layers with p above 0, and the module has"
    ):
        GradDot(dropout=3).check(evidence_of(task, "margin", models=1))
    task.module = lambda: Dropping(0.0)
    with pytest.raises(ConfigError, match="the module has none"):
        GradDot(dropout=3).check(evidence_of(task, "margin", models=1))
