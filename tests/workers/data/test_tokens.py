"""Texts become tokens of a tokenizer that saw the training texts and nothing else."""

import os
import subprocess
import sys

import numpy as np
import pytest

from workers.data.shared import SharedArrays
from workers.data.tokens import FILL, LEAST, trained
from workers.errors import ConfigError

TEXTS = ["to be or not to be", "that is the question", "to be is to do", "zebra", "schön"]


@pytest.fixture
def tokens():
    return trained(TEXTS, TEXTS[:3], 300)


def test_tokens_cover_every_text_in_order(tokens):
    assert len(tokens.starts) == len(TEXTS) + 1
    assert tokens.lengths.sum() == len(tokens.ids)
    assert (tokens.ids != FILL).all()
    assert tokens.ids.max() < tokens.vocabulary <= 300
    to, be, *middle, again, last = tokens.ids[: tokens.starts[1]].tolist()  # "to be or not to be"
    assert (to, be) == (again, last)
    assert len({to, be, *middle}) == 4


def test_what_the_training_texts_hold_is_one_token_and_what_they_lack_is_many(tokens):
    lengths = dict(zip(TEXTS, tokens.lengths, strict=True))
    assert lengths["to be or not to be"] == 6
    assert lengths["zebra"] >= 4
    own = trained(TEXTS, ["zebra"] * 5, 300)
    assert own.lengths[3] == 1
    assert own.lengths[0] > 6


def test_a_vocabulary_of_the_least_size_is_bytes():
    tokens = trained(["ab", "ö"], ["ab"], LEAST)
    assert tokens.vocabulary == LEAST
    assert tokens.lengths.tolist() == [3, 3]  # the space before, and the bytes


def test_padding_cuts_and_fills(tokens):
    padded = tokens.padded(np.array([3, 0]), 3, fill=-1)
    first = tokens.ids[tokens.starts[3] : tokens.starts[4]]
    assert padded.shape == (2, 3)
    assert padded[0].tolist() == first[:3].tolist()
    assert padded[1].tolist() == tokens.ids[:3].tolist()
    assert tokens.padded(np.array([0]), 8)[0].tolist() == [*tokens.ids[:6], FILL, FILL]


def test_another_process_finds_the_same_tokens():
    code = "import sys; from workers.data.tokens import trained; print(trained(sys.argv[1:], sys.argv[1:4], 300).ids.tolist())"
    told = subprocess.run([sys.executable, "-c", code, *TEXTS], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(trained(TEXTS, TEXTS[:3], 300).ids.tolist())


def test_workers_need_no_tokenizer(monkeypatch, tokens):
    arrays = SharedArrays()
    with arrays.in_use():
        trained(TEXTS, TEXTS[:3], 300)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with arrays.in_use():
        assert trained(TEXTS, TEXTS[:3], 300).ids.tolist() == tokens.ids.tolist()


def test_where_the_library_is_missing_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'counterfactory\[text\]'"):
        trained(TEXTS, TEXTS, 300)


@pytest.mark.parametrize("before", [None, "true"])
def test_the_environment_is_left_as_it_was(monkeypatch, before):
    name = "TOKENIZERS_PARALLELISM"
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    trained(["a b", "b c"], ["a b"], 257)
    assert os.environ.get(name) == before
