"""The k largest values of every query, against a stable argsort of all of them."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.attribution.strongest import Strongest


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 40), k=st.integers(0, 45), few=st.booleans(), rows=st.integers(1, 40)
)
def test_it_is_the_beginning_of_a_stable_argsort(seed: int, n: int, k: int, few: bool, rows: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(-2, 3, size=(n, 3)) if few else rng.normal(size=(n, 3))).astype(np.float32)
    strongest = Strongest(3, k)
    for start in range(0, n, rows):
        strongest.add(start, values[start : start + rows])
    order = np.argsort(-values, axis=0, kind="stable")[:k]
    for query in range(3):
        indices, found = strongest.of(query)
        np.testing.assert_array_equal(indices, order[:, query])
        np.testing.assert_array_equal(found, values[order[:, query], query])
