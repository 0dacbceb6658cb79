import numpy as np
import pytest
from sklearn.linear_model import LassoCV, lasso_path

from estimators.lasso.collect import Split, blocks_of, collect
from estimators.lasso.fit import fit
from estimators.lasso.settings import Settings
from workers.errors import DataError

TIGHT = {
    "precision": "float64",
    "tolerance": 1e-12,
    "max_sweeps": 100_000,
    "lambdas": 15,
    "epsilon": 1e-2,
    "threads": 1,
}


def fitted(masks, outputs, options, subsets=None, seed=3):
    split = Split.draw(np.arange(len(masks)) if subsets is None else subsets, options, seed)
    return fit(collect(blocks_of(masks, outputs, 16), split, options), options)


def folds_of(found):
    parts, folds = found.split.parts, found.split.folds
    return [(np.flatnonzero(parts != k), np.flatnonzero(parts == k)) for k in range(folds)]


def test_a_held_out_part_chooses_the_lambda_of_least_error_and_the_refit_is_on_all_runs(problem_of):
    masks, outputs = problem_of(100, 20, 4, noise=2.0)
    found = fitted(masks, outputs, Settings(**TIGHT, patience=None))
    ((rest, held),) = folds_of(found)
    assert len(held) == 15
    for q in range(4):
        x, y = masks[rest].astype(float), outputs[rest, q]
        penalties = np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / len(y) * Settings(**TIGHT).grid()
        path = lasso_path(x - x.mean(0), y - y.mean(), alphas=penalties, tol=1e-13, max_iter=1_000_000)[1]
        predictions = (masks[held] - x.mean(0)) @ path + y.mean()
        errors = np.square(predictions - outputs[held, q, None]).mean(0)
        best = errors.argmin()
        assert found.positions[q] == best
        np.testing.assert_allclose(found.penalties[q], penalties[best])
        z, v = masks - masks.mean(0), outputs[:, q] - outputs[:, q].mean()
        refit = lasso_path(z, v, alphas=penalties[[best]], tol=1e-13, max_iter=1_000_000)[1][:, 0]
        np.testing.assert_allclose(found.coefficients[q], refit, atol=1e-6)
        np.testing.assert_allclose(found.intercepts[q], outputs[:, q].mean() - masks.mean(0) @ refit, atol=1e-5)
        total = np.square(outputs[held, q] - outputs[held, q].mean()).mean()
        np.testing.assert_allclose(found.heldout_r2[q], 1 - errors[best] / total, atol=1e-6)
    assert found.converged.all()


@pytest.mark.parametrize("patience", [None, 3])
def test_folds_choose_what_lasso_cv_chooses(problem_of, patience):
    masks, outputs = problem_of(90, 25, 5, noise=3.0)
    found = fitted(masks, outputs, Settings(**TIGHT, folds=4, patience=patience))
    for q in range(5):
        y = outputs[:, q]
        penalties = np.abs((masks - masks.mean(0)).T @ (y - y.mean())).max() / len(y) * Settings(**TIGHT).grid()
        # scikit-learn weights folds alike, as we do
        oracle = LassoCV(alphas=penalties, cv=folds_of(found), tol=1e-12, max_iter=1_000_000).fit(
            masks.astype(float), y
        )
        assert found.positions[q] == np.abs(penalties - oracle.alpha_).argmin()
        np.testing.assert_allclose(found.coefficients[q], oracle.coef_, atol=1e-5)


@pytest.mark.parametrize("folds", [None, 5])
def test_one_standard_error_takes_a_larger_lambda_and_predicts_with_it(problem_of, folds):
    masks, outputs = problem_of(120, 20, 6, noise=3.0)
    least = fitted(masks, outputs, Settings(**TIGHT, folds=folds))
    sparse = fitted(masks, outputs, Settings(**TIGHT, folds=folds, rule="one_standard_error"))
    assert (sparse.positions <= least.positions).all()
    assert (sparse.positions < least.positions).any()
    assert sparse.nonzeros.sum() < least.nonzeros.sum()
    assert (sparse.heldout_r2 <= least.heldout_r2 + 1e-9).all() or folds


def test_runs_of_one_subset_are_never_split():
    subsets = np.repeat(np.arange(40), 3)
    for options in (Settings(), Settings(folds=4)):
        split = Split.draw(subsets, options, 0)
        for subset in range(40):
            assert len(set(split.parts[subsets == subset])) == 1
        assert (split.parts >= 0).sum() == (18 if options.folds is None else 120)


def test_the_split_is_a_function_of_the_seed():
    draws = [Split.draw(np.arange(50), Settings(), seed).parts for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_seeds_of_a_subset_are_averaged_where_they_judge(problem_of):
    masks, outputs = problem_of(40, 6, 2)
    masks, subsets = np.repeat(masks, 2, axis=0), np.repeat(np.arange(40), 2)
    outputs = np.repeat(outputs, 2, axis=0) + np.tile([[1.0], [-1.0]], (40, 1))
    outputs[1, 0] = np.nan
    split = Split(np.where(subsets < 8, 0, -1), subsets, 1, 0)
    held = collect(blocks_of(masks, outputs, 7), split, Settings(precision="float64")).held[0]
    expected = np.array([np.nanmean(outputs[subsets == s], axis=0) for s in range(8)])
    np.testing.assert_allclose(held.outputs, expected.T)
    np.testing.assert_array_equal(held.masks, masks[:16:2].T)


def test_queries_can_be_fitted_in_blocks(problem_of):
    masks, outputs = problem_of(80, 15, 5)
    outputs[:4, 3] = np.nan
    options = Settings(**TIGHT)
    collected = collect(blocks_of(masks, outputs), Split.draw(np.arange(80), options, 0), options)
    whole, part = fit(collected, options), fit(collected.take(np.array([1, 3])), options)
    np.testing.assert_allclose(part.coefficients, whole.coefficients[[1, 3]], atol=1e-12)
    np.testing.assert_array_equal(part.penalties, whole.penalties[[1, 3]])


def test_too_few_subsets_and_too_few_outputs_are_refused(problem_of):
    masks, outputs = problem_of(20, 5, 3)
    with pytest.raises(DataError, match="3 subsets"):
        Split.draw(np.array([0, 0, 1, 2]), Settings(), 0)
    outputs[1:, 2] = np.nan
    with pytest.raises(DataError, match="query 2"):
        fitted(masks, outputs, Settings())


def test_blocks_that_are_not_what_was_split_are_refused(problem_of):
    masks, outputs = problem_of(20, 5, 3)
    split = Split.draw(np.arange(21), Settings(), 0)
    with pytest.raises(DataError, match="20 runs"):
        collect(blocks_of(masks, outputs), split, Settings())
    with pytest.raises(DataError, match="infinities"):
        fitted(masks, np.where(outputs > 3, np.inf, outputs), Settings())
    with pytest.raises(DataError, match="int64"):
        collect([(masks.astype(np.int64), outputs)], split, Settings())
