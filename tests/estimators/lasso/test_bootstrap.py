import numpy as np
import pytest
from sklearn.linear_model import Lasso, Ridge

from estimators.lasso.collect import blocks_of
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings

RESAMPLES = 4


def oracle(settings: Settings, penalty: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return scikit-learn's coefficients at one lambda of 1/(2m) ||y - b - xw||^2 + ..., in the columns' own units."""
    scale = x.std(0) if settings.standardize else np.ones(x.shape[1])
    if settings.penalty == "ridge":
        model = Ridge(alpha=len(x) * penalty, solver="cholesky")
    else:
        model = Lasso(alpha=penalty, tol=1e-12, max_iter=100_000)
    return model.fit(x / scale, y).coef_ / scale


@pytest.mark.parametrize("options", [{}, {"standardize": True}, {"penalty": "ridge"}])
def test_errors_and_frequencies_are_those_of_dense_fits_to_the_repeated_rows(problem_of, options):
    m, n, t = 120, 8, 3
    masks, outputs = problem_of(m // 2, n, t, noise=3.0)
    masks, outputs = masks.repeat(2, axis=0), outputs.repeat(2, axis=0) + np.tile([[0.3], [-0.3]], (m // 2, 1))
    settings = Settings(precision="float64", tolerance=1e-12, threads=1, bootstrap=RESAMPLES, **options)
    found = fit_blocks(lambda: blocks_of(masks, outputs, 50), np.arange(m) // 2, settings, 5)
    again = []
    for resample in range(RESAMPLES):  # a subset is drawn with both its runs
        repeats = np.random.default_rng([5, resample]).poisson(1.0, m // 2).repeat(2)
        x, y = masks.astype(float).repeat(repeats, axis=0), outputs.repeat(repeats, axis=0)
        again.append([oracle(settings, found.penalties[q], x, y[:, q]) for q in range(t)])
    np.testing.assert_allclose(found.standard_errors, np.std(again, axis=0, ddof=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.frequencies, (np.array(again) != 0).mean(0))
