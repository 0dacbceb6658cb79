import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from estimators.values.intervals import Moments, interval
from workers.errors import ConfigError


@given(arrays(np.float64, st.tuples(st.integers(2, 9), st.just(3)), elements=st.floats(-1e3, 1e3)))
def test_moments_equal_numpys(rows):
    moments = Moments((3,))
    for row in rows:
        moments.add(row)
    np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-9)
    np.testing.assert_allclose(moments.standard_error(), rows.std(0, ddof=1) / np.sqrt(len(rows)), atol=1e-9)


def test_one_observation_has_no_error():
    moments = Moments((2,))
    moments.add(np.ones(2))
    assert np.isnan(moments.standard_error()).all()


def test_quantiles_are_students():
    low, high = interval([1.0, 2.0], [1.0, np.nan], 4)
    np.testing.assert_allclose([low[0], high[0]], [1 - 2.776445, 1 + 2.776445], atol=1e-6)
    assert np.isnan([low[1], high[1]]).all()
    np.testing.assert_allclose(interval(0.0, 1.0)[1], 1.959964, atol=1e-6)
    np.testing.assert_allclose(interval(0.0, 1.0, level=0.5)[1], 0.674490, atol=1e-6)
    with pytest.raises(ConfigError, match="level is 95"):
        interval(0.0, 1.0, level=95)
