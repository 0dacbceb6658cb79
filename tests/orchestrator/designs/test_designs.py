from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.config.schema import Config
from orchestrator.designs import AnyDesign, Context, Design
from orchestrator.designs.leave_out import LeaveOneOut
from orchestrator.sweeps.plan import DesignPlan, plan_designs
from workers.errors import ConfigError

DESIGN: TypeAdapter[Design] = TypeAdapter(AnyDesign)


class BlackBox:
    """A task of n examples that nobody trains."""

    t = 3

    def __init__(self, n: int, groups: dict[str, np.ndarray] | None = None):
        self.n = n
        self._groups = groups or {}

    def groups(self) -> dict[str, np.ndarray]:
        return self._groups

    def train(self, subset: np.ndarray, seed: int) -> None: ...

    def measure(self, model: object) -> dict[str, np.ndarray]:
        return {}


def plan(
    n: int, root: int = 0, groups: dict[str, np.ndarray] | None = None, folder: Path = Path(), **designs: Any
) -> Any:
    """Return the plans of designs given as plain data, as `counterfactory plan` makes them."""
    sections = {name: {"kind": "full"} | options for name, options in designs.items()}
    raw = {
        "name": "x",
        "folder": folder,
        "seed": root,
        "task": {"name": "digits"},
        "measures": ["m"],
        "designs": sections,
    }
    return plan_designs(Config.model_validate(raw), BlackBox(n, groups))


def subsets(plan: DesignPlan) -> list[frozenset[int]]:
    """Return every row's subset."""
    return [frozenset(np.flatnonzero(mask).tolist()) for block in plan.blocks() for mask in block.masks]


fractions = st.floats(0.05, 0.95)
draws = st.fixed_dictionaries({"kind": st.just("subsets"), "alpha": fractions}) | st.fixed_dictionaries(
    {"kind": st.just("bernoulli"), "probability": fractions}
)


@given(st.integers(2, 60), fractions, st.integers(0, 2**40))
def test_subsets_have_exactly_the_size_asked_for(n: int, alpha: float, root: int) -> None:
    assume(0 < round(alpha * n) < n)
    (made,) = plan(n, root, fit={"kind": "subsets", "alpha": alpha, "subsets": 4}).values()
    assert {len(subset) for subset in subsets(made)} == {round(alpha * n)}


@given(st.integers(1, 30), st.floats(0.01, 0.2), st.integers(0, 2**40))
def test_a_bernoulli_subset_is_never_empty(n: int, probability: float, root: int) -> None:
    assume(n * probability >= 0.02)
    (made,) = plan(n, root, fit={"kind": "bernoulli", "probability": probability, "subsets": 5}).values()
    assert all(subsets(made))


def test_a_bernoulli_subset_has_the_size_expected_on_average() -> None:
    (made,) = plan(200, fit={"kind": "bernoulli", "probability": 0.3, "subsets": 400}).values()
    sizes = [len(subset) for subset in subsets(made)]
    assert abs(np.mean(sizes) - 60) < 5 * np.sqrt(200 * 0.3 * 0.7 / 400)


def test_every_example_is_as_likely_as_the_others() -> None:
    (made,) = plan(40, fit={"kind": "subsets", "alpha": 0.25, "subsets": 2000}).values()
    counts = np.concatenate([block.masks for block in made.blocks()]).sum(axis=0)
    assert np.abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@given(draws, st.integers(0, 2**40), st.booleans(), st.data())
def test_a_row_depends_on_its_key_alone(design: dict[str, Any], root: int, fenced: bool, data: st.DataObject) -> None:
    others = {"heldout": {"kind": "subsets", "subsets": 2, "purpose": "score"}} if fenced else {}
    made = plan(20, root, fit={**design, "subsets": 9, "seeds": 2}, **others)["fit"]
    whole = made.rows(0, 18)
    start = data.draw(st.integers(0, 17))
    stop = data.draw(st.integers(start + 1, 18))
    part = plan(20, root, **others, fit={**design, "subsets": 9, "seeds": 2})["fit"].rows(start, stop)
    assert part.start == start
    for name in ("masks", "seeds", "subsets", "repeats"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])


