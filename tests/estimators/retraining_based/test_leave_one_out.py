"""Leave-one-out effects against a literal loop over examples."""

import numpy as np
import pytest

from estimators.evidence import Evidence, Runs
from estimators.registry import find
from estimators.retraining_based.leave_one_out import LeaveOneOut, measured_effects
from workers.errors import DataError


def make_runs(design, kind, masks, outputs, repeats):
    _, subsets = np.unique(masks, axis=0, return_inverse=True)
    return Runs(design, kind, "margin", masks, outputs.astype(np.float32), subsets.ravel(), np.asarray(repeats))


def sweep(examples, n=5, t=3, seeds=2, full_seeds=2, seed=0):
    """Runs that leave out each of `examples` `seeds` times, and full runs; shuffled."""
    rng = np.random.default_rng(seed)
    masks = np.repeat(~np.eye(n, dtype=bool)[examples], seeds, axis=0)
    repeats = np.tile(np.arange(seeds), len(examples))
    order = rng.permutation(len(masks))
    left = make_runs("loo", "leave_one_out", masks[order], rng.normal(size=(len(masks), t)), repeats[order])
    again = rng.permutation(full_seeds)
    full = make_runs("all", "full", np.ones((full_seeds, n), bool), rng.normal(size=(full_seeds, t)), again)
    return left, full


def evidence(left, full):
    return Evidence(n=left.masks.shape[1], t=left.outputs.shape[1], measure="margin", runs={"loo": left, "all": full})


def of_example(left, i):
    """Outputs and repeats of the runs without i, in float64."""
    rows = ~left.masks[:, i]
    return left.outputs[rows].astype(float), left.repeats[rows]


@pytest.mark.parametrize("full_seeds", [3, 5])
def test_equals_a_loop_over_examples(full_seeds):
    left, full = sweep(np.arange(5), seeds=3, full_seeds=full_seeds)
    found = find("leave_one_out")().attribute(evidence(left, full))
    whole = full.outputs.astype(float)
    for i in range(5):
        without, repeats = of_example(left, i)
        np.testing.assert_allclose(found.values[i], whole.mean(0) - without.mean(0), rtol=1e-5, atol=1e-7)
        if full_seeds == 3:
            differences = np.array([whole[full.repeats == r][0] - y for y, r in zip(without, repeats, strict=True)])
            error = differences.std(0, ddof=1) / np.sqrt(3)
        else:
            error = np.sqrt(without.var(0, ddof=1) / 3 + whole.var(0, ddof=1) / full_seeds)
        np.testing.assert_allclose(found.standard_error[i], error, rtol=1e-5)
    assert found.details == {
        "examples_left_out": 5,
        "examples_set_to_zero": 0,
        "paired": 5 if full_seeds == 3 else 0,
        "without_standard_error": 0,
    }
    assert (found.fitted_on, found.models) == (("loo", "all"), 15 + full_seeds)


def test_noise_that_a_seed_shares_cancels_in_pairs():
    left, full = sweep(np.arange(5), seeds=2)
    shared = np.array([[10.0], [-10.0]])
    left.outputs[:] = shared[left.repeats] + left.masks.argmin(1)[:, None]
    full.outputs[:] = shared[full.repeats]
    found = LeaveOneOut().attribute(evidence(left, full))
    np.testing.assert_allclose(found.values, -np.arange(5.0)[:, None] * np.ones(3), atol=1e-6)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-6)


def test_a_failed_run_leaves_its_example_unpaired():
    left, full = sweep(np.arange(5), seeds=3, full_seeds=3)
    dropped = np.flatnonzero(~left.masks[:, 2])[0]
    kept = np.delete(np.arange(15), dropped)
    left = Runs(
        "loo", "leave_one_out", "margin", left.masks[kept], left.outputs[kept], left.subsets[kept], left.repeats[kept]
    )
    found = measured_effects(left, full)
    assert found.paired.tolist() == [True, True, False, True, True]
    without, _ = of_example(left, 2)
    whole = full.outputs.astype(float)
    np.testing.assert_allclose(
        found.standard_error[2], np.sqrt(without.var(0, ddof=1) / 2 + whole.var(0, ddof=1) / 3), rtol=1e-12
    )


def test_a_repeat_that_occurs_twice_is_not_paired():
    left, full = sweep(np.arange(5), seeds=2, full_seeds=2)
    left.repeats[~left.masks[:, 1]] = 0
    assert measured_effects(left, full).paired.tolist() == [True, False, True, True, True]


def test_examples_no_run_left_out_are_refused_or_zero_on_request():
    left, full = sweep(np.array([1, 3]))
    with pytest.raises(DataError, match="3 of 5 examples are left out by no run"):
        LeaveOneOut().attribute(evidence(left, full))
    found = LeaveOneOut(missing="zero").attribute(evidence(left, full))
    assert (found.values[[0, 2, 4]] == 0).all()
    assert (found.values[[1, 3]] != 0).all()
    assert np.isnan(found.standard_error[[0, 2, 4]]).all()
    assert np.isfinite(found.standard_error[[1, 3]]).all()
    assert found.details["examples_set_to_zero"] == found.details["without_standard_error"] == 3


@pytest.mark.parametrize(("seeds", "full_seeds"), [(1, 1), (1, 4), (3, 1)])
def test_one_seed_gives_values_without_errors(seeds, full_seeds):
    left, full = sweep(np.arange(5), seeds=seeds, full_seeds=full_seeds)
    found = LeaveOneOut().attribute(evidence(left, full))
    assert np.isfinite(found.values).all()
    assert found.standard_error is None
    assert found.details["without_standard_error"] == 5


def test_runs_of_another_design_are_refused():
    left, full = sweep(np.arange(5))
    left.masks[:3, :] = True
    with pytest.raises(DataError, match="'loo': 3 of 10 runs do not leave out exactly one"):
        measured_effects(left, full)
    left, full = sweep(np.arange(5))
    full.masks[0, 0] = False
    with pytest.raises(DataError, match="'all': some of its runs do not see all examples"):
        measured_effects(left, full)
