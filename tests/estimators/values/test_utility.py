"""The utility's values are those of one more query, the mean of the others, with errors of their own."""

import numpy as np

from estimators.evidence import Evidence, Runs
from estimators.retraining_based.difference_in_means import DifferenceInMeans
from estimators.retraining_based.leave_one_out import LeaveOneOut
from estimators.values.utility import utility_of, utility_runs


def both(estimator, *runs):
    n, t = runs[0].masks.shape[1], runs[0].outputs.shape[1]
    whole = estimator.attribute(Evidence(n, t, "margin", runs={one.design: one for one in runs}))
    single = estimator.attribute(Evidence(n, 1, "margin", runs={one.design: utility_runs(one) for one in runs}))
    np.testing.assert_allclose(whole.utility, whole.values.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(whole.utility, single.values[:, 0], atol=1e-5)
    np.testing.assert_allclose(whole.utility_standard_error, single.standard_error[:, 0], atol=1e-5)
    assert whole.degrees_of_freedom == single.degrees_of_freedom
    return whole


def make(design, masks, seeds, rng):
    m = len(masks) * seeds
    outputs = rng.normal(size=(m, 1)) + 0.1 * rng.normal(size=(m, 4))
    subsets, repeats = np.repeat(np.arange(len(masks)), seeds), np.tile(np.arange(seeds), len(masks))
    return Runs(design, design, "margin", np.repeat(masks, seeds, 0), outputs.astype(np.float32), subsets, repeats)


def test_difference_in_means():
    rng = np.random.default_rng(0)
    found = both(DifferenceInMeans(), make("bernoulli", rng.random((30, 6)) < 0.5, 2, rng))
    # These queries share their noise: averaging them does not shrink the error as independent ones would.
    assert (found.utility_standard_error > 0.8 * found.standard_error.mean(axis=1)).all()


def test_leave_one_out():
    rng = np.random.default_rng(0)
    found = both(
        LeaveOneOut(),
        make("leave_one_out", ~np.eye(5, dtype=bool), 3, rng),
        make("full", np.ones((1, 5), bool), 3, rng),
    )
    assert found.degrees_of_freedom == 2


def test_the_mean_is_taken_in_double_precision():
    outputs = np.full((1, 1000), 0.1, np.float32)
    assert utility_of(outputs)[0, 0] == np.float64(np.float32(0.1))
