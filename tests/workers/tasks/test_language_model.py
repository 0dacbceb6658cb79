"""Language models on documents: what they expect, what counts, and that packs agree with training alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from workers import Queries, Run
from workers.errors import ConfigError
from workers.packs import train_pack
from workers.tasks.language_model import NOTHING

DOCUMENTS = ["To be, or not", "to be?", "That is the question.", "No", "Aye, there's the rub"] * 6
SIZES = {"n": 20, "t": 6, "length": 8, "width": 8, "heads": 2, "layers": 2, "vocabulary": 280}


@pytest.fixture
def task(build, tmp_path):
    (tmp_path / "play.txt").write_text("\n\n".join(DOCUMENTS) + "\n\n \n\n")
    return lambda **options: build("language_model", **{"path": "play.txt", **SIZES, **options})


def test_documents_of_characters(task):
    made = task(tokens="characters", split_seed=None)
    names = dict(enumerate(sorted(set("\n\n".join(DOCUMENTS) + "\n ")), start=1))
    spelled = ["".join(names[code] for code in row if code != NOTHING) for row in made.train_targets.tolist()]
    assert spelled == [document[:8] for document in DOCUMENTS[:20]]
    assert (made.train_inputs[:, 0] == 0).all()
    there = made.train_targets[:, :-1] != NOTHING
    assert torch.equal(made.train_inputs[:, 1:][there], made.train_targets[:, :-1][there])
    assert [made.show("task", i) for i in range(6)] == DOCUMENTS[20:26]
    assert made.label("train", 2) == "That is the question."
    assert made.describe() == (
        f"play: 20 training and 6 query documents, 16 of them cut to 8 of {len(names) + 1} known tokens, "
        "2-layer causal transformer of width 8"
    )


def test_measures_are_means_over_the_tokens_of_a_document(task):
    made = task(tokens="characters", split_seed=None)
    outputs, targets = torch.randn(4, 8, 30, dtype=torch.float64), made.train_targets[:4]
    for name, measure in made.measurements().items():
        found = measure(outputs, targets)
        for row in range(4):
            kept = targets[row] != NOTHING
            log_p = outputs[row, kept].log_softmax(-1).gather(-1, targets[row, kept, None]).squeeze(-1)
            each = -log_p if name == "loss" else log_p - torch.log1p(-log_p.exp())
            torch.testing.assert_close(found[row], each.mean())
    made.recipe = made.recipe.model_copy(update={"label_smoothing": 0.1})
    kept = targets[3] != NOTHING
    smooth = F.cross_entropy(outputs[3, kept], targets[3, kept], label_smoothing=0.1)
    torch.testing.assert_close(made.loss(outputs, targets)[3], smooth)


def test_it_learns(task, outcome):
    made = task(dropout=0.0, attention_dropout=0.0, recipe={"epochs": 30, "batch_size": 2, "lr": 0.01})
    assert outcome(made).outputs["loss"].mean() < 0.6 * np.log(280)


def test_in_a_pack_it_is_trained_as_alone(task):
    made = task(recipe={"epochs": 2, "precision": "float64"})
    drops = [part.p for part in made.module().modules() if isinstance(part, torch.nn.Dropout)]
    assert drops == [0.1] * 3  # one that all halves share, and one inside each attention
    runs = [Run(row, np.arange(0, 20, 1 + row), seed=5 + row, checkpoint_epochs=(2,)) for row in range(3)]
    single, packed = (
        train_pack(made, runs, ["loss"], Queries(), method=method, width=3) for method in ("alone", "stacked")
    )
    for one, other in zip(single, packed, strict=True):
        for kept, also in zip(one.checkpoints, other.checkpoints, strict=True):
            for name in kept.state:
                torch.testing.assert_close(kept.state[name], also.state[name], rtol=0, atol=1e-9)


def test_mistakes(task):
    with pytest.raises(ConfigError, match="multiple of heads"):
        task(width=9)
    with pytest.raises(ConfigError, match="do not fit into 30 examples"):
        task(n=25)
    with pytest.raises(ConfigError, match="separator: String should have at least 1 character"):
        task(separator="")