@given(draws, st.integers(1, 8), st.integers(1, 8), st.integers(1, 3))
def test_a_larger_design_begins_with_the_smaller_one(design: dict[str, Any], small: int, more: int, seeds: int) -> None:
    heldout = {"kind": "subsets", "subsets": 3, "purpose": "score"}
    few = plan(20, fit={**design, "subsets": small, "seeds": seeds}, heldout=heldout)["fit"]
    many = plan(20, fit={**design, "subsets": small + more, "seeds": seeds}, heldout=heldout)["fit"]
    first, same = few.rows(0, few.runs), many.rows(0, few.runs)
    assert many.runs == (small + more) * seeds
    assert np.array_equal(first.masks, same.masks)
    assert np.array_equal(first.seeds, same.seeds)


def test_a_row_is_a_subset_and_a_repeat() -> None:
    rows = plan(10, fit={"kind": "subsets", "subsets": 3, "seeds": 2})["fit"].rows(0, 6)
    assert rows.subsets.tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.repeats.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(rows.masks[::2], rows.masks[1::2])
    assert len(set(rows.seeds.tolist())) == 6


def test_designs_of_other_names_and_sweeps_of_other_roots_are_different() -> None:
    design = {"kind": "subsets", "subsets": 5}
    one, two = plan(30, fit=design, more=design).values()
    other = plan(30, root=1, fit=design)["fit"]
    assert len({*subsets(one), *subsets(two), *subsets(other)}) == 15


mixed = st.fixed_dictionaries({"kind": st.just("leave_one_out"), "examples": st.integers(1, 6)}) | st.sampled_from(
    [{"kind": "full"}, {"kind": "leave_group_out"}]
)
"""Designs that are not drawn, and so know of no fence."""


@settings(deadline=None)  # a design is imported when it is first asked for
@given(
    st.integers(6, 9),
    st.lists(draws | mixed, min_size=1, max_size=3),
    st.lists(draws, min_size=1, max_size=2),
    st.integers(0, 2**40),
)
def test_no_subset_is_both_fitted_and_scored(
    n: int, fitted: list[dict[str, Any]], scored: list[dict[str, Any]], root: int
) -> None:
    designs = {f"fit{k}": {**design, **_count(design, 12)} for k, design in enumerate(fitted)}
    designs |= {f"held{k}": {**design, **_count(design, 4), "purpose": "score"} for k, design in enumerate(scored)}
    designs["again"] = {"kind": "again", "of": "held0", "purpose": "score"}
    try:
        plans = plan(n, root, {"label": np.arange(n) % 3}, **designs)
    except ConfigError:
        return  # so few examples: refused, not mixed
    sides: dict[str, set[frozenset[int]]] = {"fit": set(), "score": set()}
    for made in plans.values():
        sides[made.design.purpose].update(subsets(made))
    assert not sides["fit"] & sides["score"]


def _count(design: dict[str, Any], count: int) -> dict[str, Any]:
    return {"subsets": count} if design["kind"] in {"subsets", "bernoulli"} else {}


def test_a_leave_one_out_subset_among_those_kept_for_scoring_is_refused() -> None:
    # 9 of 10 examples at random: nearly always a leave-one-out subset.
    with pytest.raises(ConfigError, match=r"designs\.loo: its subset \d is also one of designs\.held, which is kept"):
        plan(
            10,
            loo={"kind": "leave_one_out"},
            held={"kind": "subsets", "alpha": 0.9, "subsets": 5, "purpose": "score"},
        )


def test_leave_one_out_of_all_leaves_out_each_in_order() -> None:
    made = plan(6, loo={"kind": "leave_one_out", "seeds": 2})["loo"]
    assert made.runs == 12
    assert [set(range(6)) - subset for subset in subsets(made)] == [{i} for i in range(6) for _ in range(2)]


def test_leave_one_out_of_a_list_leaves_out_these() -> None:
    made = plan(6, loo={"kind": "leave_one_out", "examples": [4, 0]})["loo"]
    assert [set(range(6)) - subset for subset in subsets(made)] == [{4}, {0}]


