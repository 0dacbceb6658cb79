"""The subsets of another design: asked of that one, as of where it stands."""

from pathlib import Path

import numpy as np

from orchestrator.designs.again import Again
from orchestrator.designs.base import Context
from orchestrator.designs.weights import Weights


def test_it_draws_the_other_design_where_that_one_stands(tmp_path: Path) -> None:
    weights = np.array([[1, 0.5, 0], [2, 1, 1]], dtype=np.float32)
    np.save(tmp_path / "weights.npy", weights)
    again = Again(kind="again", of="mine")
    designs = {"mine": Weights(kind="weights", file="weights.npy"), "again": again}
    context = Context("again", 0, 3, designs=designs, folder=tmp_path)
    again.check(context)
    assert again.count(context) == 2
    assert np.array_equal(again.mask(0, context), [True, True, False])
    assert np.array_equal(again.many(np.array([1, 0]), context), [[True] * 3, [True, True, False]])
    assert np.array_equal(again.weights_of(np.array([1, 0]), context), weights[::-1])
    assert again.sample(0.1) is again
