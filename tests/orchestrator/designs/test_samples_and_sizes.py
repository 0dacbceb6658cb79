"""How much of a design a sample keeps, how large its subsets are, and how a pack of it is chosen: the numbers themselves."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.designs.base import Context, Design
from orchestrator.designs.explicit import Explicit
from orchestrator.designs.full import Full
from orchestrator.designs.imported import Imported
from orchestrator.designs.keys import generator_of, seed_of
from orchestrator.designs.leave_out import LeaveGroupOut, LeaveOneOut
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


@pytest.mark.parametrize(
    ("design", "what"),
    [
        (subsets(drop=0.001), "is a subset of 40; expected between 1 and 39"),
        (subsets(drop=N), "is a subset of 0; expected between 1 and 39"),
        (subsets(drop=N + 2), "is a subset of -2; expected between 1 and 39"),
        (bernoulli(drop=N), "leaves less than one; expected at most 39"),
    ],
)
def test_dropping_none_or_all_is_refused(design: Subsets | Bernoulli, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"^designs\.made\.drop: {design.drop} of {N} examples {what}$"):
        design.check(CONTEXT)


@pytest.mark.parametrize("n", range(2, 50))
def test_all_but_one_may_be_dropped(n: int) -> None:
    for made in (subsets(drop=n - 1), bernoulli(drop=n - 1)):
        made.check(Context("made", 3, n))


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_what_is_no_fraction_leaves_nothing_out(fraction: float) -> None:
    with pytest.raises(ConfigError, match=rf"^designs\.made\.examples: {fraction} is no fraction; .* between 0 and 1$"):
        left_out(fraction).check(CONTEXT)


def test_a_sample_of_left_out_examples_is_the_first_of_one_order() -> None:
    order = generator_of(3, "made", 0).permutation(N)
    assert left_out(20).chosen(CONTEXT).tolist() == order[:20].tolist()
    assert left_out(0.001).chosen(CONTEXT).tolist() == order[:1].tolist(), "at least one"


@pytest.mark.parametrize(
    "design",
    [left_out("all"), orders(), subsets(), bernoulli(), Full(kind="full"), LeaveGroupOut(kind="leave_group_out")],
)
def test_masks_are_truth_values_of_the_examples(design: Design) -> None:
    context = replace(CONTEXT, groups={"label": np.arange(N) % 2})
    for masks, shape in ((design.mask(0, context), (N,)), (design.many(np.array([0, 0]), context), (2, N))):
        assert masks.dtype == np.bool_
        assert masks.shape == shape


def test_a_draw_and_a_row_of_a_file_are_truth_values(tmp_path: Path) -> None:
    for design in (subsets(), bernoulli()):
        assert design.draw(np.random.default_rng(0), CONTEXT).dtype == np.bool_
    np.save(tmp_path / "masks.npy", np.ones((1, N), dtype=np.int64))
    row = Explicit(kind="explicit", masks="masks.npy").mask(0, replace(CONTEXT, folder=tmp_path))
    assert row.dtype == np.bool_


@pytest.mark.parametrize(
    ("checkpoints", "expected"), [("last", (1,)), ("none", ()), ((3, 2), (2, 3)), ((0,), (0, 1)), ((), (1,))]
)
def test_without_a_number_of_epochs_the_last_one_named_is_the_end(checkpoints: Any, expected: tuple[int, ...]) -> None:
    assert Full(kind="full", checkpoints=checkpoints).checkpoint_epochs(None, CONTEXT) == expected


def test_imported_runs_are_not_drawn() -> None:
    with pytest.raises(ConfigError, match=r"^designs\.made: its runs were imported and cannot be drawn$"):
        Imported(kind="imported", runs=3, source="there").mask(0, CONTEXT)
