import math
from dataclasses import replace

from orchestrator.scoring.ranking import quantity, ranked
from orchestrator.scoring.table import ScoreRow

ROW = ScoreRow("a", "lds", 0.5, 0.4, 0.6, 0.7, "margin", "heldout", 8, 100, 3, 1.0, 1.0)


def order(*rows: ScoreRow) -> list[str]:
    return [row.estimator for row in ranked(rows)]


def test_metric_by_metric_and_from_the_good_end() -> None:
    area = replace(ROW, metric="removal_best_area")
    check = replace(ROW, metric="seed_check")
    assert order(
        replace(area, estimator="high area", value=0.9),
        replace(area, estimator="low area", value=0.1),
        replace(ROW, estimator="nothing", value=math.nan),
        replace(ROW, estimator="low", value=-0.5),
        replace(ROW, estimator="high", value=0.5),
        replace(check, estimator="first check", value=0.1),
        replace(check, estimator="second check", value=0.9),
    ) == ["high", "low", "nothing", "first check", "second check", "low area", "high area"]


def test_metrics_that_nobody_registered_are_last_and_stay_together() -> None:
    rows = [replace(ROW, estimator=f"{metric}{k}", metric=metric) for k in (1, 2) for metric in ("zeta", "alpha")]
    assert order(*rows, ROW) == ["a", "alpha1", "alpha2", "zeta1", "zeta2"]
    assert (quantity("zeta").title, quantity("zeta").better) == ("zeta", None)
    assert quantity("lds").has_ceiling
