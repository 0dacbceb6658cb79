"""Both solvers against scikit-learn and against the optimality conditions of the dense problem."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, lasso_path

from estimators.lasso.collect import Held
from estimators.lasso.fista import lockstep
from estimators.lasso.path import solve_paths
from estimators.lasso.settings import Settings
from estimators.lasso.solution import Column
from estimators.lasso.statistics import Statistics

TIGHT = Settings(precision="float64", tolerance=1e-13, lambdas=10, epsilon=1e-2, max_sweeps=200_000, threads=1)
GRID = TIGHT.grid()


def solve(problem, penalties, options=TIGHT, held=None, starts=None, patience=None, fista=False):
    if not fista:
        return solve_paths(problem, penalties, options, held, starts, patience)
    held = held or Held(np.empty((len(problem.gram), 0), np.uint8), np.empty((len(problem.queries), 0)))
    starts = starts or [Column(np.empty(0, np.int64), np.empty(0))] * len(problem.queries)
    return lockstep(problem, penalties, options, held, starts, patience)


def full(column: Column, n: int):
    w = np.zeros(n)
    w[column.index] = column.values
    return w


@pytest.mark.parametrize("fista", [False, True])
@pytest.mark.parametrize(("m", "n"), [(80, 20), (40, 60), (14, 25)])
def test_coefficients_equal_scikit_learns(problem_of, statistics_of, m, n, fista):
    masks, outputs = problem_of(m, n, 4)
    problem = next(statistics_of(masks, outputs).quadratics(np.float64))
    penalties = problem.largest_penalty()[:, None] * GRID[:7]
    found = solve(problem, penalties, fista=fista)
    x, y = masks - masks.mean(0), outputs - outputs.mean(0)
    for q in range(4):
        oracle = lasso_path(x, y[:, q], alphas=penalties[q], tol=1e-14, max_iter=1_000_000)[1][:, -1]
        np.testing.assert_allclose(full(found.columns[q], n), oracle, atol=1e-6)


@pytest.mark.parametrize("fista", [False, True])
def test_the_elastic_net_equals_scikit_learns(problem_of, statistics_of, fista):
    masks, outputs = problem_of(30, 40, 3)
    problem = next(statistics_of(masks, outputs).quadratics(np.float64))
    options = TIGHT.model_copy(update={"ridge": 0.05})
    penalties = problem.largest_penalty()[:, None] * GRID[[5]]
    found = solve(problem, penalties, options, fista=fista)
    for q in range(3):
        alpha = penalties[q, 0] + options.ridge
        oracle = ElasticNet(alpha=alpha, l1_ratio=penalties[q, 0] / alpha, tol=1e-14, max_iter=1_000_000)
        oracle.fit(masks.astype(float), outputs[:, q])
        np.testing.assert_allclose(full(found.columns[q], 40), oracle.coef_, atol=1e-6)
        assert found.gaps[q, 0] <= options.tolerance


def test_the_path_starts_where_all_is_zero_and_not_above(problem_of, statistics_of):
    masks, outputs = problem_of(50, 10, 3)
    problem = next(statistics_of(masks, outputs).quadratics(np.float64))
    top = problem.largest_penalty()[:, None]
    assert all(len(c.index) == 0 for c in solve(problem, top).columns)
    assert all(len(c.index) > 0 for c in solve(problem, top * 0.999).columns)


@st.composite
def designs(draw):
    """Draw masks and outputs with all that goes wrong: m < n, duplicated and constant columns, constant and missing outputs."""
    m, n = draw(st.integers(2, 24)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = rng.random((m, n)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    if n > 3 and draw(st.booleans()):
        masks[:, 1], masks[:, 2], masks[:, 3] = masks[:, 0], True, False
    outputs = rng.normal(size=(m, 3)) * draw(st.sampled_from([1e-3, 1.0, 1e3])) + draw(st.sampled_from([0.0, 1e3]))
    outputs[:, 1] = 0.1
    if m > 6:
        outputs[rng.permutation(m)[: m // 3], 2] = np.nan
    return masks, outputs, draw(st.booleans()), draw(st.sampled_from([0.0, 0.1]))


@pytest.mark.parametrize("fista", [False, True])
@settings(max_examples=60, deadline=None)
@given(design=designs())
def test_optimality_conditions_hold_on_any_design(fista, design):
    masks, outputs, standardize, ridge = design
    options = TIGHT.model_copy(update={"tolerance": 1e-10, "ridge": ridge, "standardize": standardize})
    statistics = Statistics.empty(masks.shape[1], np.nanmean(outputs, axis=0))
    statistics.accumulate(masks, outputs, np.float64)
    for problem in statistics.quadratics(np.float64, standardize):
        penalties = problem.largest_penalty()[:, None] * GRID[:6]
        found = solve(problem, penalties, options, fista=fista)
        for k, query in enumerate(problem.queries):
            there = ~np.isnan(outputs[:, query])
            x, y = masks[there].astype(float), outputs[there, query]
            deviation = x.std(0)
            x = (x - x.mean(0)) / (np.where(deviation > 0, deviation, np.inf) if standardize else 1)
            if np.ptp(y) == 0:
                assert len(found.columns[k].index) == 0
                continue
            w, penalty = full(found.columns[k], x.shape[1]), penalties[k, -1]
            gradient = x.T @ (y - y.mean() - x @ w) / len(y) - ridge * w
            slack = 1e-4 * y.std() * max(x.std(0).max(), 1e-12)
            assert np.abs(gradient).max() <= penalty + slack
            used = w != 0
            np.testing.assert_allclose(gradient[used], penalty * np.sign(w[used]), atol=slack)
            assert found.gaps[k].max() <= options.tolerance


@pytest.mark.parametrize("fista", [False, True])
def test_held_out_errors_and_the_best_column_are_the_dense_ones(problem_of, statistics_of, fista):
    masks, outputs = problem_of(120, 15, 3, noise=2.0)
    outputs[3, 1] = np.nan
    fitting, rest = slice(20, None), slice(0, 20)
    held = Held(np.ascontiguousarray(masks[rest].T.astype(np.uint8)), np.ascontiguousarray(outputs[rest].T))
    problem = next(statistics_of(masks[fitting], outputs[fitting]).quadratics(np.float64))
    penalties = problem.largest_penalty()[:, None] * GRID
    found = solve(problem, penalties, held=held, fista=fista)
    x, y = masks[fitting] - masks[fitting].mean(0), outputs[fitting] - outputs[fitting].mean(0)
    for q in range(3):
        path = lasso_path(x, y[:, q], alphas=penalties[q], tol=1e-14, max_iter=1_000_000)[1]
        predictions = (masks[rest] - masks[fitting].mean(0)) @ path + outputs[fitting, q].mean()
        squared = np.square(predictions - outputs[rest, q, None])
        np.testing.assert_allclose(found.errors[q], np.nanmean(squared, axis=0), rtol=1e-6)
        count = (~np.isnan(squared[:, 0])).sum()
        np.testing.assert_allclose(found.spreads[q], np.nanstd(squared, axis=0) / np.sqrt(count), rtol=1e-5)
        best = np.nanmean(squared, axis=0).argmin()
        assert found.best[q] == best
        np.testing.assert_allclose(full(found.columns[q], 15), path[:, best], atol=1e-6)
        np.testing.assert_allclose(found.predictions[q], predictions[:, best], atol=1e-5)


@pytest.mark.parametrize("fista", [False, True])
def test_a_path_stops_when_its_error_has_turned(problem_of, statistics_of, fista):
    masks, outputs = problem_of(60, 40, 6, noise=3.0)
    held = Held(np.ascontiguousarray(masks[:20].T.astype(np.uint8)), np.ascontiguousarray(outputs[:20].T))
    problem = next(statistics_of(masks[20:], outputs[20:]).quadratics(np.float64))
    penalties = problem.largest_penalty()[:, None] * GRID
    options = TIGHT.model_copy(update={"tolerance": 1e-8})
    whole = solve(problem, penalties, options, held, fista=fista)
    stopped = solve(problem, penalties, options, held, patience=2, fista=fista)
    for q in range(6):
        reached = (~np.isnan(stopped.errors[q])).sum()
        assert reached == min(stopped.best[q] + 3, len(GRID))
        np.testing.assert_allclose(stopped.errors[q, :reached], whole.errors[q, :reached], rtol=1e-3)


@pytest.mark.parametrize("fista", [False, True])
def test_a_warm_start_reaches_the_same_solution(problem_of, statistics_of, fista):
    masks, outputs = problem_of(50, 20, 2)
    problem = next(statistics_of(masks, outputs).quadratics(np.float64))
    penalties = problem.largest_penalty()[:, None] * GRID[[6]]
    cold = solve(problem, penalties, fista=fista)
    start = [Column(np.arange(5, 12), np.linspace(-3, 3, 7))] * 2
    warm = solve(problem, penalties, starts=start, fista=fista)
    for a, b in zip(cold.columns, warm.columns, strict=True):
        np.testing.assert_allclose(full(a, 20), full(b, 20), atol=1e-6)


@pytest.mark.parametrize("fista", [False, True])
def test_a_path_that_may_not_finish_says_so(problem_of, statistics_of, fista):
    masks, outputs = problem_of(30, 40, 2)
    problem = next(statistics_of(masks, outputs).quadratics(np.float64))
    options = TIGHT.model_copy(update={"max_sweeps": 1})
    found = solve(problem, problem.largest_penalty()[:, None] * GRID[[9]], options, fista=fista)
    assert (found.gaps > options.tolerance).all()
