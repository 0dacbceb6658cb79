"""How much of a design a sample keeps, how large its subsets are, and how a pack of it is chosen: the numbers themselves."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.designs.base import Context
from orchestrator.designs.explicit import Explicit
from orchestrator.designs.keys import seed_of
from orchestrator.designs.leave_out import LeaveOneOut
from orchestrator.designs.permutations import Permutations
from orchestrator.designs.random_subsets import Bernoulli, Subsets
from workers.errors import ConfigError

N = 40
CONTEXT = Context("made", 3, N)


def left_out(examples: object) -> LeaveOneOut:
    return LeaveOneOut(kind="leave_one_out", examples=examples)  # type: ignore[arg-type]


def orders(**fields: object) -> Permutations:
    return Permutations(**{"kind": "permutations", "permutations": 4, **fields})  # type: ignore[arg-type]


@pytest.fixture
def explicit(tmp_path: Path) -> tuple[Explicit, Context]:
    """Twenty masks, mask k of k + 1 examples, and where they are looked for."""
    np.save(tmp_path / "masks.npy", np.arange(N) < np.arange(1, 21)[:, None])
    return Explicit(kind="explicit", masks="masks.npy"), Context("made", 3, N, folder=tmp_path)


@pytest.mark.parametrize(
    ("examples", "fraction", "kept"),
    [
        ("all", 0.25, 10),
        (0.5, 0.5, 10),
        (20, 0.25, 5),
        (20, 0.001, 1),
        ((7, 3, 5, 9), 0.5, 2),
        ((7, 3, 5, 9), 0.001, 1),
        ("all", 1.0, N),
    ],
)
def test_a_sample_leaves_out_that_fraction_of_the_examples(examples: object, fraction: float, kept: int) -> None:
    sampled = left_out(examples).sample(fraction)
    sampled.check(CONTEXT)
    assert sampled.count(CONTEXT) == kept
    if isinstance(examples, tuple):
        assert sampled.chosen(CONTEXT).tolist() == list(examples[:kept])


def test_a_sample_of_masks_is_the_first_of_them(explicit: tuple[Explicit, Context]) -> None:
    design, context = explicit
    for fraction, kept in ((1.0, 20), (0.5, 10), (0.001, 1)):
        sampled = design.sample(fraction)
        assert sampled.count(context) == kept
        assert sampled.mask(kept - 1, context).sum() == kept
    assert design.sample(0.5).sample(0.5).count(context) == 5


def test_masks_are_read_again_when_their_file_was_written_again(explicit: tuple[Explicit, Context]) -> None:
    design, context = explicit
    assert design.count(context) == 20
    path = context.folder / "masks.npy"
    np.save(path, np.ones((3, N), dtype=bool))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    assert design.count(context) == 3


def test_the_mean_size_is_of_subsets_spread_over_the_whole_design(explicit: tuple[Explicit, Context]) -> None:
    design, context = explicit
    looked_at = np.unique(np.linspace(0, 19, 16).astype(int)) + 1  # sixteen at most, the first and the last among them
    assert design.mean_size(context) == pytest.approx(looked_at.mean())
    few = design.sample(0.15)  # three subsets: all are looked at
    assert few.mean_size(context) == pytest.approx(2.0)
    assert orders(step=10).mean_size(CONTEXT) == pytest.approx(25.0)


def test_the_mean_size_of_many_subsets_asks_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting(Subsets):
        def mask(self, index: int, context: Context) -> np.ndarray:
            asked.append(index)
            return super().mask(index, context)

    assert Counting(kind="subsets", subsets=100, alpha=0.5).mean_size(CONTEXT) == N / 2
    assert (len(asked), asked[0], asked[-1]) == (16, 0, 99)


@pytest.mark.parametrize(
    ("permutations", "antithetic", "good"), [(4, True, True), (2, True, True), (3, False, True), (9, True, False)]
)
def test_only_half_a_pair_is_refused(permutations: int, antithetic: bool, good: bool) -> None:
    made = orders(permutations=permutations, antithetic=antithetic)
    if good:
        made.check(CONTEXT)
    else:
        with pytest.raises(ConfigError, match="9 is odd"):
            made.check(CONTEXT)


def test_masks_of_permutations_are_truth_values() -> None:
    assert orders().mask(0, CONTEXT).dtype == np.bool_
    assert orders().many(np.arange(3), CONTEXT).dtype == np.bool_


def test_the_seed_of_a_prefix_is_its_permutation_s() -> None:
    found = orders(step=10).seeds_of(np.arange(16), np.zeros(16, np.int32), CONTEXT)
    assert found.tolist() == [seed_of(3, "made", k // 4, 0) for k in range(16)]


@pytest.mark.parametrize(
    ("step", "preferred", "pack"),
    [
        (10, 1, 4),  # 4 prefixes a permutation, four times the preferred: still whole permutations
        (10, 9, 8),  # two permutations
        (1, 9, 8),  # 40 prefixes are more than four times 9: the largest divisor up to 9
        (1, 7, 5),
        (1, 10, 40),
        (5, 2, 8),
    ],
)
def test_a_pack_is_of_whole_permutations_or_divides_one(step: int, preferred: int, pack: int) -> None:
    assert orders(step=step).pack(preferred, CONTEXT) == pack


@pytest.mark.parametrize(
    ("n", "preferred", "pack"), [(41, 5, 41), (46, 8, 46), (46, 7, 2), (44, 8, 4), (34, 8, 34), (45, 11, 9)]
)
def test_a_small_divisor_is_no_pack(n: int, preferred: int, pack: int) -> None:
    """A divisor of a quarter of the preferred pack or less would be lost in overhead: then a whole permutation is one."""
    assert orders().pack(preferred, Context("made", 3, n)) == pack


def test_what_a_permutation_s_prefixes_are_is_told() -> None:
    made = orders(step=10, antithetic=True, truncation=0.25, block=3)
    told = made.prefixes(CONTEXT)
    assert (told.permutations, told.antithetic, told.truncation, told.block) == (4, True, 0.25, 3)
    assert told.sizes.tolist() == [10, 20, 30, 40]
    assert all(np.array_equal(told.order(k), made.permutation(k, CONTEXT)) for k in range(4))


def subsets(**fields: object) -> Subsets:
    return Subsets(**{"kind": "subsets", "subsets": 6, **fields})  # type: ignore[arg-type]


def bernoulli(**fields: object) -> Bernoulli:
    return Bernoulli(**{"kind": "bernoulli", "subsets": 400, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(("drop", "size"), [(1, N - 1), (3, N - 3), (0.05, N - 2), (0.07, N - 3), (0.5, N // 2)])
def test_a_size_is_said_by_what_is_dropped(drop: int | float, size: int) -> None:
    design = subsets(drop=drop)
    design.check(CONTEXT)
    assert (design.many(np.arange(6), CONTEXT).sum(axis=1) == size).all()
    again = Subsets.model_validate(design.model_dump(mode="json"))
    assert again == design
    assert design.deciding()["drop"] == drop


def test_coins_drop_that_many_on_average() -> None:
    for drop in (4, 0.1):
        design = bernoulli(drop=drop)
        design.check(CONTEXT)
        mean = design.many(np.arange(400), CONTEXT).mean()
        assert abs(mean - 0.9) < 5 * np.sqrt(0.09 / (400 * N))


def test_half_of_the_examples_is_kept_where_nothing_is_said() -> None:
    assert (subsets().alpha, bernoulli().probability) == (0.5, 0.5)
    assert "drop" not in subsets().deciding()
    assert "drop" not in bernoulli(probability=0.3).deciding()


@pytest.mark.parametrize("drop", [0, -1, 1.0, 0.0, 1.5, True])
@pytest.mark.parametrize("make", [subsets, bernoulli])
def test_what_is_no_size_is_refused(make: Callable[..., object], drop: object) -> None:
    with pytest.raises(ValueError, match="is neither a number of examples, at least 1, nor a fraction between 0 and 1"):
        make(drop=drop)


def test_a_size_is_said_once() -> None:
    for made in (lambda: subsets(drop=1, alpha=0.5), lambda: bernoulli(drop=1, probability=0.5)):
        with pytest.raises(ValueError, match=r"drop: 1 and \w+: 0.5 both say the size; give one"):
            made()


@pytest.mark.parametrize("design", [subsets(drop=0.001), subsets(drop=N), subsets(drop=N + 2), bernoulli(drop=N)])
def test_dropping_none_or_all_is_refused(design: Subsets | Bernoulli) -> None:
    with pytest.raises(ConfigError, match=rf"^designs\.made\.drop: {design.drop} of {N} examples"):
        design.check(CONTEXT)
