from typing import Any

import numpy as np
import pytest

from estimators.scores.per_example import Valued
from workers.errors import ConfigError
from workers.measures import direction
from workers.runs import Queries

TAU = np.array([[3.0, 1.0], [-2.0, -4.0], [0.5, 0.0]])
UTILITY = np.array([5.0, -1.0, 2.0])


def valued(measure: str, source: str = "task", utility: np.ndarray | None = None) -> Valued:
    values = TAU if source == "task" else np.diag([3.0, -2.0, 0.5])
    return Valued(values, utility, measure, Queries(source))  # type: ignore[arg-type]


def test_the_effect_is_the_utility_s_where_there_is_one() -> None:
    assert valued("margin").effect().tolist() == [2.0, -3.0, 0.25]
    assert valued("margin", utility=UTILITY).effect().tolist() == UTILITY.tolist()


@pytest.mark.parametrize(("measure", "sign"), [("margin", 1), ("correct", 1), ("loss", -1), ("squared_error", -1)])
def test_helpful_is_what_raises_a_margin_and_lowers_a_loss(measure: str, sign: int) -> None:
    assert direction(measure) == sign
    one = valued(measure)
    np.testing.assert_array_equal(one.helpfulness(None), sign * one.effect())
    examples, suspicion = one.suspicion(None)
    np.testing.assert_array_equal(examples, [0, 1, 2])
    np.testing.assert_array_equal(suspicion, -sign * one.effect())


@pytest.mark.parametrize(("measure", "sign"), [("margin", 1), ("loss", -1)])
def test_of_training_examples_the_own_effect_is_suspicious(measure: str, sign: int) -> None:
    examples, suspicion = valued(measure, "train", utility=UTILITY).suspicion(None)
    np.testing.assert_array_equal(examples, [0, 1, 2])
    np.testing.assert_array_equal(suspicion, sign * np.array([3.0, -2.0, 0.5]))


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
def test_which_way_is_good_is_asked_of_a_measure_of_the_task_s_own(better: Any, sign: int) -> None:
    np.testing.assert_array_equal(valued("worth").helpfulness(better), sign * np.array([2.0, -3.0, 0.25]))
    np.testing.assert_array_equal(valued("worth").suspicion(better)[1], -sign * np.array([2.0, -3.0, 0.25]))
    np.testing.assert_array_equal(valued("worth", "train").suspicion(better)[1], sign * np.array([3.0, -2.0, 0.5]))


def test_a_measure_of_the_task_s_own_needs_a_word() -> None:
    assert (direction("worth", "higher"), direction("worth", "lower")) == (1, -1)
    with pytest.raises(ConfigError, match=r"^better: whether higher values of 'worth' are good is not known"):
        direction("worth")
    with pytest.raises(ConfigError, match=r"^better: lower values of 'loss' are better, found 'higher'"):
        direction("loss", "higher")
