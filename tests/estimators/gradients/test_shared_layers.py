"""Layers of several objectives: the same blocks for all, and the gradients of each."""

import pytest
import torch

from estimators.gradients.functional_model import Model
from estimators.gradients.per_example import gradients
from estimators.gradients.shared_layers import shared_layers
from tests.estimators.modules import setting
from workers.errors import ConfigError


def test_a_block_that_one_of_them_does_not_have_is_formed_for_all():
    task, model, train, queries = setting("mlp")

    def penalized(module, batch):
        return task.losses(module, batch) * (1 + module[3].weight.square().sum())

    trials = [(model, task.losses, train), (model, penalized, train), (model, task.objective("margin"), queries)]
    found = shared_layers(trials)
    forms = [[(block.weight, block.form) for block in layers.blocks] for layers in found]
    assert forms[0] == forms[1] == forms[2]
    assert ("3.weight", "formed") in forms[0]
    assert ("1.weight", "outer") in forms[0]
    assert any("at every checkpoint" in block.why for block in found[0].blocks)
    for layers, (_, objective, examples) in zip(found, trials, strict=True):
        wanted = gradients(model, objective, examples, 2**24)
        torch.testing.assert_close(layers.flat(layers.factors(examples)).detach(), wanted)


def test_models_of_other_parameters_are_refused():
    task, model, train, _ = setting("mlp")
    other = model.restricted(["1.weight"])
    assert isinstance(other, Model)
    with pytest.raises(ConfigError, match="models have different parameters"):
        shared_layers([(model, task.losses, train), (other, task.losses, train)])
