"""Intervals on digits mean what they say: they shrink as they should, and another sweep's values lie where they allow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from estimators.contract import Attribution
from estimators.registry import find
from estimators.values.intervals import interval
from orchestrator.evidence import gather
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.sweep import Sweep

pytestmark = pytest.mark.slow

N = 16
SWEEPS = 10
RUNS = {"fit": 120, "orders": 60}
DESIGNS: dict[str, dict[str, Any]] = {
    "fit": {"kind": "bernoulli", "subsets": RUNS["fit"]},
    "orders": {"kind": "permutations", "permutations": RUNS["orders"]},
}
ESTIMATORS = {"difference_in_means": ("fit", {}), "banzhaf": ("fit", {}), "shapley": ("orders", {"empty": 0.1})}

Values = Callable[..., dict[str, Attribution]]


@pytest.fixture
def values(make_config: Callable[[Any], Any], inline_pool: Any, tmp_path: Any) -> Values:
    """Sweep with a root seed and so many times the runs; return every estimator's values."""

    def of(seed: int, times: int = 1) -> dict[str, Attribution]:
        designs = {
            "fit": {**DESIGNS["fit"], "subsets": times * RUNS["fit"]},
            "orders": {**DESIGNS["orders"], "permutations": times * RUNS["orders"]},
        }
        task = {"n": N, "t": 20, "model": "logistic", "recipe": {"epochs": 2}}
        raw = {"seed": seed, "task": {"name": "digits", "arguments": task}, "measures": ["probability"], "pack": 60}
        sweep = Sweep.of(make_config({**raw, "designs": designs}), tmp_path / f"{seed}-{times}")
        with prepare(sweep) as store:
            retrain(sweep, store, pool=inline_pool(sweep))
            evidence = gather(sweep, store, "probability")
        return {name: find(name).model_validate(given).attribute(evidence) for name, (_, given) in ESTIMATORS.items()}

    return of


def test_twice_the_runs_shrink_the_errors_by_the_root_of_two(values: Values) -> None:
    errors = {times: values(0, times) for times in (1, 2)}
    for name in ESTIMATORS:
        once, twice = (errors[times][name].utility_standard_error for times in (1, 2))
        assert once is not None
        assert twice is not None
        assert np.mean(once) / np.mean(twice) == pytest.approx(np.sqrt(2), rel=0.15), name


def test_another_sweep_s_values_lie_inside_as_often_as_they_should(values: Values) -> None:
    made = [values(seed) for seed in range(SWEEPS)]
    for name in ESTIMATORS:
        inside = []
        for first, second in zip(made[::2], made[1::2], strict=True):
            one, other = first[name], second[name]
            assert one.utility is not None
            assert other.utility is not None
            assert one.utility_standard_error is not None
            assert other.utility_standard_error is not None
            error = np.hypot(one.utility_standard_error, other.utility_standard_error)
            low, high = interval(one.utility, error, 2 * one.degrees_of_freedom)
            inside.append((low <= other.utility) & (other.utility <= high))
        # 80 values of which 95% should be inside; those of one sweep hang together a little, so 4 deviations are allowed.
        count = np.size(inside)
        assert np.mean(inside) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / count)), name
