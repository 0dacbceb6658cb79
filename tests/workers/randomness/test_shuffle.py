import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from workers.randomness.shuffle import Shuffler

MASK = 2**64 - 1


def shuffle_by_hand(key, subset, epochs):
    """The same in Python's own integers."""
    rows = []
    for _ in range(epochs):
        line = list(subset)
        for i in range(len(line) - 1, 0, -1):
            key = (key + 0x9E3779B97F4A7C15) & MASK
            z = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
            z ^= z >> 31
            j = (z >> 32) * (i + 1) >> 32
            line[i], line[j] = line[j], line[i]
        rows.append(line)
    return np.array(rows, dtype=np.int64).reshape(epochs, len(subset))


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, MASK), st.lists(st.integers(0, 10**6), max_size=30), st.integers(0, 4))
def test_orders_are_the_published_shuffle(key, subset, epochs):
    subset = np.array(subset, dtype=np.int64)
    np.testing.assert_array_equal(Shuffler(key).orders(subset, epochs), shuffle_by_hand(key, subset, epochs))


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, MASK), st.integers(1, 50), st.integers(1, 5))
def test_epochs_drawn_together_are_those_drawn_one_by_one(key, count, epochs):
    subset = np.arange(count) * 7
    together, single = Shuffler(key).orders(subset, epochs), Shuffler(key)
    np.testing.assert_array_equal(together, np.concatenate([single.orders(subset, 1) for _ in range(epochs)]))
    np.testing.assert_array_equal(np.sort(together, axis=1), np.tile(subset, (epochs, 1)))


def test_the_first_number_is_splitmix64s():
    """SplitMix64 of seed 0 begins with this number; its upper half chooses among two."""
    assert 0xE220A8397B1DCDAF >> 63 == 1
    np.testing.assert_array_equal(Shuffler(0).orders(np.arange(2), 1), [[0, 1]])


def test_every_permutation_of_four_is_as_likely():
    rows = Shuffler(11).orders(np.arange(4), 24_000)
    _, counts = np.unique(rows @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 1e-3


def test_every_example_is_as_likely_at_every_place():
    rows = Shuffler(5).orders(np.arange(50), 20_000)
    table = np.array([np.bincount(rows[:, place], minlength=50) for place in range(50)])
    assert ((table - 400) ** 2 / 400).sum() < 49 * 49 + 5 * np.sqrt(2 * 49 * 49)
