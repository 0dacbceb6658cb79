import gzip

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workers.errors import ConfigError, DataError

TEXT = "To be, or not to be, that is the question:\n" * 20


@pytest.fixture
def task(build, tmp_path):
    (tmp_path / "play.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    sizes = {"n": 40, "t": 8, "length": 16, "width": 16, "heads": 2, "layers": 1}
    return build("characters", path="play.txt.gz", split_seed=None, recipe={"epochs": 15, "lr": 0.01}, **sizes)


def test_chunks_follow_one_another_and_targets_are_the_next_characters(task):
    assert "".join(task.show("train", i) for i in range(40)) + task.show("task", 0) == TEXT[: 41 * 16]
    assert torch.equal(task.train_inputs[:, 1:], task.train_targets[:, :-1])
    assert torch.equal(task.train_inputs[1:, 0], task.train_targets[:-1, -1])
    assert task.vocabulary == tuple(sorted(set(TEXT)))
    assert task.label("train", 0) == "To be, or not to"
    assert task.describe() == (
        "play: 40 training and 8 query chunks of 16 characters, 1-layer causal transformer of width 16"
    )


def test_loss_and_margin_are_means_over_tokens(task):
    torch.manual_seed(0)
    outputs, targets = torch.randn(3, 16, 20).double(), torch.randint(20, (3, 16))
    log_p = outputs.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    measures = task.measurements()
    torch.testing.assert_close(measures["loss"](outputs, targets), -log_p.mean(1))
    torch.testing.assert_close(task.loss(outputs, targets), -log_p.mean(1))
    margins = log_p - torch.log1p(-log_p.exp())
    torch.testing.assert_close(measures["margin"](outputs, targets), margins.mean(1))
    smooth = task.recipe.model_copy(update={"label_smoothing": 0.1})
    task.recipe = smooth
    expected = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(task.loss(outputs, targets), expected.reshape(3, 16).mean(1))


def test_it_learns_the_text(task, outcome):
    losses = outcome(task).outputs["loss"]
    assert losses.mean() < 0.75 * np.log(len(task.vocabulary))


def test_mistakes(build, tmp_path):
    (tmp_path / "play.txt").write_text(TEXT)
    with pytest.raises(ConfigError, match="multiple of heads"):
        build("characters", path="play.txt", width=10, heads=4)
    with pytest.raises(ConfigError, match="do not fit into 13 examples"):
        build("characters", path="play.txt")
    with pytest.raises(DataError, match="there is no file"):
        build("characters", path="absent.txt")
