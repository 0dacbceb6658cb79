"""A last batch that would fail in every run is refused before the first of them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator.config.schema import Config
from orchestrator.sweeps.plan import plan_designs
from workers import Classification, Recipe
from workers.errors import ConfigError

N = 33


class Small(Classification):
    """A normalization over batches of 8."""

    def __init__(self, drop_last):
        self.recipe = Recipe(batch_size=8, drop_last=drop_last)
        self.train_inputs, self.train_targets = torch.randn(N, 5), torch.arange(N) % 3
        self.query_inputs, self.query_targets = self.train_inputs[:4], self.train_targets[:4]

    def module(self):
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def designs(**design):
    raw = {"task": {"name": "digits"}, "measures": ["margin"], "designs": {"mine": design}}
    return Config.model_validate(raw | {"name": "small", "folder": Path()})


@pytest.mark.parametrize(
    ("design", "drop_last", "told"),
    [
        ({"kind": "full"}, False, r"^designs.mine: subsets of 33 examples: the last batch .* has 1 example: .*drop_last"),
        ({"kind": "full"}, True, None),
        ({"kind": "full", "order": "shared"}, False, None),
        ({"kind": "leave_one_out"}, False, None),
        ({"kind": "subsets", "alpha": 17 / 33, "subsets": 2}, False, r"subsets of 17 examples"),
        ({"kind": "bernoulli", "probability": 0.1, "subsets": 2}, True, None),
        ({"kind": "subsets", "alpha": 0.2, "subsets": 2}, True, r"subsets of 7 examples: recipe.drop_last leaves no batch"),
        ({"kind": "subsets", "alpha": 0.2, "subsets": 2, "order": "shared"}, True, None),
    ],
)  # fmt: skip
def test_a_sweep_is_refused_before_its_first_run(design, drop_last, told):
    task, config = Small(drop_last), designs(**design)
    if told is None:
        assert plan_designs(config, task)["mine"].runs > 0
        return
    with pytest.raises(ConfigError, match=told) as refused:
        plan_designs(config, task)
    assert "\n" not in str(refused.value)
