"""Every estimator that is built in keeps the contract; the suite that says so tells a wrong one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from estimators import testing
from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence
from estimators.registry import BUILT_IN, find
from workers import Queries

OPTIONS: dict[str, dict[str, Any]] = {
    "datamodel": {"threads": 1},
    "similarity": {"signed": True},
    "source": {"segments": 2},
}
"""A similarity without signs says nothing of which examples help: those of the other class do, too. There are two checkpoints."""


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_estimator_keeps_the_contract(name: str) -> None:
    testing.check_estimator(find(name)(**OPTIONS.get(name, {})), attributes=name != "random")


@pytest.mark.parametrize("name", ["difference_in_means", "influence"])
def test_each_check_can_be_called_alone(name: str) -> None:
    estimator = find(name)()
    for check in (
        testing.check_shapes,
        testing.check_claims,
        testing.check_sign,
        testing.check_queries,
        testing.check_determinism,
        testing.check_refusals,
    ):
        check(estimator)


class Wrong(Estimator):
    """Leaves of a right answer what a test wants to be wrong."""

    name: ClassVar[str] = "wrong"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})

    def attribute(self, evidence: Evidence) -> Attribution:
        runs = evidence.of_kind("bernoulli")
        right = self.right(evidence)
        return Attribution(self.change(right), fitted_on=(runs.design,), models=len(runs.outputs))

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
    def attribute(self, evidence: Evidence) -> Attribution:
        return Attribution(np.ones((evidence.n, evidence.t), np.float32))


class Thawed(Wrong, frozen=False):
    strength: float = 1.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Flipped, "is the sign that of leaving out"),
        (Transposed, r"values has shape \(3, 8\), expected \(8, 3\)"),
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


def broken(name: str, change: Callable[[Attribution, Evidence], Attribution]) -> Estimator:
    """Return a built-in estimator whose answers are changed."""

    class Broken(find(name)):  # type: ignore[misc]
        name: ClassVar[str] = "broken"

        def attribute(self, evidence: Evidence) -> Attribution:
            return change(super().attribute(evidence), evidence)

    made: Estimator = Broken(**OPTIONS.get(name, {}))
    return made


def with_values(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Attribution, Evidence], Attribution]:
    """Change the values alone, and say nothing beside them but what they were fitted on."""
    return lambda made, evidence: Attribution(
        np.ascontiguousarray(change(made.values), np.float32), fitted_on=made.fitted_on, models=made.models
    )


def three_signs(values: np.ndarray) -> np.ndarray:
    signs = np.ones((len(values), 1), np.float32)
    signs[[0, 4, 6]] = -1
    return values * signs


def noise(values: np.ndarray) -> np.ndarray:
    return values + 0.3 * np.random.default_rng(0).normal(size=values.shape)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("difference_in_means", with_values(lambda values: values[:, ::-1]), "is the query another one"),
        (
            "difference_in_means",
            with_values(lambda values: values[:, :1].repeat(3, axis=1)),
            "is the query another one",
        ),
        ("difference_in_means", with_values(three_signs), "is the sign that of leaving out"),
        ("difference_in_means", with_values(noise), "'task' in another order get other answers"),
        ("leave_one_out", lambda made, _: replace(made, values=made.values * 1000 + 7), "in units of the measure"),
        ("difference_in_means", lambda made, _: replace(made, fitted_on=()), "fitted_on is empty"),
        ("difference_in_means", lambda made, _: replace(made, models=0), "models is 0, expected how many"),
        ("influence", lambda made, _: replace(made, models=0), "models is 0, expected how many"),
        ("difference_in_means", lambda made, _: replace(made, utility=-made.utility), "the utility's correlation"),
        (
            "difference_in_means",
            lambda made, _: replace(made, standard_error=np.full_like(made.values, np.inf)),
            "standard_error has infinite entries",
        ),
        ("datamodel", lambda made, _: replace(made, bias=-100 - made.bias), r"bias \+ masks @ values is -"),
        (
            "influence",
            lambda made, evidence: replace(made, values=made.values * (-1 if evidence.measure == "loss" else 1)),
            "effects of including examples on the loss is -",
        ),
        (
            "influence",
            lambda made, _: replace(made, values=-made.values),
            "effects of including examples on the margin is -",
        ),
    ],
)
def test_a_broken_answer_is_told(name: str, change: Callable[[Attribution, Evidence], Attribution], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.check_estimator(broken(name, change))


class Blind(find("influence")):  # type: ignore[misc]
    """Answers zeros where there are no reference models."""

    name: ClassVar[str] = "blind"

    def attribute(self, evidence: Evidence) -> Attribution:
        evidence.differentiable()
        if not evidence.references:
            return Attribution(np.zeros((evidence.n, evidence.t), np.float32))
        return super().attribute(evidence)  # type: ignore[no-any-return]


class Deaf(find("influence")):  # type: ignore[misc]
    """Answers for the task's own queries, whichever are asked for."""

    name: ClassVar[str] = "deaf"

    def attribute(self, evidence: Evidence) -> Attribution:
        return super().attribute(replace(evidence, queries=Queries()))  # type: ignore[no-any-return]


