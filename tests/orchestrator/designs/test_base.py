"""What every design says of itself, whatever its kind."""

from typing import Literal

import numpy as np
import pytest

from orchestrator.designs.base import Context
from orchestrator.designs.full import Full
from orchestrator.designs.keys import is_for_scoring
from orchestrator.designs.random_subsets import Subsets


def test_what_decides_its_runs_is_plain_data() -> None:
    made = Full(kind="full", checkpoints=(1, 5), order="shared").deciding()
    assert made["checkpoints"] == [1, 5], "as it is read from a file again"
    assert made["order"] == "shared"
    assert "normalize" not in made, "that is what holds where nothing is said"


@pytest.mark.parametrize("purpose", ["fit", "score"])
def test_a_random_design_draws_on_the_side_of_its_purpose(purpose: Literal["fit", "score"]) -> None:
    design = Subsets(kind="subsets", subsets=20, purpose=purpose)
    masks = design.many(np.arange(20), Context("drawn", 0, 12, fenced=True))
    assert [is_for_scoring(mask) for mask in masks] == [purpose == "score"] * 20