@given(st.integers(2, 30), st.data(), st.integers(0, 2**40))
def test_a_larger_leave_one_out_sample_begins_with_the_smaller_one(n: int, data: st.DataObject, root: int) -> None:
    large = data.draw(st.integers(1, n))
    small = data.draw(st.integers(1, large))
    many, few = (
        subsets(plan(n, root, loo={"kind": "leave_one_out", "examples": size})["loo"]) for size in (large, small)
    )
    assert many[:small] == few
    assert len(set(many)) == large
    assert {len(subset) for subset in many} == {n - 1}


@pytest.mark.parametrize(
    ("examples", "what"),
    [
        (0, "cannot sample 0 of 6 examples"),
        (7, "cannot sample 7 of 6 examples"),
        ([], "an empty list leaves no example out"),
        ([1, 6], "6 is not an example; expected distinct indices 0 to 5"),
        ([-1], "-1 is not an example"),
        ([2, 2], "an example is named twice"),
    ],
)
def test_leave_one_out_refuses_what_are_no_examples(examples: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"^designs\.loo\.examples: {what}"):
        plan(6, loo={"kind": "leave_one_out", "examples": examples})


def test_leave_group_out_leaves_out_the_groups_by_ascending_id() -> None:
    labels = np.array([7, 3, 7, 5, 3])
    made = plan(5, groups={"label": labels}, lgo={"kind": "leave_group_out", "by": "label"})["lgo"]
    assert [set(range(5)) - subset for subset in subsets(made)] == [{1, 4}, {3}, {0, 2}]


def test_leave_group_out_takes_the_groups_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "site.npy", np.array([1, 0, 1]))
    made = plan(3, folder=tmp_path, lgo={"kind": "leave_group_out", "by": "site.npy"})["lgo"]
    assert [set(range(3)) - subset for subset in subsets(made)] == [{1}, {0, 2}]


def test_leave_group_out_refuses_what_is_no_grouping(tmp_path: Path) -> None:
    np.save(tmp_path / "four.npy", np.arange(4))
    np.save(tmp_path / "one.npy", np.zeros(3))
    for by, what in [
        ("lable", r"the task has no grouping 'lable': did you mean label\?"),
        ("none.npy", "cannot read"),
        ("four.npy", r"has shape \(4,\), expected \(3,\)"),
        ("one.npy", "'one.npy' has one group; expected two or more"),
    ]:
        with pytest.raises(ConfigError, match=rf"^designs\.lgo\.by: .*{what}"):
            plan(3, groups={"label": np.arange(3)}, folder=tmp_path, lgo={"kind": "leave_group_out", "by": by})


