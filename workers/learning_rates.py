"""Learning rates over the steps of a training, as factors of the peak rate: one function a schedule, (total,) float64 each."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Factors = NDArray[np.float64]


def warmed_up(decay: Literal["constant", "linear", "cosine"], total: int, warmup: int) -> Factors:
    """Return the factor of every step k = 0, ..., total - 1: k / warmup while k < warmup, then the decay from 1.

    With u = (k - warmup) / (total - warmup), `linear` is 1 - u and `cosine` (1 + cos(pi u)) / 2; `constant` stays at 1. These
    are the factors of `get_{linear,cosine,constant}_schedule_with_warmup` of Hugging Face's transformers: the first step
    of a warm-up has rate 0, and no step has the 0 at which a decay would end.
    """
    step = np.arange(total, dtype=np.float64)
    since, left = step - warmup, max(1, total - warmup)
    if decay == "linear":
        factor = 1 - since / left
    elif decay == "cosine":
        factor = 0.5 * (1 + np.cos(np.pi * since / left))
    else:
        factor = np.ones(total)
    return np.where(step < warmup, step / max(1, warmup), factor)


def dropping(total: int, per_epoch: int, epochs: int, factor: float) -> Factors:
    """Return factor**j in the j-th stretch of so many epochs, of `per_epoch` steps each (torch's `StepLR`)."""
    step = np.arange(total, dtype=np.float64)
    return np.asarray(factor ** np.floor(step / per_epoch / epochs))


def one_cycle(total: int, climb: float) -> Factors:
    """Return a line from 0 up to 1, at the fraction `climb` of the steps, and down to 0; step k has its value at k + 1."""
    step = np.arange(total, dtype=np.float64)
    return np.interp(step + 1, [0, climb * total, total + 1], [0, 1, 0])
