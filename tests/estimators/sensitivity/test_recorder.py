"""Recording during a training: what is recorded is what the checkpoint gives, and the training keeps its bits."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators.gradients.functional_model import Examples, Model
from estimators.sensitivity.of_model import by_diagonal, diagonal_adam, diagonal_newton, left_out_losses
from estimators.sensitivity.recorder import SensitivityRecorder, second_moment
from tests.estimators.modules import Net, normal
from workers import Recipe, Run
from workers.errors import ConfigError, DivergedError
from workers.training.alone import train
from workers.training.watching import Glimpse


def network():
    layers = (nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3))
    return nn.Sequential(*layers)


def task_with(**given):
    task = Net(network, normal(6))
    task.recipe = Recipe(precision="float64", epochs=4, batch_size=3, **given)
    return task


EVERYTHING = np.arange(7)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_that_is_watched_keeps_its_bits(optimizer):
    task = task_with(optimizer=optimizer, lr=0.05)
    row = "adam" if optimizer == "adam" else "newton"
    recorder = SensitivityRecorder(task, 0.1, row, steps=(1, 5))
    watched, kept = train(task, Run(0, EVERYTHING, 3, (2, 4)), watcher=recorder)
    alone, other = train(task, Run(0, EVERYTHING, 3, (2, 4)))
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))
    assert all(torch.equal(a.state[key], b.state[key]) for a, b in zip(kept, other, strict=True) for key in a.state)
    assert [(one.epoch, one.step) for one in recorder.records] == [(0, 1), (1, 3), (1, 5), (2, 6), (3, 9), (4, 12)]


def test_records_are_those_of_the_checkpoint():
    task = task_with(lr=0.05)
    recorder = SensitivityRecorder(task, 0.1, epochs=(2,))
    _, (kept,) = train(task, Run(0, EVERYTHING, 3, (2,)), watcher=recorder)
    model, examples = Model(task, kept, torch.float64), Examples.training(task, torch.float64)
    found = by_diagonal(model, task, examples, diagonal_newton(0.1), 2**26)
    (record,) = recorder.records
    np.testing.assert_allclose(record.magnitudes, found.magnitudes.numpy(), rtol=1e-6)
    np.testing.assert_allclose(record.self_influence, found.self_influence.numpy(), rtol=1e-6)
    wanted = left_out_losses(task, model, examples, found.left_out_outputs)
    assert record.left_out_loss == pytest.approx(float(wanted.mean()))
    assert record.training_loss < record.left_out_loss


def test_a_loop_of_ones_own_calls_one_function():
    """Adam's moments from PyTorch's own optimizer, against those that its formula gives."""
    task, module = task_with(), network().double()
    module.eval()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, betas=(0.9, 0.8))
    recorder = SensitivityRecorder(task, 0.1, "adam", examples=np.array([0, 2, 3]))
    running = 0.0
    for step in range(1, 4):
        optimizer.zero_grad()
        task.loss(module(task.train_inputs), task.train_targets).mean().backward()
        flat = torch.cat([value.grad.flatten() for value in module.parameters()])
        running = 0.8 * running + 0.2 * flat.square()
        optimizer.step()
        recorder.look(Glimpse(0, step, 0.01, module, optimizer))
    from workers.runs import Checkpoint

    model = Model(task, Checkpoint(0, 3, 0.01, dict(module.state_dict())), torch.float64)
    corrected = running / (1 - 0.8**3)
    torch.testing.assert_close(second_moment(optimizer, module, model), corrected)
    some = Examples.training(task, torch.float64)
    found = by_diagonal(model, task, some, diagonal_adam(corrected, 0.1), 2**26)
    # S is 1 / n of the examples that are trained on: three here, seven there
    wanted = found.magnitudes.numpy()[[0, 2, 3]] * 7 / 3
    np.testing.assert_allclose(recorder.records[-1].magnitudes, wanted, rtol=1e-6)


def test_what_cannot_be_recorded_is_refused():
    task, module = task_with(), network().double()
    with pytest.raises(ConfigError, match="found optimizer SGD"):
        SensitivityRecorder(task, 0.1, "adam").look(
            Glimpse(1, 1, 0.1, module, torch.optim.SGD(module.parameters(), 0.1))
        )
    with pytest.raises(ConfigError, match="expected a step before"):
        SensitivityRecorder(task, 0.1, "adam").look(Glimpse(0, 0, 0.1, module, torch.optim.Adam(module.parameters())))
    with pytest.raises(ConfigError, match="expected 0 or more"):
        SensitivityRecorder(task, -0.1)
    with torch.no_grad():
        module[0].weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="diverged"):
        SensitivityRecorder(task, 0.1).look(Glimpse(1, 1, 0.1, module, None))
