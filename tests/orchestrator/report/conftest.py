from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

from orchestrator.report.data import DesignHealth, ReportData
from orchestrator.report.page.html import render
from orchestrator.scoring.table import ScoreRow, as_table

# estimator -> (noise of its attribution, family, models): the more noise, the lower its LDS
ESTIMATORS: Mapping[str, tuple[float, str, int]] = {
    "datamodel": (0.2, "retraining", 400),
    "difference_in_means": (0.6, "retraining", 400),
    "influence": (1.0, "gradients", 5),
    "trak": (1.5, "gradients", 5),
    "tracin": (3.0, "gradients", 5),
    "similarity": (6.0, "other", 5),
    "random": (1e6, "other", 0),
}


def _fields(n: int = 60, t: int = 12, s: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    digits = load_digits()
    pictures = np.round(255 - digits.images * 255 / 16).astype(np.uint8)
    offset = {"train": 0, "task": n}
    truth = rng.normal(size=(n, t))
    masks = rng.random((s, n)) < 0.5
    actual = masks @ truth + rng.normal(size=(s, t))
    tau = {k: (truth + noise * rng.normal(size=(n, t))).astype(np.float32) for k, (noise, _, _) in ESTIMATORS.items()}
    predicted = {name: masks @ values for name, values in tau.items()}
    lds = {k: np.array([spearmanr(p[:, q], actual[:, q])[0] for q in range(t)]) for k, p in predicted.items()}
    rows: list[tuple[Any, ...]] = []
    for name, values in lds.items():
        value, tail = values.mean(), ("margin", "held_out", t, s, 3, 20.0, 0.5)
        share = (0.92, 0.98, value / 0.95, value / 0.95 - 0.04, value / 0.95 + 0.04)
        rows.append((name, "lds", value, value - 0.05, value + 0.05, 0.95, *tail, *share))
        rows.append((name, "loo_correlation", value / 10, value / 10 - 0.02, value / 10 + 0.02, np.nan, *tail))
    rows.append(("retraining", "seed_check", 0.8125, 0.79, 0.83, 0.8175, "margin", "held_out", t, s, 3, 0.0, 0.0))
    return {
        "title": "digits",
        "created": "2025-01-02 03:04 UTC",
        "description": "handwritten digits",
        "measure": "margin",
        "n": n,
        "t": t,
        "config_yaml": "task:\n  name: digits\n",
        "config_hash": "0123abcd",
        "versions": {"torch": "2.9.0"},
        "designs": (
            DesignHealth("fit", "subsets", "fitting", 400, 398, 2, 80.0, 40.0, 9.95),
            DesignHealth("held_out", "subsets", "scoring", 120, 120, 0, 24.0, 12.0, 10.0),
        ),
        "scores": as_table(ScoreRow(*row) for row in rows),
        "models": {name: models for name, (_, _, models) in ESTIMATORS.items()},
        "actual": actual,
        "predicted": predicted,
        "per_query_lds": lds,
        "per_query_ceiling": rng.uniform(0.9, 1, t),
        "attributions": tau,
        "stage_seconds": {"plan": 0.1, "retrain": 52.0, "attribute": 3.0},
        "failures": ("fit row 3: DivergedError: not finite", "fit row 9: RuntimeError: no"),
        "show": lambda source, index: pictures[offset[source] + index],
        "label": lambda source, index: str(digits.target[offset[source] + index]),
        "families": {name: family for name, (_, family, _) in ESTIMATORS.items()},
    }


@pytest.fixture(scope="session")
def make() -> Callable[..., ReportData]:
    """A factory of small, realistic report data; keywords replace fields."""
    fields = _fields()
    return lambda **changes: ReportData(**{**fields, **changes})


@pytest.fixture(scope="session")
def html(make: Callable[..., ReportData]) -> str:
    """The page of the unchanged data."""
    return render(make())


@pytest.fixture(scope="session")
def only(make: Callable[..., ReportData]) -> Callable[..., ReportData]:
    """The same with some estimators alone."""

    def build(*names: str, **changes: Any) -> ReportData:
        full = make()
        kept = {
            field: {name: value for name, value in getattr(full, field).items() if name in names}
            for field in ("predicted", "per_query_lds", "attributions", "models", "families")
        }
        return make(**{"scores": full.scores[full.scores["estimator"].isin(names)], **kept, **changes})

    return build
