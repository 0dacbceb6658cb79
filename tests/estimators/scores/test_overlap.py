"""No scoring subset may be one that was fitted on."""

import numpy as np
import pytest

from estimators.scores import count_overlap, refuse_overlap
from workers.errors import DataError


def test_counts_equal_a_double_loop(monkeypatch):
    monkeypatch.setattr("estimators.scores.overlap._BLOCK", 50)
    rng = np.random.default_rng(0)
    fitted, scored = rng.random((40, 5)) < 0.5, rng.random((15, 5)) < 0.5
    rows = {tuple(row) for row in scored.tolist()}
    shared = sum(any(row == tuple(other) for other in fitted.tolist()) for row in rows)
    assert 0 < shared < len(rows)
    assert count_overlap(fitted, scored) == (shared, len(rows))


def test_one_example_makes_a_different_subset():
    scored = np.random.default_rng(0).random((20, 1001)) < 0.5
    fitted = scored.copy()
    fitted[:, -1] ^= True
    refuse_overlap(fitted, scored)
    fitted[7] = scored[3]
    with pytest.raises(DataError, match="1 of the 20 scoring subsets were also fitted on"):
        refuse_overlap(fitted, scored)


def test_other_examples_are_refused():
    with pytest.raises(DataError, match="cover 4 examples and the scoring masks 5"):
        refuse_overlap(np.ones((2, 4), bool), np.ones((2, 5), bool))


def test_repeated_scoring_subsets_count_once():
    scored = np.repeat(np.eye(3, dtype=bool), 4, axis=0)
    assert count_overlap(scored[:1], scored) == (1, 3)
    assert count_overlap(scored[:0], scored) == (0, 3)
