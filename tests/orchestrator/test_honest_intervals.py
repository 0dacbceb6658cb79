"""Intervals on digits mean what they say: they shrink as they should, and another sweep's values lie where they allow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from estimators.registry import find
from estimators.scores.per_example import own_effects
from estimators.values.intervals import interval
from orchestrator.attribution.evidence import gather
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.sweeps.sweep import Sweep

pytestmark = pytest.mark.slow

N = 16
SWEEPS = 16
ESTIMATORS: dict[str, dict[str, Any]] = {
    "difference_in_means": {},
    "banzhaf": {},
    "shapley": {"empty": 0.1},
    "memorization": {},
    "leave_one_out": {},
    "groups": {},
}
SHARING = {"leave_one_out", "groups"}
"""Their values of one sweep are differences from one and the same reference, and so err together."""
TOGETHER = 4
"""Among these, how many of a sweep's 16 values count as if they were drawn each by itself."""


@dataclass(frozen=True)
class Values:
    """What an estimator says of every example, and how sure it is."""

    value: NDArray[np.floating[Any]]
    error: NDArray[np.floating[Any]]
    degrees_of_freedom: float


ValuesOf = Callable[..., dict[str, Values]]


def designs(times: int) -> dict[str, dict[str, Any]]:
    """Return every design that the estimators take, with so many times the runs."""
    seeds = 12 * times
    return {
        "fit": {"kind": "bernoulli", "subsets": 120 * times},
        "orders": {"kind": "permutations", "permutations": 60 * times},
        "everything": {"kind": "full", "seeds": seeds},
        "without": {"kind": "leave_one_out", "seeds": seeds, "paired_with": "everything"},
        "classless": {"kind": "leave_group_out", "by": "label", "seeds": seeds, "paired_with": "everything"},
    }


@pytest.fixture
def values(make_config: Callable[[Any], Any], inline_pool: Any, tmp_path: Any) -> ValuesOf:
    """Sweep with a root seed and so many times the runs; return every estimator's values."""

    def of(seed: int, times: int = 1) -> dict[str, Values]:
        task = {"n": N, "t": 20, "model": "logistic", "recipe": {"epochs": 2}}
        raw = {
            "seed": seed,
            "task": {"name": "digits", "arguments": task},
            "queries": {"source": "train"},
            "measures": ["probability"],
            "pack": 60,
            "designs": designs(times),
        }
        sweep = Sweep.of(make_config(raw), tmp_path / f"{seed}-{times}")
        with prepare(sweep) as store:
            retrain(sweep, store, pool=inline_pool(sweep))
            evidence = gather(sweep, store, "probability")
        made = {}
        for name, options in ESTIMATORS.items():
            found = find(name).model_validate(options).attribute(evidence)
            assert found.utility is not None
            assert found.utility_standard_error is not None
            assert found.standard_error is not None
            value, error = found.utility, found.utility_standard_error
            if name == "memorization":
                value, error = (own_effects(part, evidence.queries)[1] for part in (found.values, found.standard_error))
            made[name] = Values(value, error, found.degrees_of_freedom)
        return made

    return of


def test_twice_the_runs_shrink_the_errors_by_the_root_of_two(values: ValuesOf) -> None:
    once, twice = values(0), values(0, times=2)
    for name in ESTIMATORS:
        assert np.mean(once[name].error) / np.mean(twice[name].error) == pytest.approx(np.sqrt(2), rel=0.15), name


def test_another_sweep_s_values_lie_inside_as_often_as_they_should(values: ValuesOf) -> None:
    made = [values(seed) for seed in range(SWEEPS)]
    for name in ESTIMATORS:
        inside, squares = [], []
        for first, second in zip(made[::2], made[1::2], strict=True):
            one, other = first[name], second[name]
            error, freedom = np.hypot(one.error, other.error), 2 * one.degrees_of_freedom
            low, high = interval(one.value, error, freedom)
            inside.append((low <= other.value) & (other.value <= high))
            squares.append(((one.value - other.value) / error) ** 2 * (1 - 2 / freedom))
        count = SWEEPS // 2 * (TOGETHER if name in SHARING else N)
        # Of values of which 95% should be inside, 4 deviations are allowed; and differences are as large as the errors say.
        assert np.mean(inside) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / count)), name
        assert np.mean(squares) == pytest.approx(1.0, abs=4 * np.sqrt(2 / count)), name
