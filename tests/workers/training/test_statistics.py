"""Recomputed statistics are those of the subset, alone and in lockstep, by formulas written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from workers import Queries, Recipe, Run
from workers.packs import train_pack
from workers.training.alone import train


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.4), nn.Linear(6, 3))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture
def task(blobs):
    def made(**options):
        found = blobs(Recipe(epochs=3, batch_size=10, precision="float64", batch_norm="recomputed", **options))
        found.module = Norms
        return found

    return made


SUBSET = np.delete(np.arange(37), [2, 30])


@pytest.mark.parametrize("order", ["own", "shared"])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_they_are_averages_over_the_parts_of_the_subset(task, order, ema):
    made = task(ema=ema)
    module, (checkpoint,) = train(made, Run(0, SUBSET, 4, (3,), order=order))
    first = module.layers[0]
    parts = np.array_split(SUBSET, 4)
    hidden = [(made.train_inputs[part].double() @ first.weight.T + first.bias).detach().numpy() for part in parts]
    np.testing.assert_allclose(module.layers[1].running_mean, np.mean([one.mean(0) for one in hidden], 0), rtol=1e-9)
    np.testing.assert_allclose(
        module.layers[1].running_var, np.mean([one.var(0, ddof=1) for one in hidden], 0), rtol=1e-9
    )
    assert module.layers[1].momentum == 0.1
    assert not module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, checkpoint.state[name])


def test_parameters_are_those_without(task):
    made = task()
    run = Run(0, SUBSET, 4)
    found = train(made, run)[0].state_dict()
    made.recipe = made.recipe.model_copy(update={"batch_norm": "running"})
    plain = train(made, run)[0].state_dict()
    same = {name: torch.equal(value, plain[name]) for name, value in found.items()}
    assert [name for name, equal in same.items() if not equal] == [
        "layers.1.running_mean", "layers.1.running_var", "layers.1.num_batches_tracked",
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["own", "shared"])
def test_in_lockstep_they_are_those_of_training_alone(task, order):
    runs = [Run(row, subset, 7 + row, (2, 3), order=order) for row, subset in enumerate((SUBSET, np.arange(15)))]
    runs.append(replace(runs[0], row=2, weights=np.where(SUBSET % 3 == 0, 0.0, 2.0)))
    packed = train_pack(task(), runs, ["margin"], Queries(), method="stacked", width=3)
    alone = train_pack(task(), runs, ["margin"], Queries(), method="alone")
    for one, other in zip(packed, alone, strict=True):
        assert one.failure is None, one.failure.traceback
        np.testing.assert_allclose(one.outputs["margin"], other.outputs["margin"], rtol=1e-6)
        for a, b in zip(one.checkpoints, other.checkpoints, strict=True):
            for name, value in a.state.items():
                torch.testing.assert_close(value, b.state[name], rtol=1e-9, atol=1e-9)
