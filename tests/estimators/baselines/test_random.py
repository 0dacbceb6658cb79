import numpy as np

from estimators.baselines.random import Random
from estimators.evidence import Evidence


def test_it_draws_standard_normals_from_the_seed():
    values = Random().attribute(Evidence(300, 50, "margin", seed=1)).values
    assert values.shape == (300, 50)
    assert values.dtype == np.float32
    assert abs(values.mean()) < 4 / values.size**0.5
    assert abs(values.std() - 1) < 0.03
    np.testing.assert_array_equal(Random().attribute(Evidence(300, 50, "loss", seed=1)).values, values)
    other = Random().attribute(Evidence(300, 50, "margin", seed=2)).values
    assert abs(np.corrcoef(values.ravel(), other.ravel())[0, 1]) < 0.04


def test_it_shares_no_draw_with_a_plain_generator_of_the_same_seed():
    values = Random().attribute(Evidence(10, 10, "margin", seed=1)).values
    plain = np.random.default_rng(1).standard_normal((10, 10), dtype=np.float32)
    assert not np.isin(values, plain).any()
