import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.designs.keys import SCORE_SHARE, generator_of, generators_of, is_for_scoring, seed_of, seeds_of
from orchestrator.designs.seed_sequences import Prepared


@pytest.mark.parametrize(
    ("key", "expected"),
    [((0, "fit", 0, 0), 3532740850), ((0, "heldout", 5, 2), 2528244235), ((7, "fit", 199_999, 0), 3118649061)],
)
def test_seeds_are_those_of_every_sweep_made_so_far(key: tuple[int, str, int, int], expected: int) -> None:
    assert seed_of(*key) == expected


def test_masks_are_those_of_every_sweep_made_so_far() -> None:
    assert generator_of(0, "fit", 3).integers(2**32, size=2).tolist() == [224563974, 3688337761]


def test_the_side_of_a_mask_is_that_of_every_sweep_made_so_far() -> None:
    scored = [k for k in range(1, 64) if is_for_scoring(k >> np.arange(12) & 1 == 1)]
    assert scored == [4, 5, 7, 19, 32, 41, 45, 49, 56]


@given(st.integers(0, 2**70), st.text(), st.integers(0, 2**31), st.integers(0, 100))
def test_every_library_accepts_a_seed(root: int, design: str, subset: int, repeat: int) -> None:
    assert 0 <= seed_of(root, design, subset, repeat) < 2**32


@given(st.integers(0, 2**140), st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 100)), min_size=1))
def test_many_seeds_at_once_are_those_one_by_one(root: int, runs: list[tuple[int, int]]) -> None:
    subsets, repeats = np.array(runs, dtype=np.int64).T
    assert seeds_of(root, "fit", subsets, repeats).tolist() == [seed_of(root, "fit", *run) for run in runs]


@given(st.integers(0, 2**140), st.lists(st.integers(0, 2**32 - 1), max_size=15), st.integers(0, 3))
def test_many_generators_at_once_are_those_one_by_one(root: int, subsets: list[int], attempt: int) -> None:
    many = list(generators_of(root, "fit", np.array(subsets, dtype=np.int64), attempt))
    one_by_one = [generator_of(root, "fit", subset, attempt) for subset in subsets]
    assert [rng.bit_generator.state for rng in many] == [rng.bit_generator.state for rng in one_by_one]


@pytest.mark.parametrize("subset", [-1, 2**32])
def test_a_subset_that_is_no_word_of_a_key_is_refused(subset: int) -> None:
    with pytest.raises(ValueError, match=r"^every part of a key must be at least 0 and below 2\*\*32$"):
        seeds_of(0, "fit", np.array([3, subset]), np.array([0, 0]))


def test_a_state_is_of_the_size_that_was_prepared() -> None:
    prepared = Prepared(np.arange(8, dtype=np.uint32))
    assert prepared.generate_state(8).tolist() == list(range(8))
    assert prepared.generate_state(4, np.uint64).view(np.uint32).tolist() == list(range(8))
    with pytest.raises(ValueError, match=r"^3 words were asked for, 8 are prepared$"):
        prepared.generate_state(3)


def test_seeds_of_designs_subsets_repeats_and_roots_differ() -> None:
    keys = [(root, d, s, r) for root in (0, 1) for d in ("fit", "heldout") for s in range(300) for r in range(3)]
    assert len({seed_of(*key) for key in keys}) == len(keys)


def test_masks_are_drawn_from_other_streams_than_seeds() -> None:
    first = {int(generator_of(0, "fit", s, a).integers(2**32)) for s in range(200) for a in range(2)}
    assert len(first) == 400
    assert not first & {seed_of(0, "fit", s, r) for s in range(200) for r in range(2)}


@given(arrays(bool, st.integers(1, 40)))
def test_the_side_depends_on_the_subset_alone(mask: np.ndarray) -> None:
    strided = np.repeat(mask, 2)[::2]
    assert is_for_scoring(mask) == is_for_scoring(strided) == is_for_scoring(mask.copy())


def test_one_mask_in_eight_is_for_scoring() -> None:
    rng = np.random.default_rng(0)
    share = np.mean([is_for_scoring(rng.random(50) < 0.5) for _ in range(4000)])
    # Five standard deviations of a share of 4,000 coins.
    assert abs(share - 1 / SCORE_SHARE) < 5 * np.sqrt(1 / SCORE_SHARE * (1 - 1 / SCORE_SHARE) / 4000)