class OneSeed(find("difference_in_means")):  # type: ignore[misc]
    """Looks at the first seed of every subset."""

    name: ClassVar[str] = "one_seed"

    def attribute(self, evidence: Evidence) -> Attribution:
        runs = evidence.of_kind("bernoulli")
        first = runs.repeats == 0
        parts = {key: getattr(runs, key)[first] for key in ("masks", "outputs", "subsets", "repeats")}
        return super().attribute(replace(evidence, runs={runs.design: replace(runs, **parts)}))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Blind, "evidence without reference models is not refused"),
        (Deaf, "in another order get other answers"),
        (OneSeed, "effects of including examples on the worth"),
    ],
)
def test_an_estimator_that_overlooks_evidence_is_told(wrong: type[Estimator], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.check_estimator(wrong())


class Mixed(find("influence")):  # type: ignore[misc]
    """Looks at runs and at reference models."""

    name: ClassVar[str] = "mixed"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets", "leave_one_out", "checkpoints", "gradients"})

    def attribute(self, evidence: Evidence) -> Attribution:
        left_out, subsets = evidence.of_kind("leave_one_out"), evidence.of_kind("bernoulli")
        return replace(super().attribute(evidence), fitted_on=(left_out.design, subsets.design))


def test_one_that_looks_at_runs_and_at_models_is_given_both() -> None:
    evidence = testing.evidence_for(Mixed())
    assert {name: runs.kind for name, runs in evidence.runs.items()} == {
        "leave_one_out": "leave_one_out",
        "subsets": "bernoulli",
    }
    for runs in evidence.runs.values():
        assert runs.masks.shape == (len(runs.outputs), evidence.n)
        assert np.isfinite(runs.outputs).all()
    testing.check_estimator(Mixed())


class Magnified(find("difference_in_means")):  # type: ignore[misc]
    """Effects a thousand times too large."""

    def attribute(self, evidence: Evidence) -> Attribution:
        made = super().attribute(evidence)
        return replace(made, values=1000 * made.values, standard_error=None, utility=None, utility_standard_error=None)


class Modest(Magnified):
    """The same, claiming nothing of their size."""

    in_units: ClassVar[bool] = False


def test_values_that_claim_units_have_the_size_of_effects() -> None:
    with pytest.raises(AssertionError, match="times as large as the true effects"):
        testing.check_units(Magnified())
    testing.check_units(Modest())


@pytest.mark.parametrize(
    ("name", "options", "claims"),
    [
        ("tracin", {"weights": "segment"}, True),
        ("tracin", {}, False),
        ("trak", {"reweight": True}, True),
        ("trak", {}, False),
        ("groups", {"share": "group"}, False),
        ("random", {}, False),
    ],
)
def test_whether_units_are_claimed_depends_on_the_options(name: str, options: dict[str, Any], claims: bool) -> None:
    estimator = find(name)(**options)
    assert estimator.claims_units == claims
    testing.check_units(estimator)
