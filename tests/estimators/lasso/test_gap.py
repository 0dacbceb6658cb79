import numpy as np

from estimators.lasso.gap import relative_gaps
from estimators.lasso.solution import Column


def dense_gap(x, y, w, penalty, ridge):
    """The gap from its definition: primal objective less the dual one at the rescaled residual."""
    m, n = x.shape
    x = np.vstack([x, np.sqrt(ridge * m) * np.eye(n)])
    y = np.concatenate([y, np.zeros(n)])
    residual = y - x @ w
    primal = residual @ residual / (2 * m) + penalty * np.abs(w).sum()
    dual = residual * min(1, penalty * m / np.abs(x.T @ residual).max())
    return primal - (y @ y - (y - dual) @ (y - dual)) / (2 * m)


def test_the_certificate_is_the_gap_of_the_dense_problem(problem_of, statistics_of):
    masks, outputs = problem_of(40, 12, 3)
    outputs[:6, 2] = np.nan
    statistics = statistics_of(masks, outputs)
    rng = np.random.default_rng(5)
    for problem in statistics.quadratics(np.float64, standardize=True):
        columns = [Column(np.array([1, 4, 7]), rng.normal(size=3)) for _ in problem.queries]
        penalties = rng.random(len(columns)) * 0.2
        gaps = relative_gaps(statistics, problem, columns, penalties, 0.1)
        for k, query in enumerate(problem.queries):
            there = ~np.isnan(outputs[:, query])
            x, y = masks[there].astype(float), outputs[there, query]
            x, y = (x - x.mean(0)) / x.std(0), y - y.mean()
            w = np.zeros(12)
            w[columns[k].index] = columns[k].values
            expected = dense_gap(x, y, w, penalties[k], 0.1) / (0.5 * y @ y / len(y))
            np.testing.assert_allclose(gaps[k], expected, rtol=1e-9)
