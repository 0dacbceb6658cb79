"""Texts as tokens: a byte-level BPE (Sennrich et al. 2016, in bytes) that the `tokenizers` library trains on some of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workers.data.shared import Arrays, shared
from workers.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILL = 0
"""The token that no text holds: what a text is filled up with."""
LEAST = 257
"""The smallest vocabulary: every byte, and FILL."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of m texts, one text after the other."""

    ids: NDArray[np.int64]
    """(total,) above FILL."""
    starts: NDArray[np.int64]
    """(m + 1,) text i has the tokens starts[i]:starts[i + 1]."""
    vocabulary: int
    """How many tokens there are, FILL among them."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every text, (m,)."""
        return np.diff(self.starts)

    def padded(self, texts: NDArray[np.int64], length: int, fill: int = FILL) -> NDArray[np.int64]:
        """Return the first `length` tokens of the texts at these positions (k,), filled up: (k, length)."""
        made = np.full((len(texts), length), fill, dtype=np.int64)
        for row, text in enumerate(texts):
            ids = self.ids[self.starts[text] : self.starts[text + 1]][:length]
            made[row, : len(ids)] = ids
        return made


def trained(texts: Sequence[str], training: Sequence[str], vocabulary: int) -> Tokens:
    """Return the tokens of `texts` by a tokenizer of at most `vocabulary` tokens that was trained on `training`.

    A space is put before every text, so that a word is the same token at its beginning and inside. No text is unknown, as all
    bytes are tokens. What was trained is shared with workers, which need no tokenizer then.
    Raises ConfigError where the `tokenizers` library is not installed.
    """

    def load() -> Arrays:
        with _one_thread():
            tokenizer = _tokenizer(training, vocabulary)
            encodings = tokenizer.encode_batch(list(texts))
        return {
            "ids": np.array([token for one in encodings for token in one.ids], dtype=np.int64),
            "starts": np.cumsum([0, *(len(one.ids) for one in encodings)]),
            "vocabulary": np.array(tokenizer.get_vocab_size()),
        }

    arrays = shared(f"tokens:{vocabulary}:{_hash(texts)}:{_hash(training)}", load)
    return Tokens(arrays["ids"], arrays["starts"], int(arrays["vocabulary"]))


def _tokenizer(training: Sequence[str], vocabulary: int) -> Tokenizer:
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ConfigError("trained tokens need the `tokenizers` library: pip install 'counterfactory[text]'") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["[FILL]"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training, trainer)
    return tokenizer


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have the library use one thread: it starts one a core, and complains of every fork after that."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:16]
