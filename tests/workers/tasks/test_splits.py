import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import ConfigError
from workers.tasks.splits import encode, flip_labels, split


@given(st.integers(2, 60), st.integers(0, 5) | st.none(), st.data())
def test_training_examples_and_queries_are_disjoint(total, seed, data):
    n = data.draw(st.integers(1, total - 1))
    t = data.draw(st.integers(1, total - n))
    train, queries = split(total, n, t, seed)
    assert (len(train), len(queries)) == (n, t)
    assert len(np.union1d(train, queries)) == n + t
    again = split(total, n, t, seed)
    np.testing.assert_array_equal(train, again[0])


def test_sizes_that_are_not_given():
    assert tuple(map(len, split(10, None, None, 0))) == (8, 2)
    assert tuple(map(len, split(10, None, 3, 0))) == (7, 3)
    assert tuple(map(len, split(10, 4, None, 0))) == (4, 2)
    np.testing.assert_array_equal(np.concatenate(split(5, 3, 2, None)), np.arange(5))


@pytest.mark.parametrize(("n", "t"), [(8, 3), (None, 10)])
def test_a_pool_too_small_is_refused(n, t):
    with pytest.raises(ConfigError, match="do not fit into 10"):
        split(10, n, t, 0)


@given(st.integers(1, 50), st.integers(2, 10), st.floats(0, 0.99), st.integers(0, 9))
def test_flipped_labels_are_other_labels(n, classes, fraction, seed):
    labels = np.random.default_rng(1).integers(classes, size=n)
    noisy, flipped = flip_labels(labels, classes, fraction, seed)
    assert flipped.sum() == round(fraction * n)
    np.testing.assert_array_equal(noisy != labels, flipped)
    assert ((noisy >= 0) & (noisy < classes)).all()


def test_flips_reach_every_other_class():
    noisy, _ = flip_labels(np.zeros(3000, dtype=np.int64), 4, 0.9, 0)
    counts = np.bincount(noisy, minlength=4)[1:]
    assert (np.abs(counts - 900) < 6 * 900**0.5).all()


def test_encode():
    names, codes = encode(np.array(["b", "a", "b"], dtype=object))
    assert names == ("a", "b")
    assert codes.tolist() == [1, 0, 1]
