import numpy as np
import pytest

from estimators.lasso import gram


@pytest.mark.parametrize("integer", [None, True, False])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (9, 1), (1, 9), (40, 33), (50, 7), (300, 40), (20, 130)])
def test_products_are_exact_and_add_up(monkeypatch, integer, m, n):
    monkeypatch.setattr(gram, "TILE", 32)
    monkeypatch.setattr(gram, "ROWS", 7)
    rng = np.random.default_rng(m + n)
    total = np.zeros((n, n), np.int32)
    expected = np.zeros((n, n), np.int64)
    for p in (0.5, 0.9):
        masks = rng.random((m, n)) < p
        gram.add_gram(total, masks, integer=integer)
        expected += masks.T.astype(np.int64) @ masks
    np.testing.assert_array_equal(total, expected)


def test_counts_beyond_what_float32_holds_stay_exact():
    total = np.full((2, 2), 2**24 + 1, np.int32)
    gram.add_gram(total, np.ones((3, 2), np.bool_), integer=False)
    assert (total == 2**24 + 4).all()


def test_the_fallback_is_taken_where_there_are_no_integer_products(monkeypatch):
    monkeypatch.setattr(gram, "has_integer_products", lambda device: False)
    monkeypatch.setattr(gram, "_integer_product", lambda left, right: pytest.fail("not here"))
    total = np.zeros((3, 3), np.int32)
    gram.add_gram(total, np.eye(3, dtype=np.bool_))
    np.testing.assert_array_equal(total, np.eye(3))
