import pytest
import torch
from torch import nn

from estimators.gradients.functional_model import Examples, Model
from workers.errors import DataError
from workers.runs import Checkpoint


@pytest.fixture(scope="module")
def model(toy, evidence_of):
    task = toy("classification", hidden=4)
    return Model(task, evidence_of(task, "margin", models=1).references[0].checkpoints[-1], torch.float64)


def test_flatten_and_unflatten_are_inverse_in_module_order(model):
    flat = torch.randn(2, 7, model.p, dtype=torch.float64)
    assert torch.equal(model.flatten(model.unflatten(flat)), flat)
    expected = torch.cat([value.detach().flatten() for value in model.module.parameters()])
    assert torch.equal(model.flatten(model.parameters), expected)


def test_a_model_has_the_parameters_and_outputs_of_its_checkpoint(model):
    inputs = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(model.value(model.parameters, lambda module, x: module(x), inputs), model.module(inputs))
    assert not model.module.training


def test_frozen_parameters_are_not_differentiated(toy, monkeypatch):
    task = toy("regression", hidden=4)

    def half_frozen() -> nn.Module:
        module = type(task).module(task)
        module[0].requires_grad_(False)
        return module

    monkeypatch.setattr(task, "module", half_frozen)
    model = Model(task, Checkpoint(1, 1, 0.1, half_frozen().state_dict()), torch.float64)
    assert list(model.parameters) == ["2.weight", "2.bias"]
    assert model.p == 5


def test_a_checkpoint_of_another_module_is_refused_in_one_line(toy):
    task = toy("regression", hidden=4)
    other = toy("regression", hidden=5).module().state_dict()
    with pytest.raises(DataError, match="checkpoint of epoch 3 does not fit") as caught:
        Model(task, Checkpoint(3, 1, 0.1, other), torch.float64)
    assert "\n" not in str(caught.value)


def test_examples_are_cast_and_sliced_together(toy):
    task = toy("classification", weights=torch.arange(24.0))
    examples = Examples.training(task, torch.float32)
    assert examples.batch().inputs.dtype == torch.float32
    assert examples.batch().targets.dtype == torch.int64
    part = examples[3:5]
    assert len(part) == 2
    assert torch.equal(part.batch().inputs, task.train_inputs[3:5].float())
    assert part.weights.tolist() == [3.0, 4.0]
