"""A user's folder with modules named like our packages works untouched, on the driver and on every worker."""

from __future__ import annotations

import json

import pytest
import yaml

NEVER = 'raise RuntimeError("the user\'s own module was imported in place of ours")\n'

HELPER = '''"""Code of the user's own, beside the task file."""

from pathlib import Path

import numpy as np


def numbers():
    return np.array(Path("numbers.txt").read_text().split(), dtype=float)
'''

TASKS = '''"""A task of each level, with help from beside."""

import sys
import time
from pathlib import Path

import numpy as np
import torch

import my_helper
from workers import Classification, Recipe

HERE = str(Path(__file__).parent)


def refuse_to_be_in_front():
    """What is imported from this folder must come after everything else."""
    import estimators
    import orchestrator
    import workers

    for package in (estimators, orchestrator, workers):
        if package.__file__.startswith(HERE):
            raise RuntimeError(f"{package.__name__} comes from the user's folder")
    if HERE in sys.path[: max(sys.path.index(path) for path in sys.path if path.endswith("-packages"))]:
        raise RuntimeError(f"the user's folder is in front: {sys.path}")


class Mean:
    """Black box."""

    def __init__(self):
        self.values = my_helper.numbers()
        self.n, self.t = len(self.values), 3

    def train(self, subset, seed):
        refuse_to_be_in_front()
        time.sleep(0.1)
        return self.values[subset].mean() + 0.01 * np.random.default_rng(seed).normal()

    def measure(self, model):
        return {"value": model * np.arange(1, 4)}


class Lines(Classification):
    """Differentiable."""

    def __init__(self):
        self.recipe = Recipe(epochs=2, batch_size=8)
        inputs = torch.tensor(my_helper.numbers(), dtype=torch.float32)[:, None]
        self.train_inputs, self.train_targets = inputs, (inputs[:, 0] > 5).long()
        self.query_inputs, self.query_targets = inputs[:3], self.train_targets[:3]

    def module(self):
        refuse_to_be_in_front()
        time.sleep(0.1)
        return torch.nn.Linear(1, 2)
'''

LEVELS = {
    "Mean": {"measures": ["value"], "estimators": {"difference_in_means": {}}},
    "Lines": {"measures": ["margin"], "estimators": {"tracin": {}, "difference_in_means": {}}},
}


@pytest.fixture
def users_folder(tmp_path):
    place = tmp_path / "mine"
    for package in ("estimators", "orchestrator"):
        (place / package).mkdir(parents=True)
        (place / package / "__init__.py").write_text(NEVER)
    (place / "workers.py").write_text(NEVER)
    (place / "my_helper.py").write_text(HELPER)
    (place / "my_task.py").write_text(TASKS)
    (place / "numbers.txt").write_text(" ".join(str((7 * i) % 12) for i in range(12)))
    for level, sections in LEVELS.items():
        config = {
            "task": {"name": f"my_task.py:{level}"},
            "designs": {
                "reference": {"kind": "full"},
                "fit": {"kind": "subsets", "subsets": 30},
                "heldout": {"kind": "subsets", "subsets": 5, "seeds": 2, "purpose": "score"},
            },
            "pack": 4,
            "ray": {"workers": 2},
            **sections,
        }
        (place / f"{level}.yaml").write_text(yaml.safe_dump(config))
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("level", "environment"), [("Mean", {}), ("Lines", {"PYTHONPATH": ""})])
def test_names_like_ours(counterfactory, users_folder, level, environment):
    result = counterfactory("run", f"{level}.yaml", cwd=users_folder, **environment)
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stderr
    ledger = users_folder / "runs" / level / "ledger"
    records = [json.loads(path.read_text()) for path in ledger.glob("*/0*.json")]
    workers = {commit["worker"] for record in records for commit in record["commits"]}
    assert len(workers) == 2
    if level == "Lines":
        again = counterfactory("verify", f"runs/{level}", "--rerun", 2, cwd=users_folder)
        assert again.returncode == 0, again.stdout
        assert again.stdout.count("equal, bit by bit") == 2
