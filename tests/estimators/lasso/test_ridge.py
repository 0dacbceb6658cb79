import numpy as np
import pytest

from estimators.lasso.collect import Split, blocks_of, collect
from estimators.lasso.fit import fit
from estimators.lasso.settings import Settings


@pytest.mark.parametrize("standardize", [False, True])
def test_ridge_solves_the_normal_equations_at_the_lambda_of_least_held_out_error(problem_of, standardize):
    masks, outputs = problem_of(60, 80, 3, noise=2.0)
    masks[:, 5] = True
    outputs[10:14, 2] = np.nan
    options = Settings(penalty="ridge", standardize=standardize, lambdas=12, precision="float64")
    split = Split.draw(np.arange(60), options, 1)
    found = fit(collect(blocks_of(masks, outputs), split, options), options)

    def dense(rows, penalty, q):
        rows = rows & ~np.isnan(outputs[:, q])
        x, y = masks[rows].astype(float), outputs[rows, q]
        scale = np.where(x.std(0) > 0, 1 / np.where(x.std(0) > 0, x.std(0), 1), 0) if standardize else np.ones(80)
        z = (x - x.mean(0)) * scale
        w = scale * np.linalg.solve(z.T @ z / len(y) + penalty * np.eye(80), z.T @ (y - y.mean()) / len(y))
        return w, y.mean() - x.mean(0) @ w

    held = split.parts == 0
    for q in range(3):
        w, bias = dense(np.full(60, True), found.penalties[q], q)
        np.testing.assert_allclose(found.coefficients[q], w, atol=1e-9)
        np.testing.assert_allclose(found.intercepts[q], bias, atol=1e-8)
        grid = found.penalties[q] / options.grid()[found.positions[q]] ** 2 * options.grid() ** 2
        errors = []
        for penalty in grid:
            w, bias = dense(~held, penalty, q)
            errors.append(np.nanmean(np.square(masks[held] @ w + bias - outputs[held, q])))
        assert found.positions[q] == np.argmin(errors)
    assert found.gaps.max() < 1e-12


def test_ridge_with_folds_and_the_one_standard_error_rule(problem_of):
    masks, outputs = problem_of(60, 20, 4, noise=3.0)
    positions = []
    for rule in ("minimum", "one_standard_error"):
        options = Settings(penalty="ridge", folds=4, rule=rule)
        collected = collect(blocks_of(masks, outputs), Split.draw(np.arange(60), options, 1), options)
        positions.append(fit(collected, options).positions)
    assert (positions[1] <= positions[0]).all()
