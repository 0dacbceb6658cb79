"""How many seeds subsets have, and which subsets are compared, against cases counted by hand."""

import numpy as np
import pytest

from estimators.scores.seeds import complete_block, harmonic_mean, seeds_per_subset
from tests.estimators.scores.simulations import make_runs, take


def uneven(seeds, order=None):
    """Runs of subsets with so many seeds each, of two queries that tell subset and repeat."""
    s, most = len(seeds), max(seeds)
    outputs = np.stack(np.broadcast_arrays(np.arange(s)[:, None], np.arange(most)), axis=-1)
    runs = make_runs(np.eye(s, dtype=bool), outputs)
    return take(runs, np.flatnonzero(runs.repeats < np.repeat(seeds, most)))


@pytest.mark.parametrize(
    ("seeds", "subsets", "taken"),
    [
        ([3, 3, 3], [0, 1, 2], 3),
        ([1, 1, 1], [0, 1, 2], 1),
        ([2, 3, 1, 3], [1, 3], 3),  # 2 subsets of 3 seeds and 3 of 2: as many pairs of seeds with a mean, 4 against 3
        ([2, 3, 2, 3, 2], [0, 1, 2, 3, 4], 2),  # 5 of 2 against 2 of 3
        ([4, 2, 2], [0, 1, 2], 2),  # as many: the fewer seeds, and the more subsets
        ([0, 2, 0, 2], [1, 3], 2),
    ],
)
def test_the_block_has_the_most_seeds_to_compare(seeds, subsets, taken):
    runs = uneven(seeds)
    found = complete_block(take(runs, np.random.default_rng(0).permutation(len(runs.subsets))))
    assert found.subsets.tolist() == subsets
    assert found.masks.tolist() == np.eye(len(seeds), dtype=bool)[subsets].tolist()
    assert found.outputs.dtype == np.float64
    assert found.outputs.shape == (taken, len(subsets), 2)
    assert found.outputs[..., 0].tolist() == [subsets] * taken
    assert found.outputs[..., 1].tolist() == [[repeat] * len(subsets) for repeat in range(taken)]


def test_no_runs_have_no_block():
    found = complete_block(take(uneven([2]), []))
    assert (found.outputs.shape, found.masks.shape, found.subsets.shape) == ((1, 0, 2), (0, 1), (0,))


def test_seeds_are_counted_and_their_mean_is_harmonic():
    assert seeds_per_subset(uneven([3, 1, 0, 2])).tolist() == [3, 1, 2]
    assert harmonic_mean(np.array([1, 2, 4])) == pytest.approx(3 / (1 + 1 / 2 + 1 / 4))
    assert harmonic_mean(np.array([3, 3, 3])) == 3
    assert harmonic_mean(np.array([], dtype=np.int64)) == 0
