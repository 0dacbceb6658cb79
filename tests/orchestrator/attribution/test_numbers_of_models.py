"""Sections that differ in their number of models alone are answered by one pass, each with its own cost."""

from pathlib import Path
from typing import Any

import pytest

from estimators.evidence import Evidence
from estimators.gradient_based.product_effects import ProductEffects
from estimators.testing import model_evidence
from orchestrator.attribution.numbers_of_models import Answers
from orchestrator.config.estimator_section import EstimatorSection
from workers.errors import ConfigError


def section(estimator: str, **given: Any) -> EstimatorSection:
    return EstimatorSection.model_construct(estimator=estimator, measure=None, given=given, folder=Path())


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which checkpoints `grad_dot` looked at."""
    seen: list[int] = []
    before = ProductEffects.of_model

    def of_model(self: Any, model: Any, checkpoint: Any) -> Any:
        seen.append(checkpoint.epoch)
        return before(self, model, checkpoint)

    monkeypatch.setattr(ProductEffects, "of_model", of_model)
    return seen


def test_one_pass_serves_all_numbers(looked: list[int]) -> None:
    evidence = model_evidence()
    sections = {
        "two": section("grad_dot", models=2),
        "one": section("grad_dot", models=1),
        "all": section("grad_dot"),
        "other": section("grad_dot", models=1, parameters=["bias"]),
    }
    answers = Answers(sections)
    found = {label: answers.answer(label, evidence) for label in ("two", "one", "all")}
    assert len(looked) == 2
    for label, models in {"two": 2, "one": 1, "all": 2}.items():
        alone = section("grad_dot", models=models).options.attribute(evidence)
        assert (found[label].made.values == alone.values).all()
        assert found[label].made.models == models
    assert 0 < found["one"].seconds < found["two"].seconds
    looked.clear()
    answers.answer("other", evidence)
    assert len(looked) == 1


def test_one_that_wants_more_models_than_there_are_fails_alone(looked: list[int]) -> None:
    answers = Answers({"three": section("grad_dot", models=3), "two": section("grad_dot", models=2)})
    with pytest.raises(ConfigError, match="needs 3 reference model"):
        answers.answer("three", model_evidence())
    assert answers.answer("two", model_evidence()).made.models == 2
    assert len(looked) == 2


def test_a_model_that_diverged_is_in_nobody_s_way_who_does_not_look_at_it() -> None:
    evidence: Evidence = model_evidence()
    evidence.references[1].checkpoints[-1].state["weight"].fill_(float("nan"))
    answers = Answers({"one": section("grad_dot", models=1), "two": section("grad_dot", models=2)})
    assert answers.answer("one", evidence).made.models == 1
    with pytest.raises(Exception, match="not finite"):
        answers.answer("two", evidence)


def test_others_are_asked_as_they_are() -> None:
    evidence = model_evidence("subsets")
    answers = Answers({"random": section("random"), "difference_in_means": section("difference_in_means")})
    assert answers.answer("difference_in_means", evidence).made.fitted_on == ("subsets",)
    assert answers.answer("random", evidence).made.models == 0
