import numpy as np
import pytest
from scipy.stats import t as student

from estimators.scores.removal import removal_curve, removal_masks
from tests.estimators.scores.simulations import make_runs, take
from workers.errors import DataError


def runs(masks, seeds, outputs):
    """Runs of outputs (m * seeds, t)."""
    return make_runs(masks, outputs.reshape(len(masks), seeds, -1), kind="explicit")


def test_the_best_or_the_worst_go_first_and_ties_by_index():
    values = np.array([3.0, 1.0, 3.0, -2.0, 5.0])
    best = removal_masks(values, [0, 0.2, 0.6], "best")
    assert [np.flatnonzero(~row).tolist() for row in best] == [[], [4], [0, 2, 4]]
    worst = removal_masks(values, [0.4, 0.8], "worst")
    assert [np.flatnonzero(~row).tolist() for row in worst] == [[1, 3], [0, 1, 2, 3]]


def test_the_curve_and_its_area_equal_literal_ones():
    rng = np.random.default_rng(0)
    masks = removal_masks(rng.normal(size=20), [0, 0.1, 0.3, 0.8], "best")
    outputs = rng.normal(size=(12, 5)).astype(np.float32)
    order = rng.permutation(12)
    whole = runs(masks, 3, outputs)
    found = removal_curve(take(whole, order))
    by_seed = outputs.reshape(4, 3, 5).astype(float)
    np.testing.assert_allclose(found.removed, [0, 0.1, 0.3, 0.8])
    np.testing.assert_allclose(found.utility, by_seed.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, by_seed.mean(2).std(1, ddof=1) / np.sqrt(3), rtol=1e-6)

    def area(heights):
        return np.trapezoid(heights, found.removed, axis=0) / 0.8

    np.testing.assert_allclose(found.area.value, area(by_seed.mean((1, 2))), rtol=1e-6)
    queries, seeds = area(by_seed.mean(1)), area(by_seed.mean(2))
    reach = student.ppf(0.975, 2) * np.sqrt(queries.var(ddof=1) / 5 + seeds.var(ddof=1) / 3)
    np.testing.assert_allclose(found.area.high - found.area.value, reach, rtol=1e-6)
    np.testing.assert_allclose(found.area.value - found.area.low, reach, rtol=1e-6)


@pytest.mark.parametrize(("seeds", "t"), [(1, 4), (1, 2), (3, 1), (2, 1), (1, 1)])
def test_one_seed_or_one_query_leaves_the_other_spread(seeds, t):
    rng = np.random.default_rng(1)
    outputs = rng.normal(size=(2 * seeds, t))
    found = removal_curve(runs(removal_masks(np.arange(4.0), [0, 0.5], "worst"), seeds, outputs))
    areas = outputs.reshape(2, seeds, t).mean(0).ravel()
    if seeds * t == 1:
        assert np.isnan([found.area.low, found.area.high]).all()
    else:
        reach = student.ppf(0.975, len(areas) - 1) * areas.std(ddof=1) / np.sqrt(len(areas))
        np.testing.assert_allclose(found.area.high - found.area.value, reach, rtol=1e-5)
    assert np.isnan(found.standard_error).all() == (seeds == 1)


def test_a_good_valuation_has_its_areas_apart():
    worth = np.linspace(-1, 2, 30)
    fractions = np.arange(0, 0.95, 0.1).tolist()
    areas = {}
    for first in ("best", "worst"):
        masks = removal_masks(worth, fractions, first)
        areas[first] = removal_curve(runs(masks, 1, (masks @ worth)[:, None] + np.zeros((1, 3)))).area.value
    assert areas["best"] < areas["worst"]


def test_what_is_no_removal_is_refused():
    masks = removal_masks(np.arange(4.0), [0, 0.5], "best")
    with pytest.raises(DataError, match="two sizes or more, found 1"):
        removal_curve(runs(masks[:1], 2, np.zeros((2, 3))))
    crossed = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool)
    with pytest.raises(DataError, match="not nested"):
        removal_curve(runs(crossed, 1, np.zeros((2, 3))))
    with pytest.raises(DataError, match="not nested"):
        removal_curve(runs(np.vstack([masks, masks[:1] & False, ~masks[1:]]), 1, np.zeros((4, 3))))
    for fractions in ([0.5, 0.2], [-0.1], [1.0], [0.9]):
        with pytest.raises(DataError, match="fractions to remove"):
            removal_masks(np.arange(4.0), fractions, "best")
    with pytest.raises(DataError, match="all finite"):
        removal_masks(np.array([1, np.nan]), [0.5], "best")
