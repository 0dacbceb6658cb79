from itertools import pairwise

import numpy as np
import pytest

from orchestrator.designs.base import Context
from orchestrator.designs.permutations import Permutations
from workers.errors import ConfigError


def design(**fields: object) -> Permutations:
    return Permutations(**{"kind": "permutations", "permutations": 4, **fields})  # type: ignore[arg-type]


CONTEXT = Context("orders", 7, 10)


@pytest.mark.parametrize(
    ("step", "sizes"), [(1, [*range(1, 11)]), (3, [3, 6, 9, 10]), (5, [5, 10]), (10, [10]), (99, [10])]
)
def test_prefixes_grow_by_the_step_and_end_with_everything(step: int, sizes: list[int]) -> None:
    orders = design(step=step)
    assert orders.sizes(CONTEXT).tolist() == sizes
    assert orders.count(CONTEXT) == 4 * len(sizes)
    for permutation in range(4):
        masks = [orders.mask(permutation * len(sizes) + k, CONTEXT) for k in range(len(sizes))]
        assert [int(mask.sum()) for mask in masks] == sizes
        assert all((small <= large).all() for small, large in pairwise(masks)), "nested"


def test_many_masks_at_once_are_those_one_by_one() -> None:
    orders = design(step=2, antithetic=True)
    chosen = np.array([3, 17, 0, 9])
    one_by_one = np.stack([orders.mask(int(k), CONTEXT) for k in chosen])
    assert np.array_equal(orders.many(chosen, CONTEXT), one_by_one)


def test_all_prefixes_of_a_permutation_share_a_seed_and_no_two_permutations_do() -> None:
    orders = design()
    seeds = orders.seeds_of(np.arange(40), np.zeros(40, dtype=np.int32), CONTEXT).reshape(4, 10)
    assert (seeds == seeds[:, :1]).all()
    assert len(set(seeds[:, 0].tolist())) == 4


def test_every_second_antithetic_permutation_is_the_reverse() -> None:
    orders, plain = design(antithetic=True), design()
    for pair in range(2):
        assert np.array_equal(orders.permutation(2 * pair, CONTEXT), orders.permutation(2 * pair + 1, CONTEXT)[::-1])
        assert np.array_equal(orders.permutation(2 * pair, CONTEXT), plain.permutation(pair, CONTEXT))
    assert not np.array_equal(orders.permutation(0, CONTEXT), orders.permutation(2, CONTEXT))


def test_half_a_pair_is_refused_and_samples_keep_whole_ones() -> None:
    with pytest.raises(ConfigError, match=r"^designs\.orders\.permutations: 5 is odd"):
        design(permutations=5, antithetic=True).check(CONTEXT)
    assert design(permutations=10, antithetic=True).sample(0.3).permutations == 4  # type: ignore[attr-defined]
    assert design(permutations=10).sample(0.01).permutations == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("preferred", [1, 2, 3, 7, 10, 25, 64, 1000])
@pytest.mark.parametrize("n", [10, 11, 60])
def test_packs_hold_whole_permutations_or_divide_them(preferred: int, n: int) -> None:
    pack = design().pack(preferred, Context("orders", 7, n))
    assert pack % n == 0 or n % pack == 0
    assert pack <= max(preferred, n)
