"""The text task: what it reads, what its model sees, and that it trains and is differentiated like any other."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from workers import Queries, Run
from workers.errors import ConfigError, DataError
from workers.packs import train_pack
from workers.tasks.networks import TextClassifier

GOOD, BAD = ("a fine film", "good and warm", "really good fun"), ("a dull film", "bad and cold", "really bad stuff")
SIZES = {"width": 8, "heads": 2, "layers": 2, "length": 5, "vocabulary": 270}
DATA = Path(os.environ.get("COUNTERFACTORY_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
SST2 = DATA / "sst2_train6k.tsv.gz"


def write(folder, rows, name="reviews.tsv"):
    (folder / name).write_text("text\tmood\n" + "".join(f"{text}\t{mood}\n" for text, mood in rows))
    return name


@pytest.fixture
def reviews(tmp_path):
    rows = [((GOOD, BAD)[i % 2][i % 3], ("good", "bad")[i % 2]) for i in range(60)]
    return write(tmp_path, rows)


@pytest.fixture
def task(build, reviews):
    return lambda **options: build("text", **{"path": reviews, "text": "text", "n": 40, "t": 12, **SIZES, **options})


def test_tokens_masks_classes_and_texts(task):
    made = task(split_seed=None)
    assert made.train_inputs["tokens"].shape == made.train_inputs["mask"].shape == (40, 5)
    assert made.query_inputs["tokens"].shape == (12, 5)
    assert torch.equal(made.train_inputs["mask"], made.train_inputs["tokens"] != 0)
    assert made.train_inputs["mask"][:, 0].all()
    names = [made.label("train", index) for index in range(40)]
    assert [GOOD if name == "good" else BAD for name in names] == [
        GOOD if made.show("train", index) in GOOD else BAD for index in range(40)
    ]
    assert made.groups()["label"].tolist() == made.train_targets.tolist()
    assert made.describe().startswith("reviews: 40 training texts, 12 queries, ")
    assert made.describe().endswith("cut to 5 tokens, 2 classes, 270 tokens known, 2-layer transformer of width 8")
    same, other = task(split_seed=None, length=50), task(split_seed=1)
    assert "0 of them cut to 50" in same.describe()
    assert [other.show("train", i) for i in range(40)] != [made.show("train", i) for i in range(40)]


def test_the_tokenizer_knows_no_query(build, tmp_path):
    rows = [("good film", "good"), ("bad film", "bad")] * 5 + [("zebra film", "good")] * 10
    options = {**SIZES, "length": 20, "vocabulary": 400}
    made = build("text", path=write(tmp_path, rows), text="text", n=10, t=10, split_seed=None, **options)
    assert made.train_inputs["mask"].sum(1).tolist() == [2] * 10
    assert made.query_inputs["mask"].sum(1).min() > 4


def test_flipped_labels_are_told(task):
    clean, noisy = task(), task(flip_labels=0.1)
    assert noisy.flipped.sum() == 4
    np.testing.assert_array_equal((clean.train_targets != noisy.train_targets).numpy(), noisy.flipped)
    first = int(noisy.flipped.argmax())
    assert noisy.label("train", first) in ("good (flipped from bad)", "bad (flipped from good)")
    assert "4 labels flipped" in noisy.describe()


def test_it_learns(task, outcome):
    made = task(dropout=0.0, length=12, vocabulary=300, recipe={"epochs": 25, "batch_size": 8, "lr": 3e-3})
    assert outcome(made).outputs["correct"].mean() > 0.9


def test_what_stands_where_there_is_no_token_changes_nothing():
    torch.manual_seed(0)
    module = TextClassifier(9, 6, 3, 8, 2, 2, 0.3).eval()
    tokens, mask = torch.randint(9, (4, 6)), torch.arange(6) < torch.tensor([[1], [3], [6], [2]])
    changed = torch.where(mask, tokens, (tokens + 1) % 9)
    torch.testing.assert_close(module(tokens, mask), module(changed, mask))
    assert not torch.allclose(module(tokens, mask), module((tokens + 1) % 9, mask))


def runs(n):
    return [Run(row, np.arange(0, n, 1 + row), seed=5 + row, checkpoint_epochs=(1, 2)) for row in range(3)]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_in_a_pack_it_is_trained_as_alone(task, dropout):
    made = task(dropout=dropout, recipe={"epochs": 2, "precision": "float64"})
    single, packed = (
        train_pack(made, runs(40), ["margin"], Queries(), method=method, width=3) for method in ("alone", "stacked")
    )
    for one, other in zip(single, packed, strict=True):
        np.testing.assert_allclose(one.outputs["margin"], other.outputs["margin"], rtol=1e-6, atol=1e-6)
        for kept, also in zip(one.checkpoints, other.checkpoints, strict=True):
            for name in kept.state:
                torch.testing.assert_close(kept.state[name], also.state[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": "words"}, ConfigError, "text: .*has no column 'words'"),
        ({"target": "moods"}, ConfigError, "target: .*has no column 'moods': did you mean mood"),
        ({"target": "text"}, ConfigError, "target: 'text' is the column of texts"),
        ({"width": 9}, ConfigError, "width = 9 must be a multiple of heads = 2"),
        ({"n": 49}, ConfigError, "do not fit into 60 examples"),
        ({"vocabulary": 256}, ConfigError, "vocabulary: Input should be greater than or equal to 257"),
    ],
)
def test_mistakes(task, options, error, message):
    with pytest.raises(error, match=message):
        task(**options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("", "y"), ("b", "x")], "column 'text' has 1 missing"),
        ([("a", "x"), ("  ", "y"), ("b", "x")], "column 'text' has 1 empty texts, the first in row 2"),
        ([("1", "x"), ("2", "y"), ("3", "x")], "column 'text' holds int64 numbers, expected texts"),
        ([("a", "x"), ("b", "x"), ("c", "x")], "needs two classes"),
        ([("a", "x"), ("b", "y"), ("c", "z")], "column 'mood' has 3 values in 3 rows, expected classes that repeat"),
    ],
)
def test_damaged_columns(build, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        build("text", path=write(tmp_path, rows), text="text", n=2, t=1, **SIZES)


@pytest.mark.skipif(not SST2.exists(), reason="SST-2 is not here")
def test_sst2(build):
    made = build("text", path=str(SST2), text="sentence", target="label", n=200, t=20, vocabulary=500)
    assert sorted({made.label("train", index) for index in range(200)}) == ["0", "1"]
    assert made.train_inputs["tokens"].max() == 499
    assert all(made.show("task", index) for index in range(20))