MASKS = np.array([[1, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_explicit_masks_are_those_of_the_file(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "masks.npy", MASKS.astype(dtype))
    made = plan(3, folder=tmp_path, mine={"kind": "explicit", "masks": "masks.npy", "seeds": 2})["mine"]
    rows = made.rows(0, 4)
    assert rows.masks.dtype == bool
    assert np.array_equal(rows.masks, MASKS.repeat(2, axis=0).astype(bool))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (np.ones((2, 4)), r"has shape \(2, 4\), expected \(subsets, 3\)"),
        (np.ones(3), r"has shape \(3,\), expected \(subsets, 3\)"),
        (np.ones((0, 3)), r"has shape \(0, 3\)"),
        (2 * MASKS, "expected bool or 0/1, found other values"),
        (np.full((1, 3), np.nan), "expected bool or 0/1, found other values"),
        (np.array([["a", "b", "c"]]), "expected bool or 0/1, found other values"),
        (np.array([[1, 1, 0], [0, 0, 0]]), "row 1 is an empty subset"),
        (np.array([[1, None, 0]]), "cannot read"),
    ],
)
def test_explicit_refuses_what_are_no_masks(tmp_path: Path, content: np.ndarray, what: str) -> None:
    np.save(tmp_path / "masks.npy", content)
    with pytest.raises(ConfigError, match=rf"^designs\.mine\.masks: .*{what}"):
        plan(3, folder=tmp_path, mine={"kind": "explicit", "masks": "masks.npy"})


def test_explicit_refuses_files_of_other_kinds(tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", a=MASKS)
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("1,0,1")
    for name in ("several.npz", "empty.npy", "text.npy", "missing.npy", "."):
        with pytest.raises(ConfigError, match=r"^designs\.mine\.masks: "):
            plan(3, folder=tmp_path, mine={"kind": "explicit", "masks": name})


@pytest.mark.parametrize("purpose", ["fit", "score"])
def test_explicit_masks_on_the_other_side_of_the_fence_are_refused(tmp_path: Path, purpose: str) -> None:
    other = {"fit": "score", "score": "fit"}[purpose]
    drawn = plan(12, drawn={"kind": "subsets", "subsets": 4, "purpose": other}, x=SCORED)["drawn"]
    np.save(tmp_path / "masks.npy", np.stack([np.ones(12, dtype=bool), drawn.rows(2, 3).masks[0]]))
    mine = {"kind": "explicit", "masks": "masks.npy", "purpose": purpose}
    with pytest.raises(ConfigError, match=r"is also one of designs\.(mine|drawn), which is kept for scoring"):
        plan(12, folder=tmp_path, mine=mine, drawn={"kind": "subsets", "subsets": 4, "purpose": other}, x=SCORED)


SCORED = {"kind": "subsets", "subsets": 1, "purpose": "score"}
"""Puts up the fence, on whichever side the others stand."""


def test_again_has_the_same_subsets_and_fresh_seeds() -> None:
    held = {"kind": "subsets", "subsets": 4, "seeds": 2, "purpose": "score"}
    plans = plan(12, held=held, again={"kind": "again", "of": "held", "seeds": 3, "purpose": "score"})
    held_rows, again_rows = plans["held"].rows(0, 8), plans["again"].rows(0, 12)
    assert np.array_equal(held_rows.masks[::2], again_rows.masks[::3])
    assert not set(held_rows.seeds.tolist()) & set(again_rows.seeds.tolist())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"of": "hled"}, r"of: no other design 'hled': did you mean held\?"),
        ({"of": "again"}, "of: no other design 'again'"),
        ({"of": "third"}, "of: 'third' is itself of kind 'again'; name the first one"),
        ({"of": "held", "purpose": "fit"}, "purpose: 'fit', but 'held' has the same subsets for 'score'"),
    ],
)
def test_again_refuses(options: dict[str, Any], what: str) -> None:
    again = {"kind": "again", "purpose": "score", **options}
    third = {"kind": "again", "of": "held", "purpose": "score"}
    with pytest.raises(ConfigError, match=rf"^designs\.again\.{what}"):
        plan(12, again=again, held=SCORED, third=third)


def test_paired_designs_share_the_seeds_of_the_first_subset() -> None:
    plans = plan(6, full={"seeds": 3}, loo={"kind": "leave_one_out", "seeds": 2, "paired_with": "full"})
    full = plans["full"].rows(0, 3).seeds
    assert np.array_equal(plans["loo"].rows(0, 12).seeds, np.tile(full[:2], 6))


@pytest.mark.parametrize(
    ("checkpoints", "expected"),
    [
        ("last", (20,)),
        ("none", ()),
        ([5, 0, 5], (0, 5, 20)),
        ([20], (20,)),
        ([], (20,)),
        ("every", tuple(range(1, 21))),
        ("3 x 2", (4, 7, 10, 14, 17, 20)),
        ({"segments": 4}, (5, 10, 15, 20)),
        ({"segments": 2, "each": 2}, (5, 10, 15, 20)),
    ],
)
def test_checkpoints_are_kept_of_the_epochs_named_and_the_last(checkpoints: Any, expected: tuple[int, ...]) -> None:
    full = DESIGN.validate_python({"kind": "full", "checkpoints": checkpoints})
    assert full.checkpoint_epochs(20, Context("full", 0, 5)) == expected


def test_more_segments_than_epochs_are_refused() -> None:
    full = DESIGN.validate_python({"kind": "full", "checkpoints": "7x3"})
    with pytest.raises(
        ConfigError, match=r"^designs\.ref\.checkpoints: 21 checkpoints in segments need as many epochs, .* 20$"
    ):
        full.checkpoint_epochs(20, Context("ref", 0, 5))
    with pytest.raises(ConfigError, match=r"^designs\.ref\.checkpoints: the task trains itself"):
        full.checkpoint_epochs(None, Context("ref", 0, 5))


