"""Every estimator that is built in keeps the contract; the suite that says so tells a wrong one."""

from typing import Any, ClassVar

import numpy as np
import pytest

from estimators import testing
from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence
from estimators.registry import BUILT_IN, find

OPTIONS: dict[str, dict[str, Any]] = {"datamodel": {"threads": 1}, "similarity": {"signed": True}}
"""A similarity without signs says nothing of which examples help: those of the other class do, too."""


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_estimator_keeps_the_contract(name: str) -> None:
    testing.check_estimator(find(name)(**OPTIONS.get(name, {})), attributes=name != "random")


@pytest.mark.parametrize("name", ["difference_in_means", "influence"])
def test_each_check_can_be_called_alone(name: str) -> None:
    estimator = find(name)()
    for check in (testing.check_shapes, testing.check_sign, testing.check_determinism, testing.check_refusals):
        check(estimator)


class Wrong(Estimator):
    """Leaves of a right answer what a test wants to be wrong."""

    name: ClassVar[str] = "wrong"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})

    def attribute(self, evidence: Evidence) -> Attribution:
        return Attribution(self.change(self.right(evidence)))

    def right(self, evidence: Evidence) -> np.ndarray:
        return find("difference_in_means")().attribute(evidence).values

    def change(self, values: np.ndarray) -> np.ndarray:
        return values


class Flipped(Wrong):
    def change(self, values: np.ndarray) -> np.ndarray:
        return -values


class Transposed(Wrong):
    def change(self, values: np.ndarray) -> np.ndarray:
        return values.T


class Double(Wrong):
    def change(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float64)


class Diverged(Wrong):
    def change(self, values: np.ndarray) -> np.ndarray:
        return np.where(values > 1, np.float32(np.nan), values)


class Drawn(Wrong):
    def change(self, values: np.ndarray) -> np.ndarray:
        return values + np.random.default_rng().normal(size=values.shape).astype(np.float32) / 100


class Invented(Wrong):
    def right(self, evidence: Evidence) -> np.ndarray:
        return np.ones((evidence.n, evidence.t), np.float32)


class Thawed(Wrong, frozen=False):
    strength: float = 1.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Flipped, "is the sign that of leaving out"),
        (Transposed, r"values has shape \(2, 8\), expected \(8, 2\)"),
        (Double, "values is float64, expected float32"),
        (Diverged, "values is not finite"),
        (Drawn, "values differ between two calls"),
        (Thawed, "'strength' has no description"),
    ],
)
def test_a_wrong_estimator_is_told(wrong: type[Estimator], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.check_estimator(wrong())
    testing.check_estimator(Wrong())


def test_one_that_answers_without_evidence_is_told() -> None:
    with pytest.raises(AssertionError, match="evidence without subsets is not refused"):
        testing.check_refusals(Invented())


def test_a_flipped_gradient_is_told() -> None:
    class Against(find("influence")):  # type: ignore[misc]
        name: ClassVar[str] = "against"

        def attribute(self, evidence: Evidence) -> Attribution:
            return Attribution(-super().attribute(evidence).values)

    with pytest.raises(AssertionError, match="is the sign that of leaving out"):
        testing.check_sign(Against())
