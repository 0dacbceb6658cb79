import json

import numpy as np

from estimators.findings import ClassEffects, Findings, GroupEffect, LearningCurve
from estimators.tuning import Tried, Tuning

CURVE = LearningCurve(
    7,
    np.array([50, 100]),
    np.array([[0.2, 0.3], [0.1, 0.25], [0.3, 0.35]]),
    np.array([100, 150, 200]),
    np.array([[0.3, 0.35, 0.4], [0.25, 0.3, 0.3], [0.35, 0.4, 0.5]]),
    (0.6, 0.5, 0.9),
    100,
    (1.3, 1.2, 1.5),
    "another 100 runs would bring a lot",
    0.5,
)
GROUPS = (GroupEffect(0, 3, 0.5, 0.25), GroupEffect(2, 1, -1.0, np.nan))
BY_CLASS = ClassEffects(("cat", "dog"), np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([[0.1, np.nan], [0.2, 0.3]]))


TUNING = Tuning(
    {"damping": 0.1},
    (Tried({"damping": 0.1}, 0.5, 0.4, 0.6, 2.0), Tried({"damping": "auto"}, np.nan, np.nan, np.nan, 1.0, "singular")),
    *("fit", 12, True, False, 3.0),
)


def told(findings: Findings) -> str:
    return json.dumps(findings.to_json(), sort_keys=True, allow_nan=False)


def test_findings_come_back_from_strict_json() -> None:
    findings = Findings("good", CURVE, GROUPS, BY_CLASS, 0.375, TUNING)
    back = Findings.from_json(json.loads(told(findings)))
    assert told(back) == told(findings)
    assert back.learning_curve is not None
    assert back.class_effects is not None
    assert back.learning_curve.runs.tolist() == [50, 100]
    assert np.array_equal(back.learning_curve.measured, CURVE.measured)
    assert np.array_equal(back.learning_curve.expected, CURVE.expected)
    assert back.learning_curve.ceiling == (0.6, 0.5, 0.9)
    assert back.groups[0] == GROUPS[0]
    assert np.isnan(back.groups[1].standard_error)
    assert back.group_error == 0.375
    assert back.tuning is not None
    assert (back.tuning.chosen, back.tuning.best, back.tuning.held_out) == ({"damping": 0.1}, TUNING.best, True)
    assert np.isnan(back.tuning.tried[1].lds)
    assert np.array_equal(back.class_effects.standard_errors, BY_CLASS.standard_errors, equal_nan=True)


def test_the_keys_on_disk_are_what_they_always_were() -> None:
    found = Findings("good", CURVE, GROUPS, BY_CLASS).to_json()
    assert sorted(found) == ["by_class", "groups", "learning_curve", "summary"], (
        "an error that is not known is not there"
    )
    curve = found["learning_curve"]
    assert sorted(curve) == sorted(
        [
            *("queries", "runs", "correlation", "low", "high", "ahead"),
            *("ceiling", "more", "gain", "sentence", "seconds"),
        ]
    )
    assert curve["low"] == [0.1, 0.25]
    assert curve["ahead"] == {
        "runs": [100, 150, 200],
        "correlation": [0.3, 0.35, 0.4],
        "low": [0.25, 0.3, 0.3],
        "high": [0.35, 0.4, 0.5],
    }
    assert found["groups"][1] == {"first_example": 2, "size": 1, "effect": -1.0, "standard_error": None}
    assert found["by_class"]["standard_errors"] == [[0.1, None], [0.2, 0.3]]


def test_what_is_not_there_is_not_written_and_reads_as_nothing() -> None:
    assert Findings().to_json() == {}
    for details in (
        {"lambda": [0.1], "by_class": None},
        {"learning_curve": {"runs": [50, 100], "correlation": [0.2, 0.3]}},
    ):
        back = Findings.from_json(details)
        assert back.to_json() == {}
        assert back.learning_curve is None