def test_what_a_training_keeps_leaves_other_designs_what_they_were() -> None:
    """A key that says nothing is no part of what decides the runs."""
    assert "optimizer_state" not in DESIGN.validate_python({"kind": "full"}).deciding()
    kept = DESIGN.validate_python({"kind": "full", "optimizer_state": True})
    assert kept.deciding()["optimizer_state"] is True
    assert kept.keeps_optimizer_state


@pytest.mark.parametrize("epoch", [-1, 21])
def test_a_checkpoint_beyond_the_epochs_is_refused(epoch: int) -> None:
    full = DESIGN.validate_python({"kind": "full", "checkpoints": [1, epoch]})
    with pytest.raises(
        ConfigError, match=rf"designs\.ref\.checkpoints: {epoch} is not an epoch of the recipe; .* 0 to 20"
    ):
        full.checkpoint_epochs(20, Context("ref", 0, 5))


@pytest.mark.parametrize(("alpha", "size"), [(0.04, 0), (0.96, 10)])
def test_subsets_of_no_or_all_examples_are_refused(alpha: float, size: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"designs\.fit\.alpha: {alpha} of 10 examples is a subset of {size}; .* 1 and 9"
    ):
        plan(10, fit={"kind": "subsets", "alpha": alpha, "subsets": 3})


def test_bernoulli_subsets_that_would_be_drawn_for_ever_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"designs\.fit\.probability: 1e-09 of 10 .* 100 subsets; .* 0\.001$"):
        plan(10, fit={"kind": "bernoulli", "probability": 1e-9, "subsets": 3})
    plan(10, fit={"kind": "bernoulli", "probability": 0.001, "subsets": 3})


def test_too_few_examples_for_a_side_of_the_fence_are_refused_not_mixed() -> None:
    with pytest.raises(ConfigError, match=r"^designs\.(fit|held): found no subset of 4 examples kept for purpose"):
        plan(4, fit={"kind": "subsets", "subsets": 1}, held={**SCORED, "alpha": 0.75})


def test_masks_drawn_together_are_those_drawn_one_by_one(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([5, 2, 5, 9, 2, 2]))
    for design in ({"kind": "leave_one_out", "examples": 4}, {"kind": "leave_group_out", "by": "ids.npy"}):
        (made,) = plan(6, folder=tmp_path, x=design).values()
        indices = np.array([2, 0, 2, 1])
        singly = np.stack([made.design.mask(int(index), made.context) for index in indices])
        np.testing.assert_array_equal(made.design.many(indices, made.context), singly)
        assert made.mean_size == np.mean([len(subset) for subset in subsets(made)])


def test_a_sample_of_left_out_examples_is_chosen_once_for_all_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    (made,) = plan(200, x={"kind": "leave_one_out", "examples": 100}).values()
    calls, chosen = [], LeaveOneOut.chosen

    def counted(design: LeaveOneOut, context: Context) -> Any:
        calls.append(context.name)
        return chosen(design, context)

    monkeypatch.setattr(LeaveOneOut, "chosen", counted)
    made.rows(0, 100)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("design", "fraction", "count"),
    [
        ({"kind": "subsets", "subsets": 200, "seeds": 3}, 0.1, 60),
        ({"kind": "subsets", "subsets": 20}, 0.01, 5),
        ({"kind": "bernoulli", "subsets": 200}, 0.5, 100),
        ({"kind": "leave_one_out", "examples": 20}, 0.25, 5),
        ({"kind": "leave_one_out", "examples": [3, 1, 4, 2]}, 0.5, 2),
        ({"kind": "full", "seeds": 10}, 0.3, 3),
        ({"kind": "full", "seeds": 10}, 0.01, 1),
        ({"kind": "leave_one_out"}, 1, 30),
        ({"kind": "leave_one_out"}, 0.5, 15),
        ({"kind": "leave_one_out", "examples": 0.5}, 1, 15),
        ({"kind": "subsets", "subsets": 3}, 0.5, 3),
    ],
)
def test_a_sample_of_a_design_has_about_that_fraction_of_its_runs(
    design: dict[str, Any], fraction: float, count: int
) -> None:
    sampled = DESIGN.validate_python(design).sample(fraction)
    (made,) = plan(30, x=sampled.model_dump()).values()
    assert made.runs == count
