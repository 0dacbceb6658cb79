"""What JSON cannot hold becomes what it can."""

import numpy as np

from orchestrator.store.strict_json import jsonable


def test_plain_data_is_what_json_can_hold() -> None:
    nested = {1: (np.float32(0.5), np.array([1.0, np.nan])), "x": [np.int8(2), np.bool_(True), None, "s"]}
    assert jsonable(nested) == {"1": [0.5, [1.0, None]], "x": [2, True, None, "s"]}
